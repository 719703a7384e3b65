"""Images and text to masks, probabilities and uncertainty, with a finished run."""

__all__ = ["Predictor", "enlarge", "pictures", "predict_row"]


import numpy as np
import torch
import torch.nn.functional as F

from textdiff.cache import Item
from textdiff.pipeline.device import autocast, choose_device
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


def pictures(probabilities: np.ndarray, with_probabilities: bool, with_entropy: bool) -> dict[str, np.ndarray]:
    """What may be shown of probabilities (classes, H, W), by the end of a file's name: (H, W) each."""
    classes = len(probabilities)
    labels = probabilities.argmax(0).astype(np.uint8)
    found = {"": labels * 255 if classes == 2 else labels}
    if with_probabilities:
        found["_probability"] = _to_16_bits(1 - probabilities[0])
    if with_entropy:
        found["_entropy"] = _to_16_bits(entropy(probabilities) / np.log(classes))
    return found


def _to_16_bits(values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    return scaled
