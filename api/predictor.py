"""A run put to use on arrays: ``Predictor``."""

__all__ = ["Predictor"]

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.errors import UserError
from textdiff.options.option import AnyPath
from textdiff.outputs.colours import class_colours
from textdiff.outputs.outlines import outlined
from textdiff.pipeline import predict as prediction
from textdiff.pipeline.imaging import images
from textdiff.pipeline.runs import find_run


class Predictor:
    """A finished run with its backbone and text encoder, ready to segment images that are in no cache.

    Args:
        run: a finished run; the latest one by default.
        backbone: the run's backbone, if it was moved.
        views: 1, or 8 for the mean over the symmetries of the square, in eight times the time.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not finished; the backbone or the text encoder is missing or is another one.
    """

    def __init__(
        self,
        run: AnyPath | None = None,
        *,
        backbone: AnyPath | None = None,
        views: int = 1,
        device: str = "auto",
        runs: AnyPath = "runs",
    ) -> None:
        self.run = find_run(run, runs)
        self._predict = prediction.Predictor(self.run, device, None if backbone is None else str(backbone), views)

    @property
    def reads_text(self) -> bool:
        """Whether the run looks at the text at all."""
        return self._predict.reads_text

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        """The names of the classes 1, 2, ... in their order, and the RGB in 0..255 that every picture shows them in."""
        return dict(zip(self.run.classes, class_colours(len(self.run.classes)), strict=True))

    def __call__(self, image: NDArray[np.uint8] | AnyPath, text: str = "") -> NDArray[np.float32]:
        """Class probabilities at the image's own size; ``argmax(0)`` is the mask.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, any size; or a file.
            text: the text that comes with it.

        Returns:
            (classes, H, W) float32, summing to one over the classes.

        Raises:
            UserError: the file is missing or unreadable, or the array is not of that kind.
        """
        return self._predict(_pixels(image), text)

    def overlay(self, image: NDArray[np.uint8] | AnyPath, text: str = "") -> NDArray[np.uint8]:
        """The image with what was found outlined, every class in its colour: (H, W, 3) uint8, RGB, to look at.

        Arguments and errors are those of the call.
        """
        pixels = _pixels(image)
        return outlined(pixels, self._predict(pixels, text).argmax(0), list(self.colours.values()))


def _pixels(image: NDArray[np.uint8] | AnyPath) -> NDArray[np.uint8]:
    """What a user calls an image as RGB (H, W, 3) uint8."""
    if isinstance(image, str | PathLike):
        return images.read_image(Path(image))
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise UserError(
            f"image: an array {array.shape} of {array.dtype}; give (H, W, 3) RGB or (H, W) grey in uint8, or a file"
        )
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
