"""The one exception that stands for a mistake its reader can mend, and what the reader may have meant."""

__all__ = ["UserError", "nearest", "suggest"]

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input, a missing file, a full disk: something the user can put right.

    The message is one line that names the thing and the fix. The command line prints it after ``error:`` and exits
    with status 2, without a traceback (``--debug`` shows it).
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean adm-256?)`` where a known name is close to ``name``, else nothing."""
    by_case = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6) if name not in by_case.values() else []
    return f" (did you mean {by_case[close[0]]}?)" if close else ""


def nearest(path: Path) -> str:
    """`` (did you mean cache/monuseg.zarr?)`` where a path that does not exist has a close name beside it."""
    there = next((parent for parent in path.parents if parent.is_dir()), None)
    if there is None:
        return ""
    wrong, *rest = path.relative_to(there).parts or ("",)
    try:
        names = [entry.name for entry in there.iterdir()]
    except OSError:
        return ""
    for name in difflib.get_close_matches(wrong, names, n=3, cutoff=0.6):
        if (found := there.joinpath(name, *rest)).exists():
            return f" (did you mean {found}?)"
    return ""
