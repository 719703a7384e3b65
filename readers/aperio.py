"""Outlines drawn in Aperio ImageScope -> masks, and the MoNuSeg challenge's own layout, which uses them.

    DIR/
        MoNuSeg 2018 Training Data/Tissue Images/*.tif, .../Annotations/*.xml
        MoNuSegTestData/*.tif, *.xml
        texts.csv    of our own making: columns image and text, and if you like split and group

Any folders will do: an image belongs to the outlines of its name, and it is a test image if a folder above it is
called after the test. The challenge (https://monuseg.grand-challenge.org/Data/) comes without texts and without a
validation set.
"""

__all__ = ["Outline", "covered_pixels", "outlines_of", "rasterise", "rasterise_part", "read_aperio", "read_monuseg"]

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.images.formats import BadImageError
from textdiff.options.reading import ReadOptions
from textdiff.readers.lvit import read_lvit
from textdiff.readers.names import error, is_utf8, key_of, note, relative, sort_problems, unique_ids
from textdiff.readers.outlines import Corners, Drawn, check_work, ellipse, inside
from textdiff.readers.sample import Problem, Sample, Split
from textdiff.readers.splits import draw_splits, parse_split, settle_splits
from textdiff.readers.texts import find_table, matched_texts, read_texts

_MAX_BYTES = 32 << 20
_TEST = re.compile("(monuseg)?test(s|ing)?(sets?|data|images?|imgs?|cases?)?")
_ELLIPSE, _LINES = "2", {"3": "arrows", "4": "rulers"}
"""ImageScope's types of regions; all others are polygons."""


@dataclass(frozen=True)
class Outline:
    """One region."""

    corners: Corners
    layer: int = 0
    excluded: bool = False
    """Whether it is cut out of the others of its layer."""
    name: str | None = None
    """What its layer is called; None without a name."""
    place: str = ""
    """Where it stands in its file."""


def read_monuseg(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Reads MoNuSeg in the LViT layout or, if there are ``.xml`` outlines, in the challenge's own.

    Raises:
        UserError: as ``read_lvit`` and ``read_folder``.
    """
    if root.is_dir() and not (root / "Train_Folder").is_dir() and next(root.glob("**/*.xml"), None) is not None:
        return _read_challenge(root, options)
    return read_lvit(root, options)


def outlines_of(path: str | os.PathLike[str], data: bytes) -> tuple[list[Outline], list[str]]:
    """The regions in an ImageScope file, in its order, and what a user should know, one phrase each.

    A freehand region or a rectangle is a polygon; an ellipse is given by two corners of its box, and becomes a polygon
    of 180 corners. Rulers, arrows and polygons of fewer than three corners enclose nothing and are left out.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: not XML, not ImageScope's, XML with entities or other definitions, too large, or a corner
            without numbers.
    """
    outlines, notes = _regions(path, data)
    layers = {outline.layer: outline.name or f"layer {outline.layer + 1}" for outline in outlines}
    if len(layers) > 1:
        names = ", ".join(layers.values())
        notes.insert(0, f"has {len(layers)} annotation layers ({names}): the outlines of all of them are taken")
    return outlines, notes


def read_aperio(path: str | os.PathLike[str], data: bytes) -> tuple[list[Drawn], list[str]]:
    """The regions in an ImageScope file as objects whose class is what their layer is called, and notes.

    A layer has its own name, or that of its first attribute with one, as MoNuSAC writes it
    (https://monusac-2020.grand-challenge.org/Data/); the attribute ``Description``, which ImageScope adds, has its
    value for a name.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: as ``outlines_of``.
    """
    outlines, notes = _regions(path, data)
    cut: dict[int, list[Corners]] = {}
    for outline in outlines:
        if outline.excluded:
            cut.setdefault(outline.layer, []).append(outline.corners)
    drawn = []
    for outline in outlines:
        if not outline.excluded:
            low, high = outline.corners.min(0), outline.corners.max(0)
            holes = [hole for hole in cut.get(outline.layer, ()) if np.all((hole.max(0) > low) & (hole.min(0) < high))]
            drawn.append(Drawn(outline.place, outline.name, ((outline.corners, *holes),)))
    return drawn, notes


def _regions(path: str | os.PathLike[str], data: bytes) -> tuple[list[Outline], list[str]]:
    """What ``outlines_of`` gives, with nothing said of the layers."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    fix = "export the annotations from ImageScope again"
    if len(data) > _MAX_BYTES:
        raise BadImageError(path, f"has {len(data) >> 20} MB, too many for the outlines in one image", "split them")
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        # Entities can expand to gigabytes or read other files; ImageScope writes none.
        raise BadImageError(path, "defines XML entities, which outlines never need", fix) from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadImageError(path, f"is not XML ({error})", fix) from error
    if tree.tag != "Annotations":
        raise BadImageError(path, f"is not an ImageScope file (its root is {tree.tag})", fix)
    outlines, left_out = list[Outline](), Counter[str]()
    layers = [layer for layer in tree.iter("Annotation") if next(layer.iter("Region"), None) is not None]
    for number, layer in enumerate(layers):
        name, where = _layer_name(layer), f"layer {layer.get('Id', 'without Id')}"
        for region in layer.iter("Region"):
            points = _points(path, region, fix)
            kind = region.get("Type", "0")
            if kind == _ELLIPSE and len(points) == 2:
                points = ellipse(points)
            if kind in _LINES:
                left_out[f"{_LINES[kind]} (Type {kind})"] += 1
            elif len(points) < 3:
                left_out["polygons of fewer than three corners"] += 1
            else:
                place = f"region {region.get('Id', 'without Id')} of {where}"
                outlines.append(Outline(points, number, _is_excluded(path, region, fix), name, place))
    total = len(outlines) + sum(left_out.values())
    if total != sum(1 for _ in tree.iter("Region")):
        raise BadImageError(path, "has outlines outside of its layers (Annotation)", fix)
    notes = [
        f"{count} of {total} outlines are {what}, which enclose nothing (ignored)" for what, count in left_out.items()
    ]
    if cut := sum(outline.excluded for outline in outlines):
        notes.append(f"{cut} of {total} outlines are excluded areas (NegativeROA): cut out of their layer")
    return outlines, notes


def _layer_name(layer: Any) -> str | None:
    names = [layer.get("Name")]
    for attribute in layer.iterfind("Attributes/Attribute"):
        name = attribute.get("Name")
        names.append(attribute.get("Value") or (None if name == "Description" else name))
    return next((name for name in names if name and name.strip()), None)


def _points(path: str | os.PathLike[str], region: Any, fix: str) -> Corners:
    name = region.get("Id", "without Id")
    try:
        points = [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        raise BadImageError(path, f"region {name} has a corner without X and Y", fix) from error
    corners = np.array(points, np.float64).reshape(-1, 2)
    if not (np.abs(corners) < 1e9).all():
        raise BadImageError(path, f"region {name} has a corner that is not finite", fix)
    return corners


def _is_excluded(path: str | os.PathLike[str], region: Any, fix: str) -> bool:
    value = region.get("NegativeROA", "0").strip().lower()
    if value not in ("", "0", "1", "false", "true"):
        raise BadImageError(path, f"region {region.get('Id', 'without Id')} has NegativeROA {value}, not 0 or 1", fix)
    return value in ("1", "true")


def rasterise(
    path: str | os.PathLike[str], outlines: Sequence[Outline], height: int, width: int
) -> tuple[NDArray[np.uint32], list[str]]:
    """Numbers the pixels inside each outline by its place in the list, from 1, excluded ones not counted.

    Where outlines overlap the first one keeps its pixels, as in the challenge's own script. Excluded areas are cut out
    of their layer first.

    Returns:
        (height, width) uint32, and what a user should know, one phrase each.

    Raises:
        BadImageError: no outline is in the image, or they would take minutes.
    """
    instances = np.zeros((height, width), np.uint32)
    kept = [outline for outline in outlines if not outline.excluded]
    check_work(path, [outline.corners for outline in outlines], height, width)
    outside = covered = 0
    layer, holes = -1, None
    for number, outline in enumerate(kept, 1):
        if outline.layer != layer:
            layer, holes = outline.layer, _holes(outlines, outline.layer, height, width)
        box, held, _ = inside(outline.corners, height, width)
        free = held & (instances[box] == 0)
        if holes is not None:
            free &= ~holes[box]
        instances[box][free] = number
        beyond = outline.corners.max(0) <= 0, outline.corners.min(0) >= (width, height)
        outside += bool(np.any(beyond))
        covered += not np.any(beyond) and not free.any()
    if kept and outside == len(kept):
        size = f"{width}x{height}"
        raise BadImageError(path, f"has all its outlines outside the image of {size} pixels", "is it another image's?")
    notes = [f"{outside} of {len(kept)} outlines lie outside the image (ignored)"] if outside else []
    if covered:
        notes.append(f"{covered} of {len(kept)} outlines hold no pixel of their own (ignored)")
    return instances, notes


def rasterise_part(outlines: Sequence[Outline], y: int, x: int, height: int, width: int) -> NDArray[np.uint32]:
    """What ``rasterise`` draws in the part (height, width) of a larger image that begins at (y, x), uint32."""
    near: list[tuple[int, Outline]] = []
    number = 0
    for outline in outlines:
        number += not outline.excluded
        low, high = outline.corners.min(0), outline.corners.max(0)
        if high[0] > x and high[1] > y and low[0] < x + width and low[1] < y + height:
            near.append((number, Outline(outline.corners - (x, y), outline.layer, outline.excluded)))
    instances = np.zeros((height, width), np.uint32)
    holes = {layer: _holes([one for _, one in near], layer, height, width) for layer in {one.layer for _, one in near}}
    for number, outline in near:
        if not outline.excluded:
            box, held, _ = inside(outline.corners, height, width)
            free = held & (instances[box] == 0)
            if (cut := holes[outline.layer]) is not None:
                free &= ~cut[box]
            instances[box][free] = number
    return instances


def covered_pixels(outlines: Sequence[Outline], height: int, width: int) -> int:
    """About how many pixels of an image the outlines enclose, by their areas; overlaps count twice."""
    total = 0.0
    for outline in outlines:
        x, y = outline.corners.clip(0, (width, height)).T
        area = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
        total += -area if outline.excluded else area
    return max(0, round(total))


def _holes(outlines: Sequence[Outline], layer: int, height: int, width: int) -> NDArray[np.bool_] | None:
    """Which pixels are excluded from a layer; None if it has no excluded areas."""
    excluded = [outline for outline in outlines if outline.excluded and outline.layer == layer]
    if not excluded:
        return None
    holes = np.zeros((height, width), bool)
    for outline in excluded:
        box, held, _ = inside(outline.corners, height, width)
        holes[box] |= held
    return holes


def _read_challenge(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    if options.classes:
        raise UserError(f"--classes: the outlines in {root} tell nuclei apart, not classes; leave the option out")
    if options.unlabelled_value is not None:
        raise UserError(f"--unlabelled-value: the outlines in {root} say all; leave the option out")
    if options.test is not None:
        raise UserError(f"--test: {root} has its own test images; leave the option out")
    problems: list[Problem] = []
    files: dict[str, list[Path]] = {}
    outlines: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*")):
        ending, hidden = path.suffix.lower(), any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or ending not in (".tif", ".tiff", ".xml") or not path.is_file():
            continue
        if not is_utf8(str(path.relative_to(root))):
            problems.append(error(relative(root, path), "has a name that is not UTF-8", "rename it"))
        else:
            (outlines if ending == ".xml" else files).setdefault(key_of(path.name), []).append(path)
    for key in sorted(outlines.keys() - files.keys()):
        where = relative(root, outlines[key][0])
        problems.append(error(where, "are outlines without an image", "add the image or remove it"))
    table = find_table(root)
    rows = read_texts(table) if table else []
    texts = matched_texts(table.name if table else "", rows, files, problems)
    if table is None:
        problems.append(note("texts.csv", "is not there: all texts are empty", "the challenge comes without any"))
    samples = []
    for key, paths in files.items():
        where, own = relative(root, paths[0]), outlines.get(key, [])
        row = texts.get(key)
        if own[1:]:
            what = f"are second outlines of {where}"
            problems.append(error(relative(root, own[1]), what, "keep one of them"))
        elif key in texts and row is None:
            continue
        else:
            if not own:
                problems.append(note(where, "has no outlines: it is unlabelled"))
            if table and row is None:
                problems.append(note(where, f"has no row in {table.name}: its text is empty"))
            named = parse_split(row.split) if row else None
            split = named or _split_of(paths[0].relative_to(root))
            group = (row.group if row else "") or _patient(key)
            mask = own[0] if own else None
            for path in paths:
                samples.append(Sample(key, split, path, mask, row.text if row else "", group, instances=True))
    samples = unique_ids(root, samples, problems)
    if options.draws:
        training = [sample for sample in samples if sample.split == "train"]
        samples = [sample for sample in samples if sample.split != "train"] + draw_splits(training, options)
    return settle_splits(root.name, samples, problems, ReadOptions(), given=True), sort_problems(problems)


def _split_of(path: Path) -> Split:
    """By the words in its folders' names: ``MoNuSegTestData`` and ``test_images`` are of the test, not ``latest``."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", " ".join(path.parts[:-1]))]
    if any(map(_TEST.fullmatch, words)):
        return "test"
    return "val" if "val" in map(parse_split, words) else "train"


def _patient(name: str) -> str:
    """The patient in a name of The Cancer Genome Atlas (TCGA-18-5592-01Z-...), else nothing."""
    found = re.match(r"TCGA-\w+-\w+", name)
    return found.group() if found else ""
