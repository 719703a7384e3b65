"""``extract --update``: a cache of a changed data set, made of the rows of the old one as far as they still hold."""

__all__ = ["Update", "begin_update", "check_update_space", "end_update", "refuse_changed", "take_over"]

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textdiff import console
from textdiff.cache import CacheError, FeatureCache, Row
from textdiff.cache.chunks import ChunkError
from textdiff.cache.rows import DamagedError, most_views
from textdiff.cache.takeover import find_rows
from textdiff.cache.update import can_link, put_in_place, update_path, updates
from textdiff.files import check_free_space
from textdiff.pipeline.extraction.prepare import Prepared

_OPTIONS = {"--views": True, "--test-views": False}
"""By the option whether it is about training images."""


@dataclass(frozen=True)
class Update:
    """What an update starts from."""

    path: Path
    """Where the new cache grows until it is complete."""
    begun: bool
    """Whether it is there, to be gone on with."""
    old: FeatureCache
    sources: dict[int, tuple[FeatureCache, int]]
    """For rows of the new cache, by their indices, the cache and the row that hold their activations."""


def refuse_changed(old: FeatureCache, rows: Sequence[Row], changes: Sequence[str]) -> CacheError:
    """What is said of a cache whose data set has changed since."""
    kept = len(find_rows(rows, [old]))
    if other := _other_views(old.rows, rows):
        return CacheError(
            f"{old.path}: repeat the command that made it; or --update keeps {kept} of {len(rows)} rows, makes the "
            f"others and drops what was not asked for, another --cache leaves this one. It was {other}"
        )
    return CacheError(
        f"{old.path}: --update keeps {kept} of {len(rows)} rows and makes the others, --overwrite makes all anew, "
        f"another --cache leaves this one; the data set is not the one it was made of: {'; '.join(changes)}"
    )


def _other_views(here: Sequence[Row], asked: Sequence[Row]) -> str:
    """Which views were asked for, if nothing else differs from those that are here; otherwise nothing."""
    if [row for row in here if row.view == 0] != [row for row in asked if row.view == 0]:
        return ""
    made = {option: [most_views(rows, training=t) for rows in (here, asked)] for option, t in _OPTIONS.items()}
    return "; ".join(
        f"made with {option} {then}, and {now} asked for" for option, (then, now) in made.items() if then != now
    )


def begin_update(old: FeatureCache, planned: FeatureCache, dry_run: bool) -> Update:
    """Finds what the cache ``planned`` can take over from the old one, and from updates that were not finished.

    What is left of an update whose removal was interrupted is removed, unless in a dry run.
    """
    path = update_path(old.path, planned.fingerprint_hash, planned.table_hash)
    sources, begun = [old], False
    for place in updates(old.path):
        try:
            other = FeatureCache.open(place)
            begun = begun or place == path
        except DamagedError:
            begun = begun or place == path
            continue
        except CacheError:
            if not dry_run:
                shutil.rmtree(place, ignore_errors=True)
            continue
        if place != path and other.fingerprint_hash == planned.fingerprint_hash:
            sources.append(other)
    return Update(path, begun, old, find_rows(planned.rows, sources))


def check_update_space(update: Update, planned: FeatureCache, rows: Sequence[int]) -> None:
    """Checks that the disk holds the new rows beside the old cache.

    Rows taken over are files of both caches, where the file system can do that; elsewhere they are copies.

    Args:
        update: where from and where to.
        planned: the new cache, for its sizes.
        rows: that are to be made or taken over.

    Raises:
        UserError: it does not. Nothing was written.
    """
    kept = sum(row in update.sources for row in rows)
    linked = not kept or can_link(update.old.path)
    of_kept = planned.image_size**2 if linked else planned.row_nbytes  # its mask is new in any case
    needed = (len(rows) - kept) * planned.row_nbytes + kept * of_kept
    copies = "" if linked else f" and copies of the {kept} others"
    what = f"beside the old cache, which stays until they are there, {len(rows) - kept} new rows{copies} need"
    check_free_space(update.old.path, needed, what, "free some. Nothing was written")


def take_over(cache: FeatureCache, update: Update, rows: Sequence[int], prepare: Callable[[int], Prepared]) -> None:
    """Takes over ``rows``, which are in the update's sources; one that is damaged there is named, and left out."""
    if not rows:
        return
    with console.Progress(len(rows), "take over", "rows") as progress:
        for row in rows:
            ready, (source, place) = prepare(row), update.sources[row]
            try:
                cache.take_over(row, source, place, ready.image, ready.mask, ready.truth, ready.instances)
            except ChunkError as error:
                console.warn(f"{source.path}: row {place} ({source.rows[place]}): {error}; it is made anew")
            progress.advance()


def end_update(update: Update, cache: FeatureCache) -> FeatureCache:
    """Puts the new cache in the old one's place if it is complete, and opens it there; else returns it as it is."""
    left = len(cache.pending())
    if left and update.path.exists():  # else another process has put it in its place
        console.info(f"{update.old.path}: {left} rows of the update are left to other processes; until then it stays")
        return cache
    put_in_place(update.path, update.old.path)
    console.info(f"{update.old.path}: updated, {len(cache.rows)} rows")
    return FeatureCache.open(update.old.path)
