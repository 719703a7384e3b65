"""The picture of docs/texts.md: a drawn pair of lungs in the eight views, with the sentences that are true of each.

python benchmarks/turned_texts_figure.py docs/images/turned-texts.png
"""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from textdiff.files import atomic_path
from textdiff.images.directions import read_directions
from textdiff.images.images import SYMMETRIES, symmetry

SENTENCES = ("In the upper left lung.", "At the upper right.")
SIZE = 96
LUNG, SPOT = 1, 2


def drawing() -> NDArray[np.uint8]:
    """(SIZE, SIZE), with 1 in both lungs, and 2 in a spot at the upper right, in the patient's left lung."""
    down, across = np.mgrid[:SIZE, :SIZE] / (SIZE - 1)
    picture = np.zeros((SIZE, SIZE), np.uint8)
    for middle in (0.31, 0.69):
        picture[((across - middle) / 0.15) ** 2 + ((down - 0.51) / 0.36) ** 2 < 1] = LUNG
    picture[(across - 0.69) ** 2 + (down - 0.31) ** 2 < 0.07**2] = SPOT
    return picture


def draw_figure() -> Figure:
    """A panel for each view, in their order."""
    words, picture = read_directions(), drawing()
    figure = Figure(figsize=(7.2, 4.2), dpi=100, facecolor="white", layout="constrained")
    for view, ax in enumerate(figure.subplots(2, SYMMETRIES // 2).flat):
        ax.imshow(symmetry(picture, view), cmap=ListedColormap(["#282828", "#797979", "#ffc736"]), vmin=0, vmax=2)
        ax.set(xticks=[], yticks=[])
        ax.set_title("\n".join(f"“{words.turned(sentence, view)}”" for sentence in SENTENCES), fontsize=9)
    return figure


def main(target: str) -> None:
    """Writes the picture, in as few colours as it needs."""
    drawn = BytesIO()
    draw_figure().savefig(drawn, format="png")
    with atomic_path(Path(target)) as partial_file:
        Image.open(drawn).convert("RGB").quantize(32).save(partial_file, format="png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
