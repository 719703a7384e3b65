"""What the figures of experiments look like: colours, markers, error bars, and every draw as a dot."""

__all__ = ["MARKERS", "draws_figure", "error_bars", "new_figure", "save_figure"]

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textdiff.experiments.nested_bootstrap import Estimate
from textdiff.experiments.results import Result
from textdiff.pipeline.evaluation.figures import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart with any colour vision; markers differ as well, for print
# in grey. The light yellow is left out, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH = 0.08
"""How far, in columns, the dots of draws are spread to either side, so as not to hide each other."""

_LONGEST, _MANY = 12, 10
"""Characters of a line below a column, and columns that may be wide."""


def colour(index: int) -> str:
    """The colour of the ``index``-th line."""
    return COLOURS[index % len(COLOURS)]


def new_figure(width: float, height: float, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of its own (no global state, no display) with axes side by side that share their y axis; inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, facecolor="white", layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, list(axes)


def error_bars(
    ax: "Axes", x: Sequence[float], estimates: Sequence[Estimate | None], index: int, label: str, **style: Any
) -> None:
    """A line through the means in percent with the intervals as bars; points that are missing are left out."""
    there = [(at, estimate) for at, estimate in zip(x, estimates, strict=True) if estimate is not None]
    if not there:
        return
    means = [100 * estimate.mean for _, estimate in there]
    down = [0 if e.low is None else max(0.0, 100 * (e.mean - e.low)) for _, e in there]
    up = [0 if e.high is None else max(0.0, 100 * (e.high - e.mean)) for _, e in there]
    ax.errorbar(
        [at for at, _ in there],
        means,
        yerr=[down, up],
        color=colour(index),
        marker=MARKERS[index % len(MARKERS)],
        label=label,
        **{"markersize": 4.5, "linewidth": 1.4, "elinewidth": 1.0, "capsize": 2.5} | style,
    )


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Writes PNG and PDF."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        save_picture(figure, path)
    return paths


def draws_figure(stem: Path, rows: Sequence[tuple[str, Result]], metric: str, title: str) -> list[Path]:
    """Writes the figure as PNG and PDF.

    Args:
        stem: the files' path without an ending.
        rows: what stands below each column, and its runs; columns without a run stay empty.
        metric: of the results, as in ``dice_clean``.
        title: what the numbers are of.
    """
    # All networks by all their recipes are twenty columns, which a page is to show large enough to be read.
    figure, (ax,) = new_figure(1.4 + (1.05 if len(rows) <= _MANY else 0.8) * len(rows), 3.8)
    for index, (name, result) in enumerate(rows):
        draws: dict[int, list[float]] = {}
        for (draw, _), scores in sorted(result.runs.items()):
            draws.setdefault(draw, []).append(100 * float(np.nanmean(scores[metric])))
        means = [float(np.mean(seeds)) for seeds in draws.values()]
        x = index + 0.18 + np.linspace(-_WIDTH, _WIDTH, len(means))
        ax.scatter(x, means, s=14, color=colour(index), alpha=0.6, linewidths=0)
        error_bars(ax, [index - 0.12], [result.estimate(metric)], index, name)
    ax.set_xticks(range(len(rows)), [_folded(name) for name, _ in rows], fontsize=8)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylabel(f"{metric.split('_', maxsplit=1)[0].capitalize()}, %")
    ax.set_title(f"{title}\nbars: 95% intervals, dots: draws of training images", fontsize=8)
    return save_figure(figure, stem)


def _folded(name: str) -> str:
    """A name on several lines, each of its rows on one of its own, so that it does not run into its neighbour's."""
    lines: list[str] = []
    for line in name.replace("+", "+\n").split("\n"):
        lines.append("")
        for part in re.split("(?<=-)", line):
            if lines[-1] and len(lines[-1] + part) > _LONGEST:
                lines.append("")
            lines[-1] += part
    return "\n".join(lines)
