"""The program that a run was made by, for the record."""

__all__ = ["git_revision", "versions"]

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import textdiff
from textdiff import console


def versions() -> dict[str, str]:
    """The versions that results depend on, for the record."""
    packages = ("torch", "numpy", "zarr", "transformers")
    return {
        "textdiff": textdiff.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


@functools.cache
def git_revision() -> str | None:
    """The revision of the checkout that TextDiff runs from, with ``+`` for uncommitted changes; none when installed."""
    where = Path(textdiff.__file__).parent
    if not (where / ".git").exists():
        return None
    try:
        revision, status = (
            subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        console.warn(f"{where}: git does not answer, so the run does not record the revision")
        return None
    return revision + ("+" if status else "")
