"""Files of tensors that are whole or absent, and that are known to be damaged when they are.

A safetensors file (https://huggingface.co/docs/safetensors: 8 bytes of header length, a JSON header, the data) carries
its own SHA-256 among its metadata, computed with zeros in that place: one file, so the digest is never another's. What
PyTorch saves is a zip archive with a CRC-32 of each member, which ``torch.load`` doesn't look at.
"""

__all__ = ["load_state", "load_tensors", "read_zip", "save_state", "save_tensors"]

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from textdiff.files import atomic_path

_DIGEST = "textdiff.sha256"
_ZEROS = "0" * 64
_PLACE = f'"{_DIGEST}":"'.encode()


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named CPU tensors and ``metadata`` as a safetensors file, atomically and reproducibly.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_path(path) as partial:
        save_file(dict(tensors), partial, {**(metadata or {}), _DIGEST: _ZEROS})
        # The library orders the tensors but leaves the metadata in a random order, which would change a file's sha256
        # from one run to the next.
        with partial.open("r+b") as f:
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length))
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) > length:
                raise RuntimeError(f"{path}: the sorted header does not fit its place: {len(text)} > {length} bytes")
            f.seek(8)
            f.write(text.ljust(length))
        place = 8 + text.index(_PLACE) + len(_PLACE)
        digest = _sha256_without(partial, place)
        with partial.open("r+b") as f:
            f.seek(place)
            f.write(digest)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The CPU tensors of a safetensors file, mapped from it, and its metadata.

    A file without a digest, another program's, is taken as it is.

    Raises:
        ValueError: it is not what was written.
        Exception: it is no safetensors file; the library has exceptions of its own.
    """
    path = Path(path)
    with path.open("rb") as f:
        length = min(int.from_bytes(f.read(8), "little"), path.stat().st_size)
        start = f.read(length).find(_PLACE)
        if start >= 0:
            place = 8 + start + len(_PLACE)
            f.seek(place)
            if f.read(len(_ZEROS)) != _sha256_without(path, place):
                raise ValueError("its checksum does not match")
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        metadata.pop(_DIGEST, None)
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (it is no mapping)


def _sha256_without(path: Path, place: int) -> bytes:
    """The hexadecimal SHA-256 of a file with zeros for the digest at byte ``place``."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        digest.update(f.read(place) + _ZEROS.encode())
        f.seek(place + len(_ZEROS))
        while piece := f.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest().encode()


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values as PyTorch does, atomically.

    Raises:
        OSError: it cannot be written.
    """
    # A file of Python's own tells why it cannot be written; PyTorch's would not.
    with atomic_path(path) as partial, partial.open("wb") as f:
        torch.save(dict(state), f)


def load_state(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> dict[str, Any]:
    """What ``save_state`` wrote, with its tensors on ``device``; nothing in the file is executed.

    Raises:
        Exception: it is not what was written; of many kinds.
    """
    state: dict[str, Any] = read_zip(Path(path), device)
    return state


def read_zip(path: Path, device: str | torch.device = "cpu", mmap: bool = False) -> Any:
    """What ``torch.save`` wrote, once every member of the archive has been found right.

    Raises:
        Exception: it is damaged, or holds other things than tensors and plain values; of many kinds.
    """
    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {bad} does not match")
    return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
