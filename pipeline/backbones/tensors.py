"""Safetensors files that are whole or absent, and the same bytes for the same content."""

__all__ = ["save_tensors"]

import json
import os
from collections.abc import Mapping

from safetensors.torch import save_file
from torch import Tensor

from textdiff.files import atomic_path


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes named CPU tensors and ``metadata`` as a safetensors file, atomically and reproducibly.

    https://huggingface.co/docs/safetensors: 8 bytes of header length, a JSON header, the data.
    """
    with atomic_path(path) as partial:
        save_file(dict(tensors), partial, dict(metadata))
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
