"""Synthetic tissue with two kinds of nuclei, and a sentence that says which kind is meant.

Every picture holds round dark and elongated pale nuclei, and is there twice: once with a sentence that asks for the
one kind, once with a sentence that asks for the other. So the mask cannot be known from the image alone, and what a
method gains from the text can be measured. It is made, not photographed: no score on it says anything about tissue.
"""

__all__ = ["NUCLEI", "draw_tissue", "ensure_phantom"]

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from skimage.color import hed2rgb

from textdiff.errors import UserError
from textdiff.files import atomic_directory

SPLITS = {"Train": 12, "Val": 3, "Test": 8}
"""Pictures per split; there are twice as many samples."""
SIZE = 128
"""Height and width in pixels."""
MARKER = "SYNTHETIC.txt"


@dataclass(frozen=True)
class Kind:
    """A kind of nuclei: the sentence that asks for it, and the ranges its shape and stain are drawn from."""

    sentence: str
    length: tuple[float, float]
    """Semi-major axis in pixels."""
    width: tuple[float, float]
    """Semi-minor axis in pixels."""
    stain: tuple[float, float]
    """Haematoxylin concentration, in scikit-image's HED units."""
    count: int
    """In a picture of 128x128 pixels; in proportion to the area in others."""


NUCLEI = {
    "round": Kind("Segment the round and dark nuclei of lymphocytes.", (6.0, 8.0), (5.5, 7.0), (0.15, 0.21), 12),
    "elongated": Kind("Segment the long and pale nuclei of fibroblasts.", (11.0, 16.0), (3.5, 5.0), (0.08, 0.12), 11),
}


def draw_tissue(seed: int, size: int = SIZE) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]]]:
    """One picture in the colours of haematoxylin and eosin, the same for the same seed.

    The stains are mixed in the HED space of Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 23, 2001).

    Returns:
        The image (size, size, 3) uint8 RGB and, for every kind, its mask (size, size) bool. Nuclei do not overlap.
    """
    generator = np.random.default_rng([0x9A7, seed])
    fibres = gaussian_filter(generator.standard_normal((size, size)), (2.0, 9.0), mode="wrap")
    clouds = gaussian_filter(generator.standard_normal((size, size)), 18.0, mode="wrap")
    eosin = 0.05 + 0.014 * _unit(fibres) + 0.012 * _unit(clouds)
    stain = 0.012 + 0.004 * _unit(gaussian_filter(generator.standard_normal((size, size)), 1.5))
    masks = {name: np.zeros((size, size), dtype=bool) for name in NUCLEI}
    taken = np.zeros((size, size), dtype=bool)
    y, x = np.mgrid[:size, :size].astype(np.float64)
    for name, kind in NUCLEI.items():
        for _ in range(round(kind.count * (size / SIZE) ** 2)):
            nucleus = _place(generator, kind, x, y, taken)
            if nucleus is None:
                continue
            inside, soft = nucleus
            grain = 1 + 0.18 * _unit(gaussian_filter(generator.standard_normal((size, size)), 1.2))
            stain += soft * generator.uniform(*kind.stain) * grain
            eosin -= soft * 0.03
            masks[name] |= inside
            taken |= soft > 0.02
    hed = np.stack([np.clip(stain, 0, None), np.clip(eosin, 0, None), np.zeros_like(stain)], axis=-1)
    picture = hed2rgb(hed) + generator.normal(0, 0.012, (size, size, 3))
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8), masks


def ensure_phantom(root: Path, *, size: int = SIZE, splits: Mapping[str, int] = SPLITS) -> Path:
    """Makes the data set at ``root`` in the LViT layout if it is not there, all at once, and returns ``root``.

    Args:
        root: a directory, new, empty, or made by this.
        size: height and width of the pictures in pixels.
        splits: pictures per split.

    Raises:
        UserError: ``root`` is something else.
    """
    if (root / MARKER).is_file():
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: holds other data; name a new or empty directory for the phantom with --data")
    with atomic_directory(root) as partial:
        number = 0
        for split, count in splits.items():
            _write_split(partial / f"{split}_Folder", split, range(number, number + count), size)
            number += count
        (partial / MARKER).write_text("Synthetic images made by TextDiff: pipeline/phantom.py\n", encoding="utf-8")
    return root


def _write_split(folder: Path, split: str, numbers: range, size: int) -> None:
    from openpyxl import Workbook

    for name in ("img", "labelcol"):
        (folder / name).mkdir(parents=True)
    book = Workbook()
    sheet = book.active
    sheet.append(["Image", "Description"])
    for number in numbers:
        image, masks = draw_tissue(number, size)
        for kind, mask in masks.items():
            file = f"phantom-{number:02d}-{kind}.png"
            Image.fromarray(image).save(folder / "img" / file)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "labelcol" / file)
            sheet.append([file, NUCLEI[kind].sentence])
    book.save(folder / f"{split}_text.xlsx")


def _place(
    generator: np.random.Generator, kind: Kind, x: NDArray[np.float64], y: NDArray[np.float64], taken: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """A nucleus where none is yet: its mask and its soft-edged profile in 0..1; nothing if there is no room."""
    for _ in range(40):
        cx, cy = generator.uniform(0, taken.shape[0], 2)
        a, b = generator.uniform(*kind.length), generator.uniform(*kind.width)
        angle = generator.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        radius = np.sqrt((u / a) ** 2 + (v / b) ** 2)
        soft = expit(9 * (1 - radius))
        if not (taken & (soft > 0.02)).any():
            return radius <= 1, soft
    return None


def _unit(field: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (field - field.mean()) / field.std()
    return scaled
