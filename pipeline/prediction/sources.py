"""Images that are in no cache, as the items that a run's network reads."""

__all__ = ["Source", "open_source"]

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.images import images
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.networks.models import get_model
from textdiff.pipeline.prediction.blank import is_blank
from textdiff.pipeline.prediction.run_text import RunText
from textdiff.pipeline.runs import Run


class Source(Protocol):
    """Prepares an image (H, W, 3) uint8 RGB of any size, and its text, the way the training images were prepared."""

    reads_text: bool
    """Whether the network or its backbone looks at the text at all."""

    def __call__(self, image: np.ndarray, description: str) -> Item:
        """The image as a batch of one; without activations where it is blank for the run."""
        ...


def open_source(run: Run, device: torch.device, backbone: str | None = None) -> Source:
    """What prepares images for the network of ``run``.

    Args:
        run: a finished run.
        device: where to compute.
        backbone: another place of the backbone; by default the one the cache was made with.

    Raises:
        UserError: the backbone or the text encoder is missing or is another one, or one is named that is not needed.
    """
    if run.reads.activations:
        return _Activations(run, device, backbone)
    if backbone is not None:
        title = get_model(run.config["model"]).title
        raise UserError(f"--backbone {backbone}: {run.path} is {title}, which needs none; leave it out")
    return _Images(run, device)


class _Images:
    """Resizes the image, and embeds the text where the network reads it."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self._made, self._device = run.config["fingerprint"], device
        self.reads_text = run.reads.text
        self._embed = RunText(run, device) if self.reads_text else None

    def __call__(self, image: np.ndarray, description: str) -> Item:
        resized = images.resize_image(image, self._made["image_size"], self._made["resize"])
        tokens, mask = (None, None) if self._embed is None else self._embed(description)
        return replace(_without_activations(resized, self._device), tokens=tokens, token_mask=mask)


class _Activations:
    """Runs the backbone and the text encoder: the same resizing, noise, network and rounding as the cache's."""

    def __init__(self, run: Run, device: torch.device, backbone: str | None) -> None:
        made, about, head = run.config["fingerprint"], run.config["about"], run.config["head"]
        self._made, self._device = made, device
        resolved = resolve_backbone(backbone or about["backbone"])
        if resolved.sha256 != made["backbone_sha256"]:
            raise UserError(
                f"{resolved.path}: not the backbone that {run.path} was fitted on, its sha256 begins with "
                f"{resolved.sha256[:12]} and not {made['backbone_sha256'][:12]}; name the right one with --backbone"
            )
        network = load_backbone(resolved, made["image_size"], device, made["noise_seed"] or 0, made["colour"])
        self._backbone = Extractor(
            network,
            head.get("times") or made["steps"],
            head.get("blocks") or made["blocks"],
            made["image_size"],
            device,
            made["precision"] if device.type == "cuda" else "float32",
        )
        self._blank_below = run.config["blank_below"]
        self._embed = RunText(run, device) if run.reads.text else None
        self.reads_text = self._embed is not None or network.reads_text

    def __call__(self, image: np.ndarray, description: str) -> Item:
        resized = images.resize_image(image, self._made["image_size"], self._made["resize"])
        item = _without_activations(resized, self._device)
        if is_blank(resized, self._blank_below):
            return item
        grids = self._backbone(resized, description)
        # The cache rounds activations to its dtype; a head should see the same numbers here.
        dtype = getattr(torch, self._made["dtype"])
        features = [torch.from_numpy(grid).to(self._device, dtype).flatten(0, 1)[None] for grid in grids.values()]
        tokens, mask = (None, None) if self._embed is None else self._embed(description)
        return replace(item, features=features, tokens=tokens, token_mask=mask)


def _without_activations(resized: np.ndarray, device: torch.device) -> Item:
    image = torch.from_numpy(resized).permute(2, 0, 1)[None].to(device)
    return Item(row=-1, features=[], mask=None, tokens=None, token_mask=None, image=image)
