"""A directory of unlabelled images: which of them can be trained on, and why the others cannot."""

__all__ = ["HASH", "Survey", "held_out", "survey"]

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textdiff import console
from textdiff.errors import UserError
from textdiff.images.decode import decode
from textdiff.images.formats import BadImageError
from textdiff.readers.names import IMAGES, unfollowed

HELD_OUT = 0.05  # the share of the images that is not trained on
HASH = 16  # hexadecimal digits that an image of the target is recognised by


@dataclass(frozen=True)
class Survey:
    """What a directory holds.

    ``images`` are the usable files in the order of their names. ``skipped`` counts the others by reason.
    ``digest`` identifies names and contents of the usable ones, so that a resumed run can tell that they are the same;
    ``hashes`` are those of the files. ``target`` is what another directory holds, whose images are to be segmented.
    """

    root: Path
    images: tuple[Path, ...]
    megapixels: float
    skipped: dict[str, int]
    duplicates: int
    digest: str
    hashes: tuple[str, ...]
    target: "Survey | None" = None

    def both(self, target: "Survey") -> "Survey":
        """This directory and that of the target."""
        digest = hashlib.sha256(f"{self.digest} {target.digest}".encode()).hexdigest()
        return replace(self, digest=digest, target=target)

    def split(self) -> tuple[list[Path], list[Path]]:
        """The images to train on, and those held out; as ``held_out``, of both directories."""
        training, kept = held_out(self.images, self.root)
        more, others = self.target.split() if self.target else ([], [])
        return training + more, kept + others

    def description(self) -> dict[str, Any]:
        """What a trained model's metadata says about its data; JSON-able, without any path above the directory."""
        known = sorted(name[:HASH] for name in self.target.hashes) if self.target else []
        return {
            "directory": self.root.name,
            "images": len(self.images),
            "megapixels": round(self.megapixels, 2),
            "skipped": self.skipped,
            "duplicates": self.duplicates,
            "digest": self.digest,
            **({"target": self.target.description() | {"sha256": known}} if self.target else {}),
        }


@dataclass(frozen=True)
class _Look:
    """One file, decoded once: its size and SHA-256, or why it is skipped (``reason``, told as ``detail``)."""

    pixels: int = 0
    sha256: str = ""
    reason: str = ""
    detail: str = ""


def survey(
    root: str | os.PathLike[str], smallest: int, modality: str, workers: int, quiet: bool = False, flag: str = "--data"
) -> Survey:
    """Decodes every image below ``root`` once and sorts out what cannot be used; each file is reported once.

    Skipped are files that are broken, huge (``formats.MAX_MEGAPIXELS``) or tiny (a side below ``smallest`` pixels), and
    for ``modality="he"`` also grey and 16-bit ones, because stained sections are photographed in colour with 8 bits:
    such files among them are something else (fluorescence, masks). Duplicates by content are counted and kept.

    Raises UserError if ``root`` is no directory or fewer than two images remain (one is held out).
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{flag} {root}: no such directory")
    if (links := unfollowed(root)) and not quiet:
        console.warn(f"{flag} {root}: {links}")
    files = sorted(
        (path for path in root.rglob("*") if path.name.lower().endswith(IMAGES) and path.is_file()),
        key=lambda path: path.relative_to(root).as_posix(),
    )
    if not files:
        raise UserError(f"{flag} {root}: holds no images ({', '.join(IMAGES)}); name a directory that does")

    images, hashes, digest = [], list[str](), hashlib.sha256()
    pixels, skipped = 0, Counter[str]()
    progress = None if quiet else console.Progress(len(files), "looking at the images")
    with ThreadPoolExecutor(workers) as pool:
        looks = pool.map(partial(_look, smallest=smallest, modality=modality), files)
        for path, result in zip(files, looks, strict=True):
            if progress:
                progress.advance()
            if result.reason:
                skipped[result.reason] += 1
                if not quiet:
                    console.warn(f"skipped {path}: {result.detail}")
                continue
            images.append(path)
            pixels += result.pixels
            hashes.append(result.sha256)
            digest.update(f"{path.relative_to(root).as_posix()} {result.sha256}\n".encode())
    duplicates = len(hashes) - len(set(hashes))
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"
    if len(images) < 2:
        raise UserError(
            f"{flag} {root}: {len(images)} of {console.counted(len(files), 'image')} can be used (skipped: {counts});"
            " at least 2 are needed, one of which is held out"
        )
    if not quiet:
        copies = console.form(duplicates, "is a copy of another", "are copies of others")
        same = f" ({duplicates} {copies})" if duplicates else ""
        said = f"{flag} {root}: holds {console.counted(len(images), 'image')} that can be used{same}"
        console.info(f"{said}, of {_pixels(pixels)} in all{f'; skipped are {counts}' if skipped else ''}")
    counted = dict(sorted(skipped.items()))
    return Survey(root, tuple(images), pixels / 1e6, counted, duplicates, digest.hexdigest(), tuple(hashes))


def _pixels(count: int) -> str:
    return f"{count / 1e6:.1f} megapixels" if count >= 10**6 else f"{count:,} pixels"


def held_out(images: Sequence[Path], root: Path) -> tuple[list[Path], list[Path]]:
    """Splits the images into those to train on and a held-out share, at least one of each.

    The hash of its name decides about an image, so that others joining or leaving the directory change nothing for it.
    """
    ranks = {
        path: int(hashlib.sha256(path.relative_to(root).as_posix().encode()).hexdigest()[:8], 16) for path in images
    }
    chosen = {path for path in images if ranks[path] < HELD_OUT * 2**32} or {min(images, key=lambda path: ranks[path])}
    if len(chosen) == len(images):
        chosen.remove(max(images, key=lambda path: ranks[path]))
    return [path for path in images if path not in chosen], [path for path in images if path in chosen]


def _look(path: Path, smallest: int, modality: str) -> _Look:
    try:
        data = path.read_bytes()
        image, notes = decode(path, data)
    except BadImageError as error:
        huge = "megapixel" in error.what
        return _Look(reason="huge" if huge else "broken", detail=error.what)
    except OSError as error:
        return _Look(reason="broken", detail=f"cannot be read ({error.strerror})")
    height, width, _ = image.shape
    if min(height, width) < smallest:
        return _Look(
            reason="tiny", detail=f"tiny, {width}x{height}: crops at the finest scale need {smallest} pixels a side"
        )
    if modality == "he":
        if any(note.startswith("16-bit") for note in notes):
            return _Look(reason="16-bit", detail="16-bit, and H&E is photographed with 8 (--modality none takes it)")
        if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
            return _Look(
                reason="grey", detail="grey, and H&E is coloured (--modality cxr takes radiographs, none any image)"
            )
    return _Look(pixels=height * width, sha256=hashlib.sha256(data).hexdigest())
