"""Mistakes and mishaps that their reader can mend, and how they are told in one line."""

__all__ = ["UserError", "choose", "explain", "few", "nearest", "one_of", "one_of_many", "os_error", "quoted", "suggest"]

import difflib
import errno
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_AGAIN = "then run the same command again (fit: with --resume, once it has begun)"
_FIXES = {
    errno.ENOSPC: f"the disk is full; free some space, {_AGAIN}",
    errno.EDQUOT: f"your disk quota is used up; free some space, {_AGAIN}",
    errno.EFBIG: f"larger than the file system or `ulimit -f` allows; raise the limit or choose another disk, {_AGAIN}",
    errno.EMFILE: f"too many files are open; raise the limit, as with `ulimit -n 4096`, {_AGAIN}",
    errno.ENFILE: f"too many files are open on this machine; end other programs, {_AGAIN}",
    errno.EIO: f"the disk reports an error; check the disk or use another one, {_AGAIN}",
    errno.EROFS: "the file system is read-only; choose a place that can be written to",
    errno.EACCES: "permission denied; ask for it, or choose another place",
    errno.EPERM: "not permitted; ask for it, or choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EISDIR: "a directory, where a file should be; move it away, or choose another name",
    errno.ENOTDIR: "a file stands where a directory should be; move it away, or choose another place",
    errno.ENOENT: "not there; check the path",
    errno.EEXIST: "exists already, and is in the way; move it away, or choose another name",
    errno.ELOOP: "its symbolic links lead in a circle; correct them",
}
# What any library can fail of, whatever it calls it.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS, errno.ENOMEM)
_MEMORY = (
    "not enough memory{}; end other programs, or ask for less at once: a smaller --image-size, --batch-size, --jobs or "
    "--workers, or a larger machine"
)


class UserError(Exception):
    """Bad input, a missing file, a full disk: something the user can put right.

    The message is one line that names the thing and the fix. The command line prints it after ``error:`` and exits
    with status 2, without a traceback (``--debug`` shows it).
    """


def quoted(place: str | os.PathLike[str]) -> str:
    """A path or address inside a command that is to be typed: as a shell reads it, with quotes where it needs them.

    A path that a line begins with, or that it is about, stands there as it is.
    """
    return shlex.quote(os.fspath(place))


def suggest(name: str, known: Iterable[str], most: int = 1) -> str:
    """`` (did you mean adm-256?)`` where known names are close to ``name``, the nearest ``most``, else nothing."""
    by_case = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_case, n=most, cutoff=0.6)
    close = [by_case[other] for other in found] if name not in by_case.values() else []
    return f" (did you mean {' or '.join([', '.join(close[:-1])] * (len(close) > 1) + close[-1:])}?)" if close else ""


def one_of(name: str, known: Collection[str]) -> str:
    """What a message says of ``name``, which is none of ``known``: ``must be one of a, b, c (did you mean b?)``."""
    return f"must be one of {', '.join(known)}{suggest(name, known)}"


def one_of_many(name: str, known: Mapping[str, str], listed: str) -> str:
    """The same of names that are too many for a line: the nearest of them, and where all are ``listed``.

    ``known`` has what each is, in words; where no name is close to ``name``, it is the first of which a word is it.
    """
    said = suggest(name, known, 3)
    if not said:
        word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
        said = next((f" (did you mean {other}, {is_a}?)" for other, is_a in known.items() if word.search(is_a)), "")
    return f"must be one of {len(known)} names{said}; {listed} lists them all"


def choose(option: str, name: str, known: Mapping[str, _T]) -> _T:
    """What ``known`` holds under ``name``, the value of ``option``.

    Raises:
        UserError: there is none of that name; the line lists the names there are.
    """
    if name not in known:
        raise UserError(f"{option} {name}: {one_of(name, known)}")
    return known[name]


def few(names: Iterable[object], most: int, *, count: bool = False, between: str = ", ") -> str:
    """The first ``most`` names, and where there are more ``, ...``, or if ``count`` how many more."""
    shown = [str(name) for name in names]
    more = len(shown) - most
    rest = f" and {more} more" if count else ", ..."
    return between.join(shown[:most]) + (rest if more > 0 else "")


def nearest(path: Path, holds: str = "") -> str:
    """`` (did you mean cache/monuseg.zarr?)`` where a path that does not exist has a close name beside it.

    ``holds`` is a file that must be in what is named, as in a directory of one kind.
    """
    there = next((parent for parent in path.parents if parent.is_dir()), None)
    if there is None:
        return ""
    wrong, *rest = path.relative_to(there).parts or ("",)
    try:
        names = [entry.name for entry in there.iterdir()]
    except OSError:
        return ""
    for name in difflib.get_close_matches(wrong, names, n=3, cutoff=0.6):
        if ((found := there.joinpath(name, *rest)) / holds).exists():
            return f" (did you mean {found}?)"
    return ""


def os_error(error: BaseException) -> OSError | None:
    """The operating system's error that ``error`` is, or that the machine's state caused it; None for any other.

    PyTorch's writer raises RuntimeError while an OSError is handled, safetensors and PyTorch's allocator repeat the
    system's words in exceptions of their own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _MACHINE or (cause is error and cause.errno is not None)):
            return cause
        for number in _MACHINE:
            if os.strerror(number) in str(cause):
                return OSError(number, os.strerror(number))
        cause = cause.__cause__ or cause.__context__
    return None


def explain(error: Exception) -> str | None:
    """One line with the thing and the fix, for a failure that is the user's or the machine's; None for a defect."""
    if isinstance(error, UserError):
        return str(error)
    found = os_error(error)
    short = any(words in str(error) for words in ("out of memory", "failed to map segment"))  # CUDA, the linker
    if short or isinstance(error, MemoryError) or (found and found.errno == errno.ENOMEM):
        # PyTorch's text goes on with advice for developers.
        said = str(error).strip().split("\n")[0]
        return _MEMORY.format(f" ({said})" if said else "")
    if found is None:
        return None
    where = f"{os.fsdecode(found.filename)}: " if isinstance(found.filename, str | bytes | os.PathLike) else ""
    said = found.strerror or str(found)
    return where + _FIXES.get(found.errno or 0, f"{said[:1].lower()}{said[1:]}; mend this, {_AGAIN}")
