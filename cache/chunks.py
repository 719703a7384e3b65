"""Chunk files, read and written without a detour: the bytes are those Zarr's own codecs would write.

A chunk ``(i, j, ...)`` of an array is the file ``c.i.j...`` in the array's directory: little-endian values in C order
(for ``truth``, ``instances`` and ``table`` compressed by zstd), then their crc32c in 4 bytes, as in the Zarr v3
specification of these codecs. Doing this here costs no copies: activations go from the disk into the tensor they belong
to, and what is written is hashed on its way. Zarr's pipeline takes one thread for everything and copies each chunk
twice.
"""

__all__ = [
    "CRC_BYTES",
    "ChunkError",
    "Hashed",
    "MissingError",
    "checksum",
    "compress",
    "decompress",
    "read",
    "read_into",
    "remove",
    "replace",
    "require_sound",
    "stored_checksum",
    "sync",
    "verified",
    "write",
]

import ctypes
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

CRC_BYTES = 4
ZSTD_LEVEL = 3
_BLOCK = 1 << 18
"""What stays in a core's cache between being read and being summed."""
_local = threading.local()


class ChunkError(Exception):
    """A chunk is missing or damaged; the message says which of these."""


class MissingError(ChunkError):
    """There is no such chunk."""

    def __init__(self) -> None:
        super().__init__("the chunk is missing")


def _unread(error: OSError) -> ChunkError:
    """What it means that a file cannot be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingError()
    return ChunkError(f"the chunk cannot be read ({error.strerror})")


class Hashed:
    """The parts of a chunk, and after them their checksum: hashed on the way to where they are written."""

    def __init__(self, parts: Iterable[np.ndarray | bytes]) -> None:
        self._parts, self._found = parts, 0

    def __iter__(self) -> Iterator[np.ndarray | bytes]:
        for part in self._parts:
            self._found = _sum(self._found, part)
            yield part
        yield self.checksum

    @property
    def checksum(self) -> bytes:
        """crc32c of the parts so far, 4 bytes, little-endian."""
        return self._found.to_bytes(CRC_BYTES, "little")


def _extend_of_library() -> Callable[[int, int, int], int] | None:
    """The function of C below google_crc32c: (crc, address, bytes) to crc. None where it cannot be had."""
    try:
        from google_crc32c import _crc32c

        extend = ctypes.CDLL(_crc32c.__file__).crc32c_extend
    except (ImportError, OSError, AttributeError):
        return None
    extend.argtypes, extend.restype = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint32
    return extend


# The module keeps Python's lock while it sums, so its threads would wait for each other; what ctypes calls does not.
_extend = _extend_of_library()


def _sum(crc: int, data: np.ndarray | bytes) -> int:
    """The crc32c of what has ``crc``, followed by ``data`` (C-contiguous)."""
    size = len(data) if isinstance(data, bytes) else data.nbytes
    if _extend is None or size < _BLOCK // 16:  # to give the lock away and get it back takes longer than few bytes
        return int(google_crc32c.extend(crc, data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)))
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8)
    return _extend(crc, data.ctypes.data, size)


def checksum(data: np.ndarray | bytes) -> bytes:
    """crc32c of ``data`` (C-contiguous), 4 bytes, little-endian; other threads go on meanwhile."""
    return _sum(0, data).to_bytes(CRC_BYTES, "little")


def verified(path: Path) -> bytes:
    """The checksum of a chunk of any length, once it has been found right; each byte is read once, and none is kept.

    Raises:
        ChunkError: no such chunk, or a checksum that does not match.
    """
    if (block := getattr(_local, "block", None)) is None:
        block = _local.block = np.empty(_BLOCK, np.uint8)
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            left = os.fstat(descriptor).st_size - CRC_BYTES
            crc = 0
            while left > 0 and (count := os.readv(descriptor, [block[:left].data])):
                crc, left = _sum(crc, block[:count]), left - count
            tail = os.read(descriptor, CRC_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unread(error) from error
    if crc.to_bytes(CRC_BYTES, "little") != tail:
        raise ChunkError("the checksum does not match")
    return tail


def read_into(path: Path, out: np.ndarray) -> bytes:
    """Fills ``out`` (C-contiguous, of the stored dtype and the chunk's shape) and returns the stored checksum.

    Raises:
        ChunkError: no such chunk, another size, or a checksum that does not match.
    """
    flat = out.reshape(-1).view(np.uint8)
    view = flat.data
    try:
        with path.open("rb", buffering=0) as f:
            done = 0
            # One read moves at most 2 GiB on Linux.
            while done < len(view) and (count := f.readinto(view[done:])):
                done += count
            tail = f.read(CRC_BYTES + 1)
    except OSError as error:
        raise _unread(error) from error
    if done < len(view) or tail is None or len(tail) != CRC_BYTES:
        raise ChunkError(f"the chunk has not {len(view) + CRC_BYTES} bytes")
    if checksum(flat) != tail:
        raise ChunkError("the checksum does not match")
    return tail


def stored_checksum(path: Path) -> bytes:
    """The last 4 bytes of a chunk, which tell it from others; whether the rest is as they say is not looked at.

    Raises:
        ChunkError: no such chunk, or one that is too short.
    """
    try:
        # Without a file object, which takes several times as long as what is read.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.lseek(descriptor, -CRC_BYTES, os.SEEK_END)
            return os.read(descriptor, CRC_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unread(error) from error


def read(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        ChunkError: there is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unread(error) from error


def require_sound(data: bytes) -> bytes:
    """The bytes of a chunk of any length, checksum included, once it has been found right.

    Raises:
        ChunkError: the checksum does not match.
    """
    if len(data) < CRC_BYTES or checksum(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
        raise ChunkError("the checksum does not match")
    return data


def compress(values: np.ndarray) -> bytes:
    """A chunk of the compressed arrays, without its checksum."""
    return bytes(Zstd(level=ZSTD_LEVEL).encode(np.ascontiguousarray(values)))


def decompress(chunk: bytes, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """The values (``shape``) of a compressed chunk with its checksum, which must be right."""
    stored = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(Zstd().decode(chunk[:-CRC_BYTES]), stored).reshape(shape)


def write(path: Path, parts: Iterable[np.ndarray | bytes]) -> None:
    """Writes ``parts`` (C-contiguous) one after another to a new file, each before the next is asked for.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    try:
        with path.open("xb", buffering=0) as f:
            for part in parts:
                view = memoryview(part) if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data
                while view:
                    view = view[f.write(view) :]
    except OSError as error:
        error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk, as far as the file system promises that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def replace(temporary: Path, final: Path) -> None:
    """Gives a finished file its name, whatever is there."""
    try:
        temporary.replace(final)
    except OSError:
        if not final.is_dir():
            raise
        remove(final)
        temporary.replace(final)


def remove(path: Path) -> None:
    """Removes a file, or a directory in its place, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
