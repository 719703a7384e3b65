"""Images too large for the memory: read, predicted and written a few rows at a time.

What is held is a row of tiles of the image and of its probabilities, whatever the image's height.
"""

__all__ = ["segment_large"]

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.errors import UserError
from textdiff.images.bands import open_image_bands
from textdiff.images.tiff_writer import PIECE, tiff_writer
from textdiff.images.tiles import Grid, cut, reblock, stitch


def segment_large(
    path: Path,
    base: Path,
    grid_of: Callable[[int, int], Grid | None],
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    pictures: Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]],
) -> list[Path]:
    """Segments one large image by tiles, and writes each picture of it as a TIFF.

    Args:
        path: the image, see ``open_image_bands``.
        base: where to write, without the ends of the names.
        grid_of: the tiles for a height and a width; None if the run knows none.
        predict: probabilities (members, classes, size, size) of a tile, RGB (size, size, 3) uint8.
        pictures: of some rows' probabilities (members, classes, h, W), what is written: (h, W) each, by the name's end.

    Returns:
        The paths of the files, ``<base><end>.tif``.

    Raises:
        UserError: the run was not fitted on tiles, or the file cannot be read in bands.
    """
    with open_image_bands(path) as source, ExitStack() as files:
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
                    file = base.with_name(f"{base.name}{suffix}.tif")
                    if file not in writers:
                        size = (source.height, source.width)
                        writers[file] = files.enter_context(tiff_writer(file, size, picture.dtype))
                    writers[file](picture)
    return list(writers)
