"""Pictures of results: image, truth, prediction and errors side by side."""

__all__ = [
    "GAP",
    "PANEL",
    "Case",
    "confusion_legend",
    "error_picture",
    "is_figure",
    "overlay_figure",
    "save_picture",
    "veiled",
]

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textdiff.console import printable
from textdiff.files import atomic_path
from textdiff.images.labels import UNSAID
from textdiff.outputs.colours import (
    CONFUSIONS,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    UNSAID_VEIL,
    VEILED,
    WRONG_CLASS,
    class_colours,
    hex_colour,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL, GAP, _MARGIN, _LINE = 2.7, 0.08, 0.2, 0.19  # inches
_CAPTION_LINES = 3
_CLASSES_IN_A_LINE, _CLASS_LETTERS = 5, 24
# Of a large image that was thinned outlines would cover everything: from this share of edges on masks are filled.
_CROWDED = 0.4
_MARKS = {".png": b"Software\0TextDiff", ".pdf": b"/Creator (TextDiff)", ".svg": b"<dc:title>TextDiff</dc:title>"}


@dataclass(frozen=True)
class Case:
    """One row of the figure.

    ``image`` is RGB (H, W, 3) uint8; ``truth`` and ``prediction`` are class numbers (H, W), 0 for the background and
    ``UNSAID`` where the truth says nothing.
    """

    title: str
    text: str
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    prediction: NDArray[Any]


def overlay_figure(path: str | os.PathLike[str], cases: list[Case], classes: Sequence[str] = ("foreground",)) -> None:
    """Draws one row per case: the image, the outline of the truth, that of the prediction, and the errors.

    Of several classes each has its colour, and the errors include pixels of one class taken for another.

    Args:
        path: to write, atomically; its suffix says the format (PNG, PDF, SVG).
        cases: at least one.
        classes: the names of 1, 2, ...
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    captions = [_caption(case.text) for case in cases]
    tall = [PANEL * case.image.shape[0] / case.image.shape[1] for case in cases]
    width = 2 * _MARGIN + 4 * PANEL + 3 * GAP
    used = [1.5 * _LINE + height + _LINE * (len(lines) + 1.5) for height, lines in zip(tall, captions, strict=True)]
    several = len(classes) > 1
    colours = [hex_colour(colour) for colour in class_colours(len(classes))]
    line = 1.1 if several else 0.8
    named = 1.4 * _LINE * -(-len(classes) // _CLASSES_IN_A_LINE) if several else 0.0
    height = 2 * _MARGIN + 1.4 * _LINE + sum(used) + 0.8 * _LINE + named
    # A figure of its own, not pyplot's: no global state and no display.
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, y / height, printable(text, keep="\n"), parse_math=False, **style)

    top = height - _MARGIN
    for column, heading in enumerate(("image", "truth", "prediction", "errors")):
        middle = _MARGIN + column * (PANEL + GAP) + PANEL / 2
        write(middle, top, heading, ha="center", va="top", color="0.35", fontsize=10)
    top -= 1.4 * _LINE
    for case, lines, panel in zip(cases, captions, tall, strict=True):
        write(_MARGIN, top, printable(case.title), ha="left", va="top", weight="bold", fontsize=10)
        top -= 1.5 * _LINE
        truth, prediction = np.asarray(case.truth), np.asarray(case.prediction)
        pictures: list[NDArray[Any]] = [
            case.image,
            veiled(case.image, truth),
            case.image,
            error_picture(case.image, truth, prediction),
        ]
        outlines = (None, truth, prediction, None)
        for column, (picture, outline) in enumerate(zip(pictures, outlines, strict=True)):
            left = _MARGIN + column * (PANEL + GAP)
            axes = figure.add_axes((left / width, (top - panel) / height, PANEL / width, panel / height))
            axes.set_axis_off()
            axes.imshow(picture, aspect="auto")
            crowded = outline is not None and _edges(outline) > _CROWDED
            for label, colour in enumerate(colours if outline is not None else (), start=1):
                region = np.asarray(outline == label)
                if crowded:
                    axes.imshow(region[..., None] * np.array([*to_rgb(colour), 0.75]), aspect="auto")
                # Nothing or everything has no outline, and matplotlib would warn.
                elif region.any() and not region.all():
                    axes.contour(region, levels=[0.5], colors="black", linewidths=line + 0.5, alpha=0.6)
                    axes.contour(region, levels=[0.5], colors=colour, linewidths=line)
        top -= panel + 0.4 * _LINE
        write(_MARGIN, top, "\n".join(lines), ha="left", va="top", style="italic", color="0.25", fontsize=9)
        top -= _LINE * (len(lines) + 1.1)
    # Not a legend: that reads mathematics in names, and leaves out those that begin with an underscore.
    for index, (name, colour) in enumerate(zip(classes, colours, strict=True) if several else ()):
        down, column = divmod(index, _CLASSES_IN_A_LINE)
        x, y = _MARGIN + column * (width - 2 * _MARGIN) / _CLASSES_IN_A_LINE, top - 1.4 * _LINE * down
        box = ((x / width, (y - 0.6 * _LINE) / height), 0.28 / width, 0.6 * _LINE / height)
        figure.add_artist(Rectangle(*box, facecolor=colour, edgecolor="0.3", linewidth=0.5))
        short = name if len(name) <= _CLASS_LETTERS else f"{name[: _CLASS_LETTERS - 1]}…"
        write(x + 0.36, y, short, ha="left", va="top", fontsize=9)
    sparse = any(np.any(case.truth == UNSAID) for case in cases)
    confusion_legend(figure, (1 - _MARGIN / width, 0.5 * _MARGIN / height), 9, len(classes), sparse)
    save_picture(figure, path)


def save_picture(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure atomically, as its suffix says; dates, versions and random ids would make equal ones differ."""
    from matplotlib import rc_context

    metadata = {
        ".png": {"Software": "TextDiff"},
        ".pdf": {"CreationDate": None, "Creator": "TextDiff"},
        ".svg": {"Date": None, "Creator": "TextDiff"},
    }
    with atomic_path(path) as partial, rc_context({"svg.hashsalt": "textdiff"}):
        figure.savefig(partial, metadata=metadata.get(partial.suffix))


def is_figure(path: Path) -> bool:
    """Whether ``save_picture`` wrote a file, which names us in the way of its format."""
    return _MARKS[path.suffix] in path.read_bytes()


def _edges(mask: NDArray[Any]) -> float:
    """How many pixels of a mask (H, W) differ from the one above or the one to the left, as a share of all."""
    return float((np.count_nonzero(np.diff(mask, axis=0)) + np.count_nonzero(np.diff(mask, axis=1))) / mask.size)


def _caption(text: str) -> list[str]:
    # Some radiologists write in capitals only, which are half as wide again.
    capitals = sum(letter.isupper() for letter in text) > len(text) / 2
    text = printable(" ".join(text.split()))
    lines = textwrap.wrap(text, 105 if capitals else 150, max_lines=_CAPTION_LINES, placeholder=" ...")
    return lines or ["(no text)"]


def confusion_legend(figure: "Figure", corner: tuple[float, float], size: float, classes: int, sparse: bool) -> None:
    """The legend of ``error_picture``, in a line that ends at a corner of the figure."""
    from matplotlib.patches import Patch

    names = list(CONFUSIONS)[: len(CONFUSIONS) if classes > 1 else -1]
    patches = [Patch(color=hex_colour(CONFUSIONS[name]), label=name) for name in names]
    patches += [Patch(color=hex_colour(UNSAID_VEIL), label="nothing said")] if sparse else []
    figure.legend(
        handles=patches,
        loc="lower right",
        bbox_to_anchor=corner,
        borderaxespad=0,
        ncols=len(patches),
        frameon=False,
        fontsize=size,
    )


def veiled(picture: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
    """A picture (H, W, 3), uint8 or in 0..1, under a grey veil where the truth (H, W) says nothing."""
    unsaid, scale = truth == UNSAID, 1 if picture.dtype == np.uint8 else 255
    if not unsaid.any():
        return picture
    found = picture.copy()
    found[unsaid] = (1 - VEILED) * picture[unsaid] + VEILED * np.array(UNSAID_VEIL) / scale
    return found


def error_picture(image: NDArray[np.uint8], truth: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float64]:
    """The image in pale grey, (H, W, 3) in 0..1, with right and wrong foreground in colour.

    ``truth`` and ``prediction`` are class numbers, or bool, (H, W). Where the truth says nothing there is a veil.
    """
    grey = image.mean(axis=2, keepdims=True) / 255
    picture = np.repeat(0.45 + 0.55 * grey, 3, axis=2)
    true, predicted = truth != 0, prediction != 0
    for region, colour in (
        (true & predicted & (truth == prediction), TRUE_POSITIVE),
        (true & predicted & (truth != prediction), WRONG_CLASS),
        (~true & predicted, FALSE_POSITIVE),
        (true & ~predicted, FALSE_NEGATIVE),
    ):
        shown = region & (truth != UNSAID)
        picture[shown] = 0.15 * picture[shown] + 0.85 * np.array(colour) / 255
    return veiled(picture, truth)
