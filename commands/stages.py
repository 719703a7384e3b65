"""The commands of the pipeline's stages: one function called, its result printed."""

__all__ = ["demo", "extract", "fit", "next_image", "predict", "pretrain", "report", "score"]

import json
from pathlib import Path

from textdiff import console
from textdiff.options.extract import Extract
from textdiff.options.fit import Fit
from textdiff.options.pretrain import Pretrain
from textdiff.options.run import Next, Predict, Report, Score
from textdiff.options.tools import Demo


def extract(options: Extract) -> None:
    """``textdiff extract``"""
    from textdiff.pipeline.extract import extract as run

    cache = run(options)
    if not options.dry_run and not cache.pending():
        console.info(f"next: textdiff fit --cache {cache.path}")


def fit(options: Fit) -> None:
    """``textdiff fit``"""
    from textdiff.pipeline.fit import fit_or_resume

    print(fit_or_resume(options).path)


def score(options: Score, as_json: bool) -> None:
    """``textdiff score``"""
    run = options.directory()
    from textdiff.pipeline.score import score as scored

    result = scored(options)
    print(json.dumps(result.summary, indent=2) if as_json else result.table)
    for file in result.files:
        console.info(f"wrote {file}")
    of_split = "" if options.split == "test" else f" --split {options.split}"
    if options.text is None:
        console.info(f"next: textdiff report --run {run}{of_split}")
    elif result.summary["differences"] is None:
        console.info(f"to see the difference: textdiff score --run {run}{of_split}, and this command again")


def report(options: Report) -> None:
    """``textdiff report``"""
    options.directory()
    from textdiff.pipeline.reporting.report import write_report

    print(write_report(options))


def predict(options: Predict) -> None:
    """``textdiff predict``"""
    options.directory()
    from textdiff.pipeline.prediction.batch import predict as run

    for path in run(options):
        print(path)


def next_image(options: Next, as_json: bool) -> None:
    """``textdiff next``"""
    options.directory()
    from textdiff.pipeline.prediction.ranking import format_ranking, rank

    ranking = rank(options)
    shown = ranking.candidates[: options.top]
    print(json.dumps([line._asdict() for line in shown], indent=2) if as_json else format_ranking(shown))
    console.info(f"wrote {ranking.file}: all {len(ranking.candidates)} candidates")
    console.info("once some have their mask in the data set: the same textdiff extract with --update, then fit again")


def pretrain(options: Pretrain) -> None:
    """``textdiff pretrain``"""
    from textdiff.pipeline.pretrain import pretrain as run

    print(run(options))


def demo(options: Demo) -> None:
    """``textdiff demo``"""
    from textdiff.pipeline.demo import demo as run

    result = run(Path(options.out), options.device)
    print(result.table)
    print(f"\nthe report is {result.report}, the overlays are {result.overlay}")
