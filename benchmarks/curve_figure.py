"""The picture of the curve of pretraining, from the results that pretrain_curve.py wrote.

python benchmarks/curve_figure.py benchmarks/results/pretrain_curve.json docs/images/pretrain-curve.png
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from textdiff.experiments.nested_bootstrap import Estimate, nested_bootstrap
from textdiff.experiments.plots import colour, error_bars
from textdiff.files import atomic_path

TITLES = {"cxr": "Chest X-rays, 128 pixels", "he": "Nuclei (MoNuSeg), 256 pixels"}
UNTRAINED = 400  # where the axis of crops, which has no zero, shows a network that has seen none


def estimate(heads: Mapping[str, Any]) -> Estimate:
    """The Dice of test images with its interval over draws and images."""
    return nested_bootstrap([np.array(draw)[None] for draw in heads["images"]["test"]])


def draw_figure(results: Mapping[str, Any]) -> Figure:
    """A panel for each kind of images: a line for each objective, and two for no network at all."""
    figure = Figure(figsize=(8, 3.4), dpi=200, facecolor="white", layout="constrained")
    for ax, (name, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        heads = results[f"heads {name}"]
        for index, objective in enumerate(("noise", "masked")):
            own = [value for label, value in heads.items() if label.split(",")[0] == objective]
            own = [heads[f"untrained as {objective}"], *sorted(own, key=lambda value: value["crops"])]
            shift = 1 + 0.08 * index  # intervals of the two lines stand beside each other
            crops = [shift * (value["crops"] or UNTRAINED) for value in own]
            error_bars(ax, crops, [estimate(value) for value in own], index, objective)
        for index, (line, style) in enumerate((("filters", "--"), ("rgb", ":")), 2):
            mean = 100 * estimate(heads[line]).mean
            ax.axhline(mean, color=colour(index), linestyle=style, linewidth=1.2, label=f"{line}, no network")
        ax.set_xscale("log")
        ax.set_xticks([UNTRAINED, 1_000, 3_000, 8_000, 20_000], ["un-\ntrained", "1,000", "3,000", "8,000", "20,000"])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("unlabelled crops seen")
    figure.axes[0].set_ylabel("Dice of test images, %")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncol=4
    )
    return figure


def main(source: str, target: str) -> None:
    """Reads the results and writes the picture."""
    figure = draw_figure(json.loads(Path(source).read_text(encoding="utf-8"))["results"])
    with atomic_path(Path(target)) as partial_file:
        figure.savefig(partial_file, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
