"""From the scores of single images to what ``score`` says of all of them: means, tables, a record, a page."""

__all__ = ["Averages", "averages", "cases", "page", "record", "tables", "weights_in_words"]

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.console import counted, printable
from textdiff.metrics.intervals import Interval, group_numbers, resampled
from textdiff.pipeline.evaluation.class_scores import mean_of_some, mean_scores, presence_note
from textdiff.pipeline.evaluation.figures import Case
from textdiff.pipeline.evaluation.given_text import GivenText, difference_table
from textdiff.pipeline.evaluation.image_predictions import TRUTHS, panels
from textdiff.pipeline.evaluation.object_scores import metrics_table
from textdiff.pipeline.evaluation.published import Published
from textdiff.pipeline.evaluation.score_tables import ScoreRow, score_table
from textdiff.pipeline.run_files import SCORES_SCHEMA
from textdiff.pipeline.runs import Run
from textdiff.readers.presets import name_of_data
from textdiff.tables import markdown as escape


@dataclass(frozen=True)
class Averages:
    """Means over the images, with their intervals."""

    truths: dict[str, dict[str, Any]]
    """``mean_scores`` by truth."""
    further: dict[str, Interval | None]
    """The other metrics, which are of the original size, and as ``<metric>_present`` their means over the images with
    any true foreground; None where no image has it."""
    classes: dict[str, dict[str, dict[str, Any]]]
    """``mean_scores`` by truth and class; empty by truth where there is one class."""

    def present(self, truth: str, classes: Sequence[str]) -> dict[str, int]:
        """For each class, how many images have it."""
        own = self.classes[truth] or {classes[0]: self.truths[truth]}
        return {name: own[name]["present"] for name in classes}


def averages(
    records: Sequence[Mapping[str, Any]], metrics: Sequence[str], classes: Sequence[str], seed: int
) -> Averages:
    """The means of each image's scores, called ``<metric>_<truth>``; an image that has none of a metric is left out.

    Args:
        records: of every image.
        metrics: those that were asked for.
        classes: names of the classes, the background left out.
        seed: of the bootstrap.
    """
    present = [record for record in records if record["area_original"]]
    further = {
        f"{metric}{suffix}": mean_of_some(among, f"{metric}_original", seed)
        for metric in metrics
        if metric not in ("dice", "iou")
        for suffix, among in (("", records), ("_present", present))
    }
    names = classes if len(classes) > 1 else ()
    return Averages(
        {truth: mean_scores(records, truth, seed) for truth in TRUTHS},
        further,
        {truth: {name: mean_scores(records, truth, seed, name) for name in names} for truth in TRUTHS},
    )


def record(
    run: Run, split: str, primary: str, found: Averages, groups: Sequence[str], more: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """What ``scores.json`` says beside the scores of each image, whose ``groups`` are resampled.

    ``more`` are the entries that depend on options.
    """
    scores: dict[str, dict[str, Any]] = {name: dict(value) for name, value in found.truths.items()}
    scores["original"] |= found.further
    for name, value in found.classes.items():
        scores[name] |= {"classes": value} if value else {}
    options = run.config["fit"]
    return {
        "schema": SCORES_SCHEMA,
        "run": run.path.name,
        "split": split,
        "model": run.config["model"],
        "variant": options["variant"],
        "ensemble": options["ensemble"],
        "labels": len(run.config["train_ids"]),
        "train_ids": run.config["train_ids"],
        "about": run.config["about"],
        "fingerprint_hash": run.config["fingerprint_hash"],
        "bootstrap": {"resamples": 10_000, "level": 0.95, "seed": seed, "over": resampled(groups)},
        "primary": primary,
        "present": found.present(primary, run.classes),
        "scores": scores,
        **more,
    }


def tables(
    run: Run,
    primary: str,
    found: Averages,
    published: Sequence[Published],
    notes: Sequence[str],
    given: GivenText | None,
    differences: Mapping[str, Mapping[str, Interval]] | None,
    *,
    markdown: bool,
) -> str:
    """All that is shown of the scores, as lines.

    Args:
        run: what was scored.
        primary: the truth that comes first.
        found: the means.
        published: rows to stand beside them.
        notes: what a reader must know: of the further metrics, of images that do not have them, and so on.
        given: the text that every image was given, if one was.
        differences: from the run's own scores, if they are there.
        markdown: GitHub tables; otherwise aligned text.
    """
    rows = []
    for name, value in sorted(found.truths.items(), key=lambda pair: pair[0] != primary):
        rows += _rows(f"{run.label} ({TRUTHS[name]})", value, len(run.config["train_ids"]))
        for label, own in found.classes[name].items():
            rows += _rows(f"- {label}", own)
    images = found.truths[primary]["dice"].n

    def quoted(note: str) -> str:
        return escape(note) if markdown else textwrap.fill(printable(note), 80)

    parts = (
        quoted(given.line) if given else "",
        score_table(rows, published, markdown=markdown),
        *(quoted(note) for note in (*notes[1:], presence_note(found.present(primary, run.classes), images))),
        metrics_table(found.further, notes[0], markdown=markdown),
        difference_table(differences, {primary: TRUTHS[primary], **TRUTHS}, markdown=markdown) if differences else "",
    )
    return "\n\n".join(part for part in parts if part)


def _rows(name: str, means: Mapping[str, Any], labels: int | None = None) -> list[ScoreRow]:
    """One row, and another where some images lack what it is of."""
    said, total = means.get("said", 0), means.get("pixels", 0)
    pixels = "" if said == total else f"{100 * said / total:.2f}"
    rows = [ScoreRow(name, means["dice"], means["iou"], labels, pixels)]
    if means["dice_present"] != means["dice"]:
        rows.append(ScoreRow("  where present", means["dice_present"], means["iou_present"]))
    return rows


def cases(
    cache: FeatureCache, previews: Mapping[int, NDArray[Any]], records: Sequence[Mapping[str, Any]], primary: str
) -> list[Case]:
    """The best, the median and the worst image, by rule; ``previews`` are in the order of ``records``."""
    rows = list(previews)
    order = sorted(range(len(rows)), key=lambda index: -records[index][f"dice_{primary}"])
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    found = []
    for name, index in chosen.items():
        scores, row = records[index], rows[index]
        dice, overlap = (100 * scores[f"{metric}_{primary}"] for metric in ("dice", "iou"))
        image, truth = panels(cache, row)
        title = f"{name}: {scores['id']}  Dice {dice:.1f}, IoU {overlap:.1f}"
        found.append(Case(title, scores["text"], image, truth, previews[row]))
    return found


def page(run: Run, split: str, table: str, overlay: str, groups: Sequence[str]) -> str:
    """``report.md``: the table, the figure in the file ``overlay``, and what the run is.

    ``groups`` are those of the images.
    """
    config = run.config
    lines = _combined_lines(config) if run.combined else _fitted_lines(run)
    return f"""# {escape(run.path.name)}: {split} split

{table}

{_means(groups)}

![Best, median and worst image]({overlay})

{lines}
* {counted(len(config["train_ids"]), "training image")}: {escape(", ".join(config["train_ids"]))}
"""


def _means(groups: Sequence[str]) -> str:
    if len(groups) == 1:
        return "Scores of 1 image, which has no interval."
    if not group_numbers(groups).any():
        return f"Means over {len(groups)} images of one group, which have no interval."
    return (
        f"Means over {len(groups)} images with bootstrap 95% intervals over {resampled(groups)}; they do not cover the "
        "draw of training images."
    )


def weights_in_words(config: Mapping[str, Any]) -> str:
    """How the weights of a combined run's runs came about, and which of them count for nothing."""
    weighed = config["weighed"]
    if not weighed:
        return "equally weighed"
    none = " and to ".join(f"{one['label']} ({one['run']})" for one in config["runs"] if not one["weight"])
    gave = f", which gave 0 to {none}" if none else ""
    return f"weighed by the Dice of {counted(weighed['images'], 'validation image')}{gave}"


def _fitted_lines(run: Run) -> str:
    config = run.config
    about, options = config["about"], config["fit"]
    made_with = (
        f"backbone {about['backbone']}, text encoder {about['text_encoder']}, variant {options['variant']}"
        if run.reads.activations
        else f"model {config['model']}, from the images{' and texts' if run.reads.text else ' alone'}"
    )
    seed, members = options["seed"], options["ensemble"]
    seeds = f"mean of {members} networks, seeds {seed} to {seed + members - 1}" if members else f"seed {seed}"
    epochs = f", {counted(options['epochs'], 'epoch')}" if config["parameters"] else ""  # trees have none
    return f"""* data set {escape(name_of_data(about))}, {escape(made_with)}
* {seeds}{epochs}"""


def _combined_lines(config: Mapping[str, Any]) -> str:
    runs = config["runs"]
    counting = [one for one in runs if one["weight"]]
    parts = (f"{100 * one['weight']:.3g} % {escape(one['label'])} ({escape(one['run'])})" for one in counting)
    return f"""* data set {escape(name_of_data(config["about"]))}
* mean of {len(runs)} runs, {escape(weights_in_words(config))}: {", ".join(parts)}"""
