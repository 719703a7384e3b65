"""From the sample table to what the backbone sees: a row's image, mask and truth, cut out, turned and resized."""

__all__ = ["Prepared", "preparation"]

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.files import stamp
from textdiff.images import images
from textdiff.images.colour import jitter_view
from textdiff.images.formats import BadImageError
from textdiff.images.scaled import Scaled
from textdiff.images.slide_files import slide_digest
from textdiff.images.tiles import cut
from textdiff.readers.datasets import Inspected
from textdiff.readers.decoding import load_image, load_mask
from textdiff.readers.sample import Slice
from textdiff.readers.slides import Part, PartReader

_T = TypeVar("_T", bound=np.generic)
_Stamp = tuple[int, int, int, int]
_AGAIN = "run the same command again; the rows made so far are kept"


@dataclass(frozen=True)
class Prepared:
    """A row that is ready for the backbone."""

    row: int
    image: NDArray[np.uint8]
    """RGB (S, S, 3), S the cache's image size."""
    text: str
    """As it is true of the view."""
    mask: NDArray[np.uint8] | None
    """(S, S) class numbers; None where the image has no mask."""
    truth: NDArray[np.uint8] | None
    """(h, w), the same at the original size; None for turned views, too."""
    instances: NDArray[np.uint32] | None
    """(h, w) object numbers, where they are told apart."""


def preparation(
    cache: FeatureCache, inspected: Mapping[str, Inspected], rule: str, varied: str | None, seed: int
) -> Callable[[int], Prepared]:
    """Gives the function that makes a row of ``cache`` ready, which is to be called from one thread.

    Views and tiles of an image follow one another, so what was decoded last is kept: an image and its mask, or of files
    too large for that the rows that a row of tiles shows.

    Args:
        cache: whose table says what each row is.
        inspected: of every sample, by its id.
        rule: how images and masks are brought to the cache's size; see ``resize_image``.
        varied: the modality after which the colours of training images are varied in all views but the first; None
            leaves them.
        seed: of that.

    The function raises BadImageError for a file that cannot be read any more, or is not the one that was inspected.
    """
    read_image = lru_cache(1)(_image)
    read_part = lru_cache(1)(partial(_part, {}, PartReader()))

    def prepare(row: int) -> Prepared:
        entry = cache.rows[row]
        text = cache.text_of(entry)
        fact = inspected[entry.id]
        if not fact.image.in_bands:
            part = read_image(fact)
        elif fact.image.finest is not None:
            part = read_part(fact, entry.y, entry.x, entry.tile, entry.tile)
        else:  # a TIFF in strips would be decoded anew for each tile of a row
            part = read_part(fact, entry.y, 0, entry.tile, entry.width)

        def seen(pixels: NDArray[_T]) -> NDArray[_T]:
            piece = cut(pixels, entry.y - part.y, entry.x - part.x, entry.tile) if entry.tile else pixels
            return images.symmetry(piece, entry.view % images.SYMMETRIES)

        size = cache.image_size
        image = images.resize_image(seen(part.image), size, rule)
        if entry.split == "train":
            image = jitter_view(image, varied, entry.view, entry.image_sha256, seed)
        if part.labels is None:
            return Prepared(row, image, text, None, None, None)
        truth = seen(part.labels)
        mask = images.resize_mask(truth, size, rule, classes=len(cache.classes) + 1)
        if not entry.has_truth:
            return Prepared(row, image, text, mask, None, None)
        h, w = entry.truth_shape
        objects = None if part.instances is None else seen(part.instances)[:h, :w]
        return Prepared(row, image, text, mask, truth[:h, :w], objects)

    return prepare


def _image(fact: Inspected) -> Part:
    sample = fact.sample
    assert not isinstance(sample.image, Scaled)
    image = load_image(sample.image)
    _require_same(sample.image, image.sha256 == fact.image.sha256)
    if fact.mask is None or sample.mask is None:
        return Part(0, 0, image.pixels)
    mask = load_mask(sample, fact.image.height, fact.image.width)
    _require_same(sample.mask, mask.sha256 == fact.mask.sha256)
    return Part(0, 0, image.pixels, mask.labels, mask.instances)


def _part(seen: dict[Path, _Stamp], read: PartReader, fact: Inspected, *place: int) -> Part:
    sample = fact.sample
    assert not isinstance(sample.image, Slice)
    file = sample.image.file if isinstance(sample.image, Scaled) else sample.image
    with _the_same(file, fact.image.sha256, seen), ExitStack() as stack:
        if fact.mask and isinstance(sample.mask, Path):
            stack.enter_context(_the_same(sample.mask, fact.mask.sha256, seen))
        return read(fact, *place)


@contextmanager
def _the_same(path: Path, sha256: str, seen: dict[Path, _Stamp]) -> Iterator[None]:
    """Checks that what is read of a file meanwhile is of the one that was checked, which is too large to be read whole.

    The stamp that it had when its digest was last found right is in ``seen``.
    """
    try:
        before = stamp(path)
        if seen.get(path) != before:
            _require_same(path, slide_digest(path) == sha256)
            seen[path] = before
        yield
        _require_same(path, stamp(path) == before)
    except OSError as error:
        raise BadImageError(path, f"cannot be read any more ({error.strerror})", _AGAIN) from error


def _require_same(source: Path | Slice | Scaled, same: bool) -> None:
    if not same:
        raise BadImageError(source, "was changed after it was checked, while extract ran", _AGAIN)
