"""Rows of a table as a picture: every draw of training images a dot, beside the mean with its interval."""

__all__ = ["draws_figure"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textdiff.experiments.plots import colour, error_bars, new_figure, save_figure
from textdiff.experiments.results import Result

_WIDTH = 0.08
"""How far, in columns, the dots of draws are spread to either side, so as not to hide each other."""


def draws_figure(stem: Path, rows: Sequence[tuple[str, Result]], metric: str, title: str) -> list[Path]:
    """Writes the figure as PNG and PDF.

    Args:
        stem: the files' path without an ending.
        rows: what stands below each column, and its runs; columns without a run stay empty.
        metric: of the results, as in ``dice_clean``.
        title: what the numbers are of.
    """
    figure, (ax,) = new_figure(1.4 + 1.05 * len(rows), 3.8)
    for index, (name, result) in enumerate(rows):
        draws: dict[int, list[float]] = {}
        for (draw, _), scores in sorted(result.runs.items()):
            draws.setdefault(draw, []).append(100 * float(scores[metric].mean()))
        means = [float(np.mean(seeds)) for seeds in draws.values()]
        x = index + 0.18 + np.linspace(-_WIDTH, _WIDTH, len(means))
        ax.scatter(x, means, s=14, color=colour(index), alpha=0.6, linewidths=0)
        error_bars(ax, [index - 0.12], [result.estimate(metric)], index, name)
    # A mean of several rows has each on a line, or its name would run into its neighbour's.
    ax.set_xticks(range(len(rows)), [name.replace("+", "+\n") for name, _ in rows], fontsize=8)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylabel(f"{metric.split('_', maxsplit=1)[0].capitalize()}, %")
    ax.set_title(f"{title}\nbars: 95% intervals, dots: draws of training images", fontsize=8)
    return save_figure(figure, stem)
