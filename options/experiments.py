"""The options of ``ablate``, ``table1``, ``sweep``, ``curve``, ``compare``, ``panel`` and ``text-check``."""

__all__ = [
    "FILTERS",
    "Ablate",
    "Compare",
    "Curve",
    "Experiment",
    "Method",
    "Panel",
    "Row",
    "Sweep",
    "Table1",
    "TextCheck",
]

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from textdiff.errors import UserError, suggest
from textdiff.options.fit import FitConfig
from textdiff.options.option import AnyPath, Argument, Exists, Known, Metavar, Range
from textdiff.options.record import Record
from textdiff.options.shared import CachePath, Computing, Count, Repeats, RunPath, Split, Truth

FILTERS = "filters"
"""The row of ``table1`` that is of the cache ``--filters``."""
_LIST = "docs/reference.md#rows-of-tables"
Method = Annotated[
    str, Known("textdiff.experiments.setup:method_titles", strict=True, listed=False, page=_LIST, sums=True)
]
"""A row of a table: a variant of the method, another network with its recipe, or a mean of rows, as in full+unet."""
Row = Annotated[str, Known("textdiff.experiments.table1:row_titles", strict=True, listed=False, page=_LIST, sums=True)]
"""Of ``table1``: the same, or ``FILTERS``."""
Seeds = Annotated[int, Range(least=1, most=100)]
VARIED = ("labels", "variant", "seed", "draw_seed", "model", "blocks", "steps", "ensemble")
"""The options of ``fit`` that an experiment sets by itself."""


@dataclass(frozen=True)
class Repeated(Computing):
    """Experiment."""

    cache: CachePath
    """Feature cache to fit on."""
    _: KW_ONLY
    draws: Repeats = 5
    """Draws of training images."""
    truth: Truth = "clean"
    """Masks that the table is measured by."""
    name: str | None = None
    """Name of the experiment's directory; the cache's by default."""
    runs: AnyPath = "runs"
    """Directory that the experiment is made in."""
    jobs: Count | None = None
    """Processes at a time; as many as there is room for by default."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Repeated):
    """Experiment."""

    seeds: Seeds = 3
    """Fits for each draw, with different weights and orders."""
    split: Split = "test"
    """Images to score on; val to choose by."""
    table_only: bool = False
    """Rebuild the table from what has finished, and do nothing else."""


@dataclass(frozen=True, kw_only=True)
class Fits(Record):
    """Fits."""

    epochs: Count | None = None
    """Passes over the training images; as many as the recipe has by default."""
    learning_rate: Annotated[float | None, Range(above=0, below=1)] = None
    """Learning rate; that of the recipe by default."""
    batch_size: Count | None = None
    """Images per optimiser step; as many as the recipe has by default."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Any other option of fit, as in --set width=96; repeatable."""

    def check(self) -> None:
        """Refuses options that ``fit`` does not have, or that the experiment sets by itself."""
        super().check()
        free = sorted({option.name for option in fields(FitConfig)} - {"cache", *VARIED})
        for name in self.set:
            if name not in free:
                hint = suggest(name, free) or f"; name one of {', '.join(free)}"
                raise UserError(f"--set {name}: is no option that may be set{hint}")

    def fit_config(self, cache: AnyPath, device: str) -> FitConfig:
        """The options that all fits have in common.

        Raises:
            UserError: ``set`` gives an option a value that it does not take.
        """
        named = {"epochs": self.epochs, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        given = {name: value for name, value in named.items() if value is not None}
        return FitConfig(cache, **{"device": device, **given, **self.set})


@dataclass(frozen=True, kw_only=True)
class Rivals(Record):
    """Other networks."""

    rival_epochs: Count | None = None
    """Passes over the training images of the other networks, whose other options are their recipes'; as many as these
    have by default."""


@dataclass(frozen=True, kw_only=True)
class Ablate(Fits, Rivals, Experiment):
    """Fit every variant on the same draws: the paper's table 2.

    Differences are paired and have intervals. The same command continues where it was stopped.
    """

    labels: Count = 5
    """Training images in each draw."""
    variants: Sequence[Method] | None = None
    """Variants to fit; all by default. A sum of rows is their mean, as in full,no-text,full+no-text."""
    unet: bool = True
    """Fit the U-Nets unet and unet-fair too, for comparison."""
    against: Method | None = None
    """Variant that differences are taken to; the first by default."""


@dataclass(frozen=True, kw_only=True)
class Table1(Fits, Rivals, Experiment):
    """Fit every system on the same draws: the paper's table 1.

    Differences to the method, and to boosted trees on image filters, are paired and have intervals. The same command
    continues where it was stopped.
    """

    seeds: Seeds = 1
    labels: Count = 5
    """Training images in each draw."""
    filters: CachePath | None = None
    """Feature cache of the same images made with --preset filters, for the row filters: trees on them; none by
    default."""
    models: Sequence[Row] | None = None
    """Rows to fit, as in full,unet-fair,lvit; by default every network by --recipes, and the method with and without
    text. A sum of rows is the mean of their probabilities, as in full,unet-fair,full+unet-fair+filters."""
    recipes: Sequence[Literal["default", "fair"]] = ("default", "fair")
    """Recipes of the rows by default."""
    max_steps: Count | None = None
    """Steps that longer recipes of networks of images are cut to, which the table says; none are cut by default."""

    def check(self) -> None:
        """Refuses the row of filters without them, and alone."""
        super().check()
        if self.models == (FILTERS,):
            raise UserError(f"--models {FILTERS}: is a row anyhow; name rows that are of --cache")
        if self.filters is None and (row := next((r for r in self.models or () if FILTERS in r.split("+")), None)):
            raise UserError(f"--models {row}: {FILTERS} is the row of the cache --filters; give that cache")


@dataclass(frozen=True, kw_only=True)
class Sweep(Fits, Experiment):
    """Fit a head on each decoder block at each step: figure 3.

    Each is fitted with and without text. The same command continues where it was stopped.
    """

    draws: Repeats = 1
    seeds: Seeds = 1
    labels: Count = 5
    """Training images in each draw."""
    blocks: Sequence[int] | None = None
    """Decoder blocks of the cache; all by default."""
    steps: Sequence[int] | None = None
    """Diffusion steps of the cache; all by default."""
    together: bool = False
    """Fit on all blocks and on all steps together too, and name the fewest bytes a row that lose nothing seen."""


@dataclass(frozen=True, kw_only=True)
class Curve(Fits, Rivals, Experiment):
    """Fit on more and more training images: the learning curve.

    The curve has intervals. The same command continues where it was stopped.
    """

    seeds: Seeds = 1
    labels: Sequence[Count] = (1, 2, 5, 10, 24)
    """Numbers of training images."""
    variants: Sequence[Method] = ("full", "no-text", "unet", "unet-fair")
    """Variants and U-Nets to fit; differences are taken to the first."""

    def check(self) -> None:
        """Refuses numbers of images out of order."""
        super().check()
        if list(self.labels) != sorted(self.labels):
            raise UserError(f"--labels {','.join(map(str, self.labels))}: give them in ascending order")


@dataclass(frozen=True)
class TextCheck(Repeated):
    """See in minutes whether your own sentences help.

    It compares short fits with them, without them, and with those of other images, on the same draws, by validation
    images. Differences are paired and have intervals. The same command continues where it was stopped.
    """

    _: KW_ONLY
    labels: Count = 5
    """Training images in each draw."""
    epochs: Count = 20
    """Passes over the training images."""
    positions: bool = False
    """Tell each pixel where it is, as fit --positions does."""
    places: bool = False
    """Give each pixel what its text says of its place, as fit --places does."""


@dataclass(frozen=True)
class Compare(Record):
    """Put experiments and runs in one table, with paired differences.

    It tells whether another backbone, or another recipe, helps.
    """

    experiments: Annotated[Sequence[AnyPath], Argument, Exists("directory of an experiment or a run")]
    """Directories that ablate, curve, table1, text-check or fit made."""
    _: KW_ONLY
    variants: Sequence[Row] | None = None
    """Rows to show, as in no-text,unet; all by default."""
    against: Sequence[str] | None = None
    """Rows that differences are taken to, as in no-text@ablate-monuseg; the first by default."""
    truth: Truth = "clean"
    """Masks that the table is measured by."""
    out: AnyPath | None = None
    """Name of the files OUT.md, .tex, .csv, .json, .png and .pdf; none are written by default."""


@dataclass(frozen=True)
class Panel(Computing):
    """Draw images, truths and each run's errors: figure 2.

    The images are chosen by rule.
    """

    run: Annotated[Sequence[RunPath], Argument]
    """Run directories."""
    _: KW_ONLY
    out: AnyPath = "panel.png"
    """Picture to write: .png, .pdf or .svg."""
    rule: Literal["extremes", "disagreement"] = "extremes"
    """Rule: extremes, from the best to the worst of the first run; disagreement, Dice furthest apart."""
    images: Count = 3
    """Images to show; 3 are the best, the median and the worst."""
    split: Split = "test"
    """Images to choose from."""
    words: Annotated[Sequence[str] | None, Metavar("WORD,...")] = None
    """Show where the first run attends to these words of the text, as in left,lower; none by default."""

    def check(self) -> None:
        """Refuses pictures that cannot be."""
        super().check()
        if Path(self.out).suffix not in (".png", ".pdf", ".svg"):
            raise UserError(f"--out {self.out}: name a file that ends in .png, .pdf, .svg")
        if self.rule == "disagreement" and len(self.run) < 2:
            raise UserError("--rule disagreement: takes at least two runs")
