"""Images and text to masks, probabilities and uncertainty, with a finished run."""

__all__ = ["Predictor", "enlarge", "pictures", "predict_files", "predict_row", "write_prediction"]

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from textdiff import console
from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.pipeline import images
from textdiff.pipeline.device import autocast, choose_device
from textdiff.pipeline.large import is_large, segment_large
from textdiff.pipeline.metrics import entropy
from textdiff.pipeline.runs import Run
from textdiff.pipeline.segmenter import Segmenter
from textdiff.pipeline.sources import open_source
from textdiff.pipeline.tiles import Grid, cut, stitch


@torch.inference_mode()
def predict_row(network: Segmenter, item: Item, precision: str) -> np.ndarray:
    """Class probabilities (classes, S, S) in float32 of one cached row."""
    network.eval()
    with autocast(next(network.parameters()).device, precision):
        logits = network(*network.inputs([item]))
    probabilities: np.ndarray = logits.float().softmax(1)[0].cpu().numpy()
    return probabilities


def enlarge(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities (classes, S, S) at another size, bilinearly: (classes, height, width) in float32."""
    grid = torch.from_numpy(probabilities).unsqueeze(0)
    return F.interpolate(grid, (height, width), mode="bilinear")[0].numpy()


class Predictor:
    """A run, with its backbone and text encoder where it needs them, for images that are in no cache.

    The image goes the way that the training images went: the same resizing, noise, network and rounding, so an image
    of the data set gets the mask that ``score`` measures.

    Args:
        run: a finished run.
        device: where to compute, ``auto``, ``cpu``, ``cuda`` ...
        backbone: another place of the backbone; by default the one the cache was made with.

    Raises:
        UserError: the run is not finished; the backbone or the text encoder is missing or is another one.
    """

    def __init__(self, run: Run, device: str = "auto", backbone: str | None = None) -> None:
        where = choose_device(device)
        self._network = run.load_network().to(where)
        self._source = open_source(run, where, backbone)
        self._made = run.config["fingerprint"]
        self._precision = run.config["fit"]["precision"] if where.type == "cuda" else "float32"

    def grid(self, height: int, width: int) -> Grid | None:
        """The tiles that an image (height, width) is predicted by, as the run's cache was cut; None if it was not."""
        made = self._made
        return Grid(height, width, made["tile"], made["overlap"]) if "tile" in made else None

    @property
    def reads_text(self) -> bool:
        """Whether the network looks at the text at all."""
        return self._source.reads_text

    def __call__(self, image: np.ndarray, description: str = "") -> np.ndarray:
        """Class probabilities at the image's own size. A run that was fitted on tiles predicts by tiles.

        Args:
            image: (H, W, 3) uint8, RGB, any size.
            description: the text that comes with it.

        Returns:
            (classes, H, W) float32, summing to one over the classes.
        """
        grid = self.grid(*image.shape[:2])
        if grid is None:
            return self.tile(image, description)
        tiles = (self.tile(cut(image, y, x, grid.size), description) for y, x in grid.places)
        probabilities = np.empty((self._network.config["classes"], *image.shape[:2]), np.float32)
        for y, band in stitch(grid, tiles):
            probabilities[:, y : y + band.shape[1]] = band
        return probabilities

    def tile(self, pixels: np.ndarray, description: str = "") -> np.ndarray:
        """Class probabilities (classes, h, w) float32 of what the network sees at once, RGB (h, w, 3) uint8."""
        small = predict_row(self._network, self._source(pixels, description), self._precision)
        return enlarge(small, *pixels.shape[:2])


def write_prediction(
    folder: Path, name: str, probabilities: np.ndarray, *, with_probabilities: bool = False, with_entropy: bool = False
) -> list[Path]:
    """Writes one image's result as PNG files and returns their paths.

    ``<name>.png`` is the mask: 0 and 255 for two classes, the class number for more. ``<name>_probability.png`` is the
    foreground's probability and ``<name>_entropy.png`` the entropy over its maximum log(classes), both in 16 bits:
    0..65535 stands for 0..1.

    Args:
        folder: where to write; made if absent.
        name: stem of the file names.
        probabilities: (classes, H, W) float32.
        with_probabilities: write the probability as well.
        with_entropy: write the entropy as well.
    """
    files = []
    for suffix, picture in pictures(probabilities, with_probabilities, with_entropy).items():
        files.append(folder / f"{name}{suffix}.png")
        with atomic_path(files[-1]) as partial:
            Image.fromarray(picture).save(partial)
    return files


def pictures(probabilities: np.ndarray, with_probabilities: bool, with_entropy: bool) -> dict[str, np.ndarray]:
    """What ``write_prediction`` writes of probabilities (classes, H, W), by the end of the name: (H, W) each."""
    classes = len(probabilities)
    labels = probabilities.argmax(0).astype(np.uint8)
    found = {"": labels * 255 if classes == 2 else labels}
    if with_probabilities:
        found["_probability"] = _to_16_bits(1 - probabilities[0])
    if with_entropy:
        found["_entropy"] = _to_16_bits(entropy(probabilities) / np.log(classes))
    return found


def predict_files(
    run: Run,
    paths: Sequence[Path],
    description: str,
    folder: Path,
    *,
    with_probabilities: bool = False,
    with_entropy: bool = False,
    backbone: str | None = None,
    device: str = "auto",
) -> Iterator[Path]:
    """Segments image files one after the other and yields the path of every file written.

    All images are looked for before any is segmented; one that cannot be read stops the work, and what was written
    until then stays. A TIFF of more than ``MAX_MEGAPIXELS`` is worked through in parts, and its masks are TIFFs.

    Raises:
        UserError: an image is missing or unreadable, two would write the same file, or the run is not usable.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such image file" + (", it is a directory" if path.is_dir() else ""))
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]}: two images of this name would write the same mask; predict them into two --out")
    predictor = Predictor(run, device, backbone)
    if predictor.reads_text and not description:
        console.warn("no --text given: this run reads the text, and gets an empty one, which it was not fitted on")
    with console.Progress(len(paths), "predict") as progress:
        for path in paths:
            if is_large(path):
                yield from segment_large(
                    path,
                    folder,
                    predictor.grid,
                    lambda pixels: predictor.tile(pixels, description),
                    lambda probabilities: pictures(probabilities, with_probabilities, with_entropy),
                )
                progress.advance()
                continue
            probabilities = predictor(images.read_image(path), description)
            yield from write_prediction(
                folder,
                path.stem,
                probabilities,
                with_probabilities=with_probabilities,
                with_entropy=with_entropy,
            )
            progress.advance()


def _to_16_bits(values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    return scaled
