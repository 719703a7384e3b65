"""The masks in the data set that a cache was made of: as they are now, and written anew for ``extract --update``."""

__all__ = ["MaskFiles"]

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.errors import UserError, quoted
from textdiff.files import atomic_path, sha256_file
from textdiff.images.labels import UNSAID
from textdiff.images.scaled import Scaled
from textdiff.options.extract import Extract
from textdiff.options.option import imported
from textdiff.pipeline.extraction.config import ExtractConfig, resolve
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_image, load_mask
from textdiff.readers.presets import get_preset
from textdiff.readers.sample import Sample

_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


class MaskFiles:
    """The images and masks of a cache at their own size: the data set's files, or what the cache holds without them.

    Masks are class numbers (H, W) uint8, ``UNSAID`` where nothing is said.

    Args:
        cache: of whole images.
    """

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self._rows = {entry.id: row for row, entry in enumerate(cache.rows) if entry.view == 0}

    def image(self, name: str) -> NDArray[np.uint8]:
        """An image (H, W, 3), RGB.

        Raises:
            UserError: the file cannot be read, or is another one than when it was extracted.
        """
        row = self._rows[name]
        entry = self.cache.rows[row]
        if (sample := self._samples.get(name)) is None or isinstance(sample.image, Scaled):
            small = Image.fromarray(self.cache.image(row))
            return np.asarray(small.resize((entry.width, entry.height), Image.Resampling.BILINEAR))
        image, digest, _ = load_image(sample.image)
        if digest != entry.image_sha256:
            update = f"`textdiff extract --cache {quoted(self.cache.path)} --update`"
            raise UserError(f"{sample.image}: was changed since it was extracted; run {update}")
        return image

    def has_mask(self, name: str) -> bool:
        """Whether there is a mask, whatever it says."""
        sample = self._samples.get(name)
        return self.cache.rows[self._rows[name]].has_mask if sample is None else sample.mask is not None

    def read(self, name: str) -> tuple[NDArray[np.uint8], str | None]:
        """An image's mask, and the SHA-256 of its file; without one it says nothing, and None.

        Raises:
            UserError: the file cannot be read, or is of another size than its image.
        """
        row, sample = self._rows[name], self._samples.get(name)
        entry = self.cache.rows[row]
        found, digest = self.cache.truth(row) if sample is None else None, None
        if sample is not None and sample.mask is not None:
            found, _, digest, *_ = load_mask(sample, entry.height, entry.width)
            if found.shape != (entry.height, entry.width):
                raise UserError(f"{sample.mask}: has another size than its image; `textdiff data check` says more")
        return np.full((entry.height, entry.width), UNSAID, np.uint8) if found is None else found, digest

    def write(self, name: str, labels: NDArray[np.uint8], seen: str | None) -> tuple[Path, str]:
        """Writes an image's mask in one step, where and with the numbers that ``extract`` reads it by.

        Args:
            name: the image.
            labels: its mask.
            seen: what ``read`` said of the file that may be replaced.

        Returns:
            The file, and its SHA-256.

        Raises:
            UserError: a mask was made or changed since ``seen``; such masks cannot say this; there is no place for one.
        """
        self.__dict__.pop("_samples", None)  # a mask may have come since
        stored, path = self._numbers(name, labels), self._place(name, seen)
        with atomic_path(path) as partial:
            Image.fromarray(stored).save(partial)
        self.__dict__.pop("_samples", None)
        return path, sha256_file(path)

    @cached_property
    def _config(self) -> ExtractConfig | None:
        """How the cache was made; None where its data set is not there any more."""
        try:
            config = resolve(Extract(cache=self.cache.path))
        except UserError:
            return None
        return config if Path(config.data).exists() else None

    @cached_property
    def _samples(self) -> dict[str, Sample]:
        if self._config is None:
            return {}
        return {sample.id: sample for sample in read_dataset(self._config.dataset, self._config.data, self._config)[0]}

    def _numbers(self, name: str, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask with the numbers that the data set's have."""
        if self.cache.has_instances:
            raise UserError(f"{self.cache.path}: its masks number their objects, and what is painted are classes")
        unsaid = labels == UNSAID
        if not self.cache.sparse and unsaid.any():
            raise UserError(
                f"{name}: is not painted all over, and the masks of this cache say everything; accept the prediction "
                f"for the rest, or take strokes in: `textdiff extract --cache {quoted(self.cache.path)} --update "
                "--unlabelled-value 255`, and open it again"
            )
        # The number of what is not said; where there is none, one that no class has.
        number = int(self.cache.fingerprint.get("unlabelled", UNSAID))
        if "classes" in self.cache.fingerprint:
            stored = labels.astype(np.int64) + (labels >= number)  # see ``class_map``
        else:
            stored = labels.astype(np.int64) * self._foreground(number)
        return np.where(unsaid, number, stored).astype(np.uint8)

    def _foreground(self, unlabelled: int) -> int:
        """The number of the foreground in masks of two classes, which has to be the same in all of them."""
        for name, sample in self._samples.items():
            if sample.mask is not None and name in self._rows:
                entry = self.cache.rows[self._rows[name]]
                if (value := load_mask(sample, entry.height, entry.width).value).isdecimal():
                    return int(value)
        return 255 if not self.cache.sparse else 2 if unlabelled == 1 else 1

    def _place(self, name: str, seen: str | None) -> Path:
        """The file of an image's mask, which is not there yet, or is as it was seen."""
        sample, config = self._samples.get(name), self._config
        if sample is None or config is None:
            raise UserError(f"{name}: the data set of {self.cache.path} is not where it was; put it back to save")
        mask, image = sample.mask, sample.image
        if mask is None:
            known = get_preset(config.dataset).mask_place
            place: Path | None = imported(known)(config.data, image) if known and isinstance(image, Path) else None
            if place is None:
                raise UserError(
                    f"{name}: a data set of this layout has no place for a mask; use a folder (docs/data.md)"
                )
            return place
        if not isinstance(mask, Path) or mask.suffix.lower() not in _LOSSLESS:
            raise UserError(f"{mask}: is not a PNG, TIFF or BMP, so no mask is written over it; save it as PNG first")
        if sha256_file(mask) != seen:
            raise UserError(
                f"{mask}: was made or changed since {name} was shown, and is not overwritten; open the cache again to "
                "see it (what you painted on this image is lost then)"
            )
        return mask
