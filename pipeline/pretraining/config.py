"""The options of a pretraining run, and what they mean for the network."""

__all__ = ["CONFIGS", "SCALES", "PretrainConfig", "build_unet"]

import copy
import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from typing import Any

from textdiff.errors import UserError
from textdiff.pipeline.backbones.checkpoints import load_unet
from textdiff.pipeline.backbones.fresh import fresh_unet
from textdiff.pipeline.unet import UNet

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
_FREE = {"images", "out", "steps", "time_limit", "workers", "eval_every", "eval_images", "save_minutes", "samples"}
_FREE |= {"cache_gb", "data_licence", "half"}


@dataclass(frozen=True)
class PretrainConfig:
    """How to pretrain. The defaults train ``nano`` on H&E; all values go into the result's metadata.

    Attributes:
        images: directory of images, searched with its subdirectories.
        out: the safetensors file to write; log, curve, samples and resume file are put beside it.
        config: ``nano``, ``small`` or ``adm-256``; not used with ``init``.
        unet: arguments of ``UNet`` that replace those of ``config``, such as ``{"model_channels": 48}``.
        init: checkpoint to start from (fine-tuning); None for a fresh network.
        crop: side of the training crops in pixels. The network is convolutional: one for 256 may be trained at 128.
        scale: smallest and largest factor by which images are reduced, at most 1; None for the modality's.
        modality: ``he``, ``cxr`` or ``none``: what colours are varied, and which files are taken for strays.
        batch: crops per step, over all processes.
        optimiser: ``adamw`` or ``adam``.
        schedule: of the learning rate after the warm-up: ``constant``, or ``cosine`` to zero at ``steps``.
        warmup: steps in which the learning rate rises linearly.
        ema: largest decay of the averaged weights; it starts as (1 + step) / (10 + step).
        clip: largest norm of the gradient.
        loss: ``hybrid`` (learned variance) or ``mse``.
        t_max: timesteps below it are trained on. 1000 is the standard; a short run may keep to those whose features
            are used.
        steps: to train in all.
        time_limit: seconds after which this invocation finishes with what it has; None for no limit.
        precision: ``auto``, ``float32`` or ``bfloat16`` autocast.
        channels_last: memory format; None for GPUs only (on CPUs no difference was measured).
        compile: ``torch.compile``; None for GPUs only.
        workers: threads that prepare crops; None for one per core, at most 16.
        cache_gb: decoded images kept in memory, in gigabytes.
        eval_every: steps between held-out losses.
        eval_images: held-out images used for them, at most.
        save_minutes: time between resume files.
        samples: pictures per row of the contact sheet; 0 for no sheet.
        data_licence: licence and attribution of the images, for the metadata.
        half: write the weights as float16.
    """

    images: str
    out: str
    config: str = "nano"
    unet: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    crop: int = 128
    scale: tuple[float, float] | None = None
    modality: str = "he"
    batch: int = 16
    lr: float = 3e-4
    weight_decay: float = 0.0
    optimiser: str = "adamw"
    schedule: str = "constant"
    warmup: int = 500
    ema: float = 0.9999
    clip: float = 1.0
    loss: str = "hybrid"
    t_max: int = 1000
    steps: int = 100_000
    time_limit: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    channels_last: bool | None = None
    compile: bool | None = None
    workers: int | None = None
    cache_gb: float = 2.0
    eval_every: int = 500
    eval_images: int = 32
    save_minutes: float = 5.0
    samples: int = 8
    data_licence: str = ""
    half: bool = False

    def check(self) -> None:
        """Raises UserError for a value that makes no sense."""
        choices = {
            "config": tuple(CONFIGS),
            "modality": tuple(SCALES),
            "optimiser": ("adamw", "adam"),
            "schedule": ("constant", "cosine"),
            "loss": ("hybrid", "mse"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name} {getattr(self, name)}: unknown; use {', '.join(allowed)}")
        for name in ("crop", "batch", "lr", "clip", "steps", "eval_every", "eval_images", "cache_gb"):
            if not getattr(self, name) > 0:
                raise UserError(f"{_option(name)} {getattr(self, name)}: must be above 0")
        for name in ("weight_decay", "warmup", "save_minutes", "samples", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{_option(name)} {getattr(self, name)}: must not be negative")
        low, high = self.scales()
        if not 0 < low <= high <= 1:
            raise UserError(f"--scale {low:g} {high:g}: give a smaller and a larger factor, above 0 and at most 1")
        if not 1 <= self.t_max <= 1000:
            raise UserError(f"--t-max {self.t_max}: must be 1 to 1000")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be at least 0 and below 1")
        if self.time_limit is not None and self.time_limit <= 0:
            raise UserError(f"--time-limit {self.time_limit}: must be above 0")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: must be at least 1")
        if not self.out.endswith(".safetensors"):
            raise UserError(f"--out {self.out}: give a name that ends in .safetensors")

    def scales(self) -> tuple[float, float]:
        """The range of reduction factors."""
        low, high = self.scale or SCALES[self.modality]
        return low, high

    def unet_arguments(self) -> dict[str, Any]:
        """The arguments of a fresh ``UNet``; UserError for an argument it does not have."""
        known = set(inspect.signature(UNet).parameters) - {"in_channels", "out_channels"}
        for name in self.unet:
            if name not in known:
                raise UserError(f"--unet {name}: no such option of the UNet; there are {', '.join(sorted(known))}")
        return {**CONFIGS[self.config], "out_channels": 6 if self.loss == "hybrid" else 3, **self.unet}

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "cosine":
            share = min(1.0, (step - self.warmup) / max(self.steps - self.warmup, 1))
            return self.lr * 0.5 * (1 + math.cos(math.pi * share))
        return self.lr

    def trajectory(self) -> dict[str, Any]:
        """The options that determine the weights after each step: those that a resumed run must share."""
        values = {**dataclasses.asdict(self), "scale": list(self.scales())}
        free = _FREE - ({"steps"} if self.schedule == "cosine" else set())
        return {name: value for name, value in values.items() if name not in free}

    def command(self) -> str:
        """The command line that says the same; of paths only the last part, since the result is given away."""
        words = ["textdiff pretrain"]
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            default = {} if option.name == "unet" else option.default
            if value == default:
                continue
            if option.name in ("images", "out", "init"):
                value = str(value).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
            flag = _option(option.name)
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, dict):
                words += [f"{flag} {name}={item}" for name, item in value.items()]
            elif isinstance(value, tuple):
                words.append(f"{flag} {' '.join(f'{item:g}' for item in value)}")
            else:
                text = str(value)
                words.append(f"{flag} {text!r}" if " " in text else f"{flag} {text}")
        return " ".join(words)


def build_unet(config: PretrainConfig) -> UNet:
    """The network to start from: fresh, from the seed, or that of ``config.init``.

    Raises UserError if the options describe no network, or none for this loss or crop.
    """
    if config.init:
        if config.unet:
            raise UserError("--unet: not together with --init, whose checkpoint says what the network is")
        unet = load_unet(config.init)
        # The checkpoint is mapped from its file: training must not write there.
        unet = copy.deepcopy(unet).train().requires_grad_(True)
        if config.loss == "hybrid" and unet.config["out_channels"] != 6:
            raise UserError(f"--init {config.init}: learns no variance (3 output channels); add --loss mse")
    else:
        try:
            unet = fresh_unet(config.unet_arguments(), config.seed)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"--unet: no network has these options: {error}") from error
    multiple = 2 ** (len(unet.config["channel_mult"]) - 1)
    if config.crop % multiple:
        raise UserError(f"--crop {config.crop}: this network needs a multiple of {multiple}")
    return unet


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
