"""One image that is too large to be held, or a slide: read, predicted and written tile by tile, with its objects."""

__all__ = ["Streaming", "segment_streamed"]

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from textdiff.metrics.object_stream import WholeObject, draw_runs
from textdiff.outputs import FORMATS
from textdiff.outputs.format import Sink, Streamed
from textdiff.outputs.objects import Found, object_record, significant
from textdiff.outputs.polygons import Polygon, trace
from textdiff.pipeline.prediction.found_in_parts import FoundInParts
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
        work = _Work(image, grid, asked, base, files)
        lines = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        spool = files.enter_context(tempfile.TemporaryFile())
        work.second_pass(spool, work.first_pass(lines, spool))
        work.write_objects(files.enter_context(atomic_path(objects)), lines)
        line = work.line()
        partial = files.enter_context(atomic_path(work.written[-1]))
        partial.write_text(json.dumps(work.summary(line), ensure_ascii=False, indent=1) + "\n", "utf-8")
    return work.written, line


class _Work:
    """One image on its way through both passes, the files that it is written to, and what is counted of it."""

    def __init__(self, image: BandedImage, grid: Grid, asked: Streaming, base: Path, files: ExitStack) -> None:
        self._image, self._grid, self._asked, self._name = image, grid, asked, base
        view, classes = image.view, len(asked.class_names)
        self._places, self._tissue = grid.places, None
        if view is not None and asked.tissue:
            self._places, self._tissue = tissue_places(view, grid, asked.tissue)
        self._streamed = Streamed(
            name=asked.name,
            class_names=asked.class_names,
            pixel_size=asked.pixel_size if view is None else view.slide.pixel_size,
            height=image.height,
            width=image.width,
            scale=(1.0, 1.0) if view is None else view.scale,
        )
        self._found, self._notes = FoundInParts(self._streamed, asked.min_area), list[str]()
        self._agreement = Agreement(*np.zeros((4, classes)))
        # Two members will do for all runs: of some the first is what the others stand for together.
        self._nothing = asked.pictures(background((2, classes + 1, 1, 1)))
        pictures = {"": np.zeros((1, 1), np.uint8), **self._nothing}
        shape, tiffs = (image.height, image.width), {suffix: self._path(f"{suffix}.tif") for suffix in pictures}
        self._write = {
            suffix: files.enter_context(tiff_writer(tiffs[suffix], shape, picture.dtype, picture.item()))
            for suffix, picture in pictures.items()
        }
        streams = {self._path(FORMATS[kind].suffix): FORMATS[kind].stream for kind in asked.formats}
        self._sinks: list[Sink] = [
            files.enter_context(stream(path, self._streamed)) for path, stream in streams.items() if stream is not None
        ]
        self.written = [*tiffs.values(), *streams, self._path("_summary.json")]

    def _path(self, end: str) -> Path:
        return self._name.with_name(f"{self._name.name}{end}")

    def first_pass(self, lines: IO[str], spool: IO[bytes]) -> NDArray[np.int32]:
        """Predicts, finds the objects and writes them and the maps; the runs of pixels of each band go to ``spool``.

        Returns:
            The class of each object by its number, and its final number.
        """
        found = self._found

        def write(whole: Sequence[tuple[WholeObject, Found]]) -> None:
            lines.writelines(json.dumps(self._told(*one), ensure_ascii=False) + "\n" for one in whole)

        with console.Progress(len(self._places), f"predict {self._name.name}", "tiles") as progress:
            for y, left, block in reblock(self._bands(progress), PIECE):
                if not block.size:
                    for suffix, picture in self._nothing.items():
                        self._write[suffix](np.zeros((block.shape[-2], 0), picture.dtype), left)
                    write(found.skip(block.shape[-2]))
                    np.save(spool, np.zeros((0, 4), np.int32), allow_pickle=False)
                    continue
                for suffix, picture in self._asked.pictures(block).items():
                    self._write[suffix](picture, left)
                probability = self._asked.together(block)
                labels, told = most_likely(probability)[0], self._asked.told(probability)
                self._agreement = self._agreement.plus(Agreement.of(told, labels))
                whole, runs = found.add(y, left, labels, told.max(0))
                np.save(spool, runs, allow_pickle=False)
                write(whole)
            write(found.finish())
        return found.kept()

    def _bands(self, progress: console.Progress) -> Iterator[Band]:
        """Bands of the stitched probabilities (members, classes, h, w)."""
        image, grid = self._image, self._grid

        def tiles() -> Iterator[NDArray[np.float32]]:
            for y, row in groupby(self._places, lambda place: place[0]):
                height = min(grid.size, image.height - y)
                # A TIFF in strips would be decoded anew for each tile of a row; of a slide most of a row may be glass.
                rows = image.read(y, y + height) if image.view is None else None
                for _, x in row:
                    width = min(grid.size, image.width - x)
                    pixels = image.region(y, x, height, width) if rows is None else rows[:, x : x + width]
                    self._found.see(y, x, pixels)
                    for sink in self._sinks:
                        sink.tile(y, x, pixels)
                    found = self._asked.predict(cut(pixels, 0, 0, grid.size))
                    progress.advance()
                    yield found

        if self._places:
            return stitch(grid, tiles(), self._places)
        return iter([Band(0, 0, np.zeros((1, len(self._asked.class_names) + 1, image.height, 0), np.float32))])

    def write_objects(self, path: Path, lines: IO[str]) -> None:
        """Writes the lines of ``first_pass`` as they are to be told."""
        lines.seek(0)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(self._found.stated(lines))

    def _told(self, one: WholeObject, found: Found) -> dict[str, Any]:
        """Tells an object to those who write objects; returns its line of ``predictions.csv``."""
        polygons = self._outline(one) if self._sinks else []
        for sink in self._sinks:
            sink.found(found, polygons)
        return object_record(self._streamed, found)

    def _outline(self, one: WholeObject) -> list[Polygon]:
        """The polygons of an object in pixels of the rows that come; coarser where it is huge."""
        left, top, right, bottom = one.corners
        step = max(1, int(np.ceil(((right - left) * (bottom - top) / LARGEST_TRACED) ** 0.5)))
        if step > 1:
            self._notes = ["objects so large that their outlines are coarser than the mask"]
        return [
            Polygon(shell * step + (left, top), [hole * step + (left, top) for hole in holes])
            for shell, holes in trace(one.mask(step))
        ]

    def second_pass(self, spool: IO[bytes], kept: NDArray[np.int32]) -> None:
        """Draws the runs again, now that it is known which of them are one object and which are too small."""
        spool.seek(0)
        white = np.uint8(255 if len(self._asked.class_names) == 1 else 1)
        for y in range(0, self._image.height, PIECE):
            height, band = min(PIECE, self._image.height - y), np.load(spool, allow_pickle=False)
            if not len(band):
                self._write[""](np.zeros((height, 0), np.uint8), 0)
                continue
            left, right = int(band[:, 1].min()), int(band[:, 2].max())
            runs, shape = band[:, :3] - (0, left, left), (height, right - left)
            of_class, number = kept[:, band[:, 3]]
            labels = draw_runs(runs, of_class.astype(np.int16), shape).astype(np.uint8)
            self._write[""](labels * white, left)
            if self._sinks:
                objects = draw_runs(runs, number, shape)
                for sink in self._sinks:
                    sink.rows(y, left, labels, objects)

    def line(self) -> dict[str, Any]:
        """What was found, for a line of ``images.csv``; areas are in pixels of the finest level."""
        streamed, objects, area = self._streamed, sum(self._found.objects), sum(self._found.areas)
        per_pixel = streamed.scale[0] * streamed.scale[1]
        named = zip(streamed.class_names, self._found.objects, strict=True)
        line: dict[str, Any] = {
            "objects": objects,
            "area": round(area * per_pixel),
            "share": round(area / (streamed.height * streamed.width), 6),
            "counts": " ".join(f"{name}={count}" for name, count in named),
            **self._found.means(),
        }
        if area:
            line["mean_area"] = significant(area * per_pixel / objects)
        if streamed.pixel_size is not None:
            square = area * per_pixel * streamed.pixel_area
            line |= {"area_um2": significant(square), "area_mm2": significant(square / 1e6)}
            if area:
                line["mean_area_um2"] = significant(square / objects)
            whole = streamed.height * streamed.width * per_pixel * streamed.pixel_area / 1e6
            if looked_at := whole if self._tissue is None else self._tissue:
                line["objects_per_mm2"] = significant(objects / looked_at)
        if self._tissue is not None:
            line["tissue_mm2"] = significant(self._tissue)
        line["expected_dice"] = self._agreement.dice if self._places else None
        left_out = len(self._grid) - len(self._places)
        none = [f"{left_out} of {len(self._grid)} tiles show no tissue and are background"] if left_out else []
        return line | {"notes": self._notes + none}

    def summary(self, line: dict[str, Any]) -> dict[str, Any]:
        """The same by classes, JSON-able."""
        streamed, tissue = self._streamed, line.get("tissue_mm2")
        square = streamed.scale[0] * streamed.scale[1] * streamed.pixel_area / 1e6
        classes = {}
        for name, count, area in zip(streamed.class_names, self._found.objects, self._found.areas, strict=True):
            facts: dict[str, Any] = {"objects": count}
            if square:
                facts["area_mm2"] = significant(area * square)
            if tissue:
                facts["objects_per_mm2"] = significant(count / tissue)
                facts["share_of_tissue"] = significant(area * square / tissue)
            classes[name] = facts
        return {
            "image": streamed.name,
            "width": round(streamed.width * streamed.scale[0]),
            "height": round(streamed.height * streamed.scale[1]),
            "pixel_um": streamed.pixel_size,
            "mask_pixel_um": streamed.coming_size,
            "tissue_mm2": tissue,
            "classes": classes,
            "notes": line["notes"],
        }
