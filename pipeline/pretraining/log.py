"""The record of a pretraining run: a CSV table and a picture of its curves."""

__all__ = ["plot_log", "write_log"]

import os
from collections.abc import Sequence

from textdiff.files import atomic_path, write_text
from textdiff.tables import csv_table

Row = dict[str, float]


def write_log(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Writes the rows, which share their columns, as CSV, atomically."""
    lines = [{name: f"{value:.6g}" for name, value in row.items()} for row in rows]
    write_text(path, csv_table(lines, None if rows else ["step"]))


def plot_log(rows: Sequence[Row], path: str | os.PathLike[str], title: str) -> None:
    """Draws training and held-out losses over the samples seen as a PNG, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x = [row["samples"] for row in rows]
    for name in rows[0] if rows else ():
        if name.startswith("held_out_t"):
            label = f"held out, t = {name.removeprefix('held_out_t')}"
            axes.plot(x, [row[name] for row in rows], label=label, marker=".")
        elif name == "loss":
            axes.plot(x, [row[name] for row in rows], label="training loss", color="0.6")
    axes.set(xlabel="crops seen", ylabel="loss", yscale="log", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
