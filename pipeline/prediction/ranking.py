"""Which images to annotate next: those that most of the others are like, or those that a run is least sure about."""

__all__ = ["Candidate", "Ranking", "format_ranking", "rank"]

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.files import write_text
from textdiff.metrics.pixels import entropy, jensen_shannon, mean_share
from textdiff.options.run import Rank
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.prediction.coverage import candidate_rows, cover
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions
from textdiff.pipeline.runs import Run
from textdiff.places import Location
from textdiff.tables import csv_table, text_table


class Candidate(NamedTuple):
    """An image without a mask, or with one that says nothing.

    Disagreement and entropy are means over its pixels (of an image in tiles, over the pixels of its tiles), in [0, 1],
    1 being the most unsure.
    """

    rank: int
    id: str
    split: str
    score: float
    """What it is ranked by: ``coverage``, or by uncertainty ``disagreement`` for an ensemble, ``entropy`` otherwise."""
    coverage: float | None
    """How well all images are stood for once this one and those before it are annotated, in [0, 1]; None if ranked by
    uncertainty."""
    disagreement: float | None
    """Jensen-Shannon divergence of the members; None where there is one network only, or no run."""
    entropy: float | None
    """The entropy of the mean probability; None without a run."""


class Ranking(NamedTuple):
    """All candidates, the first to be annotated first, and the file that they were written to."""

    candidates: list[Candidate]
    file: Path | None
    """None without a run, whose directory it is in."""
    cache: Location
    """Where the images are."""


def rank(options: Rank) -> Ranking:
    """Ranks the images that could be annotated next; with a run writes ``next.csv`` into its directory.

    Candidates are the images without a mask, whatever their split. An ensemble's members can disagree, and so can the
    networks that vote in one; a single network can only be undecided.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, or there is no candidate in it.
    """
    run = None if options.alone else Run(options.directory())
    fitted = None if run is None else open_fitted(run, options.device)
    if run is None:
        assert options.cache is not None
        cache = FeatureCache.open(options.cache)
    else:
        cache = run.open_cache(options.cache)
    covers = {one.id: one.coverage for one in cover(cache)} if options.by == "coverage" else {}
    rows = [row for row, entry in enumerate(cache.rows) if entry.view == 0 and entry.id in covers]
    rows = rows or candidate_rows(cache)
    doubts = {} if fitted is None else _doubts(fitted, cache, rows)
    scores = covers or {name: undecided if spread is None else spread for name, (spread, undecided) in doubts.items()}
    if not covers and fitted and fitted.member_count == 1:
        console.warn(
            f"{fitted.run.path} is a single network: ranked by its entropy, which is high at every outline; "
            "an ensemble (fit --ensemble 5) also tells where it does not know"
        )
    splits = {cache.rows[row].id: cache.rows[row].split for row in rows}
    order = list(covers) or sorted(scores, key=lambda name: (-scores[name], name))
    candidates = [
        Candidate(place, name, splits[name], scores[name], covers.get(name), *doubts.get(name, (None, None)))
        for place, name in enumerate(order, start=1)
    ]
    file = None
    if run is not None:
        file = run.path / "next.csv"
        write_text(file, csv_table([line._asdict() for line in candidates], Candidate._fields))
    return Ranking(candidates, file, cache.path)


def format_ranking(candidates: list[Candidate]) -> str:
    """The candidates as aligned text; scores in percent of the most that is possible."""
    names = ("coverage", "disagreement", "entropy")
    columns = [name for name in names if any(getattr(line, name) is not None for line in candidates)]
    cells = [
        (str(line.rank), line.id, line.split, *(f"{100 * getattr(line, name):.2f}" for name in columns))
        for line in candidates
    ]
    return text_table(("rank", "image", "split", *(f"{name} %" for name in columns)), cells, "rll" + "r" * len(columns))


def _doubts(fitted: FittedNetwork, cache: FeatureCache, rows: Sequence[int]) -> dict[str, tuple[float | None, float]]:
    """The disagreement and the entropy of each image, by its id."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row, members in cached_predictions(fitted, cache, rows, "next", each=True):
        spread = mean_share(jensen_shannon(members), fitted.classes)
        undecided = mean_share(entropy(fitted.combined(members)), fitted.classes)
        found.setdefault(cache.rows[row].id, []).append((spread, undecided))
    means = {name: tuple(float(value) for value in np.mean(tiles, axis=0)) for name, tiles in found.items()}
    several = fitted.member_count > 1
    return {name: (spread if several else None, undecided) for name, (spread, undecided) in means.items()}
