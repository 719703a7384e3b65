"""The options of a pretraining run, and what they mean for the network."""

__all__ = ["CONFIGS", "build_unet", "command", "rate", "scales", "trajectory", "unet_arguments"]

import copy
import dataclasses
import inspect
import math
import shlex
from pathlib import Path
from typing import Any

from textdiff.errors import UserError, suggest
from textdiff.models.backbones.checkpoints import load_unet
from textdiff.models.backbones.corruption import PATCH
from textdiff.models.backbones.unet import UNet, fresh_unet
from textdiff.options.pretrain import Pretrain
from textdiff.options.record import options
from textdiff.pipeline.pretraining.objective import WINDOW

# The topology of the 256x256 ADM: 18 decoder blocks whose numbers mean the same at every width.
_ADM: dict[str, Any] = {
    "image_size": 256,
    "in_channels": 3,
    "num_res_blocks": 2,
    "attention_resolutions": [8, 16, 32],
    "channel_mult": [1, 1, 2, 2, 4, 4],
    "num_heads": 4,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "nano": {**_ADM, "model_channels": 32, "num_head_channels": 32},
    "small": {**_ADM, "model_channels": 64, "num_head_channels": 64},
    "adm-256": {**_ADM, "model_channels": 256, "num_head_channels": 64},
}
# MoNuSeg at 256x256 is 40x histology reduced to 1 / 3.9; X-rays are seen whole.
SCALES = {"he": (1 / 4.5, 1 / 2), "cxr": (1 / 2.5, 1.0), "none": (1 / 2, 1.0)}

# Options that do not change the weights after a given step, so that a run may be resumed with others.
_FREE = {"data", "out", "steps", "time_limit", "workers", "eval_every", "eval_images", "save_minutes", "samples"}
_FREE |= {"target", "keep", "cache_gb", "data_licence", "half"}


def scales(config: Pretrain) -> tuple[float, float]:
    """The range of reduction factors."""
    low, high = config.scale or SCALES[config.modality]
    return low, high


def unet_arguments(config: Pretrain) -> dict[str, Any]:
    """The arguments of a fresh ``UNet``; UserError for an argument it does not have."""
    known = set(inspect.signature(UNet).parameters) - {"in_channels", "out_channels"}
    for name in config.set:
        if name not in known:
            hint = suggest(name, known) or f"; there are {', '.join(sorted(known))}"
            raise UserError(f"--set {name}: no such option of the UNet{hint}")
    return {**CONFIGS[config.config], "out_channels": 6 if _variance(config) else 3, **config.set}


def rate(config: Pretrain, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "cosine":
        share = min(1.0, (step - config.warmup) / max(config.steps - config.warmup, 1))
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    return config.learning_rate


def trajectory(config: Pretrain) -> dict[str, Any]:
    """The options that determine the weights after each step: those that a resumed run must share."""
    values = dataclasses.asdict(config) | {"init": config.init and str(config.init), "scale": list(scales(config))}
    values["loss"] = config.noise_loss if config.objective == "noise" else None
    free = _FREE - ({"steps"} if config.schedule == "cosine" else set())
    return {name: value for name, value in values.items() if name not in free}


def _variance(config: Pretrain) -> bool:
    """Whether the network is to learn the variance of the noise, with three more channels."""
    return config.objective == "noise" and config.noise_loss == "hybrid"


def command(config: Pretrain) -> str:
    """The command line that says the same; of paths only the last part, since the result is given away."""
    words = ["textdiff pretrain"]
    for option in options(Pretrain):
        value = getattr(config, option.name)
        if value == option.default:
            continue
        if option.item is bool:
            words.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif option.shape == "mapping":
            words += [f"{option.flag} {name}={item}" for name, item in value.items()]
        else:
            words += [option.flag, shlex.quote(value.name if isinstance(value, Path) else option.written(value))]
    return " ".join(words)


def build_unet(config: Pretrain) -> UNet:
    """The network to start from: fresh, from the seed, or that of ``config.init``.

    Raises UserError if the options describe no network, or none for this loss or crop.
    """
    if config.init:
        if config.set:
            raise UserError("--set: not together with --init, whose checkpoint says what the network is")
        unet = load_unet(config.init)
        # The checkpoint is mapped from its file: training must not write there.
        unet = copy.deepcopy(unet).train().requires_grad_(True)
        if _variance(config) and unet.config["out_channels"] != 6:
            raise UserError(f"--init {config.init}: learns no variance (3 output channels); add --loss mse")
    else:
        try:
            unet = fresh_unet(unet_arguments(config), config.seed)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"--set: no network has these options: {error}") from error
    multiple = 2 ** (len(unet.config["channel_mult"]) - 1)
    if config.crop % multiple:
        raise UserError(f"--crop {config.crop}: this network needs a multiple of {multiple}")
    if config.objective == "masked" and (config.crop % PATCH or config.crop < WINDOW):
        raise UserError(f"--crop {config.crop}: --objective masked needs a multiple of {PATCH}, {2 * PATCH} at least")
    return unet
