"""The options of ``pretrain``."""

__all__ = ["Pretrain"]

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from textdiff.errors import UserError
from textdiff.options.option import AnyPath, Exists, Range
from textdiff.options.record import Record
from textdiff.options.shared import Count, Jitter, Natural, Precise, Precision, Seed

Positive = Annotated[float, Range(above=0)]
AtLeastZero = Annotated[float, Range(least=0)]


@dataclass(frozen=True, kw_only=True)
class Network(Record):
    """Network."""

    config: Literal["nano", "small", "adm-256"] = "nano"
    """Size of a fresh network."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Argument of UNet that replaces one of --config, as in --set model_channels=48; repeatable."""
    init: Annotated[AnyPath | None, Exists("checkpoint")] = None
    """Checkpoint to fine-tune; a fresh network by default."""
    half: bool = False
    """Write float16 weights."""


@dataclass(frozen=True, kw_only=True)
class Crops(Record):
    """Crops."""

    target: Annotated[AnyPath | None, Exists("directory of images")] = None
    """Directory of the images that are to be segmented, to train on too, without labels; none by default. The weights
    and each cache that is made with them say so."""
    modality: Jitter = "he"
    """Modality of the images: it says how colours are varied and which files are strays."""
    crop: Count = 128
    """Side of the training crops in pixels. A network for 256 may be trained at 128, as it is convolutional."""
    scale: tuple[float, float] | None = None
    """Smallest and largest factor that images are reduced by, as in 0.22,0.5; those of the modality by default."""
    batch_size: Count = 16
    """Crops per step, over all processes."""
    workers: Count | None = None
    """Threads that prepare crops; one per core, at most 16, by default."""
    cache_gb: Positive = 2.0
    """Gigabytes of decoded images to keep in memory."""

    def check(self) -> None:
        """Refuses factors that enlarge or have no order."""
        super().check()
        if self.scale and not 0 < self.scale[0] <= self.scale[1] <= 1:
            low, high = self.scale
            raise UserError(f"--scale {low:g},{high:g}: give a smaller and a larger factor, above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Optimisation(Record):
    """Training."""

    learning_rate: Positive = 3e-4
    """Learning rate after the warm-up."""
    weight_decay: AtLeastZero = 0.0
    """Weight decay of AdamW."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """Optimiser."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the learning rate after the warm-up; cosine falls to zero at --steps."""
    warmup: Natural = 500
    """Steps in which the learning rate rises linearly."""
    ema: Annotated[float, Range(least=0, below=1)] = 0.9999
    """Largest decay of the averaged weights; it starts as (1 + step) / (10 + step)."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    objective: Literal["noise", "masked"] = "noise"
    """Objective: noise, what a diffusion model learns, or masked, the image behind masked patches of 8 pixels."""
    loss: Literal["hybrid", "mse"] | None = None
    """Loss of --objective noise: hybrid, the default, learns the variance too, mse does not."""
    t_max: Annotated[int, Range(least=1, most=1000)] = 1000
    """Time step below which is trained; a short run may keep to those whose features are used."""
    steps: Count = 100_000
    """Optimiser steps in all."""
    time_limit: Positive | None = None
    """Seconds after which to finish with what there is; no limit by default."""
    seed: Seed = 0
    """Seed of everything that is drawn."""


@dataclass(frozen=True, kw_only=True)
class Watching(Precise):
    """Running."""

    eval_every: Count = 500
    """Steps between held-out losses."""
    eval_images: Count = 32
    """Held-out images that are used for them at most."""
    save_minutes: AtLeastZero = 5.0
    """Minutes between resume files."""
    keep: Sequence[Count] | None = None
    """Numbers of crops after which the weights are written too, as in 1000,10000, with the number in the file's name;
    none by default."""
    samples: Natural = 8
    """Pictures per row of the contact sheet; 0 for no sheet."""
    channels_last: bool | None = None
    """Memory format channels_last; on GPUs only by default."""
    compile: bool | None = None
    """Compile the network with torch.compile; on GPUs only by default."""
    data_licence: str = ""
    """Licence and attribution of the images, for the metadata."""
    precision: Precision = "auto"
    """Precision to compute in: auto is bfloat16 on GPUs and CPUs that multiply in it, float32 elsewhere."""


@dataclass(frozen=True)
class Pretrain(Network, Crops, Optimisation, Watching):
    """Train a backbone on your own unlabelled images.

    extract --backbone takes the result. The same command goes on where the last one was stopped.
    """

    data: Annotated[AnyPath, Exists("directory of images")]
    """Directory of unlabelled images, searched with its subdirectories."""
    out: AnyPath
    """Safetensors file to write; log, curve, samples and resume file are put beside it."""
    _: KW_ONLY

    @property
    def noise_loss(self) -> str:
        """The loss that noise is learned with."""
        return self.loss or "hybrid"

    def check(self) -> None:
        """Refuses a result that is no safetensors file, and a loss that the objective does not have."""
        super().check()
        if self.objective == "masked" and self.loss:
            raise UserError(f"--loss {self.loss}: is of --objective noise; masked patches have their own, leave it out")
        if Path(self.out).suffix != ".safetensors":
            raise UserError(f"--out {self.out}: give a name that ends in .safetensors")
