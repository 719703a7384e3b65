"""The picture that ``panel`` makes."""

__all__ = ["PanelRow", "Prediction", "attended", "panel_figure"]

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textdiff.console import printable
from textdiff.images.labels import UNSAID
from textdiff.pipeline.evaluation.figures import confusion_legend, error_picture, save_picture

PANEL, TEXT, GAP, MARGIN, LINE = 1.9, 1.7, 0.07, 0.15, 0.17  # inches


class Prediction(NamedTuple):
    """What a run made of an image; masks are (H, W), in the size of the run's cache, the truth with ``UNSAID``."""

    title: str
    mask: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    dice: float


class PanelRow(NamedTuple):
    """One image, RGB (H, W, 3) uint8, and what each run made of it."""

    title: str
    text: str
    image: NDArray[np.uint8]
    predictions: list[Prediction]
    words: list[tuple[str, NDArray[np.float32] | None]]
    """Words of the text, and what share of every position's attention each has, (h, w); None for one it lacks."""


def panel_figure(path: Path, rows: list[PanelRow]) -> None:
    """Draws image, text, truth, every run's errors and words' attention, a row for each image, all of the same runs.

    Args:
        path: to write, atomically; its suffix says the format.
        rows: at least one.
    """
    from matplotlib.figure import Figure

    titles = [prediction.title for prediction in rows[0].predictions]
    words = [f"“{word}”" for word, _ in rows[0].words]
    headings = ["image", "text", "truth", *titles, *words]
    lefts = np.cumsum([MARGIN, PANEL + GAP, TEXT + 2 * GAP, *[PANEL + GAP] * (len(titles) + len(words))])
    width = lefts[-1] + PANEL + MARGIN
    tall = [PANEL * row.image.shape[0] / row.image.shape[1] for row in rows]
    top_lines = max(title.count("\n") for title in titles) + 1
    height = 2 * MARGIN + (top_lines + 0.6) * LINE + sum(tall) + len(rows) * 2.7 * LINE + 1.2 * LINE
    figure = Figure(figsize=(width, height), dpi=200, facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        # A dollar sign in a text is no formula.
        figure.text(x / width, y / height, printable(text, keep="\n"), parse_math=False, **style)

    top = height - MARGIN
    for left, heading in zip(lefts, headings, strict=True):
        wide = TEXT if heading == "text" else PANEL
        write(left + wide / 2, top - top_lines * LINE, heading, ha="center", va="bottom", color="0.3", fontsize=9)
    top -= (top_lines + 0.6) * LINE
    for row, panel in zip(rows, tall, strict=True):
        write(MARGIN, top, printable(row.title), ha="left", va="top", weight="bold", fontsize=8.5)
        top -= 1.3 * LINE
        first = row.predictions[0]
        truth = error_picture(_sized(row.image, first.truth), first.truth, first.truth)
        pictures: list[NDArray[Any] | None] = [row.image, None, truth]
        pictures += [error_picture(_sized(row.image, p.truth), p.truth, p.mask) for p in row.predictions]
        pictures += [attended(row.image, first.truth, shares) for _, shares in row.words]
        for left, picture in zip(lefts, pictures, strict=True):
            if picture is None:
                lines = textwrap.wrap(printable(" ".join(row.text.split())), 24, max_lines=11, placeholder=" ...") or [
                    "(no text)"
                ]
                style = {"ha": "left", "va": "center", "style": "italic", "color": "0.2", "fontsize": 8.5}
                write(left + GAP, top - panel / 2, "\n".join(lines), **style)
                continue
            axes = figure.add_axes((left / width, (top - panel) / height, PANEL / width, panel / height))
            axes.set_axis_off()
            axes.imshow(picture, aspect="auto", interpolation="nearest")
        top -= panel
        captions = [f"Dice {100 * prediction.dice:.1f} %" for prediction in row.predictions]
        captions += ["not in the text" if shares is None else _range(shares) for _, shares in row.words]
        for left, caption in zip(lefts[3:], captions, strict=True):
            write(left + PANEL / 2, top - 0.2 * LINE, caption, ha="center", va="top", color="0.2", fontsize=8.5)
        top -= 1.4 * LINE
    sparse = any(np.any(p.truth == UNSAID) for row in rows for p in row.predictions)
    confusion_legend(figure, (1 - MARGIN / width, 0.5 * MARGIN / height), 8.5, 1, sparse)
    save_picture(figure, path)


def attended(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], shares: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """The map, coloured from its smallest number to its largest, with the truth's outline; without one a pale image."""
    from matplotlib import colormaps
    from PIL import Image
    from skimage.segmentation import find_boundaries

    if shares is None:
        return (255 - 0.3 * (255 - np.repeat(image.mean(2, keepdims=True), 3, 2))).astype(np.uint8)
    low, high = float(shares.min()), float(shares.max())
    levels = np.round((shares - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    sized = Image.fromarray(levels).resize(truth.shape[::-1], Image.Resampling.BILINEAR)
    # The image itself is not seen through it: where that is dark, the attention would seem to be small.
    colours: NDArray[np.uint8] = (255 * colormaps["inferno"](np.asarray(sized))[..., :3]).astype(np.uint8)
    colours[find_boundaries(truth == 1, mode="inner")] = 255
    return colours


def _range(shares: NDArray[np.float32]) -> str:
    """From dark to bright: what share of the attention."""
    return f"{100 * float(shares.min()):.1f} to {100 * float(shares.max()):.1f} % of attention"


def _sized(image: NDArray[np.uint8], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """The image in the size of a run's masks, where its cache has another size than the first run's."""
    if image.shape[:2] == truth.shape:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(truth.shape[::-1], Image.Resampling.BOX))
