"""A run put to use on arrays: ``Predictor``."""

__all__ = ["Predictor"]

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff import console
from textdiff.errors import UserError
from textdiff.images.pixel_size import file_pixel_size
from textdiff.options.option import AnyPath
from textdiff.outputs.colours import class_colours
from textdiff.outputs.overlay import annotated, outlined
from textdiff.pipeline.evaluation.calibration import Calibration
from textdiff.pipeline.prediction.blank import HOLDS_NOTHING
from textdiff.pipeline.prediction.predictor import open_predictor
from textdiff.pipeline.prediction.preprocessing import missing_text
from textdiff.pipeline.runs import find_run
from textdiff.readers.datasets import Remarks, remarks
from textdiff.readers.decoding import load_image


class Predictor:
    """A finished run with its backbone and text encoder, ready to segment images that are in no cache.

    It warns of an image that is unlike the training images; the first time that a run which reads text gets none; and
    of what has to be changed in a file to read it, once for each kind of change.

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
        self._predict = open_predictor(self.run, device, None if backbone is None else str(backbone), views)
        self._calibration = Calibration.load(self.run)
        self._views, self._warned, self._remarks = views, False, Remarks()

    def __repr__(self) -> str:
        reads = "reads text" if self.reads_text else "reads no text"
        views = f", mean of {self._views} views" if self._views > 1 else ""
        return f"<Predictor of {self.run.path} ({self.run.label}): {', '.join(self.run.classes)}; {reads}{views}>"

    @property
    def reads_text(self) -> bool:
        """Whether the run looks at the text at all."""
        return self._predict.reads_text

    @property
    def distance(self) -> float | None:
        """How far the last image is from the training images, in units of their mean distance from each other.

        None where that is not known: of a U-Net, of a single training image, of a blank image.
        """
        return self._predict.distance

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
        if self.reads_text and not text and not self._warned:
            self._warned = True
            console.warn(f"an image has no text: {missing_text(self.run)}")
        probabilities = self._predict(self._pixels(image), text)
        if what := HOLDS_NOTHING if self._predict.nothing else self._predict.unlike:
            console.warn(f"{image if isinstance(image, str | PathLike) else 'an image'} {what}")
        return probabilities

    def trusted(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the call gives, (classes, H, W), at the temperature that the run's validation images have.

        ``predict`` writes these. They are the same where there is no temperature. Masks are made of the others.
        """
        return self._calibration.tempered(probabilities)

    def overlay(
        self, image: NDArray[np.uint8] | AnyPath, text: str = "", own_mpp: float | None = None
    ) -> NDArray[np.uint8]:
        """The image with what was found outlined, every class in its colour: (H, W, 3) uint8, RGB, to look at.

        There is a scale bar where a pixel's size is known, and a legend where there are several classes.

        Args:
            image: as for the call.
            text: the same.
            own_mpp: micrometres per pixel; by default what a file says.
        """
        pixels = self._pixels(image)
        drawn = outlined(pixels, self(image, text).argmax(0), list(self.colours.values()))
        size = file_pixel_size(Path(image)) if own_mpp is None and isinstance(image, str | PathLike) else None
        return annotated(drawn, self.run.classes, size if own_mpp is None else (own_mpp, own_mpp))

    def _pixels(self, image: NDArray[np.uint8] | AnyPath) -> NDArray[np.uint8]:
        """What a user calls an image as RGB (H, W, 3) uint8."""
        if isinstance(image, str | PathLike):
            path = Path(image)
            pixels, _, notes = load_image(path)
            height, width = pixels.shape[:2]
            tiled = self._predict.grid(height, width) is not None
            for remark in remarks(height, width, (int(pixels.min()), int(pixels.max())), notes, tiled):
                self._remarks.say(path, *remark)
            return pixels
        array = np.asarray(image)
        if (
            not array.size
            or array.dtype != np.uint8
            or array.ndim not in (2, 3)
            or (array.ndim == 3 and array.shape[2] != 3)
        ):
            raise UserError(
                f"image: an array {array.shape} of {array.dtype}; give (H, W, 3) RGB or (H, W) grey in uint8, or a file"
            )
        return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
