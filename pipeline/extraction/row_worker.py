"""What any process does that fills rows of a cache which is there already: the same on a device, a node, a cluster."""

__all__ = ["Job", "Order", "Part", "RowWorker", "opened", "part_of", "sealed", "split_rows"]

import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import textdiff
from textdiff import console
from textdiff.cache import CacheError, FeatureCache
from textdiff.cache.stores import store_at
from textdiff.errors import UserError
from textdiff.images.scaled import Scaled
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone, moved, resolve_backbone
from textdiff.models.device import choose_device, resolve_precision
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.extraction.config import ExtractConfig
from textdiff.pipeline.extraction.fill_rows import fill_rows, full_disk
from textdiff.pipeline.extraction.filling import Filling
from textdiff.pipeline.extraction.prepare import preparation
from textdiff.pipeline.extraction.timings import Timings
from textdiff.places import Location
from textdiff.readers.datasets import Inspected
from textdiff.readers.sample import Slice

_P = TypeVar("_P", Path, Location, Path | Slice | Scaled, Path | Slice | None)
_VERSION_LENGTH = 32


@dataclass(frozen=True)
class Order:
    """What every worker is told once; it can be pickled, and its paths hold in any directory."""

    config: ExtractConfig
    cache: Location
    """The place that is filled: ``config.cache``, or an update of it that grows beside it."""
    content: tuple[str, str]
    """The hashes of that cache's fingerprint and table."""

    @classmethod
    def of(cls, config: ExtractConfig, cache: FeatureCache) -> "Order":
        """The order to fill ``cache``, with absolute paths."""
        config = replace(
            config,
            data=_absolute(config.data),
            cache=_absolute(config.cache),
            backbone=moved(config.backbone, lambda path: str(path.absolute())),
            devices=None,
            scheduler=None,
            shard=(0, 1),  # which rows these are the parts say
            overwrite=False,
            update=False,
        )
        return cls(config, _absolute(cache.path), (cache.fingerprint_hash, cache.table_hash))


@dataclass(frozen=True)
class Part:
    """Rows that one worker fills in one go, and the samples that they show."""

    rows: list[int]
    facts: Mapping[str, Inspected]


def split_rows(cache: FeatureCache, rows: Sequence[int], size: int) -> list[list[int]]:
    """``rows`` in parts of about ``size``; the views and tiles of an image, which is decoded once, stay together."""
    found: list[list[int]] = []
    for row in rows:
        same = found and cache.rows[found[-1][-1]].id == cache.rows[row].id
        if not found or (len(found[-1]) >= size and not same):
            found.append([])
        found[-1].append(row)
    return found


def part_of(cache: FeatureCache, facts: Mapping[str, Inspected], rows: Sequence[int]) -> Part:
    """The part of these rows, with what any process needs to know of their samples."""
    ids = dict.fromkeys(cache.rows[row].id for row in rows)
    return Part(list(rows), {one: _anywhere(facts[one]) for one in ids})


@dataclass(frozen=True)
class Job:
    """What a crew is asked for: rows of a cache that is there with all its metadata."""

    order: Order
    cache: FeatureCache
    facts: Mapping[str, Inspected]
    """Of every sample, by its id."""
    rows: Sequence[int]
    progress: console.Progress
    """Is told of each row."""

    def sealed_part(self, rows: Sequence[int]) -> bytes:
        """The part of these rows for another process."""
        return sealed(part_of(self.cache, self.facts, rows))


class RowWorker:
    """The backbone, loaded once, and the cache, opened once, for any number of parts.

    Args:
        order: what is to be filled, and how.
        device: where to compute; that of the order's options by default.

    Raises:
        UserError: this process does not see the cache or the weights, or computes in another precision.
    """

    def __init__(self, order: Order, device: str | None = None) -> None:
        config = order.config
        self.order, self.cache = order, _open(order)
        where = choose_device(device or config.device)
        precision = resolve_precision(config.precision, where)
        if precision != self.cache.fingerprint["precision"]:
            wanted = self.cache.fingerprint["precision"]
            raise UserError(
                f"{platform.node()}: {where} computes in {precision} where the cache is to hold {wanted}; give "
                f"--precision {wanted}, or workers of one kind"
            )
        resolved = resolve_backbone(config.backbone, download=False)
        if resolved.sha256 != self.cache.fingerprint["backbone_sha256"]:
            raise UserError(
                f"{platform.node()}: its weights of {config.backbone} are not those the cache was made with; copy them"
            )
        protocol = PROTOCOLS[config.protocol]
        network = load_backbone(resolved, config.image_size, where, config.seed, protocol.colour, config.enlarge)
        self._resize = protocol.resize
        self._backbone = Extractor(
            network, self.cache.steps, tuple(self.cache.blocks), config.image_size, where, precision
        )

    def fill(self, part: Part, done: Callable[[int], object] = lambda count: None) -> Timings:
        """Makes the rows that are not there; those that are stay as they are, so a part may be given again.

        Args:
            part: rows and their samples.
            done: told how many rows more there are, those that were there already included.

        Returns:
            How many were made, and where the time of that went.

        Raises:
            UserError: bad input, or a full disk; the rows that are finished are kept.
        """
        try:
            self.cache.check_same()
        except CacheError:  # it was made anew since, as with --overwrite
            self.cache = _open(self.order)
        config, there = self.order.config, self.cache.done()
        rows = [row for row in part.rows if not there[row]]
        if len(rows) < len(part.rows):
            done(len(part.rows) - len(rows))
        if not rows:
            return Timings.total([])
        for fact in part.facts.values():
            image = fact.sample.image
            if not Path(image.file if isinstance(image, Slice) else image).exists():
                raise UserError(f"{platform.node()}: does not see {image}; all workers need the data at the same path")
        prepare = partial(preparation, self.cache, part.facts, self._resize, config.jitter, config.seed)
        with full_disk(config.cache, self.cache):
            filling = Filling(self.cache, None, {}, rows)
            return fill_rows(filling, prepare, self._backbone, lambda: done(1), config.batch)


def sealed(value: Order | Part) -> bytes:
    """``value`` for another process, under the version that it is of."""
    return textdiff.__version__.encode().ljust(_VERSION_LENGTH) + pickle.dumps(value)


def opened(data: bytes) -> Order | Part:
    """What ``sealed`` was given; ``data`` comes from the process that this one works for.

    Raises:
        UserError: it is of another version. Nothing was unpickled.
    """
    theirs = data[:_VERSION_LENGTH].decode().strip()
    if theirs != textdiff.__version__:
        raise UserError(
            f"{platform.node()}: this worker has textdiff {textdiff.__version__}, and who asks has {theirs}; install "
            "the same version on all"
        )
    value: Order | Part = pickle.loads(data[_VERSION_LENGTH:])
    return value


def _open(order: Order) -> FeatureCache:
    """The cache that the order means, and no other one.

    Raises:
        UserError: it is not seen from here.
    """
    try:
        cache = FeatureCache.open(order.cache, writable=True)
        if (cache.fingerprint_hash, cache.table_hash) == order.content:
            if order.config.durable:
                cache.make_durable()
            return cache
        what = "sees another cache"
    except CacheError:
        if store_at(order.cache).occupied():
            raise
        what = "does not see the cache"
    raise UserError(f"{platform.node()}: {what} at {order.cache}; all workers need the same file system at this path")


def _absolute(place: _P) -> _P:
    if isinstance(place, Slice | Scaled):
        return replace(place, file=place.file.absolute())
    return place.absolute() if isinstance(place, Path) else place


def _anywhere(fact: Inspected) -> Inspected:
    sample = fact.sample
    return replace(fact, sample=replace(sample, image=_absolute(sample.image), mask=_absolute(sample.mask)))
