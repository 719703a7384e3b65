"""Images and text to masks, probabilities and uncertainty, with a finished run."""

__all__ = ["Predictor", "enlarge", "pictures", "predict_members", "predict_row"]

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.images.images import SYMMETRIES, symmetry
from textdiff.images.tiles import Grid, cut, stitch
from textdiff.metrics.pixels import entropy
from textdiff.metrics.uncertainty import jensen_shannon
from textdiff.models.device import autocast, choose_device
from textdiff.models.networks.segmenter import Segmenter
from textdiff.pipeline.prediction.blank import all_background, shows_nothing
from textdiff.pipeline.prediction.sources import open_source
from textdiff.pipeline.prediction.unlike import Contrast, Likeness
from textdiff.pipeline.prediction.views import mean_of_views
from textdiff.pipeline.runs import Run


@torch.inference_mode()
def predict_members(network: Segmenter, item: Item, precision: str) -> np.ndarray:
    """Class probabilities (members, classes, S, S) in float32 of one cached row, from each member of an ensemble.

    A network that is none is the only member. A blank row is background and goes through none.
    """
    if shows_nothing(network, item):
        assert item.image is not None
        return all_background(len(network.members), network.config["classes"], item.image.shape[-1])
    network.eval()
    inputs = network.inputs([item])
    with autocast(network.device, precision):
        logits = torch.cat([member(*inputs) for member in network.members])
    probabilities: np.ndarray = logits.float().softmax(1).cpu().numpy()
    return probabilities


def predict_row(network: Segmenter, item: Item, precision: str) -> np.ndarray:
    """Class probabilities (classes, S, S) in float32 of one cached row; the mean of an ensemble's."""
    mean: np.ndarray = predict_members(network, item, precision).mean(0)
    return mean


def enlarge(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities (..., classes, S, S) at another size, bilinearly: (..., classes, height, width) in float32."""
    grid = torch.from_numpy(probabilities)
    sized = F.interpolate(grid.reshape(-1, *grid.shape[-3:]), (height, width), mode="bilinear")
    return sized.reshape(*grid.shape[:-2], height, width).numpy()


class Predictor:
    """A run, with its backbone and text encoder where it needs them, for images that are in no cache.

    The image goes the way that the training images went: the same resizing, noise, network and rounding, so an image
    of the data set gets the mask that ``score`` measures, in as many ``views`` as it measured.

    Args:
        run: a finished run.
        device: where to compute, ``auto``, ``cpu``, ``cuda`` ...
        backbone: another place of the backbone; by default the one the cache was made with.
        views: 1, or 8 to give the mean over the symmetries of the square, as ``score`` does where a cache was
            extracted with ``--test-views 8``; for eight times the time.

    Raises:
        UserError: the run is not finished; the backbone or the text encoder is missing or is another one; ``views`` is
            another number.
    """

    def __init__(self, run: Run, device: str = "auto", backbone: str | None = None, views: int = 1) -> None:
        if views not in (1, SYMMETRIES):
            raise UserError(f"--views {views}: must be 1, or 8 (the symmetries)")
        self._views = views
        where = choose_device(device)
        self._network = run.load_network().to(where)
        self._source = open_source(run, where, backbone)
        self._made = run.config["fingerprint"]
        self._precision = run.config["fit"]["precision"] if where.type == "cuda" else "float32"
        self._likeness = Likeness.load(run)
        self._times: list[int] = run.config["head"].get("times") or self._made["steps"]
        self.start()
        self.seen = self.blank = 0
        """What the network was to see so far, images or tiles, and how many of them were blank."""

    def grid(self, height: int, width: int) -> Grid | None:
        """The tiles that an image (height, width) is predicted by, as the run's cache was cut; None if it was not."""
        made = self._made
        return Grid(height, width, made["tile"], made["overlap"]) if "tile" in made else None

    def start(self) -> None:
        """Begins an image that comes tile by tile, for ``distance``; whole ones begin by themselves."""
        self._contrast = Contrast(self._times)

    @property
    def distance(self) -> float | None:
        """How far the last image is from the training images; None where that is not known. See ``Likeness``."""
        return None if self._likeness is None else self._likeness.distance(self._contrast.result())

    @property
    def unlike(self) -> str:
        """What to say of the last image if it is unlike the training images; empty otherwise."""
        distance = self.distance
        if self._likeness is None or distance is None or distance <= self._likeness.limit:
            return ""
        return f"is unlike the training images (distance {distance:.2f}, limit {self._likeness.limit})"

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
        return self._whole(image, self.classes, lambda pixels: self.tile(pixels, description))

    def members(self, image: np.ndarray, description: str = "") -> np.ndarray:
        """What each member of an ensemble says, the only one being the network itself where it is none.

        Arguments as for the call, which gives the mean of these, (members, classes, H, W) float32.
        """
        layers = self._whole(
            image,
            len(self._network.members) * self.classes,
            lambda pixels: self.tile_members(pixels, description).reshape(-1, *pixels.shape[:2]),
        )
        return layers.reshape(-1, self.classes, *image.shape[:2])

    @property
    def classes(self) -> int:
        """Classes, background included."""
        count: int = self._network.config["classes"]
        return count

    def tile(self, pixels: np.ndarray, description: str = "") -> np.ndarray:
        """Class probabilities (classes, h, w) float32 of what the network sees at once, RGB (h, w, 3) uint8."""
        return enlarge(self._small(pixels, description).mean(0), *pixels.shape[:2])

    def tile_members(self, pixels: np.ndarray, description: str = "") -> np.ndarray:
        """The same for each member: (members, classes, h, w) float32."""
        return enlarge(self._small(pixels, description), *pixels.shape[:2])

    def _small(self, pixels: np.ndarray, description: str) -> np.ndarray:
        """At the size that the network sees: (members, classes, S, S) float32."""
        self.seen += 1
        found = []
        for view in range(self._views):
            item = self._source(symmetry(pixels, view), description)
            if view == 0:
                self.blank += shows_nothing(self._network, item)
                self._contrast.add(item)
            found.append((view, predict_members(self._network, item, self._precision)))
        return mean_of_views(found)

    def _whole(self, image: np.ndarray, layers: int, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The layers of the whole image, (layers, H, W), which ``predict`` makes of what the network sees at once."""
        self.start()
        grid = self.grid(*image.shape[:2])
        if grid is None:
            return predict(image)
        whole = np.empty((layers, *image.shape[:2]), np.float32)
        for y, band in stitch(grid, (predict(cut(image, y, x, grid.size)) for y, x in grid.places)):
            whole[:, y : y + band.shape[1]] = band
        return whole


def pictures(
    members: np.ndarray, with_probabilities: bool, with_entropy: bool, with_disagreement: bool = False
) -> dict[str, np.ndarray]:
    """What may be shown of probabilities (members, classes, H, W), by the end of a file's name: (H, W) each.

    Of their mean the mask, 0 and 255 for two classes, the class number for more; in 16 bits, 0..65535 standing for
    0..1, the foreground's probability, the entropy over its maximum log(classes), and the members' disagreement over
    the same.
    """
    probabilities: np.ndarray = members.mean(0)
    classes = len(probabilities)
    labels = probabilities.argmax(0).astype(np.uint8)
    found = {"": labels * 255 if classes == 2 else labels}
    if with_probabilities:
        found["_probability"] = _to_16_bits(1 - probabilities[0])
    if with_entropy:
        found["_entropy"] = _to_16_bits(entropy(probabilities) / np.log(classes))
    if with_disagreement:
        found["_disagreement"] = _to_16_bits(jensen_shannon(members) / np.log(classes))
    return found


def _to_16_bits(values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    return scaled
