"""What a run is worth, as functions: its scores, and the report of them."""

__all__ = ["report", "score"]

from pathlib import Path

from textdiff.api.opening import AnyPath, cache_path, open_run
from textdiff.cache import FeatureCache
from textdiff.pipeline.evaluation.object_scores import parse_metrics
from textdiff.pipeline.reporting.report import write_report
from textdiff.pipeline.runs import Run
from textdiff.pipeline.score import Scores
from textdiff.pipeline.score import score as run_score


def score(
    run: Run | AnyPath | None = None,
    *,
    split: str = "test",
    metrics: str | None = None,
    instances: str = "components",
    min_area: int = 0,
    tolerance: float = 2.0,
    text: str | None = None,
    cache: FeatureCache | AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Scores:
    """Dice and IoU of a run with 95% intervals, beside the paper's, which are written into the run's directory too.

    Args:
        run: a finished run.
        split: ``train``, ``val`` or ``test``.
        metrics: names with commas between, ``dice,iou,aji,pq,f1`` by default; docs/metrics.md explains them.
        instances: how objects are found in a prediction, ``components`` or ``watershed``.
        min_area: predicted objects of fewer pixels do not count.
        tolerance: of the surface Dice, in pixels.
        text: every image is given this text instead of its own, or none if it is empty.
        cache: the run's cache, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, the split has no annotated images, or a
            text is given and the run reads none.
    """
    where = None if cache is None else cache_path(cache)
    return run_score(
        open_run(run, runs=runs),
        split=split,
        cache_path=where,
        device=device,
        metrics=None if metrics is None else parse_metrics(metrics),
        instances=instances,
        min_area=min_area,
        tolerance=tolerance,
        text=text,
    )


def report(
    run: Run | AnyPath | None = None,
    *,
    split: str = "test",
    images: int = 40,
    out: AnyPath | None = None,
    cache: FeatureCache | AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Path:
    """Writes a scored run as one HTML file that needs nothing else, and returns its path.

    Args:
        run: a run that ``score`` has scored on ``split``.
        split: ``train``, ``val`` or ``test``.
        images: how many images are shown at most, from the best to the worst in even steps.
        out: the file to write; ``report.html`` in the run's directory.
        cache: the run's cache, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not scored on that split, or not usable.
    """
    return write_report(
        open_run(run, runs=runs),
        split=split,
        limit=images,
        out=None if out is None else Path(out),
        cache_path=None if cache is None else cache_path(cache),
        device=device,
    )
