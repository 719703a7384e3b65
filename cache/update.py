"""A cache that grows beside another one and takes its place once it is complete.

Beside ``monuseg.zarr`` the new one is ``.monuseg.update-<digest>.zarr``, with a digest of what it is to hold: the same
command finds it again, and one after another change of the data set takes over what this one holds already. The old
cache stays in its place, usable, until then.
"""

__all__ = ["can_link", "clear_updates", "put_in_place", "restore", "update_path", "updates"]

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from textdiff.cache.rows import CacheError
from textdiff.cache.staging import locked, staging, sweep
from textdiff.cache.writer import STAGED

DIGITS = 16


def update_path(path: Path, fingerprint_hash: str, table_hash: str) -> Path:
    """Where the cache grows that is to replace the one at ``path``."""
    final = path.resolve()
    digest = hashlib.sha256(f"{fingerprint_hash} {table_hash}".encode()).hexdigest()[:DIGITS]
    return _beside(final, f"update-{digest}")


def updates(path: Path) -> list[Path]:
    """The caches that were begun to replace the one at ``path``, and not finished."""
    final = path.resolve()
    names = {len(_beside(final, "update-").name) + DIGITS}
    if not final.parent.is_dir():
        return []
    before, after = f".{final.stem}.update-", final.suffix
    return sorted(
        place
        for place in final.parent.iterdir()
        if len(place.name) in names and place.name.startswith(before) and place.name.endswith(after)
    )


def clear_updates(path: Path) -> None:
    """Removes them, and what killed processes left of making them."""
    for place in updates(path):
        shutil.rmtree(place, ignore_errors=True)
    final = path.resolve()
    sweep(final.parent, _beside(final, "update-*").name)


def restore(path: Path) -> None:
    """Ends what a process killed in ``put_in_place`` left: the old cache goes if the new one is there, else is back."""
    final = path.resolve()
    replaced = _beside(final, "replaced")
    if not replaced.exists():
        return
    with locked(final.parent):
        if not final.exists():
            with suppress(FileNotFoundError):
                replaced.rename(final)
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Puts the complete cache ``new`` in the place of the one at ``path``, which is removed with all other updates.

    Directories cannot be exchanged in one step: a process killed between two leaves neither in the place, and
    ``restore`` brings the old one back. Of processes that come at the same time, one does it.

    Raises:
        CacheError: it cannot be replaced; it stays as it was.
    """
    final = path.resolve()
    replaced = _beside(final, "replaced")
    # The last copy of what the new cache holds too must not go before that is on the disk.
    if hasattr(os, "sync"):
        os.sync()
    # Who writes a row to one of them finishes it first.
    with locked(final.parent), locked(final / STAGED), locked(new / STAGED):
        if not new.exists():
            return
        try:
            if final.exists():
                final.rename(replaced)
            new.rename(final)
        except OSError as error:
            if replaced.exists() and not final.exists():
                replaced.rename(final)
            raise CacheError(
                f"{path}: cannot be replaced by the new cache ({error.strerror}), which is complete: {new}; run the "
                "same command again, or move it by hand"
            ) from error
    shutil.rmtree(replaced, ignore_errors=True)
    clear_updates(path)


def can_link(path: Path) -> bool:
    """Whether two caches beside each other can have the same file, so that rows taken over take no room."""
    final = path.resolve()
    with staging(final.parent, final.name) as directory:
        try:
            os.link(final / "zarr.json", directory / "zarr.json")
        except OSError:
            return False
    return True


def _beside(final: Path, what: str) -> Path:
    # The suffix stays last, as what ignores caches goes by it.
    return final.with_name(f".{final.stem}.{what}{final.suffix}")
