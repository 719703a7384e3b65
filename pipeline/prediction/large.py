"""Images too large for the memory: read, predicted and written a few rows at a time.

What is held is a row of tiles of the image and of its probabilities, whatever the image's height.
"""

__all__ = ["RowSource", "is_large", "open_rows", "segment_large"]

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from textdiff import console
from textdiff.errors import UserError
from textdiff.pipeline.imaging.formats import MAX_MEGAPIXELS, TIFF_COMPRESSIONS, TIFF_MAGIC, BadImageError
from textdiff.pipeline.imaging.tiff_writer import PIECE, tiff_writer
from textdiff.pipeline.imaging.tiles import Grid, cut, reblock, stitch

MAX_CHUNK_BYTES = 1 << 28


@dataclass(frozen=True)
class RowSource:
    """An image file of which some rows can be read alone."""

    height: int
    width: int
    read: Callable[[int, int], NDArray[np.uint8]]
    """``read(start, end)`` gives these rows as RGB (end - start, width, 3) uint8."""


def is_large(path: Path) -> bool:
    """Whether the file is a TIFF of more than ``MAX_MEGAPIXELS``; only such a file is read in parts."""
    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_MAGIC):
            return False
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return bool(page.imagewidth * page.imagelength > MAX_MEGAPIXELS * 1_000_000)
    except Exception:  # whatever is wrong with the file, reading it as a whole says so in one line
        return False


@contextmanager
def open_rows(path: Path) -> Iterator[RowSource]:
    """Opens a TIFF to read its first page by rows: 8 bits, grey or RGB, alpha dropped; in tiles, strips or as it is.

    Raises:
        BadImageError: another kind of TIFF, or one that is compressed in pieces too large to be read in parts.
    """
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        _check(path, page)
        if page.is_contiguous:
            start, shape = page.dataoffsets[0], (page.imagewidth, page.samplesperpixel)

            def stored(first: int, end: int) -> NDArray[np.uint8]:
                # Read rather than mapped: pages of a mapped file would count as memory until the system takes them.
                count, row = (end - first) * shape[0] * shape[1], shape[0] * shape[1]
                values = np.fromfile(path, np.uint8, count, offset=start + first * row)
                return values.reshape(end - first, *shape)
        else:
            array: Any = zarr.open(page.aszarr(), mode="r")
            if np.prod(array.chunks) > MAX_CHUNK_BYTES:
                raise BadImageError(
                    path, "is compressed in one piece too large to be read in parts", "save it in tiles"
                )

            def stored(first: int, end: int) -> NDArray[np.uint8]:
                values: NDArray[np.uint8] = array[first:end]
                return values.reshape(end - first, page.imagewidth, -1)

        def read(first: int, end: int) -> NDArray[np.uint8]:
            try:
                rows = stored(first, end)
            except Exception as error:  # decoders raise whatever they stumble over
                raise BadImageError(
                    path, f"cannot be read at rows {first} to {end - 1}", "replace it by an intact copy"
                ) from error
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                rows = ~rows
            return np.repeat(rows[..., :1], 3, axis=2) if rows.shape[2] < 3 else rows[..., :3]

        yield RowSource(page.imagelength, page.imagewidth, read)


def segment_large(
    path: Path,
    folder: Path,
    grid_of: Callable[[int, int], Grid | None],
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    pictures: Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]],
) -> list[Path]:
    """Segments one large image by tiles, and writes each picture of it as a TIFF.

    Args:
        path: the image, see ``open_rows``.
        folder: where to write.
        grid_of: the tiles for a height and a width; None if the run knows none.
        predict: class probabilities (classes, size, size) of a tile, RGB (size, size, 3) uint8.
        pictures: of probabilities (classes, h, W), some rows, what is written: (h, W) each, by the end of the name.

    Returns:
        The paths of the files, ``<name><end>.tif``.

    Raises:
        UserError: the run was not fitted on tiles, or the file cannot be read in parts.
    """
    with open_rows(path) as source, ExitStack() as files:
        grid = grid_of(source.height, source.width)
        if grid is None:
            raise UserError(
                f"{path}: has {source.width}x{source.height} pixels, and this run sees an image as a whole, reduced to "
                "a few hundred pixels; use a run on a cache of `textdiff extract --tile 256`"
            )
        with console.Progress(len(grid), f"predict {path.name}", "tiles") as progress:

            def tiles() -> Iterator[NDArray[np.float32]]:
                for y in grid.tops:
                    rows = source.read(y, min(y + grid.size, source.height))
                    for x in grid.lefts:
                        yield predict(cut(rows, 0, x, grid.size))
                        progress.advance()

            writers: dict[Path, Callable[[NDArray[Any]], None]] = {}
            for block in reblock(stitch(grid, tiles()), PIECE):
                for suffix, picture in pictures(block).items():
                    file = folder / f"{path.stem}{suffix}.tif"
                    if file not in writers:
                        size = (source.height, source.width)
                        writers[file] = files.enter_context(tiff_writer(file, size, picture.dtype))
                    writers[file](picture)
    return list(writers)


def _check(path: Path, page: Any) -> None:
    kinds = tifffile.PHOTOMETRIC
    if page.compression not in TIFF_COMPRESSIONS and find_spec("imagecodecs") is None:
        name = tifffile.COMPRESSION(page.compression).name
        raise BadImageError(path, f"is compressed with {name}", "`pip install imagecodecs` to read it, or save it anew")
    orientation = page.tags.get(274)
    plain = (
        page.dtype == np.uint8
        and page.axes in ("YX", "YXS")
        and page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB, kinds.YCBCR)
        and (orientation is None or orientation.value == 1)
    )
    if not plain:
        raise BadImageError(
            path, f"has more than {MAX_MEGAPIXELS} megapixels and is not plain", "save it as upright 8-bit RGB or grey"
        )
