"""The commands of the experiments."""

__all__ = ["ablate", "compare", "curve", "panel", "sweep"]

import json
from typing import TYPE_CHECKING

from textdiff import console
from textdiff.errors import UserError
from textdiff.options.experiments import Ablate, Compare, Curve, Panel, Sweep

if TYPE_CHECKING:
    from textdiff.experiments.tables import Outcome


def ablate(options: Ablate, as_json: bool) -> None:
    """``textdiff ablate``"""
    from textdiff.experiments.ablate import ablate as run

    _present(run(options), as_json)


def sweep(options: Sweep, as_json: bool) -> None:
    """``textdiff sweep``"""
    from textdiff.experiments.sweep import sweep as run

    _present(run(options), as_json)


def curve(options: Curve, as_json: bool) -> None:
    """``textdiff curve``"""
    from textdiff.experiments.curve import curve as run

    _present(run(options), as_json)


def compare(options: Compare, as_json: bool) -> None:
    """``textdiff compare``"""
    from textdiff.experiments.compare import compare as run

    _present(run(options), as_json)


def panel(options: Panel) -> None:
    """``textdiff panel``"""
    from textdiff.experiments.panel import panel as run

    run(options)
    console.info(f"wrote {options.out}")


def _present(outcome: "Outcome", as_json: bool) -> None:
    """Prints the table, and says where the files are.

    Raises:
        UserError: a job failed.
    """
    print(json.dumps(outcome.summary, indent=2) if as_json else outcome.text)
    for file in outcome.files:
        console.info(f"wrote {file}")
    for failure in outcome.failures:
        console.warn(failure)
    if outcome.failures:
        raise UserError("not all jobs could be done, see the warnings above; the table is of the others")
