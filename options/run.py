"""The options of what looks at finished runs: ``combine``, ``score``, ``report``, ``next``, ``predict``."""

__all__ = ["Combine", "Format", "Metric", "Objects", "Outputs", "Predict", "Rank", "Report", "Score"]

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from textdiff.errors import UserError
from textdiff.options.option import AnyPath, Argument, Exists, Known, Range
from textdiff.options.record import Record
from textdiff.options.shared import CachePath, Computing, Count, Natural, OfRun, RunPath, Runs, Split

Metric = Literal["dice", "iou", "aji", "pq", "dq", "sq", "f1", "hd95", "nsd"]
Objects = Literal["components", "watershed"]
Format = Annotated[str, Known("textdiff.outputs:FORMATS", strict=True)]


@dataclass(frozen=True)
class Combine(Computing):
    """Make one run of several: the mean of their probabilities.

    They may be heads, trees and U-Nets, of one cache or of several of the same images; every command takes the result.
    """

    run: Annotated[Sequence[RunPath], Argument]
    """Run directories, at least two."""
    _: KW_ONLY
    weights: Literal["equal", "validation"] = "equal"
    """Weights of the runs: equal, or those of the best Dice on the validation images."""
    runs: AnyPath = "runs"
    """Directory that the combined run's directory is made in."""

    def check(self) -> None:
        """Refuses a single run, and one that is named twice."""
        super().check()
        places = [Path(path).resolve() for path in self.run]
        if len(places) < 2:
            raise UserError(f"RUN {self.run[0]}: is one run; name two or more")
        if twice := next((path for path, place in zip(self.run, places, strict=True) if places.count(place) > 1), None):
            raise UserError(f"RUN {twice}: is named twice; --weights says how much a run counts")


@dataclass(frozen=True)
class Score(OfRun, Computing):
    """Score a run with intervals, beside the paper's numbers.

    Dice, IoU and object metrics of every image, with overlays, go into the run directory.
    """

    _: KW_ONLY
    data: Annotated[AnyPath | None, Exists("file or directory")] = None
    """Directory or file of a data set laid out as the run's own, scored without a cache; by default the run's cache."""
    backbone: AnyPath | None = None
    """Backbone of the run for --data, where it was moved; its recorded place by default."""
    split: Split = "test"
    """Images to score on."""
    metrics: Sequence[Metric] = ("dice", "iou", "aji", "pq", "f1")
    """Metrics to report, beside Dice and IoU, which always are; docs/metrics.md explains them."""
    objects: Objects = "components"
    """Way to tell the objects of the prediction apart; watershed splits those that touch."""
    min_area: Natural = 0
    """Pixels below which a predicted object is left out."""
    tolerance: Annotated[float, Range(least=0)] = 2.0
    """Distance in pixels that nsd, the surface Dice, allows."""
    text: str | None = None
    """Text that every image is given instead of its own, by default its own; "" is none (docs/texts.md)."""

    def check(self) -> None:
        """Refuses two sources of activations, and a backbone where none is run."""
        super().check()
        if self.data is not None and self.cache is not None:
            raise UserError("--data and --cache: give one of them; --data scores without a cache")
        if self.backbone is not None and self.data is None:
            raise UserError(f"--backbone {self.backbone}: goes with --data, where the backbone is run; leave it out")


@dataclass(frozen=True)
class Report(OfRun, Computing):
    """Write a scored run as one HTML file.

    It shows scores, curves, and every image with its prediction and uncertainty.
    """

    _: KW_ONLY
    split: Split = "test"
    """Images to show; the run must be scored on them."""
    images: Count = 40
    """Images to show at most, from the best to the worst in even steps."""
    own_mpp: Annotated[float, Range(above=0)] | None = None
    """Micrometres per pixel that all images have, for densities and areas in the measurements; by default those of
    extract's --mpp, else not known."""
    out: AnyPath | None = None
    """File to write; report.html in the run by default."""

    def check(self) -> None:
        """Refuses names under which no browser shows a page, and that may be of another file."""
        super().check()
        if self.out is not None and Path(self.out).suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--out {self.out}: name a file that ends in .html")


@dataclass(frozen=True)
class Rank(OfRun, Computing):
    """Rank the images to annotate next, or first.

    Candidates are the images without a mask; the first of them are a set to annotate together.
    """

    _: KW_ONLY
    cache: CachePath | None = None
    """Cache of the run, where it was moved; its recorded place by default. Without --run it is looked at alone, before
    there is a run."""
    by: Literal["coverage", "uncertainty"] = "coverage"
    """Order: images that most of the others are like, or those that the run is least certain of."""
    top: Count = 10
    """Images to print; with a run all are in next.csv."""

    @property
    def alone(self) -> bool:
        """Whether a cache is looked at without a run."""
        return self.cache is not None and self.run is None

    def check(self) -> None:
        """Refuses to look at a run where there is none, and to be uncertain without one."""
        if not self.alone:
            super().check()
            return
        super(OfRun, self).check()
        if self.by == "uncertainty":
            raise UserError(f"--by uncertainty: {self.cache} alone is certain of nothing; name a run of it with --run")


@dataclass(frozen=True, kw_only=True)
class Outputs(Record):
    """What is written."""

    format: Sequence[Format] | None = None
    """Formats beside PNG, which is the default alone."""
    objects: Objects | None = None
    """Way to tell objects apart, components by default; if given, maps of their numbers are written too."""
    min_area: Natural = 0
    """Pixels below which an object is left out."""
    probabilities: bool = False
    """Write the probability of the foreground too, in 16 bits."""
    entropy: bool = False
    """Write the entropy over its maximum too, in 16 bits."""
    disagreement: bool = False
    """Write the disagreement of an ensemble's members, or of pixel-mlp's networks, too, in 16 bits."""
    temperature: Annotated[float, Range(least=0.05, most=20)] | None = None
    """Temperature of the probabilities that are written, 1 for the network's own; by default the run's."""
    views: int = 1
    """Views that a prediction is the mean of: 1, or 8 for the symmetries, in eight times the time."""
    overlay: bool = False
    """Draw the objects on the image too, with a scale bar where the size of a pixel is known."""
    own_mpp: Annotated[float, Range(above=0)] | None = None
    """Micrometres per pixel that all images have, such as 0.25 for a slide at 40x; by default what each file says."""
    margin: Natural | None = None
    """Pixels at the edges of tiles that only give the others their surroundings: more tiles, fewer seams. By default as
    many as the run sees, where that is known (filters: 32, about twice the tiles of 256), else none; 0 is none."""
    tissue: Annotated[float, Range(least=0, most=1)] = 0.05
    """Share of a slide's tile that must be tissue, else it is background unseen (docs/slides.md); 0 takes all."""

    def check(self) -> None:
        """Refuses another number of views."""
        super().check()
        if self.views not in (1, 8):
            raise UserError(f"--views {self.views}: must be 1, or 8 (the symmetries)")


@dataclass(frozen=True)
class Predict(Outputs, Runs, Computing):
    """Segment images with a fitted run, at their original size.

    Masks are written as PNG, objects as tables and in other tools' formats.
    """

    image: Annotated[AnyPath | Sequence[AnyPath] | None, Argument, Exists("image file or directory")] = None
    """Image files and directories of images; none by default, where --list or --dataset names them."""
    text: str = ""
    """Text of the images that have none of their own."""
    _: KW_ONLY
    list: Annotated[AnyPath | None, Exists("list")] = None
    """File of paths, or table (CSV, Excel, JSON lines) with the columns image and text; none by default."""
    dataset: Annotated[str | None, Known("textdiff.readers:READERS", strict=True)] = None
    """Data set whose images without a mask are segmented; none by default."""
    data: Annotated[AnyPath | None, Exists("file or directory")] = None
    """Directory or file of --dataset; it has no default."""
    out: AnyPath = "predictions"
    """Directory that the results are written into."""
    overwrite: bool = False
    """Do images again that are done."""
    backbone: AnyPath | None = None
    """Backbone of the run, where it was moved; its recorded place by default."""

    def paths(self) -> Sequence[Path]:
        """The image files and directories that are given."""
        return [Path(path) for path in cast(Sequence[AnyPath], self.image or ())]

    def check(self) -> None:
        """Refuses a data set without its place, and nothing to segment."""
        super().check()
        if (self.dataset is None) != (self.data is None):
            raise UserError("--dataset and --data: give both, or neither")
        if not (self.image or self.list or self.dataset):
            raise UserError(
                "nothing to segment: give image files or directories, --list FILE, or --dataset NAME --data DIR"
            )
        self.directory()
