"""Which image to annotate next: the one that a fitted run is least sure about."""

__all__ = ["Candidate", "Ranking", "format_ranking", "rank"]

from pathlib import Path
from typing import NamedTuple

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import write_text
from textdiff.metrics.pixels import entropy
from textdiff.metrics.uncertainty import jensen_shannon, mean_share
from textdiff.options.run import Rank
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.predictions import cached_predictions
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training.labelled import silent_images
from textdiff.places import Location
from textdiff.tables import csv_table, text_table


class Candidate(NamedTuple):
    """An image without a mask, or with one that says nothing.

    Scores are means over its pixels (of an image in tiles, over the pixels of its tiles), in [0, 1], 1 being the most
    unsure.
    """

    rank: int
    id: str
    split: str
    score: float
    """What it is ranked by: ``disagreement`` for an ensemble, ``entropy`` otherwise."""
    disagreement: float | None
    """Jensen-Shannon divergence of the members; None where there is one network only."""
    entropy: float
    """The entropy of the mean probability."""


class Ranking(NamedTuple):
    """All candidates, the least certain first, and the file that they were written to."""

    candidates: list[Candidate]
    file: Path
    cache: Location
    """Where the images are."""


def rank(options: Rank) -> Ranking:
    """Ranks the images that could be annotated next and writes ``next.csv`` into the run directory.

    Candidates are the images without a mask, whatever their split. An ensemble's members can disagree, and so can the
    networks that vote in one; a single network can only be undecided.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, or there is no candidate in it.
    """
    run = Run(options.directory())
    fitted, cache = open_fitted(run, options.device), run.open_cache(options.cache)
    rows = _rows(cache)
    several = fitted.member_count > 1
    if not several:
        console.warn(
            f"{run.path} is a single network: ranked by its entropy, which is high at every outline; "
            "an ensemble (fit --ensemble 5) also tells where it does not know"
        )
    found: dict[str, list[tuple[float, float]]] = {}
    for row, members in cached_predictions(fitted, cache, rows, "next", each=True):
        spread = mean_share(jensen_shannon(members), fitted.classes)
        undecided = mean_share(entropy(fitted.combined(members)), fitted.classes)
        found.setdefault(cache.rows[row].id, []).append((spread, undecided))
    lines: list[tuple[float, str, float | None, float]] = []
    for name, tiles in found.items():
        spread, undecided = (float(value) for value in np.mean(tiles, axis=0))
        lines.append((spread, name, spread, undecided) if several else (undecided, name, None, undecided))
    lines.sort(key=lambda line: (-line[0], line[1]))
    splits = {entry.id: entry.split for entry in cache.rows}
    candidates = [
        Candidate(place, name, splits[name], score, disagreement, undecided)
        for place, (score, name, disagreement, undecided) in enumerate(lines, start=1)
    ]
    file = run.path / "next.csv"
    write_text(file, csv_table([line._asdict() for line in candidates], Candidate._fields))
    return Ranking(candidates, file, cache.path)


def format_ranking(candidates: list[Candidate]) -> str:
    """The candidates as aligned text; scores in percent of the most that is possible."""
    cells = [
        (
            *(str(line.rank), line.id, line.split),
            "-" if line.disagreement is None else f"{100 * line.disagreement:.2f}",
            f"{100 * line.entropy:.2f}",
        )
        for line in candidates
    ]
    return text_table(("rank", "image", "split", "disagreement %", "entropy %"), cells, "rllrr")


def _rows(cache: FeatureCache) -> list[int]:
    done = cache.done()
    unturned = [row for row, entry in enumerate(cache.rows) if entry.view == 0]
    # A mask that says nothing is a page that was opened and not written on.
    silent = silent_images(cache, (row for row in unturned if done[row]), cache.mask)
    rows = [row for row in unturned if not cache.rows[row].has_mask or cache.rows[row].id in silent]
    lacking = {cache.rows[row].id for row in rows if not done[row]}
    there = [row for row in rows if cache.rows[row].id not in lacking]
    if not rows:
        raise UserError(
            f"{cache.path}: no image is left to annotate, all have a mask; add images to the data set, then "
            f"textdiff extract --cache {cache.path} --update"
        )
    if not there:
        raise UserError(f"{cache.path}: no candidate has been extracted yet; run the same `textdiff extract` again")
    if lacking:
        console.warn(f"{len(lacking)} candidates are not extracted yet and not ranked")
    return there
