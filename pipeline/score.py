"""Metrics of a finished run over a split: tables, per-image scores and overlays."""

__all__ = ["TRUTHS", "Scores", "compared", "score", "scored_rows"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.files import write_text
from textdiff.pipeline.device import choose_device
from textdiff.pipeline.evaluation.bootstrap import bootstrap_mean
from textdiff.pipeline.evaluation.class_scores import class_intervals, class_scores
from textdiff.pipeline.evaluation.figures import Case, overlay_figure
from textdiff.pipeline.evaluation.instances import METHODS
from textdiff.pipeline.evaluation.object_scores import DEFAULT, measure, metrics_table
from textdiff.pipeline.evaluation.published import PUBLISHED
from textdiff.pipeline.evaluation.tables import ScoreRow, score_table, write_scores
from textdiff.pipeline.imaging import images
from textdiff.pipeline.networks.variants import assign_texts
from textdiff.pipeline.predict import predict_row
from textdiff.pipeline.prediction.given_text import GivenText, difference_table, paired_differences
from textdiff.pipeline.prediction.whole import Whole, panels, whole_images, whole_instances
from textdiff.pipeline.runs import Run

TRUTHS = {
    "clean": "mask by area",
    "paper": "paper's mask",
    "original": "original size",
}
"""What a prediction is compared with: DESIGN, section 4."""
PRIMARY = {False: "clean", True: "original"}
"""The truth that comes first and that cases are chosen by, without and with tiles."""


@dataclass(frozen=True)
class Scores:
    """What ``score`` found and wrote."""

    table: str
    summary: dict[str, Any]
    files: list[Path]


def score(
    run: Run,
    *,
    split: str = "test",
    cache_path: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    metrics: Sequence[str] = DEFAULT,
    instances: str = METHODS[0],
    min_area: int = 0,
    tolerance: float = 2.0,
    text: str | None = None,
) -> Scores:
    """Scores a run on the annotated images of a split and writes the result into the run directory.

    Every prediction is compared with three truths: ``clean``, the mask resized by area (>= 0.5); ``paper``, the mask
    resized bilinearly and then > 0, as the paper's code does, which dilates it; ``original``, the mask at its own size
    with the probabilities enlarged to it; the further ``metrics`` are of this last one. Dice is 2 IoU / (1 + IoU) per
    image, then the mean. With several classes both are means over them, and each class is scored as well.

    Of a cache in tiles every image is stitched at its own size, and ``original`` is the truth to go by. For ``clean``
    and ``paper`` the stitched probabilities are averaged down to the cache's image size, where the masks are those that
    images in one row are compared with: scores of the two ways, and the paper's, can be put side by side.

    Writes ``scores.json``, ``scores.csv``, ``overlay.png`` (best, median and worst image by the Dice to go by) and
    ``report.md``; a split other than test is part of their names, and so is ``text``, so that the run's own scores
    stay. Where these are there, the differences from them are given too, image by image.

    Args:
        run: a finished run.
        split: ``train``, ``val`` or ``test``.
        cache_path: where the run's cache is now, if it was moved.
        device: where to compute.
        seed: of the bootstrap.
        metrics: names of ``object_scores.METRICS``; all but Dice and IoU are of the original size only.
        instances: how objects are told apart in the prediction, one of ``instances.METHODS``.
        min_area: predicted objects of fewer pixels do not count.
        tolerance: of the surface Dice, in pixels.
        text: every image is given this text instead of its own, or none if it is empty; see docs/texts.md.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, the split has no annotated rows, an
            option is out of range, or there is a ``text`` and the run reads none or its text encoder is not there.
    """
    if instances not in METHODS or min_area < 0 or tolerance < 0:
        raise UserError(f"--instances is {' or '.join(METHODS)}; --min-area and --tolerance are not negative")
    network = run.load_network()
    cache = run.open_cache(cache_path)
    rows = scored_rows(cache, split)
    options = run.config["fit"]
    where = choose_device(device)
    network = network.to(where)
    given = None if text is None else GivenText.embed(run, text, where)
    own = run.scores(split) if given and run.scores_file(split).is_file() else None
    texts = assign_texts(cache, options["variant"], options["draw_seed"], run.config["train_ids"])
    precision = options["precision"] if where.type == "cuda" else "float32"

    primary = PRIMARY[bool(cache.rows[rows[0]].tile)]
    records: list[dict[str, Any]] = []
    shown: dict[int, np.ndarray] = {}
    with console.Progress(len({cache.rows[row].id for row in rows}), "score", "images") as progress:
        items: Iterable[Item] = network.loader(cache, where).epoch(rows, texts)
        if given:
            items = given.put(items)
        for whole in whole_images(cache, items, lambda item: predict_row(network, item, precision)):
            entry = cache.rows[whole.row]
            record: dict[str, Any] = {
                "id": entry.id,
                "split": entry.split,
                "text": given.text if given else cache.texts[cache.rows[texts[whole.row]].text],
            }
            for name, (predicted, true) in compared(whole).items():
                record |= class_scores(predicted, true, cache.classes, name)
            more = measure(
                metrics,
                whole.labels,
                whole.likelihood,
                whole.truth,
                whole_instances(cache, whole.row),
                method=instances,
                min_area=min_area,
                tolerance=tolerance,
            )
            record |= {f"{metric}_original": value for metric, value in more.items()}
            records.append(record)
            shown[whole.row] = whole.shown
            progress.advance()

    intervals = {
        name: {
            metric: bootstrap_mean([record[f"{metric}_{name}"] for record in records], seed=seed)
            for metric in ("dice", "iou")
        }
        for name in TRUTHS
    }
    further = {
        metric: bootstrap_mean([record[f"{metric}_original"] for record in records], seed=seed)
        for metric in metrics
        if metric not in ("dice", "iou")
    }
    intervals["original"] |= further
    by_class = {name: class_intervals(records, cache.classes, name, seed) for name in TRUTHS}
    true_objects = "instance maps" if cache.has_instances else "components"
    labels = len(run.config["train_ids"])
    table_rows = []
    for name, value in sorted(intervals.items(), key=lambda pair: pair[0] != primary):
        table_rows.append(ScoreRow(f"{run.label} ({TRUTHS[name]})", value["dice"], value["iou"], labels))
        table_rows += [ScoreRow(f"- {label}", own["dice"], own["iou"]) for label, own in by_class[name].items()]
    # What is published is of images with their own texts.
    published = PUBLISHED.get(str(run.config["about"].get("dataset")), ()) if split == "test" and not given else ()
    objects = {"prediction": instances, "min_area": min_area, "truth": true_objects, "tolerance": tolerance}
    differences = None
    if own is not None:
        # Scores of objects told apart in another way have nothing to be subtracted from.
        comparable = metrics if own.get("objects") == objects else ("dice", "iou")
        differences = paired_differences(records, own["images"], TRUTHS, comparable, seed)
    summary = {
        "schema": 1,
        "run": run.path.name,
        "split": split,
        "model": run.config["model"],
        "variant": options["variant"],
        "ensemble": options["ensemble"],
        "labels": labels,
        "train_ids": run.config["train_ids"],
        "about": run.config["about"],
        "fingerprint_hash": run.config["fingerprint_hash"],
        "bootstrap": {"resamples": 10_000, "level": 0.95, "seed": seed, "over": "images"},
        "primary": primary,
        "scores": {
            name: {**value, **({"classes": by_class[name]} if by_class[name] else {})}
            for name, value in intervals.items()
        },
        "objects": objects,
        "given_text": {"text": given.text, "tokens": given.count} if given else None,
        "differences": differences,
        "published": [row._asdict() for row in published],
    }
    suffix = ("" if split == "test" else f"-{split}") + (given.suffix if given else "")
    written = write_scores(run.path, records, summary, suffix=suffix)
    overlay = run.path / f"overlay{suffix}.png"
    overlay_figure(overlay, _cases(cache, shown, records, primary), cache.classes)
    report = run.path / f"report{suffix}.md"
    note = f"At the original size; predicted objects: {instances}, true ones: {true_objects}."

    def table(markdown: bool) -> str:
        parts = (
            given.line if given else "",
            score_table(table_rows, published, markdown=markdown),
            metrics_table(further, note, markdown=markdown),
            difference_table(differences, {primary: TRUTHS[primary], **TRUTHS}, markdown=markdown)
            if differences
            else "",
        )
        return "\n\n".join(part for part in parts if part)

    write_text(report, _report(run, split, table(markdown=True), overlay.name, len(records)))
    return Scores(table(markdown=False), summary, [*written, overlay, report])


def scored_rows(cache: FeatureCache, split: str) -> list[int]:
    """The annotated rows of a split, untransformed views only."""
    if split not in ("train", "val", "test"):
        raise UserError(f"--split {split}: unknown; use train, val or test")
    rows = [r for r, entry in enumerate(cache.rows) if entry.split == split and entry.view == 0]
    annotated = [row for row in rows if cache.rows[row].mask_sha256 is not None]
    ids, masked = ({cache.rows[row].id for row in some} for some in (rows, annotated))
    if not annotated:
        raise UserError(f"{cache.path}: the {split} split has no image with a mask, so there is nothing to score")
    done = cache.done()
    missing = {cache.rows[row].id for row in annotated if not done[row]}
    if missing:
        raise UserError(
            f"{cache.path}: not complete, {len(missing)} of {len(masked)} {split} images have rows to do; "
            "run the same `textdiff extract` again to finish it"
        )
    if len(masked) < len(ids):
        console.warn(f"{len(ids) - len(masked)} of {len(ids)} {split} images have no mask and are not scored")
    return annotated


def compared(whole: Whole) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth, class numbers (H, W), under each of ``TRUTHS``."""
    classes, size = len(whole.probability), whole.probability.shape[-1]
    predicted = whole.probability.argmax(0)
    return {
        "clean": (predicted, images.resize_mask(whole.truth, size, "area", classes)),
        "paper": (predicted, images.resize_mask(whole.truth, size, "bilinear", classes)),
        "original": (whole.labels, whole.truth),
    }


def _cases(
    cache: FeatureCache, shown: dict[int, np.ndarray], records: list[dict[str, Any]], primary: str
) -> list[Case]:
    """The best, the median and the worst image, by rule and not by hand; ``shown`` is in the order of ``records``."""
    rows = list(shown)
    order = sorted(range(len(rows)), key=lambda index: -records[index][f"dice_{primary}"])
    chosen = dict(zip(("worst", "median", "best"), (order[-1], order[len(order) // 2], order[0]), strict=True))
    cases = []
    for name in ("best", "median", "worst"):
        index = chosen[name]
        record, row = records[index], rows[index]
        dice, overlap = (100 * record[f"{metric}_{primary}"] for metric in ("dice", "iou"))
        image, truth = panels(cache, row)
        title = f"{name}: {record['id']}  Dice {dice:.1f}, IoU {overlap:.1f}"
        cases.append(Case(title, record["text"], image, truth, shown[row]))
    return cases


def _report(run: Run, split: str, table: str, overlay: str, count: int) -> str:
    config = run.config
    about, options = config["about"], config["fit"]
    made_with = (
        f"backbone {about['backbone']}, text encoder {about['text_encoder']}, variant {options['variant']}"
        if config["model"] == "textdiff"
        else f"model {config['model']}, from the images alone"
    )
    seed, members = options["seed"], options["ensemble"]
    seeds = f"mean of {members} networks, seeds {seed} to {seed + members - 1}" if members else f"seed {seed}"
    return f"""# {run.path.name}: {split} split

{table}

Means over {count} images with bootstrap 95% intervals over images; they do not cover the draw of training images.

![Best, median and worst image]({overlay})

* data set {about["dataset"]}, {made_with}
* {seeds}, {options["epochs"]} epochs
* {len(config["train_ids"])} training images: {", ".join(config["train_ids"])}
"""
