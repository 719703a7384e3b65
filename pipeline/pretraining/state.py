"""The resume file of a pretraining run."""

__all__ = ["load_state", "save_state"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textdiff.errors import UserError
from textdiff.files import atomic_path


def save_state(path: Path, state: Mapping[str, Any], trajectory: Mapping[str, Any], digest: str) -> None:
    """Writes the state with the options and the images (``Survey.digest``) that it belongs to, atomically.

    Raises UserError if it cannot be written; an earlier file is then kept.
    """
    try:
        with atomic_path(path) as partial:
            torch.save({**state, "trajectory": dict(trajectory), "digest": digest}, partial)
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError when the disk is full
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written ({reason}); free some space, then run the same command") from error


def load_state(path: Path, trajectory: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Reads a state on the CPU; nothing in the file is executed.

    Raises UserError if the file is damaged, or if it belongs to other options, which it names, or other images.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        then: dict[str, Any] = state["trajectory"]
    except Exception as error:  # reading arbitrary bytes as a pickle can raise anything
        raise UserError(f"{path}: damaged ({type(error).__name__}); remove it to start afresh") from error
    changed = [
        f"{name} was {then.get(name)}, is {trajectory.get(name)}"
        for name in sorted({*then, *trajectory})
        if then.get(name) != trajectory.get(name)
    ]
    if state["digest"] != digest:
        changed.append("the images differ in names or contents")
    if changed:
        raise UserError(
            f"{path}: belongs to a run with other options: {'; '.join(changed)};"
            " repeat that run's options, or choose another --out"
        )
    return state
