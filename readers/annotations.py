"""Objects outlined by class in other programs -> masks: QuPath's GeoJSON, COCO, labelme, ImageScope's layers.

A file is read as the map of classes that it would be if it were painted: an object has the number of its class among
``--classes``, and what no object holds has 0, which is the background, unless ``--unlabelled-value 0`` says that
nothing is known there. Names that end in ``*`` say that too, as in QuPath, whatever the options.
"""

__all__ = ["OUTLINES", "is_outlined", "listed_annotations", "load_annotations", "read_annotations"]

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from textdiff.errors import UserError, few, suggest
from textdiff.files import stamp
from textdiff.images.formats import BadImageError, read_bytes
from textdiff.images.labels import UNSAID
from textdiff.readers.aperio import read_aperio
from textdiff.readers.coco import coco_images, is_coco, read_coco
from textdiff.readers.corners import PEN
from textdiff.readers.geojson import is_geojson, read_geojson
from textdiff.readers.labelme import is_labelme, read_labelme
from textdiff.readers.names import key_of, visible
from textdiff.readers.outlines import Drawn, draw
from textdiff.readers.sample import LoadedMask, Sample, Slice

OUTLINES = (".xml", ".geojson", ".json")
"""How names of files of outlines end: they mean nothing without the size of their image."""
_BACKGROUND = "background"
_MAX_BYTES, _MAX_COCO = 128 << 20, 512 << 20
_FIX = "export the annotations again"
_lock = threading.Lock()


def is_outlined(source: Path | Slice) -> bool:
    """Whether a mask is given by outlines."""
    return (source.file if isinstance(source, Slice) else source).name.lower().endswith(OUTLINES)


def listed_annotations(place: Path) -> dict[str, list[Path | Slice]]:
    """The annotations in a file or a directory, by the names of their images without extension.

    Raises:
        UserError: a directory without any, or a file of many images that cannot be read.
    """
    files = [place]
    if place.is_dir():
        files = sorted(path for path in visible(place) if path.name.lower().endswith(OUTLINES) and path.is_file())
    if not files or not is_outlined(files[0]):
        raise UserError(f"--annotations {place}: holds no outlines ({', '.join(OUTLINES)}); name what they are in")
    found: dict[str, list[Path | Slice]] = {}
    for path in files:
        entries = _many(path) if path.name.lower().endswith(".json") else None
        for name in entries or {}:
            found.setdefault(key_of(name), []).append(Slice(path, name, None))
        if entries is None:
            found.setdefault(key_of(path.name), []).append(path)
    return found


class Outlined(NamedTuple):
    """What is in a mask of outlines."""

    drawn: list[Drawn]
    labels: list[int]
    """The class number of each."""
    rest: int
    """That of what none of them holds."""
    digest: str
    """The SHA-256 of the file, or of what a file of many images says of this one."""
    notes: list[str]
    value: str
    """The one class that is outlined, where no option names classes."""


def load_annotations(sample: Sample, height: int, width: int) -> LoadedMask:
    """Reads and draws the outlines that are the mask of ``sample``; arguments and errors as of ``read_annotations``."""
    found = read_annotations(sample, height, width)
    assert sample.mask is not None
    raster = draw(sample.mask, found.drawn, found.labels, found.rest, height, width, sample.instances)
    return LoadedMask(raster.labels, raster.instances, found.digest, found.notes + raster.notes, found.value)


def read_annotations(sample: Sample, height: int, width: int) -> Outlined:
    """Reads the outlines that are the mask of ``sample``.

    Args:
        sample: one whose mask ``is_outlined``.
        height: of its image, in pixels.
        width: the same.

    Raises:
        BadImageError: of no known program or damaged, of an image of another size, or with classes that the options do
            not name.
    """
    source = sample.mask
    assert source is not None
    if isinstance(source, Slice):
        entry = (_many(source.file) or {}).get(source.dataset)
        if entry is None:
            raise BadImageError(source, "is not there any more", "run the same command again")
        drawn, notes = read_coco(source, entry, height, width)
        digest = hashlib.sha256(entry).hexdigest()
    else:
        data = _bytes(source, _MAX_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        drawn, notes = _read_file(sample, source, data, height, width)
    drawn = [replace(one, name=_printable(one.name)) if one.name else one for one in drawn]
    drawn, left_out = _without_lines(sample, drawn)
    notes += left_out
    labels, rest, more, value = _labels(sample, source, drawn)
    return Outlined(drawn, labels, rest, digest, notes + more, value)


def _without_lines(sample: Sample, drawn: list[Drawn]) -> tuple[list[Drawn], list[str]]:
    """Leaves lines and points out where they cannot be strokes of a pen, and notes what became of them.

    They are strokes if they have a class and nothing is known of what is not outlined; otherwise they may be rulers, or
    marks of what was counted.
    """
    sparse = sample.unlabelled == 0
    lines = sum(bool(one.strokes) for one in drawn)
    kept = [one for one in drawn if not one.strokes or (sparse and one.name is not None)]
    left_out, notes = len(drawn) - len(kept), list[str]()
    if left_out:
        why = "have no class" if sparse else "enclose nothing, and are strokes only with --unlabelled-value 0"
        notes.append(f"{left_out} of {len(drawn)} objects are lines or points, which {why} (ignored)")
    if lines > left_out:
        notes.append(f"{lines - left_out} of {len(drawn)} objects are lines or points, drawn {PEN} pixels wide")
    return kept, notes


def _read_file(sample: Sample, path: Path, data: bytes, height: int, width: int) -> tuple[list[Drawn], list[str]]:
    if path.name.lower().endswith(".xml"):
        # Without options that name classes all layers are foreground.
        return read_aperio(path, data, by_layer=bool(sample.classes) or sample.unlabelled is not None)
    content = _parsed(path, data)
    if is_geojson(content):
        return read_geojson(path, content)
    if is_labelme(content):
        return read_labelme(path, content, height, width)
    if is_coco(content):
        entries = coco_images(path, content)
        own = [entry for name, entry in entries.items() if len(entries) == 1 or key_of(name) == key_of(path.name)]
        if len(own) != 1:
            what = f"is a COCO file of {len(entries)} images, and none of its name"
            raise BadImageError(path, what, "give it with --annotations")
        return read_coco(path, own[0], height, width)
    raise BadImageError(path, "is neither GeoJSON nor of COCO or labelme", _FIX)


def _parsed(path: Path, data: bytes, take: Callable[[Any], Any] = lambda content: content) -> Any:
    """What JSON holds, or what ``take`` makes of that."""
    try:
        return take(json.loads(data.decode("utf-8-sig"), parse_constant=_refused))
    except (ValueError, RecursionError) as error:
        why = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadImageError(path, f"is not JSON that can be read ({why})", _FIX) from error


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _bytes(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
    except OSError:  # reading it says so
        size = 0
    if size > most:
        raise BadImageError(path, f"has {size >> 20} MB, more than {most >> 20}", "split the annotations")
    return read_bytes(path)


def _many(path: Path) -> dict[str, bytes] | None:
    """What a COCO file says of each image; None of any other file. What was read last is kept."""
    try:
        # Threads that ask for the same file at once are to wait for the first.
        with _lock:
            return _read_many(path, stamp(path))
    except OSError as error:
        raise BadImageError(path, f"cannot be read ({error.strerror})", "check the path") from error


@lru_cache(2)
def _read_many(path: Path, unchanged: tuple[int, ...]) -> dict[str, bytes] | None:
    del unchanged
    data = _bytes(path, _MAX_COCO)
    if b'"images"' not in data or b'"annotations"' not in data:
        return None
    found: dict[str, bytes] | None = _parsed(
        path, data, lambda content: coco_images(path, content) if is_coco(content) else None
    )
    return found


def _labels(sample: Sample, source: Path | Slice, drawn: Sequence[Drawn]) -> tuple[list[int], int, list[str], str]:
    """The class number of each object and of what no object holds, notes, and ``Outlined.value``.

    Raises:
        BadImageError: a class that the options do not name, or several where they name none.
    """
    said = [one for one in drawn if not _says_nothing(one) and not _is_background(sample, one)]
    named = sorted({one.name for one in said if one.name})
    silent, notes, value = sample.unlabelled, list[str](), ""
    if silent is not None and not (sample.named and silent <= len(sample.named)):
        fix = "if nothing is known where nothing is outlined, use --classes background,... --unlabelled-value 0"
        raise BadImageError(source, f"holds outlines, which have no number {silent}", fix)
    without = next((one for one in drawn if one.name is None and not one.unsaid), None)
    if sample.named:
        for one in drawn:
            if one.name in named and one.name not in sample.named:
                what = f"outlines the class {one.name}{suggest(one.name, sample.named)} ({one.place})"
                fix = f"name it too, or end its name in * if it says nothing: --classes names {', '.join(sample.named)}"
                raise BadImageError(source, what, fix)
        if without is not None:
            raise BadImageError(source, f"has an outline without a class ({without.place})", "give it a class")
    elif not sample.instances:
        if len(named) > 1:
            what = f"outlines {len(named)} classes ({few(named, 4)})"
            raise BadImageError(source, what, f"name them with --classes {','.join(named)}")
        if named and without is not None:
            what = f"outlines the class {named[0]}, and an object without a class ({without.place})"
            raise BadImageError(source, what, "give all of them a class, or remove those without")
        value = f"class {named[0]}" if named else ""
    elif len(named) > 1:
        notes.append(f"outlines the classes {', '.join(named)}: all of them are foreground")
    rest = UNSAID if silent == 0 else 0
    labels = [_label(sample, one) for one in drawn]
    if not rest and 0 in labels:
        notes.append("outlines background, and what is not outlined is background, too (see --unlabelled-value 0)")
    if ignored := sum(_says_nothing(one) and not one.unsaid for one in drawn):
        notes.append(f"{ignored} of {len(drawn)} outlines have a name that ends in *: nothing is said there")
    return labels, rest, notes, value


def _label(sample: Sample, one: Drawn) -> int:
    if _says_nothing(one):
        return UNSAID
    if _is_background(sample, one):
        return 0
    if not sample.named:
        return 1
    assert one.name is not None
    number = sample.named.index(one.name) + 1
    if number == sample.unlabelled:
        return UNSAID
    return number - (sample.unlabelled is not None and number > sample.unlabelled)


def _says_nothing(one: Drawn) -> bool:
    return one.unsaid or (one.name or "").endswith("*")


def _is_background(sample: Sample, one: Drawn) -> bool:
    return one.name is not None and one.name not in sample.named and one.name.casefold() == _BACKGROUND


def _printable(name: str) -> str:
    """A class as it is compared and shown: JSON can hold halves of characters, which nothing can print."""
    return " ".join(name.encode("utf-8", "backslashreplace").decode().split())
