"""Metrics of a finished run over a split: tables, per-image scores and overlays."""

__all__ = ["Scores", "score"]

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import write_text
from textdiff.images import formats
from textdiff.images.labels import UNSAID
from textdiff.options.run import Score
from textdiff.pipeline.evaluation.calibration import Calibration, Trust, in_words
from textdiff.pipeline.evaluation.class_scores import said_note
from textdiff.pipeline.evaluation.figures import overlay_figure
from textdiff.pipeline.evaluation.given_text import GivenText, paired_differences
from textdiff.pipeline.evaluation.image_predictions import (
    PRIMARY,
    TRUTHS,
    ImagePrediction,
    image_instances,
    image_predictions,
    truth_scores,
)
from textdiff.pipeline.evaluation.leaks import leaks_note, learned_from
from textdiff.pipeline.evaluation.object_scores import METRICS, measure
from textdiff.pipeline.evaluation.published import Comparison, published_for
from textdiff.pipeline.evaluation.score_tables import write_scores
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.evaluation.summary import averages, cases, page, record, tables
from textdiff.pipeline.mixture import Mixture, open_fitted
from textdiff.pipeline.prediction.streamed import StreamedImages
from textdiff.pipeline.predictions import cached_predictions, view_count
from textdiff.pipeline.runs import Run, of_split
from textdiff.pipeline.training.image_digests import (
    GONE,
    VIEWS,
    Digests,
    changes,
    image_digests,
    shortened,
)

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Scores:
    """What ``score`` found and wrote."""

    table: str
    summary: dict[str, Any]
    files: list[Path]
    json: str
    """What ``scores.json`` holds: the summary, and the scores of each image."""


def score(options: Score) -> Scores:
    """Scores a run on the annotated images of a split and writes the result into the run directory.

    Every prediction is compared with three truths: ``clean``, the mask resized by area (>= 0.5); ``paper``, the mask
    resized bilinearly and then > 0, as the paper's code does, which dilates it; ``original``, the mask at its own size
    with the probabilities enlarged to it; the further metrics are of this last one. Dice is 2 IoU / (1 + IoU) per
    image, then the mean. With several classes both are means over them, and each class is scored as well.

    Of a cache in tiles every image is stitched at its own size, and ``original`` is the truth to go by. For ``clean``
    and ``paper`` the stitched probabilities are averaged down to the cache's image size, where the masks are those that
    images in one row are compared with: scores of the two ways, and the paper's, can be put side by side.

    Of an image of more than ``MAX_MEGAPIXELS`` no array of its size is held. What needs one, all metrics but Dice and
    IoU, it does not have: its scores are None, and means are over the other images. So it is of an image with a sparse
    mask, which does not say where objects and outlines are. Its Dice and IoU are over the pixels that its mask says
    something of; an image whose mask says nothing is left out.

    With ``data`` no cache is read: the run's backbone is run on the images of that data set, one after the other, and
    the scores are those that a cache of it, made as the run's own was, would give.

    Writes ``scores.json``, ``scores.csv``, ``overlay.png`` (best, median and worst image by the Dice to go by) and
    ``report.md``; a split other than test is part of their names, and so is ``text``, so that the run's own scores
    stay. Where these are there, the differences from them are given too, image by image.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, the split has no annotated rows, or there
            is a ``text`` and the run reads none or its text encoder is not there; metrics are given that no image has;
            with ``data``, its masks hold other classes, or the run's backbone is not there.
    """
    scoring = _Scoring(options)
    with closing(scoring.predict()) as images:
        records = [scoring.measure(image) for image in images]
    return scoring.write(records)


class _Scoring:
    """A run, the rows of a cache that it is scored on, and what becomes known while it is.

    Finds them all, and says what a reader of the scores must know before.
    """

    def __init__(self, options: Score) -> None:
        run, text = Run(options.directory()), options.text
        if run.combined and options.data is not None:
            raise UserError(
                f"--data: {run.path} combines runs that read images each in its own way; score it by caches"
            )
        self.options, self.run, self.fitted = options, run, open_fitted(run, options.device)
        cache = run.open_cache(options.cache) if options.data is None else StreamedImages.of(run, options.data)
        self.cache, self.rows = cache, scored_rows(cache, options.split)
        self.primary = PRIMARY[bool(cache.rows[self.rows[0]].tile)]
        """The truth to go by."""
        self.wanted = [name for name in METRICS if name in (*options.metrics, "dice", "iou")]
        sizes = {cache.rows[row].id: (cache.rows[row].height, cache.rows[row].width) for row in self.rows}
        self.too_large = [name for name, size in sizes.items() if formats.too_many_pixels(*size)]
        self.sparse = _sparse_images(cache, self.rows)
        self.left_out = _left_out(
            len(sizes), self.too_large, self.sparse, self.wanted, options.metrics != Score.metrics
        )
        if self.left_out:
            console.warn(self.left_out)
        self.given = None if text is None else self._give(text)
        self.texts = run.texts(cache)
        self.facts, self.views = image_digests(cache, sizes, self.texts), view_count(cache, self.rows)
        # Neither a cache of test images only nor further views make scores those of another run.
        self.changed = [line for line in self.fitted.changed(cache) if not line.endswith((GONE, f": {VIEWS}"))]
        if self.changed:
            console.warn(_changed_since(self.changed))
        self.leaks = leaks_note(learned_from(run.config), cache, options.split, self.facts)
        if self.leaks:
            console.warn(self.leaks)
        self.own = self._own_scores()
        self.trust = Trust(Calibration.load(run), cache, run.config["blank_below"])
        self.previews: dict[int, np.ndarray] = {}

    def _give(self, text: str) -> GivenText:
        """The text that is given in place of the images' own to every network that reads texts, by its own encoder."""
        parts = self.fitted.parts if isinstance(self.fitted, Mixture) else [self.fitted]
        reading = [part for part in parts if part.run.reads.text] or parts[:1]  # one that reads none is refused
        given = [GivenText.embed(part.run, text, part.device) for part in reading]
        for part, own in zip(reading, given, strict=True):
            part.shown = own.shown
        return given[0]

    def _own_scores(self) -> dict[str, Any] | None:
        """The run's own scores, where those with a given text are to be compared with them."""
        run, split = self.run, self.options.split
        if self.given is None:
            _compare_with_before(run, split, self.facts, self.views)
            return None
        own = run.scores(split) if run.scores_file(split).is_file() else None
        if own is not None and (own["facts"], own["views"]) != (self.facts, self.views):
            what = "images have" if own["views"] == self.views else "number of views has"
            console.warn(f"the {what} changed since the run was scored: score again without --text for the difference")
            return None
        return own

    def predict(self) -> Generator[ImagePrediction, None, None]:
        """Each image with its prediction, put together of its rows, one at a time."""
        cache = self.cache
        source = None
        if isinstance(cache, StreamedImages):
            source = cache.items(self.run, self.rows, self.fitted.device, self.options.backbone)
            source = source if self.given is None else self.given.shown(cache, source)
        with closing(cached_predictions(self.fitted, cache, self.rows, "score", source=source)) as predicted:
            yield from image_predictions(cache, predicted, self.trust.add)

    def measure(self, image: ImagePrediction) -> dict[str, Any]:
        """The scores of an image, whose picture is kept."""
        cache = self.cache
        entry = cache.rows[image.row]
        self.previews[image.row] = image.preview
        return {
            "id": entry.id,
            **({"group": entry.group} if entry.group else {}),
            "split": entry.split,
            "text": self.given.text if self.given else cache.text_of(cache.rows[self.texts[image.row]]),
            **truth_scores(image, cache),
            **self.trust.record(entry.id),
            **_further(cache, image, self.wanted, self.options),
        }

    def write(self, records: list[dict[str, Any]]) -> Scores:
        """Writes the scores, the figure and the page into the run directory; published numbers stand beside them."""
        run, split, cache, given, primary = self.run, self.options.split, self.cache, self.given, self.primary
        found = averages(records, self.wanted, cache.classes, BOOTSTRAP_SEED)
        objects = {
            "prediction": self.options.objects,
            "min_area": self.options.min_area,
            "truth": "instance maps" if cache.has_instances else "components",
            "tolerance": self.options.tolerance,
        }
        differences = None
        if self.own is not None:
            # Scores of objects told apart in another way have nothing to be subtracted from.
            comparable = self.wanted if self.own.get("objects") == objects else ("dice", "iou")
            differences = paired_differences(records, self.own["images"], TRUTHS, comparable, BOOTSTRAP_SEED)
        trust = self.trust.summary([(one[f"dice_{primary}"], one["flagged"]) for one in records])
        # What is published is of images with their own texts.
        beside = split == "test" and not given
        dataset = str(run.config["about"].get("dataset"))
        published, why_not = published_for(dataset, self.facts, len(self.sparse)) if beside else Comparison((), "")
        more = {
            "facts": self.facts,
            "changed_since_fit": self.changed,
            "leaks": self.leaks,
            "views": self.views,
            "objects": objects,
            "trust": trust,
            "too_large": self.too_large,
            "sparse": self.sparse,
            "given_text": {"text": given.text, "tokens": given.count} if given else None,
            "differences": differences,
            "published": [row._asdict() for row in published],
            "published_left_out": why_not,
        }
        groups = [one.get("group", "") for one in records]
        summary = record(run, split, primary, found, groups, more, BOOTSTRAP_SEED)
        suffix = of_split(split) + (given.suffix if given else "")
        written = write_scores(run.path, records, summary, suffix=suffix)
        overlay = run.path / f"overlay{suffix}.png"
        overlay_figure(overlay, cases(cache, self.previews, records, primary), cache.classes)
        views, counted = self.views, found.truths[primary]
        mpp: float | None = cache.fingerprint.get("mpp")
        notes = (
            f"The original size is that at the cache's {mpp:g} µm per pixel." if mpp is not None else "",
            f"Objects of the original size are by {self.options.objects}, the true ones by {objects['truth']}.",
            self.left_out,
            said_note(len(self.sparse), len(records), counted.get("said", 0), counted.get("pixels", 0)),
            why_not,
            _changed_since(self.changed),
            self.leaks,
            f"Each prediction is the mean over {views} views (predict --views {views})." if views > 1 else "",
            *in_words(trust),
        )
        plain, markdown = (
            tables(run, primary, found, published, notes, given, differences, markdown=markdown)
            for markdown in (False, True)
        )
        report = run.path / f"report{suffix}.md"
        write_text(report, page(run, split, markdown, overlay.name, groups))
        return Scores(plain, summary, [*written, overlay, report], written[1].read_text(encoding="utf-8"))


def _changed_since(fitted: Sequence[str]) -> str:
    """What is to be said of images that are not as the run was fitted on them; empty where there are none."""
    if not fitted:
        return ""
    return f"An image that the run was fitted on, or selected by, has changed since ({shortened(fitted)}): fit again."


def _compare_with_before(run: Run, split: str, facts: Mapping[str, Digests], views: int) -> None:
    """Says where the scores that are about to be replaced were of other images, masks, texts or views."""
    file = run.scores_file(split)
    if not file.is_file():
        return
    try:
        before = run.scores(split)
        changed, views_before = changes(before["facts"], facts), before["views"]
    except (UserError, KeyError):
        console.warn(f"{file}: the scores before do not say what images they were of, so nothing compares with them")
        return
    if views_before != views:
        changed.append(f"{views_before} views of each image then, {views} now")
    if changed:
        console.warn(
            f"{file}: not comparable with the scores before, which were of other images ({shortened(changed)})"
        )


def _further(
    cache: FeatureCache, image: ImagePrediction, metrics: Sequence[str], options: Score
) -> dict[str, float | None]:
    """The scores of an image beside Dice and IoU, None where it is too large to be held, or its mask is sparse."""
    if image.full_size is None or (cache.sparse and np.any(image.full_size.truth == UNSAID)):
        values: Mapping[str, float | None] = {name: None for name in metrics if name not in ("dice", "iou")}
    else:
        values = measure(
            metrics,
            image.full_size.labels,
            image.full_size.likelihood,
            image.full_size.truth,
            image_instances(cache, image.row),
            method=options.objects,
            min_area=options.min_area,
            tolerance=options.tolerance,
        )
    return {f"{metric}_original": value for metric, value in values.items()}


def _sparse_images(cache: FeatureCache, rows: Sequence[int]) -> list[str]:
    """The images among some rows whose masks say nothing in places, in the order of the rows."""
    found = (cache.rows[row].id for row in rows if cache.sparse and np.any(cache.truth(row) == UNSAID))
    return list(dict.fromkeys(found))


def _left_out(count: int, too_large: Sequence[str], sparse: Sequence[str], metrics: Sequence[str], asked: bool) -> str:
    """What is to be said of images that have Dice and IoU only; empty where there are none.

    Raises:
        UserError: more was ``asked`` for, and no image has it.
    """
    further = [name for name in metrics if name not in ("dice", "iou")]
    without = {*too_large, *sparse}
    if not without or not further:
        return ""
    reasons = (
        (too_large, f"more than {formats.MAX_MEGAPIXELS} megapixels, too large"),
        (sparse, "masks that say nothing in places, too little"),
    )
    what = " and ".join(f"{console.some(len(ids), count, 'image', 'has', 'have')} {why}" for ids, why in reasons if ids)
    what += f" for {', '.join(further)}"
    if asked and len(without) == count:
        raise UserError(f"--metrics {','.join(further)}: {what}; use --metrics dice,iou")
    return f"{what}: {'it has' if len(without) == 1 else 'they have'} Dice and IoU only."
