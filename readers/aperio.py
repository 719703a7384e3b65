"""Outlines drawn in Aperio ImageScope -> masks, and the MoNuSeg challenge's own layout, which uses them.

    DIR/
        MoNuSeg 2018 Training Data/Tissue Images/*.tif, .../Annotations/*.xml
        MoNuSegTestData/*.tif, *.xml
        texts.csv    of our own making: columns image and text, and if you like split and group

Any folders will do: an image belongs to the outlines of its name, and it is a test image if a folder above it is
called after the test. The challenge (https://monuseg.grand-challenge.org/Data/) comes without texts and without a
validation set.
"""

__all__ = ["outlines_of", "rasterise", "read_monuseg"]

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.pipeline.imaging.formats import BadImageError
from textdiff.pipeline.sample import Problem, Sample, Split
from textdiff.readers.lvit import read_lvit
from textdiff.readers.names import error, key_of, note, relative, sort_problems, unique_ids
from textdiff.readers.splits import draw_splits, parse_split, settle_splits
from textdiff.readers.texts import find_table, matched_texts, read_table

Outline = NDArray[np.float64]
"""(n, 2): the corners (x, y) of a polygon in pixels, the upper left corner of the image at (0, 0)."""

_MAX_VERTICES = 5_000_000


def read_monuseg(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Reads MoNuSeg in the LViT layout or, if there are ``.xml`` outlines, in the challenge's own.

    Raises:
        UserError: as ``read_lvit`` and ``read_folder``.
    """
    if root.is_dir() and not (root / "Train_Folder").is_dir() and next(root.glob("**/*.xml"), None) is not None:
        return _read_challenge(root, options)
    return read_lvit(root, options)


def outlines_of(path: str | os.PathLike[str], data: bytes) -> list[Outline]:
    """The polygons in an ImageScope file, in its order; those with fewer than three corners are left out.

    Regions that ImageScope marks as excluded (``NegativeROA``) are left out as well.

    Args:
        path: of the file; names it in errors.
        data: its bytes.

    Raises:
        BadImageError: not XML, not ImageScope's, XML with entities or other definitions, or a corner without numbers.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    fix = "export the annotations from ImageScope again"
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        # Entities can expand to gigabytes or read other files; ImageScope writes none.
        raise BadImageError(path, "defines XML entities, which outlines never need", fix) from error
    except (ParseError, ValueError) as error:
        raise BadImageError(path, f"is not XML ({error})", fix) from error
    if tree.tag != "Annotations":
        raise BadImageError(path, f"is not an ImageScope file (its root is {tree.tag})", fix)
    outlines, corners = [], 0
    for region in tree.iter("Region"):
        try:
            points = [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
        except (KeyError, ValueError) as error:
            name = region.get("Id", "without Id")
            raise BadImageError(path, f"region {name} has a corner without X and Y", fix) from error
        outline = np.array(points, np.float64).reshape(-1, 2)
        if not np.isfinite(outline).all():
            raise BadImageError(path, f"region {region.get('Id')} has a corner that is not finite", fix)
        corners += len(points)
        if corners > _MAX_VERTICES:
            raise BadImageError(path, f"has more than {_MAX_VERTICES} corners", "split the annotations")
        if len(points) >= 3 and region.get("NegativeROA", "0") != "1":
            outlines.append(outline)
    return outlines


def rasterise(
    path: str | os.PathLike[str], outlines: Sequence[Outline], height: int, width: int
) -> tuple[NDArray[np.uint32], list[str]]:
    """Numbers the pixels inside each outline by its place in the list, from 1.

    A pixel is inside if its centre is, half a pixel right of and below its corner. Where outlines overlap the first
    one keeps its pixels, as in the challenge's own script.

    Returns:
        (height, width) uint32, and what a user should know, one phrase each.

    Raises:
        BadImageError: no outline is in the image.
    """
    from skimage.draw import polygon

    instances = np.zeros((height, width), np.uint32)
    outside = covered = 0
    for number, outline in enumerate(outlines, 1):
        corners = outline[:, 1] - 0.5, outline[:, 0] - 0.5
        rows, columns = polygon(*corners, (height, width))
        free = instances[rows, columns] == 0
        instances[rows[free], columns[free]] = number
        beyond = outline.max(0) <= 0, outline.min(0) >= (width, height)
        outside += bool(np.any(beyond))
        covered += not np.any(beyond) and not free.any()
    if outlines and outside == len(outlines):
        size = f"{width}x{height}"
        raise BadImageError(path, f"has all its outlines outside the image of {size} pixels", "is it another image's?")
    notes = [f"{outside} of {len(outlines)} outlines lie outside the image (ignored)"] if outside else []
    if covered:
        notes.append(f"{covered} of {len(outlines)} outlines hold no pixel of their own (ignored)")
    return instances, notes


def _read_challenge(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    if options.classes:
        raise UserError(f"--classes: the outlines in {root} tell nuclei apart, not classes; leave the option out")
    if options.test is not None:
        raise UserError(f"--test: {root} has its own test images; leave the option out")
    problems: list[Problem] = []
    files: dict[str, list[Path]] = {}
    outlines: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*")):
        ending, hidden = path.suffix.lower(), any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and ending in (".tif", ".tiff", ".xml"):
            (outlines if ending == ".xml" else files).setdefault(key_of(path.name), []).append(path)
    for key in sorted(outlines.keys() - files.keys()):
        where = relative(root, outlines[key][0])
        problems.append(error(where, "are outlines without an image", "add the image or remove it"))
    table = find_table(root)
    rows = read_table(table) if table else []
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
    return "test" if any("test" in part.lower() for part in path.parts[:-1]) else "train"


def _patient(name: str) -> str:
    """The patient in a name of The Cancer Genome Atlas (TCGA-18-5592-01Z-...), else nothing."""
    found = re.match(r"TCGA-\w+-\w+", name)
    return found.group() if found else ""
