"""One image that is too large to be held, or a slide: read, predicted and written tile by tile, with its objects."""

__all__ = ["Streaming", "segment_streamed"]

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.images.bands import BandedImage, open_image_bands
from textdiff.images.pixel_size import PixelSize
from textdiff.images.scaled import Scaled
from textdiff.images.tiff_writer import PIECE, tiff_writer
from textdiff.images.tiles import Band, Grid, background, cut, reblock, stitch
from textdiff.images.tissue import tissue_places
from textdiff.metrics.calibration import Agreement
from textdiff.metrics.object_stream import ObjectStream, WholeObject, draw_runs
from textdiff.outputs import FORMATS
from textdiff.outputs.objects import Found, object_record, significant
from textdiff.outputs.polygons import Polygon, trace
from textdiff.outputs.stream import Sink, Streamed
from textdiff.pipeline.predictions import most_likely

LARGEST_TRACED = 1 << 25
"""Pixels of an object's box beyond which its outline, and only that, is drawn from every second pixel, or fewer."""


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """What is asked of an image that comes in parts."""

    name: str
    class_names: tuple[str, ...]
    grid: Callable[[int, int], Grid | None]
    """The tiles for a height and a width; None if the run knows none."""
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """Probabilities (members, classes, size, size) of a tile, RGB (size, size, 3)."""
    together: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """What all members stand for, (classes, h, w), of their probabilities (members, classes, h, w)."""
    pictures: Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
    """Further maps of some pixels' probabilities, (h, w) each, by the end of a file's name."""
    told: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.asarray
    """What is told of what they stand for, (classes, h, w): the same at the run's temperature; as it is by default."""
    formats: Sequence[str] = ()
    """Those beside the TIFFs; each must have a ``stream``."""
    pixel_size: PixelSize | None = None
    """Size of a pixel of an image that is no slide, where it is known."""
    min_area: int = 0
    tissue: float = 0.0
    """Share of a slide's tile that must be tissue; other tiles are background."""


@dataclass
class _Totals:
    """What is counted of an image."""

    objects: list[int]
    areas: list[int]
    """In pixels of the rows that come."""
    likelihood: float = 0.0
    agreement: Agreement | None = None
    notes: list[str] = field(default_factory=list)


def segment_streamed(
    source: Path | Scaled, base: Path, objects: Path, asked: Streaming
) -> tuple[list[Path], dict[str, Any]]:
    """Segments one image by tiles; writes its mask and maps as TIFFs, its objects, and what formats are asked for.

    What is held is a row of tiles of the image and of its probabilities, from the first tissue in it to the last, and
    the objects that reach into it, whatever the image's height. Every file appears when all of them are complete.

    Args:
        source: the image, see ``open_image_bands``.
        base: where to write, without the ends of the names.
        objects: the file that gets a line of JSON for each object, as ``object_record`` makes it.
        asked: what is asked for.

    Returns:
        The paths of the files, without ``objects``; and the line of ``images.csv`` as far as it is known here.

    Raises:
        UserError: the run was not fitted on tiles, or the file cannot be read in bands.
    """
    with ExitStack() as files:
        image = files.enter_context(open_image_bands(source))
        grid = asked.grid(image.height, image.width)
        if grid is None:
            raise UserError(
                f"{source}: has {image.width}x{image.height} pixels, and this run sees an image as a whole, reduced to "
                "a few hundred pixels; use a run on a cache of `textdiff extract --tile 256`"
            )
        places, tissue = _places(image, grid, asked.tissue)
        streamed = _streamed(image, asked)
        written = {kind: base.with_name(f"{base.name}{FORMATS[kind].suffix}") for kind in asked.formats}
        sinks: list[Sink] = []
        for kind, path in written.items():
            stream = FORMATS[kind].stream
            assert stream is not None
            sinks.append(files.enter_context(stream(path, streamed)))
        lines = files.enter_context(files.enter_context(atomic_path(objects)).open("w", encoding="utf-8"))
        spool = files.enter_context(tempfile.TemporaryFile())
        totals = _Totals([0] * len(asked.class_names), [0] * len(asked.class_names))
        kept, maps = _first_pass(image, grid, places, streamed, asked, sinks, lines, spool, totals, files, base)
        mask = base.with_name(f"{base.name}.tif")
        _second_pass(spool, kept, streamed, sinks, files.enter_context(tiff_writer(mask, _shape(image), np.uint8)))
        summary = base.with_name(f"{base.name}_summary.json")
        line = _line(streamed, totals, tissue, len(places), len(grid))
        partial = files.enter_context(atomic_path(summary))
        partial.write_text(json.dumps(_summary(line, streamed, totals), ensure_ascii=False, indent=1) + "\n", "utf-8")
    return [mask, *maps, *written.values(), summary], line


def _shape(image: BandedImage) -> tuple[int, int]:
    return image.height, image.width


def _places(image: BandedImage, grid: Grid, least: float) -> tuple[list[tuple[int, int]], float | None]:
    if image.view is None or not least:
        return grid.places, None
    return tissue_places(image.view, grid, least)


def _streamed(image: BandedImage, asked: Streaming) -> Streamed:
    view = image.view
    return Streamed(
        name=asked.name,
        class_names=asked.class_names,
        pixel_size=asked.pixel_size if view is None else view.slide.pixel_size,
        height=image.height,
        width=image.width,
        scale=(1.0, 1.0) if view is None else view.scale,
    )


def _first_pass(
    image: BandedImage,
    grid: Grid,
    places: list[tuple[int, int]],
    streamed: Streamed,
    asked: Streaming,
    sinks: Sequence[Sink],
    lines: IO[str],
    spool: IO[bytes],
    totals: _Totals,
    files: ExitStack,
    base: Path,
) -> tuple[NDArray[np.uint8], list[Path]]:
    """Predicts, finds the objects and writes them and the maps; the runs of pixels of each band go to ``spool``.

    Returns:
        The class of each object by its number, and its final number; and the paths of the maps.
    """
    stream = ObjectStream()
    classes: dict[int, int] = {}
    writers: dict[str, Callable[..., None]] = {}
    paths: list[Path] = []

    def end(found: list[WholeObject]) -> None:
        for one in found:
            if one.area < asked.min_area:
                continue
            classes[one.number] = one.class_number
            totals.objects[one.class_number - 1] += 1
            totals.areas[one.class_number - 1] += one.area
            totals.likelihood += float(one.sums[2])
            what = _found(one, streamed.scale)
            lines.write(json.dumps(object_record(streamed, what), ensure_ascii=False) + "\n")
            if sinks:
                polygons = _outline(one, totals)
                for sink in sinks:
                    sink.found(what, polygons)

    # Two members will do for all runs: of some the first is what the others stand for together.
    nothing = asked.pictures(background((2, len(asked.class_names) + 1, 1, 1)))
    for suffix, picture in nothing.items():
        paths.append(base.with_name(f"{base.name}{suffix}.tif"))
        maker = tiff_writer(paths[-1], _shape(image), picture.dtype, picture.item())
        writers[suffix] = files.enter_context(maker)
    with console.Progress(len(places), f"predict {base.name}", "tiles") as progress:
        for _, left, block in reblock(_bands(image, grid, places, asked, sinks, progress), PIECE):
            if not block.size:
                for suffix, write in writers.items():
                    write(np.zeros((block.shape[-2], 0), nothing[suffix].dtype), left)
                end(stream.skip(block.shape[-2]))
                np.save(spool, np.zeros((0, 4), np.int32), allow_pickle=False)
                continue
            for suffix, picture in asked.pictures(block).items():
                writers[suffix](picture, left)
            probability = asked.together(block)
            labels, told = most_likely(probability)[0], asked.told(probability)
            part = Agreement.of(told, labels)
            totals.agreement = part if totals.agreement is None else totals.agreement.plus(part)
            ended, runs, numbers = stream.add(labels, told.max(0), left)
            np.save(spool, np.column_stack([runs, numbers]).astype(np.int32), allow_pickle=False)
            end(ended)
        end(stream.finish())
    final = stream.final_numbers()
    of_class = np.zeros(stream.count + 1, np.int32)
    of_class[list(classes)] = list(classes.values())
    return np.stack([of_class[final], np.where(of_class[final] > 0, final, 0)]), paths


def _bands(
    image: BandedImage,
    grid: Grid,
    places: list[tuple[int, int]],
    asked: Streaming,
    sinks: Sequence[Sink],
    progress: console.Progress,
) -> Iterator[Band]:
    """Bands of the stitched probabilities (members, classes, h, w)."""

    def predicted(y: int, x: int, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        for sink in sinks:
            sink.tile(y, x, pixels)
        found = asked.predict(cut(pixels, 0, 0, grid.size))
        progress.advance()
        return found

    def tiles() -> Iterator[NDArray[np.float32]]:
        for y, row in groupby(places, lambda place: place[0]):
            height = min(grid.size, image.height - y)
            # A TIFF in strips would be decoded anew for each tile of a row; of a slide most of a row may be glass.
            rows = image.read(y, y + height) if image.view is None else None
            for _, x in row:
                width = min(grid.size, image.width - x)
                pixels = image.region(y, x, height, width) if rows is None else rows[:, x : x + width]
                yield predicted(y, x, pixels)

    if places:
        return stitch(grid, tiles(), places)
    return iter([Band(0, 0, np.zeros((1, len(asked.class_names) + 1, image.height, 0), np.float32))])


def _found(one: WholeObject, scale: tuple[float, float]) -> Found:
    """An object in pixels of the finest level."""
    (along_x, along_y), (left, top, right, bottom) = scale, one.corners
    first = (int(left * along_x), int(top * along_y))
    last = (int(np.ceil(right * along_x - 1e-6)), int(np.ceil(bottom * along_y - 1e-6)))
    return Found(
        one.number,
        one.class_number,
        round(one.area * along_x * along_y),
        (float(one.sums[0]) / one.area * along_x, float(one.sums[1]) / one.area * along_y),
        (*first, last[0] - first[0], last[1] - first[1]),
        float(one.sums[2]) / one.area,
    )


def _outline(one: WholeObject, totals: _Totals) -> list[Polygon]:
    """The polygons of an object in pixels of the rows that come; coarser where it is huge."""
    left, top, right, bottom = one.corners
    step = max(1, int(np.ceil(((right - left) * (bottom - top) / LARGEST_TRACED) ** 0.5)))
    mask = one.mask(step)
    if step > 1:
        what = "objects so large that their outlines are coarser than the mask"
        totals.notes = [what] if what not in totals.notes else totals.notes
    return [
        Polygon(shell * step + (left, top), [hole * step + (left, top) for hole in holes])
        for shell, holes in trace(mask)
    ]


def _second_pass(
    spool: IO[bytes],
    kept: NDArray[Any],
    streamed: Streamed,
    sinks: Sequence[Sink],
    write: Callable[..., None],
) -> None:
    """Draws the runs again, now that it is known which of them are one object and which are too small."""
    spool.seek(0)
    white = 255 if len(streamed.class_names) == 1 else 1
    for y in range(0, streamed.height, PIECE):
        height, band = min(PIECE, streamed.height - y), np.load(spool, allow_pickle=False)
        if not len(band):
            write(np.zeros((height, 0), np.uint8), 0)
            continue
        left, right = int(band[:, 1].min()), int(band[:, 2].max())
        runs, shape = band[:, :3] - (0, left, left), (height, right - left)
        of_class, number = kept[0][band[:, 3]], kept[1][band[:, 3]]
        labels = draw_runs(runs, of_class.astype(np.int16), shape).astype(np.uint8)
        write(labels * np.uint8(white), left)
        if sinks:
            objects = draw_runs(runs, number.astype(np.int32), shape)
            for sink in sinks:
                sink.rows(y, left, labels, objects)


def _line(streamed: Streamed, totals: _Totals, tissue: float | None, looked_at: int, tiles: int) -> dict[str, Any]:
    """What was found, for a line of ``images.csv``; areas are in pixels of the finest level."""
    area, per_pixel = sum(totals.areas), streamed.scale[0] * streamed.scale[1]
    named = zip(streamed.class_names, totals.objects, strict=True)
    line: dict[str, Any] = {
        "objects": sum(totals.objects),
        "area": round(area * per_pixel),
        "share": round(area / (streamed.height * streamed.width), 6),
        "counts": " ".join(f"{name}={count}" for name, count in named),
    }
    if area:
        line["probability"] = round(totals.likelihood / area, 6)
    if streamed.pixel_size is not None:
        square = area * per_pixel * streamed.pixel_area
        line |= {"area_um2": significant(square), "area_mm2": significant(square / 1e6)}
    if tissue is not None:
        line["tissue_mm2"] = significant(tissue)
        if tissue:
            line["objects_per_mm2"] = significant(sum(totals.objects) / tissue)
    # Where all was left out, nothing is expected and nothing found.
    line["expected_dice"] = 1.0 if totals.agreement is None else totals.agreement.dice
    if looked_at < tiles:
        totals.notes.append(f"{tiles - looked_at} of {tiles} tiles show no tissue and are background")
    return line | {"notes": totals.notes}


def _summary(line: dict[str, Any], streamed: Streamed, totals: _Totals) -> dict[str, Any]:
    """The same by classes, JSON-able."""
    square = streamed.scale[0] * streamed.scale[1] * streamed.pixel_area / 1e6
    tissue = line.get("tissue_mm2")
    classes = {}
    for name, count, area in zip(streamed.class_names, totals.objects, totals.areas, strict=True):
        facts: dict[str, Any] = {"objects": count}
        if square:
            facts["area_mm2"] = significant(area * square)
        if tissue:
            facts |= {
                "objects_per_mm2": significant(count / tissue),
                "share_of_tissue": significant(area * square / tissue),
            }
        classes[name] = facts
    size = streamed.pixel_size
    return {
        "image": streamed.name,
        "width": round(streamed.width * streamed.scale[0]),
        "height": round(streamed.height * streamed.scale[1]),
        "pixel_um": size,
        "mask_pixel_um": None if size is None else [size[axis] * streamed.scale[axis] for axis in (0, 1)],
        "tissue_mm2": tissue,
        "classes": classes,
        "notes": line["notes"],
    }
