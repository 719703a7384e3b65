"""The picture of docs/results.md, drawn from the page's own tables; a test fails until it shows these again.

python benchmarks/results_figure.py docs/results.md docs/images/results.png
"""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from textdiff.experiments.plots import colour
from textdiff.files import atomic_path

# A panel has a title, the heading of its tables, and what is said of each of the first ones.
PANELS = (
    ("Nuclei (MoNuSeg), 256 pixels, twenty draws", "256 pixels", ("which features", "which system")),
    ("Chest X-rays, 128 pixels, ten draws", "Ten draws", ("on nano-cxr", "on nano-he")),
)
ROW = re.compile(r"\| (?P<system>[^|]+) \| (?P<mean>[\d.]+) \[(?P<low>[\d.]+), (?P<high>[\d.]+)\]")


class Score(NamedTuple):
    """A system's mean Dice and its interval, in percent."""

    system: str
    mean: float
    low: float
    high: float


def read_tables(page: str, heading: str) -> list[list[Score]]:
    """The tables between a heading of the third level and the next heading of any."""
    _, _, section = page.partition(f"\n### {heading}\n")
    lines = re.split(r"\n##", section)[0].splitlines()
    tables: list[list[Score]] = []
    for line in lines:
        if line.startswith("| system"):
            tables.append([])
        elif row := ROW.match(line):
            label = re.split(r"[:(]|, which|, by each", row["system"])[0].replace("`", "").strip()
            tables[-1].append(Score(label, *(float(row[name]) for name in ("mean", "low", "high"))))
    return tables


def read_panels(page: str) -> list[list[list[Score]]]:
    """The tables of each panel."""
    return [read_tables(page, heading)[: len(labels)] for _, heading, labels in PANELS]


def drawn(page: str) -> str:
    """All that the picture shows, as JSON: it is kept in the picture, and tells whether that is still the page's."""
    return json.dumps(
        [[title, labels, tables] for (title, _, labels), tables in zip(PANELS, read_panels(page), strict=True)]
    )


def draw_figure(page: str) -> Figure:
    """A panel for each kind of images, a row for each system: the mean, and the interval as a line."""
    panels = read_panels(page)
    rows = max(sum(map(len, tables)) + len(tables) for tables in panels)
    figure = Figure(figsize=(10, 0.5 + 0.24 * rows), dpi=150, facecolor="white", layout="constrained")
    for ax, tables, (title, _, labels) in zip(figure.subplots(1, len(PANELS)), panels, PANELS, strict=True):
        ticks: list[tuple[int, str]] = []
        for index, (table, label) in enumerate(zip(tables, labels, strict=True)):
            ticks.append((len(ticks), label))
            for score in table:
                row = len(ticks)
                ticks.append((row, score.system))
                ax.plot([score.low, score.high], [row, row], color=colour(index), linewidth=1.6)
                ax.plot(score.mean, row, "o", color=colour(index), markersize=5)
                ax.annotate(
                    f"{score.mean:.2f}",
                    (score.mean, row),
                    (0, 3.5),
                    textcoords="offset points",
                    fontsize=7,
                    ha="center",
                )
        ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=8)
        for (_, text), shown in zip(ticks, ax.get_yticklabels(), strict=True):
            shown.set_fontweight("bold" if text in labels else "normal")
        ax.set_ylim(len(ticks) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="x", color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("Dice of test images, %, and 95% interval", fontsize=8)
    return figure


def main(source: str, target: str) -> None:
    """Reads the page and writes the picture."""
    page = Path(source).read_text(encoding="utf-8")
    figure = draw_figure(page)
    with atomic_path(Path(target)) as partial_file:
        figure.savefig(partial_file, format="png", metadata={"Software": None, "Comment": drawn(page)})


if __name__ == "__main__":
    main(*sys.argv[1:])
