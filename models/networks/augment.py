"""Random changes of training images, for networks that read images."""

__all__ = ["AUGMENTATIONS", "turned", "turned_and_scaled"]

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.cache import Item
from textdiff.images.labels import UNSAID


def turned(item: Item, view: int) -> Item:
    """The item with image and mask in one of the eight symmetries, in the order of :func:`images.symmetry`."""
    assert item.image is not None
    mask = None if item.mask is None else _symmetry(item.mask, view)
    return replace(item, image=_symmetry(item.image, view), mask=mask)


def _none(item: Item, draw: np.random.Generator) -> Item:
    """The item as it is in the cache."""
    return item


def _symmetries(item: Item, draw: np.random.Generator) -> Item:
    """One of the eight symmetries of the square, each as likely."""
    return turned(item, int(draw.integers(8)))


def _turns(item: Item, draw: np.random.Generator) -> Item:
    """TransUNet's, Swin-Unet's and LViT's: with probability 1/2 a quarter turn and a flip, else with 1/2 a small turn.

    In the first case the image is always mirrored, in one of four ways. The small turn is by -20 to 19 degrees, takes
    the nearest pixel and leaves corners black, which are background.
    """
    if draw.random() < 0.5:
        return turned(item, int(draw.integers(4, 8)))
    if draw.random() < 0.5:
        return turned_and_scaled(item, float(draw.integers(-20, 20)), 1.0, "nearest")
    return item


def _scales(item: Item, draw: np.random.Generator) -> Item:
    """GLoRIA's: with probability 1/2 larger or smaller by up to a tenth and turned by up to 10 degrees."""
    if draw.random() < 0.5:
        return turned_and_scaled(item, float(draw.uniform(-10, 10)), float(draw.uniform(0.9, 1.1)), "bilinear")
    return item


AUGMENTATIONS: dict[str, Callable[[Item, np.random.Generator], Item]] = {
    "none": _none,
    "symmetries": _symmetries,
    "turns": _turns,
    "scales": _scales,
}
"""Ways to change an item with image and mask, by name; each takes the item and what to draw from."""


def _symmetry(x: Tensor, view: int) -> Tensor:
    quarter: Tensor = torch.rot90(x, view % 4, (-2, -1))
    return quarter.flip(-1) if view >= 4 else quarter


def turned_and_scaled(item: Item, degrees: float, scale: float, mode: str) -> Item:
    """The item turned about its middle and made larger by ``scale``; classes are taken from the nearest pixel."""
    assert item.image is not None
    angle = np.deg2rad(degrees)
    rows = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]) / scale
    theta = torch.from_numpy(rows)[None].float()
    if item.image.is_cuda:  # a copy from other memory would wait for all work there
        theta = theta.pin_memory()
    theta = theta.to(item.image.device, non_blocking=True)
    grid = F.affine_grid(theta, [1, 1, *item.image.shape[2:]], align_corners=False)
    image = F.grid_sample(item.image.float(), grid, mode=mode, align_corners=False).round().to(item.image.dtype)
    mask = item.mask
    if mask is not None:
        # Beyond the image there is background, but not where masks say nothing of most pixels: black corners would
        # outweigh a few strokes.
        beyond = (mask == UNSAID).any().to(mask.dtype) * UNSAID
        found = F.grid_sample((mask - beyond)[:, None].float(), grid, mode="nearest", align_corners=False)
        mask = found[:, 0].round().to(mask.dtype) + beyond
    return replace(item, image=image, mask=mask)
