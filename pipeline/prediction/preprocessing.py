"""Images and texts that are in no cache, as a run's network reads them: prepared as those of its cache were."""

__all__ = ["Preprocessor", "TextEmbedder", "missing_text"]

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import Item
from textdiff.cache.int8 import rounded
from textdiff.errors import UserError, quoted
from textdiff.images import images
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.networks.models import get_model
from textdiff.pipeline.prediction.blank import is_blank
from textdiff.pipeline.runs import Run


class Preprocessor:
    """Prepares images for the network of a run: the same resizing, noise, backbone and rounding as for its cache.

    Args:
        run: a finished run.
        device: where to compute.
        backbone: another place of the backbone; by default the one the cache was made with.

    Raises:
        UserError: the backbone or the text encoder is missing or is another one, or one is named that is not needed.
    """

    def __init__(self, run: Run, device: torch.device, backbone: str | None = None) -> None:
        made, about, head = run.config["fingerprint"], run.config["about"], run.config["head"]
        self._made, self._device, self._blank_below = made, device, run.config["blank_below"]
        self._extract: Extractor | None = None
        self._embed = TextEmbedder(run, device) if run.reads.text else None
        self.reads_text = run.reads.text
        """Whether the network, or its backbone, looks at the text at all."""
        if not run.reads.activations:
            if backbone is not None:
                title = get_model(run.config["model"]).title
                raise UserError(f"--backbone {backbone}: {run.path} is {title}, which needs none; leave it out")
        else:
            resolved = resolve_backbone(backbone or about["backbone"])
            if resolved.sha256 != made["backbone_sha256"]:
                raise UserError(
                    f"{resolved.path}: not the backbone that {run.path} was fitted on, its sha256 begins with "
                    f"{resolved.sha256[:12]} and not {made['backbone_sha256'][:12]}; name the right one with --backbone"
                )
            size, seed = made["image_size"], made["noise_seed"] or 0
            network = load_backbone(resolved, size, device, seed, made["colour"], made.get("enlarge", 1))
            self.reads_text = self.reads_text or network.reads_text
            self._extract = Extractor(
                network,
                head.get("times") or made["steps"],
                head.get("blocks") or made["blocks"],
                made["image_size"],
                device,
                made["precision"] if device.type == "cuda" else "float32",
            )

    def __call__(self, image: NDArray[np.uint8], description: str, given: str | None = None) -> Item:
        """An image (H, W, 3) uint8 RGB of any size as a batch of one; without activations where it is blank.

        Args:
            image: the pixels.
            description: the text of the image, which some backbones read.
            given: the text that the network is given, by default the same.
        """
        resized = images.resize_image(image, self._made["image_size"], self._made["resize"])
        pixels = torch.from_numpy(resized).permute(2, 0, 1)[None].to(self._device)
        item = Item(row=-1, features=[], mask=None, tokens=None, token_mask=None, image=pixels)
        if is_blank(resized, self._blank_below):
            return item
        grids = {} if self._extract is None else self._extract(resized, description)
        # The cache rounds activations to its dtype; a head should see the same numbers here.
        features = [
            rounded(torch.from_numpy(grid).to(self._device), self._made["dtype"]).flatten(0, 1)[None]
            for grid in grids.values()
        ]
        words = description if given is None else given
        tokens, mask = (None, None) if self._embed is None else self._embed(words)
        return replace(item, features=features, tokens=tokens, token_mask=mask)


class TextEmbedder:
    """The text encoder of a run, in place and checked. Each distinct text is embedded once.

    Args:
        run: a finished run.
        device: where the embeddings go; the encoder itself stays on the CPU, as when the cache was made.

    Raises:
        UserError: the run reads no text, or its text encoder is missing or is another one.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        about, made = run.config["about"], run.config["fingerprint"]
        if not run.reads.text:
            variant = run.config["fit"]["variant"]
            model = f"of the variant {variant}" if variant != "full" else get_model(run.config["model"]).title
            cached = "" if made["text_encoder_sha256"] else ", and its cache was made with --text-encoder none"
            raise UserError(f"--text: {run.path} is {model} and reads no text{cached}; leave --text out")
        self._encoder = text.load_text_encoder(about["text_encoder"], pad_to=made["pad_to"])
        if self._encoder.sha256 != made["text_encoder_sha256"]:
            raise UserError(f"{about['text_encoder']}: not the text encoder that {run.path} was fitted with")
        self._device = device
        self._embedded: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, description: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token embeddings (1, L, D) float32 and their mask (1, L) bool, true at every token that is read."""
        if description not in self._embedded:
            tokens, mask = self._encoder.encode([description])
            self._embedded[description] = (
                torch.from_numpy(tokens).to(self._device),
                torch.from_numpy(mask).to(self._device),
            )
        return self._embedded[description]

    def places(self, description: str, words: str) -> list[int]:
        """Which of a text's tokens are pieces of ``words``."""
        return self._encoder.places(description, words)


def missing_text(run: Run) -> str:
    """What a run that reads text does with an image that has none, in one line; docs/texts.md says more."""
    parts = run.members if run.combined else [run]
    # Where a backbone alone reads texts, no network of these does.
    kinds = list(dict.fromkeys(map(_without_text, [part for part in parts if part.reads.text] or parts)))
    done = f"the run {kinds[0]}" if len(kinds) == 1 else f"one of the combined runs {', and another '.join(kinds)}"
    return f'{done}; what that costs: textdiff score --run {quoted(run.path)} --text ""'


def _without_text(run: Run) -> str:
    """What follows the name of a run."""
    config = run.config
    if config["fit"].get("places"):
        return "draws a map of the places in it, and is given one that is bright everywhere"
    does = "averages" if config["fit"]["variant"] == "concat" else "attends to"
    tokens = "special tokens and the padding" if config["fingerprint"]["pad_to"] else "special tokens"
    known = (
        " instead of the one sentence that it was fitted with" if config["fit"]["variant"] == "constant-text" else ""
    )
    return f"reads it, so it is given the empty string and {does} its {tokens} alone{known}"
