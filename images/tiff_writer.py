"""TIFF files of any size, written as their rows come."""

__all__ = ["PIECE", "tiff_writer"]

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from textdiff.files import atomic_path

PIECE = 256
"""Height and width of the file's tiles, which viewers of large images load one by one."""

_CLASSIC_BYTES = 2**32 - 2**25


@contextmanager
def tiff_writer(
    path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, fill: float = 0
) -> Iterator[Callable[..., None]]:
    """Gives a function that takes the rows of a grey image (H, W) from top to bottom, ``PIECE`` at a time.

    As a second argument it takes the column that those given begin at, 0 by default: the others are ``fill``.

    The file, in compressed tiles, and a BigTIFF where 4 GB might not do, appears under its name once all rows are
    there, and not at all on an exception.

    Raises:
        ValueError: the rows are not those of the image.
    """
    height, width = shape
    path.parent.mkdir(parents=True, exist_ok=True)
    # tifffile asks for one piece after the other, and our caller gives them to several files in turn.
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        lengths: list[int] = []
        rows = 0
        empty = np.full((PIECE, PIECE), fill, dtype)
        blank = zlib.compress(empty.tobytes())

        def write(block: npt.NDArray[np.generic], left: int = 0) -> None:
            nonlocal rows
            fits = len(block) == min(PIECE, height - rows) and 0 <= left <= width - block.shape[1]
            if not fits or block.dtype != dtype:
                raise ValueError(f"{block.dtype} {block.shape} for the rows from {rows} of {np.dtype(dtype)} {shape}")
            rows += len(block)
            for x in range(0, width, PIECE):
                part = block[:, max(0, x - left) : max(0, x + PIECE - left)]
                if not part.size:
                    lengths.append(spool.write(blank))
                    continue
                piece, at = empty.copy(), max(0, left - x)
                piece[: part.shape[0], at : at + part.shape[1]] = part
                lengths.append(spool.write(zlib.compress(piece.tobytes())))

        yield write
        if rows != height:
            raise ValueError(f"{rows} rows for an image of {height}")
        spool.seek(0)
        with (
            atomic_path(path) as partial,
            tifffile.TiffWriter(partial, bigtiff=height * width * np.dtype(dtype).itemsize > _CLASSIC_BYTES) as tiff,
        ):
            tiff.write(
                (spool.read(length) for length in lengths),
                shape=shape,
                dtype=dtype,
                tile=(PIECE, PIECE),
                compression="zlib",
                photometric="minisblack",
                metadata=None,
            )
