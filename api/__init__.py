"""The Python API: the commands as functions, with the same options, defaults and checks, made from the same records.

    import textdiff

    cache = textdiff.extract("folder", data="slides", backbone="nano-he", text_encoder="none")
    run = textdiff.fit(cache, variant="no-text", epochs=30)
    scores = textdiff.score(run)
    scores.summary["scores"]["clean"]["dice"].mean
    probabilities = textdiff.Predictor(run)(image)  # image (H, W, 3) uint8 or a file -> (classes, H, W) float32

Wherever a run is asked for, a ``Run``, its directory, or ``None`` for the latest one in ``runs`` will do; a cache is a
``FeatureCache`` or its path. What a user can put right is raised as ``textdiff.UserError``, with the text that the
command line would print. Import from ``textdiff``, not from here.
"""

__all__ = [
    "CacheDataset",
    "FeatureCache",
    "Predictor",
    "Run",
    "Scores",
    "ablate",
    "combine",
    "compare",
    "curve",
    "extract",
    "fit",
    "open_cache",
    "open_run",
    "panel",
    "predict",
    "pretrain",
    "rank",
    "report",
    "resume",
    "score",
    "sweep",
    "table1",
    "text_check",
]

from pathlib import Path

from textdiff.api.predictor import Predictor
from textdiff.cache import FeatureCache
from textdiff.cache.dataset import CacheDataset
from textdiff.experiments.ablate import ablate as run_ablate
from textdiff.experiments.compare import compare as run_compare
from textdiff.experiments.curve import curve as run_curve
from textdiff.experiments.panel import panel as run_panel
from textdiff.experiments.sweep import sweep as run_sweep
from textdiff.experiments.table1 import table1 as run_table1
from textdiff.experiments.text_check import text_check as run_text_check
from textdiff.options.experiments import Ablate, Compare, Curve, Panel, Sweep, Table1, TextCheck
from textdiff.options.extract import Extract
from textdiff.options.fit import Fit
from textdiff.options.option import AnyPath
from textdiff.options.pretrain import Pretrain
from textdiff.options.record import function
from textdiff.options.run import Combine, Predict, Rank, Report, Score
from textdiff.pipeline.combine import combine as run_combine
from textdiff.pipeline.extract import extract as run_extract
from textdiff.pipeline.fit import fit_or_resume
from textdiff.pipeline.predict import predict as run_predict
from textdiff.pipeline.prediction.ranking import rank as run_rank
from textdiff.pipeline.pretrain import pretrain as run_pretrain
from textdiff.pipeline.reporting.report import write_report
from textdiff.pipeline.runs import Run, find_run
from textdiff.pipeline.score import Scores
from textdiff.pipeline.score import score as run_score


def _predict(options: Predict) -> list[Path]:
    """Segments images and waits until all are done; for arrays see ``Predictor``.

    Returns:
        The files that were written.

    Raises:
        UserError: an image is missing or unreadable, two would write the same file, or the run is not usable.
    """
    return list(run_predict(options))


extract = function(Extract, run_extract)
fit = function(Fit, fit_or_resume)
combine = function(Combine, run_combine)
score = function(Score, run_score)
report = function(Report, write_report)
predict = function(Predict, _predict)
rank = function(Rank, run_rank)
pretrain = function(Pretrain, run_pretrain)
ablate = function(Ablate, run_ablate)
sweep = function(Sweep, run_sweep)
table1 = function(Table1, run_table1)
text_check = function(TextCheck, run_text_check)
curve = function(Curve, run_curve)
compare = function(Compare, run_compare)
panel = function(Panel, run_panel)


def resume(
    run: AnyPath | None = None, *, cache: AnyPath | None = None, device: str = "auto", runs: AnyPath = "runs"
) -> Run:
    """Goes on with a fit that was stopped, with its own options, to the weights it would have had.

    ``cache`` says where the run's cache is now, if it was moved.

    Raises:
        UserError: no such run, it is finished already, or its cache is not as it was.
    """
    return fit(cache, resume=True, run=run, device=device, runs=runs)


def open_cache(path: AnyPath) -> FeatureCache:
    """Opens a feature cache for reading.

    Raises:
        UserError: nothing there, no TextDiff cache, or a damaged one.
    """
    return FeatureCache.open(path)


def open_run(run: AnyPath | None = None, *, runs: AnyPath = "runs") -> Run:
    """The run in directory ``run``; the latest one in ``runs`` by default.

    Raises:
        UserError: there is none.
    """
    return find_run(run, runs)
