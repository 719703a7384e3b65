"""The resume file of a pretraining run."""

__all__ = ["load_state"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textdiff.errors import UserError, explain
from textdiff.models import tensor_files


def load_state(path: Path, trajectory: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Reads a state on the CPU; nothing in the file is executed.

    With it are the options (``trajectory``) and the images (``digest``, that of the survey) that it belongs to.

    Raises UserError if the file is damaged, or if it belongs to other options, which it names, or other images.
    """
    try:
        state: dict[str, Any] = tensor_files.load_state(path)
        then: dict[str, Any] = state["trajectory"]
        images = state["digest"]
    except Exception as error:  # reading arbitrary bytes as a pickle can raise anything
        if explain(error):
            raise
        raise UserError(f"{path}: damaged ({type(error).__name__}); remove it to start afresh") from error
    changed = [
        f"{name} was {then.get(name)}, is {trajectory.get(name)}"
        for name in sorted({*then, *trajectory})
        if then.get(name) != trajectory.get(name)
    ]
    if images != digest:
        changed.append("the images differ in names or contents")
    if changed:
        raise UserError(
            f"{path}: belongs to a run with other options: {'; '.join(changed)};"
            " repeat that run's options, or choose another --out"
        )
    return state
