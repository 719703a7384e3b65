"""Scribbles drawn by rule on a data set with full masks, to measure what they are worth beside these.

    python benchmarks/scribbles.py --source data/MoNuSeg --out full
    python benchmarks/scribbles.py --source data/MoNuSeg --out scribbles --share 0.01 [--pen 5] [--seed 0]

Writes the data set as a plain folder. Masks are 0 and 1; with ``--share`` those of the training images keep only what
strokes cover, and are 255 elsewhere, for ``--unlabelled-value 255``. Masks of validation and test images stay full, the
same files in both folders, so that ``textdiff compare`` can put fits on one beside fits on the other.

One stroke in the background and one in an object take turns until they cover the share. In an object, drawn at random
among the connected components, the stroke is its longer axis without the last sixth at either end. In the background
it begins anywhere, wanders up to 60 pixels and keeps three pixels from all objects. Neither leaves its class: what of
the pen's width lies outside or on the very edge of an object is not drawn.
"""

import argparse
import csv
import hashlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from textdiff.images.labels import UNSAID
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_image, load_mask

Mask = NDArray[np.bool_]
LENGTH, MARGIN, TRIES = 60, 3, 100_000


def scribbled(mask: Mask, share: float, pen: int, draws: np.random.Generator) -> NDArray[np.uint8]:
    """The mask (H, W) with labels 0 and 1 where strokes are, ``UNSAID`` elsewhere."""
    labels = np.full(mask.shape, UNSAID, np.uint8)
    touched = 0
    for _, (drawn, label) in zip(range(TRIES), stroke_by_stroke(mask, pen, draws), strict=False):
        if touched >= share * mask.size:
            break
        touched += int(np.count_nonzero(labels[drawn] == UNSAID))
        labels[drawn] = label
    return labels


def stroke_by_stroke(mask: Mask, pen: int, draws: np.random.Generator) -> Iterator[tuple[Mask, int]]:
    """The pixels (H, W) of one stroke after the other, without end, and the label of each: 0 and 1 in turn."""
    objects, _ = ndimage.label(mask)
    boxes = ndimage.find_objects(objects)
    away = ndimage.distance_transform_edt(~mask)
    inside, outside = ndimage.binary_erosion(mask), away > 1
    for turn in itertools.count():
        if turn % 2 and boxes:
            number = int(draws.integers(len(boxes)))
            top, left = (part.start for part in boxes[number])
            stroke = np.add(_axis(objects[boxes[number]] == number + 1), (top, left))
            yield _painted(stroke, pen, inside & (objects == number + 1)), 1
        else:
            yield _painted(_walk(away, draws), pen, outside), 0


def _axis(region: Mask) -> NDArray[np.float64]:
    """Points (n, 2) along the longer axis of a region."""
    places = np.argwhere(region).astype(float)
    middle = places.mean(0)
    _, _, axes = np.linalg.svd(places - middle, full_matrices=False)
    along = (places - middle) @ axes[0]
    low, high = along.min(), along.max()
    ends = low + (high - low) / 6, high - (high - low) / 6
    points: NDArray[np.float64] = middle + np.arange(ends[0], ends[1] + 1)[:, None] * axes[0]
    return points


def _walk(away: NDArray[Any], draws: np.random.Generator) -> NDArray[np.float64]:
    """Points (n, 2) of a walk that keeps its distance from all objects."""
    free = np.argwhere(away > MARGIN)
    if not len(free):
        return np.zeros((0, 2))
    points = [free[draws.integers(len(free))].astype(float)]
    angle = draws.uniform(0, 2 * np.pi)
    while len(points) < LENGTH:
        angle += draws.normal(0, 0.15)
        for turn in (0, 0.5, -0.5, 1, -1, 2, -2):
            there = points[-1] + (np.sin(angle + turn), np.cos(angle + turn))
            if (there >= 0).all() and (there < away.shape).all() and away[tuple(there.astype(int))] > MARGIN:
                angle += turn
                points.append(there)
                break
        else:
            break
    return np.array(points)


def _painted(points: NDArray[np.float64], pen: int, allowed: Mask) -> Mask:
    """The allowed pixels within half a pen of the points."""
    drawn = np.zeros(allowed.shape, bool)
    y, x = np.mgrid[-(pen // 2) : pen // 2 + 1, -(pen // 2) : pen // 2 + 1]
    disc = np.argwhere(y**2 + x**2 <= (pen / 2) ** 2) - pen // 2
    places = (np.floor(points).astype(int)[:, None] + disc).reshape(-1, 2)
    places = places[((places >= 0) & (places < allowed.shape)).all(1)]
    drawn[tuple(places.T)] = True
    return drawn & allowed


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--dataset", default="monuseg")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, help="of the pixels of training images; full masks by default")
    parser.add_argument("--pen", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in ("images", "masks"):
        (options.out / name).mkdir(parents=True)
    rows = []
    for sample in read_dataset(options.dataset, options.source)[0]:
        shutil.copyfile(sample.image, options.out / "images" / f"{sample.id}{Path(sample.image.name).suffix}")
        rows.append((sample.id, sample.text, sample.split, sample.group))
        if sample.mask is None:
            continue
        labels = load_mask(sample, *load_image(sample.image).pixels.shape[:2]).labels
        if options.share is not None and sample.split == "train":
            name = int(hashlib.sha256(sample.id.encode()).hexdigest()[:16], 16)
            labels = scribbled(labels > 0, options.share, options.pen, np.random.default_rng([options.seed, name]))
        Image.fromarray(labels).save(options.out / "masks" / f"{sample.id}.png")
    with (options.out / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "text", "split", "group"), *rows])


if __name__ == "__main__":
    main()
