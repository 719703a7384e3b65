"""A backbone by its name: what is known of it, where it is, and the thing itself."""

__all__ = ["Enlarged", "backbone_kind", "load_backbone", "moved", "resolve_backbone", "usual_steps"]

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.errors import UserError
from textdiff.files import stamp
from textdiff.models.backbones import BACKBONES
from textdiff.models.backbones.adm import ADM
from textdiff.models.backbones.base import Backbone
from textdiff.models.weights import ResolvedWeights


def backbone_kind(name_or_path: str | os.PathLike[str]) -> type[Backbone]:
    """The class of a backbone, which states its facts; a name that is unknown is taken for a checkpoint's path.

    Raises:
        UserError: it is a plug-in that cannot be used.
    """
    return _kind_and_rest(os.fspath(name_or_path))[0]


def resolve_backbone(name_or_path: str | os.PathLike[str], *, download: bool = True) -> ResolvedWeights:
    """The file of a backbone, if it has one, and what identifies it. One backbone never stands in for another.

    Args:
        name_or_path: one of ``BACKBONES``, where that ends with a colon with something after it, or the path of a
            checkpoint.
        download: whether a missing file may be fetched.

    Raises:
        UserError: no such name or file; the weights are not there and cannot be fetched; a damaged file.
    """
    name = os.fspath(name_or_path)
    kind, rest = _kind_and_rest(name)
    return kind.find(name, rest, download=download)


def usual_steps(name_or_path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """The diffusion steps that suit what a backbone was trained on; None for those of the preset."""
    name = os.fspath(name_or_path)
    kind, rest = _kind_and_rest(name)
    return kind.usual_steps(name, rest)


def load_backbone(
    found: ResolvedWeights,
    image_size: int,
    device: torch.device,
    seed: int = 0,
    colour: str = "rgb",
    enlarge: int = 1,
) -> Backbone:
    """The backbone, frozen and in evaluation mode, on its device, ready for images of one size.

    Args:
        found: of ``resolve_backbone``.
        image_size: height and width of the images in pixels.
        device: where it is to compute.
        seed: of the noise, where there is any.
        colour: order of the channels that the protocol wants a network to see, ``rgb`` or ``bgr``.
        enlarge: how many times as large it sees them.

    Raises:
        UserError: the checkpoint is damaged, of no architecture that is known, or not the one that was found any more.
    """
    seen = image_size * enlarge
    backbone = backbone_kind(found.name).open(found, seen, device)
    if found.stamp is not None and found.stamp != stamp(found.path):
        raise UserError(f"{found.path}: was changed while it was loaded; run the same command again")
    backbone.prepare(seen, seed, colour)
    if enlarge > 1:
        backbone = Enlarged(backbone, enlarge)
    return backbone.to(device).eval().requires_grad_(False)


def moved(name: str, place: Callable[[Path], str]) -> str:
    """The name of a backbone with its file or directory, if there is one of it, written as ``place`` says."""
    known, colon, rest = name.partition(":")
    prefix = known + colon if colon and known + colon in BACKBONES else ""
    path = Path(rest if prefix else name)
    return prefix + place(path) if name not in BACKBONES and path.name and path.exists() else name


def _kind_and_rest(name: str) -> tuple[type[Backbone], str]:
    known, colon, rest = name.partition(":")
    if name in BACKBONES:
        kind, rest = BACKBONES[name], ""
    elif colon and known + colon in BACKBONES:
        kind = BACKBONES[known + colon]
    else:
        return ADM, ""
    if not issubclass(kind, Backbone):
        raise UserError(f"{name}: the plug-in's {kind.__qualname__} is no Backbone (textdiff.models.backbones.base)")
    return kind, rest


class Enlarged(Backbone):
    """Shows a backbone the images ``factor`` times as large, by bicubic interpolation.

    The number of positions in an image grows with the square of the factor, and so do the time and the room. A level
    that would be larger than the image itself is averaged down to it.

    Args:
        inner: the backbone, prepared for images of ``factor`` times the size.
        factor: 2 or more.
    """

    def __init__(self, inner: Backbone, factor: int) -> None:
        super().__init__()
        self.inner, self.factor, self.config = inner, factor, inner.config
        self.licence, self.revision, self.version = inner.licence, inner.revision, inner.version
        self.steps, self.reads_text = inner.steps, inner.reads_text
        self.multiple = inner.multiple // math.gcd(inner.multiple, factor)

    def tune(self, precision: str) -> None:
        """Tells the backbone."""
        self.inner.tune(precision)

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """Those of the backbone for larger images, none larger than the image."""
        return {
            level: (c, min(h, image_size), min(w, image_size))
            for level, (c, h, w) in self.inner.levels(image_size * self.factor).items()
        }

    def usual(self, image_size: int) -> tuple[int, ...]:
        """Those of the backbone."""
        return self.inner.usual(image_size * self.factor)

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The backbone's levels of enlarged images."""
        height, width = images.shape[-2:]
        larger = F.interpolate(images.float(), (height * self.factor, width * self.factor), mode="bicubic")
        found = self.inner.features(larger.round().clamp(0, 255).to(images.dtype), t, texts, levels)
        return {
            level: F.adaptive_avg_pool2d(grid, (height, width)) if grid.shape[-1] > width else grid
            for level, grid in found.items()
        }
