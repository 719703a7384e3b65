"""Opens all that is in an HDF5 file, in a process of its own.

In a damaged file the HDF5 library can go round in circles for ever, deaf to signals, or end the process it is in. What
comes to an end here does so again in the process that asks.
"""

__all__ = ["comes_to_an_end"]

import contextlib
import faulthandler
import subprocess
import sys
from pathlib import Path
from typing import Any

_SECONDS, _BYTES_PER_SECOND = 5.0, 2e7
_TEXTS = 1 << 20


def comes_to_an_end(path: Path) -> bool:
    """Whether the structure of a file and its texts can be read, be it with errors."""
    command = [sys.executable, "-P", __file__, str(path)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _open_all(path: Path) -> None:
    import h5py

    seconds = _SECONDS + path.stat().st_size / _BYTES_PER_SECOND
    faulthandler.dump_traceback_later(seconds, exit=True)
    with h5py.File(path, "r") as file:
        groups, seen = [file["/"]], set[int]()
        while groups:
            group = groups.pop()
            # What cannot be opened is for the reader to name, if it wants it at all.
            with contextlib.suppress(Exception):
                for name in group:
                    # Python's own handlers would wait for the library; this ends the process from a thread of its own.
                    faulthandler.dump_traceback_later(seconds, exit=True)
                    with contextlib.suppress(Exception):
                        if isinstance(group.get(name, getlink=True), h5py.HardLink):
                            found = group[name]
                            address = h5py.h5o.get_info(found.id).addr
                            if isinstance(found, h5py.Group) and address not in seen:
                                groups.append(found)
                            elif isinstance(found, h5py.Dataset):
                                _read(found)
                            seen.add(address)


def _read(dataset: Any) -> None:
    if dataset.is_virtual or dataset.external is not None:
        return
    if dataset.chunks is not None:
        dataset.id.chunk_iter(lambda chunk: None)
    if dataset.dtype.kind == "O" and dataset.size <= _TEXTS:
        dataset[()]


if __name__ == "__main__":
    with contextlib.suppress(Exception):
        _open_all(Path(sys.argv[1]))
