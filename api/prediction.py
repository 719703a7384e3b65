"""A run put to use: files to files as a function, arrays to arrays as a ``Predictor``."""

__all__ = ["Predictor", "predict"]

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.api.opening import AnyPath, open_run
from textdiff.errors import UserError
from textdiff.outputs.colours import class_colours
from textdiff.outputs.outlines import outlined
from textdiff.pipeline import predict as prediction
from textdiff.pipeline.imaging import images
from textdiff.pipeline.prediction.batch import Wanted, predict_all
from textdiff.pipeline.prediction.inputs import gather
from textdiff.pipeline.runs import Run


def predict(
    image: AnyPath | Sequence[AnyPath] | None = None,
    text: str = "",
    *,
    list_file: AnyPath | None = None,
    dataset: str | None = None,
    data: AnyPath | None = None,
    run: Run | AnyPath | None = None,
    out: AnyPath = "predictions",
    formats: Sequence[str] | None = None,
    instances: str | None = None,
    min_area: int = 0,
    probabilities: bool = False,
    entropy: bool = False,
    disagreement: bool = False,
    views: int = 1,
    overwrite: bool = False,
    backbone: AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> list[Path]:
    """Segments images with a finished run and returns the files it wrote; for arrays see ``Predictor``.

    Args:
        image: files and directories, one or several.
        text: that comes with each of them.
        list_file: a file of paths, or a table (CSV, TSV, Excel, JSON lines) with the columns image and text.
        dataset: segment the images of a data set that have no mask, with their texts.
        data: the directory of ``dataset``.
        run: a finished run.
        out: where the results are written, at the images' own sizes.
        formats: beside PNG: ``geojson``, ``ome-zarr``, ``nifti``, ``roi``.
        instances: ``components`` or ``watershed``; also writes maps of objects.
        min_area: leave out smaller objects, in pixels.
        probabilities: write the foreground's probability too, in 16 bits.
        entropy: write the entropy over its maximum too, in 16 bits.
        disagreement: write the disagreement of an ensemble's members too, in 16 bits.
        views: 1, or 8 for the mean over the symmetries of the square.
        overwrite: do images again that are done.
        backbone: the run's backbone, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: an image is missing or unreadable, two would write the same file, or the run is not usable.
    """
    given = [] if image is None else [image] if isinstance(image, str | PathLike) else image
    inputs = gather(
        [Path(path) for path in given],
        text,
        list_file=None if list_file is None else Path(list_file),
        dataset=dataset,
        data=None if data is None else Path(data),
        without=Path(out),
    )
    wanted = Wanted(tuple(formats or ()), instances, min_area, probabilities, entropy, disagreement, views)
    where = None if backbone is None else str(backbone)
    found = open_run(run, runs=runs)
    return list(predict_all(found, inputs, Path(out), wanted, overwrite=overwrite, backbone=where, device=device))


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
        run: Run | AnyPath | None = None,
        *,
        backbone: AnyPath | None = None,
        views: int = 1,
        device: str = "auto",
        runs: AnyPath = "runs",
    ) -> None:
        self.run = open_run(run, runs=runs)
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
