"""What may stand in one table: which data sets there are, rows that were scored alike, and draws that are pairs."""

__all__ = ["check_pairs", "check_scored", "data_sets"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment
from textdiff.experiments.results import Result
from textdiff.places import Location, from_here
from textdiff.readers.presets import PRESETS

_Images = dict[str, Sequence[Any]]
"""By id the digests of an image and its mask."""


class _DataSet(NamedTuple):
    name: str
    images: Mapping[str, Sequence[Any]]
    """As ``Result.images``, the digests of image and mask; empty where nothing is scored, or it is a published one."""
    cache: Location
    """The cache of the first experiment on it."""


def data_sets(experiments: Mapping[str, Experiment], results: Mapping[str, Sequence[Result]]) -> dict[str, Experiment]:
    """The experiments, where folders of one's own with the same scored images and masks are one data set.

    One with strokes beside one with full masks is such a case. It is called as the first of them. Folders that are
    called alike and share no image are several data sets, and have the places of their caches beside their names.
    """
    sets, of = list[_DataSet](), dict[str, _DataSet]()
    for place, experiment in experiments.items():
        name, images = experiment.dataset, next((one.images for one in results[place] if one.runs), {})
        own = images if name not in PRESETS or PRESETS[name].own else {}
        found = next((one for one in sets if own and one.images == own), None)
        if found is None:
            sets.append(found := _DataSet(name, own, experiment.cache))
        of[place] = found
    return {place: replace(one, dataset=_told_apart(of[place], sets)) for place, one in experiments.items()}


def _told_apart(one: _DataSet, sets: Iterable[_DataSet]) -> str:
    others = [other for other in sets if other is not one and other.name == one.name]
    shown = {image for image, _ in one.images.values()}
    apart = all(
        shown and other.images and other.cache != one.cache and shown.isdisjoint(i for i, _ in other.images.values())
        for other in others
    )
    return f"{one.name} ({from_here(one.cache)})" if others and apart else one.name


def check_scored(rows: Iterable[tuple[str, Result]]) -> None:
    """Refuses rows, by their names, that differences cannot be taken of image by image.

    Raises:
        UserError: they are scored on other images or masks, or on the same in another order.
    """
    scored = [(name, list(result.images.items())) for name, result in rows if result.runs]
    for name, images in scored:
        if images != scored[0][1]:
            raise UserError(
                f"{name} and {scored[0][0]}: scored on other images or masks, so that they are no pairs; make both "
                "caches of the same data set, with the same splits"
            )


def check_pairs(experiments: dict[str, Experiment]) -> None:
    """Refuses experiments in which the same draw is of other images or masks.

    Sparse masks may stand against full ones of the same images: what was annotated is then what is compared.

    Raises:
        UserError: it is.
    """
    known: dict[tuple[int, int], tuple[str, _Images, bool]] = {}
    for place, experiment in experiments.items():
        for labels, draw, images, sparse in _drawn(experiment):
            seen_in, seen, before = known.setdefault((labels, draw), (place, images, sparse))
            known[labels, draw] = (seen_in, seen, sparse or before)
            compared = 1 if sparse or before else 2
            if seen.keys() != images.keys() or any(seen[name][:compared] != images[name][:compared] for name in seen):
                raise UserError(
                    f"{place} and {seen_in}: draw {draw} of {labels} is of other images or masks, so that their runs "
                    "are no pairs; make both caches of the same data set"
                )


def _drawn(experiment: Experiment) -> Iterable[tuple[int, int, _Images, bool]]:
    """The number of labels, the draw, what was drawn, and whether of sparse masks, of each finished job."""
    for job in experiment.plan.jobs:
        if experiment.scores_file(job).is_file():
            config = experiment.run(job).config
            facts = config["images"]
            images = {name: facts.get(name, [])[:2] for name in config["train_ids"]}
            yield job.point["labels"], job.draw, images, "unlabelled" in config["fingerprint"]
