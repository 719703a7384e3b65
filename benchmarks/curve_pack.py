"""The images that the curve of pretraining is measured on, as small as they are used, so that they travel."""

__all__ = ["NAMES", "miniature_pack", "write_pack"]

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff.files import write_text
from textdiff.images.images import read_image, resize_image, resize_mask
from textdiff.options.protocol import PROTOCOLS
from textdiff.readers.datasets import read_dataset
from textdiff.tables import csv_table

SIDE = 256  # pixels of the target's images
RULE = PROTOCOLS["clean"].resize
NAMES = {
    "he": ("he-unlabelled", "monuseg", "MoNuSeg"),
    "cxr": ("cxr-unlabelled", "folder", "cxr-lesions"),
}
"""By modality the directory of unlabelled images, and the target: its layout and its directory. Of each the pack has a
directory with ``unlabelled`` images, reduced to a half, and a ``target`` in the layout of ``folder``."""


def write_pack(shared: Path, pack: Path) -> dict[str, int]:
    """Packs all images of the directory ``shared``; gives the bytes of each modality."""
    for name, (unlabelled, layout, directory) in NAMES.items():
        folder = _folder(pack / name / "unlabelled")
        for path in sorted((shared / unlabelled).iterdir()):
            image = read_image(path)
            half = Image.fromarray(image).reduce(2)
            (half.convert("L") if name == "cxr" else half).save(folder / f"{path.stem}.jpg", quality=90)
        samples, _ = read_dataset(layout, shared / directory)
        _write_target(
            pack / name / "target",
            (
                (sample.id, sample.split, resize_image(read_image(sample.image), SIDE, RULE), _mask(sample.mask))
                for sample in samples
                if sample.mask is not None
            ),
        )
    return {name: sum(path.stat().st_size for path in (pack / name).rglob("*.*")) for name in NAMES}


def miniature_pack(pack: Path) -> Path:
    """A modality of four grey images with a bright square in each, and of as many without labels."""
    draw, folder = np.random.default_rng(0), _folder(pack / "cxr" / "unlabelled")
    target = []
    for number in range(5):
        mask = np.zeros((32, 32), np.uint8)
        top, left = draw.integers(0, 16, 2)
        mask[top : top + 16, left : left + 16] = 1
        picture = np.repeat((60 + 120 * mask + draw.integers(0, 40, mask.shape)).astype(np.uint8)[..., None], 3, 2)
        Image.fromarray(picture).save(folder / f"{number}.png")
        target.append(
            (f"{number}", ("train", "train", "train", "val", "test")[number], picture[:, ::-1], mask[:, ::-1])
        )
    _write_target(pack / "cxr" / "target", target)
    return pack


def _write_target(target: Path, samples: Iterable[tuple[str, str, NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    images, masks, lines = _folder(target / "images"), _folder(target / "masks"), []
    for name, split, image, mask in samples:
        Image.fromarray(np.ascontiguousarray(image)).save(images / f"{name}.png")
        Image.fromarray(255 * resize_mask(mask, len(image), RULE)).save(masks / f"{name}.png")
        lines.append({"image": f"{name}.png", "text": "", "split": split})
    write_text(target / "texts.csv", csv_table(lines))


def _mask(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    return (np.asarray(Image.open(path).convert("L")) > 127).astype(np.uint8)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
