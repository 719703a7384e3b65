"""The options of ``fit``."""

__all__ = ["MEAN_TEACHER", "Fit", "FitConfig", "Learned", "Recipe", "Variant"]

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

from textdiff.errors import UserError
from textdiff.options.option import AnyPath, Exists, Known, Range, Usual
from textdiff.options.record import Record
from textdiff.options.shared import CachePath, Count, Natural, Precise, Protocol, Repeats, RunPath, Runs, Seed

Variant = Literal["full", "no-text", "concat", "shuffled-text", "constant-text"]
Recipe = Annotated[str, Known("textdiff.models.networks.models:recipe_names", strict=True, listed=False)]
MEAN_TEACHER: Literal["mean-teacher"] = "mean-teacher"
Learned = int | Literal["mean-teacher"]
"""How images without labels are learned from: rounds of self-training, or a mean teacher."""
Model = Annotated[str, Known("textdiff.models.networks.models:MODELS", strict=True)]
FromRecipe = Usual("textdiff.models.networks.recipes:usual")


@dataclass(frozen=True, kw_only=True)
class Training(Record):
    """Training."""

    recipe: Recipe | None = None
    """Recipe that sets the options below: default, what the network's authors did, or fair, the best for few images.
    Without it a head on a small backbone is trained by fair, everything else by default."""
    epochs: Annotated[Count | None, FromRecipe] = None
    """Passes over the training images."""
    learning_rate: Annotated[float | None, Range(above=0, below=1), FromRecipe] = None
    """Learning rate of the optimiser."""
    schedule: Annotated[Literal["step", "cosine", "polynomial", "restarts", "plateau"] | None, FromRecipe] = None
    """Schedule of the learning rate: step, a tenth from --decay-epoch on; cosine or polynomial, down to zero; restarts,
    cosine anew every ten epochs; or plateau, halved where the validation Dice rises no more."""
    decay_epoch: Annotated[Natural | None, FromRecipe] = None
    """Epoch at which the schedule steps."""
    batch_size: Annotated[Count | None, FromRecipe] = None
    """Images per optimiser step."""
    select: Annotated[Literal["best", "last", "average"] | None, FromRecipe] = None
    """Weights to keep: the best on the validation images, the last, or the running average of those after each step."""
    window: Annotated[Natural | None, FromRecipe] = None
    """Side in pixels of the random square of an image that a step is made on; 0 for the whole image."""
    validate_every: Annotated[Count | None, FromRecipe] = None
    """Epochs from one validation to the next; the last epoch is always validated."""
    dice_weight: Annotated[float, Range(least=0, below=float("inf"))] = 1.5
    """Weight of the Dice loss beside the cross-entropy."""
    patience: Count | None = None
    """Epochs without a better validation Dice after which to stop; by default never, or as the recipe says."""

    def check(self) -> None:
        """Refuses early stopping that keeps the last weights."""
        super().check()
        if self.patience is not None and self.select in ("last", "average"):
            raise UserError(
                f"--patience {self.patience}: keeps the best weights, so it does not go with --select {self.select}"
            )


@dataclass(frozen=True, kw_only=True)
class Head(Record):
    """What the head reads."""

    width: Count | None = None
    """Channels of the attention block; by default those of the narrowest block at all steps together, 768 at most.
    Channels of the first level for unet and text-unet; 32 by default."""
    blocks: Sequence[int] | None = None
    """Blocks of the cache to read, as in 8,12; all by default."""
    steps: Sequence[int] | None = None
    """Diffusion steps of the cache to read; all by default."""
    positions: bool = False
    """Tell each pixel where it is in the image, or in its tile, which a text that names a place needs; not the
    paper's."""
    places: bool = False
    """Give each pixel what its text says of its place, as a map of the places that the text names; not the paper's."""


@dataclass(frozen=True)
class FitConfig(Training, Head, Precise):
    """Options.

    They determine the fit, and are recorded with the run.
    """

    cache: CachePath | None = None
    """Feature cache to fit on; it must be given unless a fit is resumed."""
    _: KW_ONLY
    labels: Count | None = None
    """Training images to draw; all by default."""
    label_pixels: Annotated[float | None, Range(above=0, below=float("inf"))] = None
    """Labelled pixels of each training image to draw and fit on, a number as in 200 or a share as in 0.01; all by
    default."""
    model: Model = "textdiff"
    """Network to train: textdiff, or one to compare with."""
    pretrained: Annotated[AnyPath | None, Exists("file of weights")] = None
    """Weights to begin with: a ViT's for transunet, a Swin-T's for swin-unet, a ResNet-50's for resnet50-unet, a
    checkpoint like the cache's backbone for tuned.
    None by default."""
    variant: Variant = "full"
    """Variant of the method."""
    protocol: Protocol = "clean"
    """Protocol: clean, or paper, with the loss and the epochs of the paper's code."""
    seed: Seed = 0
    """Seed of the draw, the initial weights and the order."""
    draw_seed: Seed | None = None
    """Seed of the draw alone; --seed by default."""
    ensemble: Repeats | None = None
    """Fits, with seeds from --seed on, whose mean is used; a single one by default."""
    unlabelled: Annotated[Learned | None, Range(least=1, most=2)] = None
    """Learn from the training images that have no label drawn, too: fit again, 1 or 2 times, with what the fit before
    says of them; or mean-teacher, for a network of images: once, agreeing with its own average on them. Neither by
    default."""

    def check(self) -> None:
        """Refuses parts of a pixel, and the last weights of a fit whose average is what is kept."""
        super().check()
        if self.unlabelled == MEAN_TEACHER and self.select == "last":
            raise UserError(
                f"--select last: the running average of the weights is kept with --unlabelled {MEAN_TEACHER}; leave it "
                "out, or use --select best, which keeps the average after the best epoch"
            )
        if self.label_pixels is not None and self.label_pixels > 1 and self.label_pixels % 1:
            raise UserError(
                f"--label-pixels {self.label_pixels:g}: give a whole number of pixels, or a share below 1, as in 0.01"
            )


@dataclass(frozen=True, kw_only=True)
class Resuming(Runs):
    """Runs."""

    resume: bool = False
    """Go on with a stopped fit, with its own options."""
    run: RunPath | None = None
    """Run to resume; the latest run in --runs by default."""


@dataclass(frozen=True)
class Fit(FitConfig, Resuming):
    """Train the cross-attention and the pixel classifier from a cache.

    Stage two. With --model another network is trained instead, to compare with.
    """

    def check(self) -> None:
        """Refuses to begin without a cache, or in a directory that is named."""
        super().check()
        if self.run is not None and not self.resume:
            raise UserError("--run: is the run that --resume goes on with; a new one gets a name of its own in --runs")
        if self.cache is None and not self.resume:
            raise UserError("--cache: is missing; name a cache that `textdiff extract` made, or --resume a stopped fit")
