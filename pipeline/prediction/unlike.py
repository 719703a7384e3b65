"""How unlike the training images of a run an image is, by how much its activations vary."""

__all__ = ["Contrast", "Likeness", "training_contrasts"]

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.files import atomic_path, sha256_file
from textdiff.models.networks.segmenter import Segmenter
from textdiff.pipeline.prediction.blank import is_blank
from textdiff.pipeline.runs import Run
from textdiff.places import Location

FILE = "likeness.safetensors"
"""In a run directory: the contrasts of the training images."""
LIMIT = 1.5
"""The distance from which on an image is called unlike; docs/uncertainty.md has the measurements it was chosen by."""
FEW_CHANNELS, LIMIT_OF_FEW = 32, 2.0
"""Distances over so few channels (of pixels in place of activations) scatter more, so the limit is higher."""
MOST_ROWS = 256
"""Rows of a cache that are read at most: a part of the tiles of each image, or of the images, is enough."""
MOST_BLOCKS = 64
_FLOOR = 1e-3
_Contrasts = NDArray[np.float32]
_T = TypeVar("_T")


class Contrast:
    """The standard deviation of each channel over an image, which may come in tiles.

    Only the activations of the least noised step count: noise hides what the image is.

    Args:
        times: the diffusion steps that the network reads, in their order; one where there is no network.
    """

    def __init__(self, times: Sequence[int]) -> None:
        self._count, self._step = len(times), int(np.argmin(times))
        self._moments: list[NDArray[np.float64]] = []

    def add(self, item: Item) -> NDArray[np.float64]:
        """Takes the activations of the image, or of one of its tiles, all (1, steps x C, h, w).

        Returns:
            What it took, for ``again``: (2, channels); (2, 0) where there are none.
        """
        moments = [np.empty((2, 0))]
        for level in item.features:
            width = level.shape[1] // self._count
            moments.append(_moments(level[0, self._step * width : (self._step + 1) * width]))
        taken = np.concatenate(moments, axis=1)
        self.again(taken)
        return taken

    def again(self, moments: NDArray[np.float64]) -> None:
        """Takes what ``add`` gave for a tile."""
        if moments.size:
            self._moments.append(moments)

    def result(self) -> _Contrasts | None:
        """(channels,) float32; None if nothing was added."""
        if not self._moments:
            return None
        return _deviation(self._moments)


class Likeness:
    """What an image is compared with: the contrasts of the training images.

    The distance of an image is the root mean square, over the channels, of how far the logarithm of its contrast is
    from the training images' mean. It is given in units of the mean distance of a training image from the others.

    Args:
        contrasts: (images, channels) float32 of two images or more.
    """

    def __init__(self, contrasts: _Contrasts) -> None:
        scale = np.sqrt(np.square(contrasts, dtype=np.float64).mean(0))
        self._used = scale > 0
        self._floor = _FLOOR * scale[self._used]
        seen = self._logarithm(contrasts)
        self._mean = seen.mean(0)
        others = (len(seen) * self._mean - seen) / (len(seen) - 1)
        self._unit = float(np.sqrt(np.square(seen - others).mean(1)).mean())
        self.limit = LIMIT_OF_FEW if len(self._mean) < FEW_CHANNELS else LIMIT
        """The distance beyond which an image is called unlike the training images."""

    @classmethod
    def load(cls, run: Run) -> "Likeness | None":
        """That of a run; None where it is not known: of a U-Net, and of a single training image.

        Raises:
            UserError: the file is damaged.
        """
        file, digest = run.path / FILE, run.config.get("likeness_sha256")
        if digest is None or not file.is_file():
            return None
        if sha256_file(file) != digest:
            raise UserError(f"{file}: damaged; fit again, or remove it to predict without a warning of unlike images")
        contrasts = load_file(file)["contrast"]
        return cls(contrasts) if len(contrasts) > 1 else None

    @staticmethod
    def save(run: Run, contrasts: _Contrasts | None) -> str | None:
        """Writes what ``training_contrasts`` gave into the run directory, and returns the file's SHA-256."""
        if contrasts is None:
            return None
        with atomic_path(run.path / FILE) as partial:
            save_file({"contrast": contrasts}, partial)
        return sha256_file(run.path / FILE)

    def distance(self, contrast: _Contrasts | None) -> float | None:
        """How far an image of this ``Contrast.result`` is; None where that is, or all training images are the same."""
        if contrast is None or not self._unit:
            return None
        away = self._logarithm(contrast) - self._mean
        return float(np.sqrt(np.square(away).mean()) / self._unit)

    def _logarithm(self, contrasts: _Contrasts) -> NDArray[np.float64]:
        logarithm: NDArray[np.float64] = np.log(contrasts[..., self._used] + self._floor)
        return logarithm


def training_contrasts(
    cache: FeatureCache, network: Segmenter, ids: Sequence[str], blank_below: float | None
) -> _Contrasts | None:
    """The contrasts (images, channels) float32 of training images in a cache.

    Args:
        cache: where they are.
        network: the network that is fitted; where it reads no activations, None is returned.
        ids: of the images.
        blank_below: rows of less contrast are left out, as the network never sees them.
    """
    loader = network.loader(cache, torch.device("cpu"))
    if not loader.blocks:
        return None
    rows: dict[str, list[int]] = {name: [] for name in _spread(ids, MOST_ROWS)}
    for row, entry in enumerate(cache.rows):
        if entry.view == 0 and entry.id in rows:
            rows[entry.id].append(row)
    chosen = (_spread(tiles, MOST_ROWS // len(rows)) for tiles in rows.values())
    seen = (tuple(row for row in tiles if not is_blank(cache.image(row), blank_below)) for tiles in chosen)
    images = tuple(tiles for tiles in seen if tiles)
    if not images:
        return None
    content = tuple(cache.rows[tiles[0]].image_sha256 for tiles in images)
    which = (cache.path, cache.fingerprint_hash, content, images, min(loader.steps))
    return np.concatenate([_of_block(*which, block) for block in loader.blocks], axis=1)


@lru_cache(MOST_BLOCKS)
def _of_block(
    path: Location,
    fingerprint: str,
    content: tuple[str, ...],
    images: tuple[tuple[int, ...], ...],
    step: int,
    block: int,
) -> _Contrasts:
    """Contrasts (images, C) of a block at a step, of the rows of each image; what is the same for all runs of a sweep.

    ``fingerprint`` and ``content``, the images' digests, tell that a cache at ``path`` is still the one it was.
    """
    cache = FeatureCache.open(path)
    levels = (
        [_moments(torch.from_numpy(cache.features(row, block, None, [step])[0])) for row in tiles] for tiles in images
    )
    return np.stack([_deviation(moments) for moments in levels])


def _moments(level: torch.Tensor) -> NDArray[np.float64]:
    """Mean and mean square (2, C) of each channel of (C, h, w)."""
    variance, mean = torch.var_mean(level.float(), dim=(1, 2), correction=0)
    moments: NDArray[np.float64] = torch.stack([mean.double(), variance.double() + mean.double() ** 2]).cpu().numpy()
    return moments


def _deviation(moments: Sequence[NDArray[np.float64]]) -> _Contrasts:
    """Standard deviations (C,) over tiles of one size with these ``_moments``."""
    mean, square = np.mean(moments, axis=0)
    deviation: _Contrasts = np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
    return deviation


def _spread(values: Sequence[_T], most: int) -> list[_T]:
    """At most so many of ``values``, evenly chosen."""
    count = min(most, len(values))
    return [values[index * len(values) // count] for index in range(count)]
