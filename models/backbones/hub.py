"""Networks of images that the transformers library knows: vision transformers, and hierarchical networks."""

__all__ = ["Hub"]

import inspect
import json
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.errors import UserError
from textdiff.models.backbones.base import Backbone
from textdiff.models.downloads.image_models import CARD, find_model, licence_of, revision_of, weight_files
from textdiff.models.pretrained import architecture, load_model, quiet
from textdiff.models.weights import ResolvedWeights

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
STRIDE = 32
"""What the sides of images are made multiples of where a configuration names no patch."""
KEPT = 4  # layers of a plain transformer, at equal distances, as DPT (https://arxiv.org/abs/2103.13413) takes them
_KIND = "a network of images"
_SPECIAL = ("cls_token", "class_embedding", "distillation_token")
_SPARE = ("pooler", "mask_token")


class Hub(Backbone):
    """Level k, from 1, is the library's hidden state k: a layer of a transformer, a stage of a hierarchical network.

    Level 0 is the image itself in [-1, 1], because patches are coarse. Images are resized to the next multiple of a
    patch, or of the coarsest stage's stride, so that a grid covers the image whole. Of tokens, which go through the
    network's last normalisation as in DINOv2's code (``get_intermediate_layers``), those of patches are kept. Swin's
    maps are those before the patches are merged, and its windows are padded, as in the library's ``SwinBackbone``.

    Args:
        model: the network, of the transformers library.
        weightless: the same without weights, on the meta device, which tells shapes.
        mean: of each channel that it was trained with.
        deviation: likewise.
        scale: what pixels in 0..255 are multiplied by first.
        name: what it is called in messages.

    Raises:
        UserError: it gives no hidden states that are grids.
    """

    _mean: Tensor
    _deviation: Tensor

    def __init__(
        self, model: Any, weightless: Any, mean: Sequence[float], deviation: Sequence[float], scale: float, name: str
    ) -> None:
        super().__init__()
        self.model, self._name = model, name
        self._weightless = (weightless,)  # in a tuple it is no part of this module, and is not moved
        self._options = _options(model)
        self._side = _stride(model)
        self._special = _special_tokens(model)
        self.register_buffer("_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("_deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self._scale = scale
        self.config = {
            "transformers": model.config.model_type,
            "mean": list(mean),
            "deviation": list(deviation),
            "scale": scale,
            "multiple": self._side,
        }

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The files of the model in that directory, or of that id on the hub."""
        return find_model(name, of, CONFIG, partial(_wanted, name), download=download)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with its weights."""
        directory, name = found.path.parent, found.name
        mean, deviation, scale = _normalisation(name, directory)
        with quiet():
            weightless = _tower(name, architecture(name, directory, _KIND))
            model = load_model(name, directory, _KIND, _tower, _SPARE)
        backbone = cls(model, weightless, mean, deviation, scale, name)
        backbone.licence = licence_of(directory)
        backbone.revision = revision_of(name)
        backbone.levels(image_size)
        return backbone

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The shapes that the library itself gives, without computing anything."""
        x = torch.empty(1, 3, *self._sides(image_size, image_size), device="meta")
        try:
            states = self._states(self._weightless[0], x)
        except UserError:
            raise
        except Exception as error:  # of any kind: the code is the library's
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self._name}: its {self.config['transformers']} network gives no features of images of {image_size} "
                f"pixels a side ({said}); try another --image-size, or another network"
            ) from error
        shapes = {level: (state.shape[1], state.shape[2], state.shape[3]) for level, state in enumerate(states, 1)}
        return {0: (3, image_size, image_size), **shapes}

    def usual(self, image_size: int) -> tuple[int, ...]:
        """All stages of a hierarchical network; of the layers of a plain one, which are alike, four."""
        shapes = self.levels(image_size)
        deep = len(shapes) - 1
        if deep <= KEPT or shapes[1] != shapes[deep]:
            return tuple(shapes)
        return (0, *(round(deep * k / KEPT) for k in range(1, KEPT + 1)))

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The image and the hidden states as grids."""
        x = images.float()
        found = {0: x / 127.5 - 1}
        wanted = sorted(set(levels))
        if wanted[-1] > 0:
            sides = self._sides(*x.shape[-2:])
            if sides != x.shape[-2:]:
                x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
            found |= enumerate(self._states(self.model, (x * self._scale - self._mean) / self._deviation), 1)
        return {level: found[level] for level in wanted}

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        """The sides of an image as the network sees it."""
        return height + -height % self._side, width + -width % self._side

    def _states(self, model: Any, x: Tensor) -> list[Tensor]:
        """The hidden states from the first on, (B, C, h, w) each."""
        made = model(x, output_hidden_states=True, **self._options)
        states = getattr(made, "reshaped_hidden_states", None) or made.hidden_states
        if states[-1].dim() == 4:
            return list(states[1:])
        # The last one has been normalised by the library, and its hidden state may be either.
        norm = getattr(model, "layernorm", getattr(model, "norm", torch.nn.Identity()))
        return [self._grid(state, x) for state in (*map(norm, states[1:-1]), made.last_hidden_state)]

    def _grid(self, tokens: Tensor, x: Tensor) -> Tensor:
        """The tokens of patches, (B, C, h, w), of all tokens (B, n, C) of images ``x``."""
        h, w = (side // self._side for side in x.shape[-2:])
        if tokens.shape[1] != self._special + h * w:
            raise UserError(
                f"{self._name}: gives {tokens.shape[1]} tokens for {h} x {w} patches and {self._special} others, so it "
                "is not known what they are of; give a network with a token for each patch"
            )
        return tokens[:, self._special :].transpose(1, 2).reshape(len(tokens), -1, h, w)


def _wanted(name: str, files: Collection[str]) -> list[str]:
    """The files that are needed, the weights first."""
    if "model_index.json" in files:
        raise UserError(f"{name}: a pipeline of diffusers; --backbone sd:{name.partition(':')[2]} takes it")
    if CONFIG not in files:
        raise UserError(f"{name}: there is no {CONFIG}; name a model that transformers saved")
    weights = weight_files(name, files, "model")
    if PROCESSOR not in files:
        raise UserError(
            f"{name}: there is no {PROCESSOR}, so it is not known how its images were normalised; copy it from where "
            'the model is, or write one: {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
        )
    return [*weights, CONFIG, PROCESSOR, *({CARD} & set(files))]


def _tower(name: str, model: Any) -> Any:
    """The part of a model that sees images."""
    part = model if model.main_input_name == "pixel_values" else getattr(model, "vision_model", None)
    channels = getattr(getattr(part, "config", None), "num_channels", 3)
    if part is None or channels != 3:
        sees = "no images" if part is None else f"images of {channels} channels"
        raise UserError(
            f"{name}: a {model.config.model_type} model, which sees {sees}; give a network of colour images, such as "
            "hub:facebook/dinov2-small"
        )
    return part


def _normalisation(name: str, directory: Path) -> tuple[list[float], list[float], float]:
    """Mean and deviation of each channel, and what pixels in 0..255 are multiplied by before."""
    try:
        said = json.loads((directory / PROCESSOR).read_text(encoding="utf-8"))
        scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
        if not said.get("do_normalize", True):
            return [0.0] * 3, [1.0] * 3, scale
        mean, deviation = ([float(value) for value in said[key]] for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
            raise ValueError("it has other than three channels, or no deviation")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{name}: {directory / PROCESSOR} says no image_mean and image_std of three channels "
            f"({type(error).__name__}: {error}); copy it from where the model is"
        ) from None
    return mean, deviation, scale


def _options(model: Any) -> dict[str, bool]:
    """What a network must be told to see images of any size, and to give maps as fine as it has them."""
    takes = inspect.signature(model.forward).parameters
    asked = {"interpolate_pos_encoding"} & takes.keys()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()) and hasattr(model, "encoder"):
        inner = inspect.signature(model.encoder.forward).parameters
        asked |= {"always_partition", "output_hidden_states_before_downsampling"} & inner.keys()
    return dict.fromkeys(sorted(asked), True)


def _stride(model: Any) -> int:
    """What the sides of images must be multiples of: the patch of a plain transformer, the coarsest stage's stride."""
    patch: Any = getattr(model.config, "patch_size", None)
    sides: list[Any] = list(patch) if isinstance(patch, list | tuple) else [patch]
    if patch is None or len(set(sides)) != 1:
        return STRIDE
    stages = len(getattr(model.config, "depths", ()))
    return int(sides[0] * 2 ** max(stages - 1, 0))


def _special_tokens(model: Any) -> int:
    """How many tokens stand before those of patches: of the class, of distillation, and the registers."""
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return len(names & set(_SPECIAL)) + int(getattr(model.config, "num_register_tokens", 0) or 0)
