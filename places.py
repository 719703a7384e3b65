"""Where a cache is: in a directory, or under a prefix of an object store, which has names as a path has."""

__all__ = ["SCHEMES", "Location", "Url", "from_here", "located"]

import contextlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import Self

from textdiff.errors import UserError

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
# A path that was made of a url has lost a slash.
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL)
# A single letter is a drive of Windows.
_OTHER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Url(PurePosixPath):
    """``s3://bucket/path/x.zarr``: named, joined and printed as a path, but nothing on a disk."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def bucket(self) -> str:
        """The bucket or container, with its scheme."""
        return "://".join(part.rstrip(":") for part in self.parts[:2])

    @property
    def key(self) -> str:
        """The name in the bucket, without a slash at either end."""
        return "/".join(self.parts[2:])

    def resolve(self) -> Self:
        """Itself: it is the same from anywhere."""
        return self


Location = Path | Url


def located(name: str | os.PathLike[str]) -> Location:
    """What a name stands for: a url of one of ``SCHEMES``, or a path.

    Raises:
        UserError: a url without a bucket, or one of another scheme, which would become a directory called after it.
    """
    found = _URL.fullmatch(os.fspath(name))
    if not found and _OTHER.match(os.fspath(name)):
        kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UserError(f"{os.fspath(name)}: is an address of a kind that is not read; give a path, or one of {kinds}")
    if found and not found[2].strip("/"):
        raise UserError(f"{os.fspath(name)}: names no bucket; write it as in {found[1]}://bucket/path/x.zarr")
    return Url(f"{found[1]}://{found[2]}") if found else Path(name)


def from_here(place: Location) -> str:
    """A path as it is typed from the working directory, if that is shorter; any other, and an address, as it is."""
    if not isinstance(place, Path) or not place.is_absolute() or ".." in place.parts:
        return str(place)
    with contextlib.suppress(ValueError):  # on another drive of Windows
        return min(os.path.relpath(place), str(place), key=len)
    return str(place)
