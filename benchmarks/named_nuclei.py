"""A data set of real nuclei of which only the sentence says which are meant, to measure whether sentences are read.

    python benchmarks/named_nuclei.py --source data/MoNuSeg --out named
    textdiff extract --dataset folder --data named --preset nano --image-size 128 --views 1 --cache cache/named.zarr
    textdiff ablate --cache cache/named.zarr --labels 20 --no-unet --split test

Each image is cut into quarters, and each of the four sentences is that of one of them. The objects are the connected
components of the whole image's mask; "large" are those above the median of their areas, "small" the others, "dark"
those whose mean grey value is below its median, "pale" the others. A quarter's mask has the objects that its sentence
names, so half of all, and a program that does not read the sentence has a Dice of two thirds of a hundred at most where
both halves cover the same area.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_image, load_mask

SENTENCES = ("The large nuclei.", "The small nuclei.", "The dark nuclei.", "The pale nuclei.")


def named(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The part of the mask (H, W) of an RGB image (H, W, 3) that each of ``SENTENCES`` names."""
    objects, count = ndimage.label(mask, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    area = ndimage.sum_labels(mask, objects, numbers)
    grey = ndimage.mean(pixels.mean(-1), objects, numbers)
    large, dark = area > np.median(area), grey < np.median(grey)
    return [np.isin(objects, numbers[chosen]) for chosen in (large, ~large, dark, ~dark)]


def quarters(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Upper left, upper right, lower left and lower right of an array (H, W, ...)."""
    return [half for rows in np.array_split(array, 2) for half in np.array_split(rows, 2, axis=1)]


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--dataset", default="monuseg")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for name in ("images", "masks"):
        (options.out / name).mkdir(parents=True)
    rows = []
    for number, sample in enumerate(read_dataset(options.dataset, options.source)[0]):
        pixels = load_image(sample.image).pixels
        masks = named(pixels, load_mask(sample, *pixels.shape[:2]).labels > 0)
        for quarter, part in enumerate(quarters(pixels)):
            meant, name = (number + quarter) % len(SENTENCES), f"{sample.id}-{quarter}"
            Image.fromarray(np.ascontiguousarray(part)).save(options.out / "images" / f"{name}.png")
            Image.fromarray(np.uint8(255) * quarters(masks[meant])[quarter]).save(options.out / "masks" / f"{name}.png")
            rows.append((name, SENTENCES[meant], sample.split, sample.group or sample.id))
    with (options.out / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "text", "split", "group"), *rows])


if __name__ == "__main__":
    main()
