"""The picture of docs/texts.md: three sentences, and the maps of the places that they name.

python benchmarks/places_figure.py docs/images/places.png
"""

import sys
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from textdiff.files import atomic_path
from textdiff.images.directions import read_directions

SENTENCES = (
    "Two infected areas, middle\nlower left lung and upper\nright lung.",
    "Nuclei are dense in the\nupper left corner.",
    "The left lung is clear; all\nright lung is infected.",
)
SIZE = 256


def draw_figure() -> Figure:
    """A panel for each sentence, in their order."""
    words = read_directions()
    figure = Figure(figsize=(7.2, 2.95), dpi=110, facecolor="white", layout="compressed")
    for sentence, ax in zip(SENTENCES, figure.subplots(1, len(SENTENCES)), strict=True):
        ax.imshow(words.place_map(sentence.replace("\n", " "), SIZE), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"“{sentence}”", fontsize=9)
    return figure


def main(target: str) -> None:
    """Writes the picture, in shades of grey."""
    drawn = BytesIO()
    draw_figure().savefig(drawn, format="png")
    with atomic_path(Path(target)) as partial_file:
        Image.open(drawn).convert("L").save(partial_file, format="png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
