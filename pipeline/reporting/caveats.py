"""What a reader should know before trusting the scores of a run, derived from what the run recorded."""

__all__ = ["Caveat", "caveats"]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from textdiff.console import counted, some
from textdiff.metrics.intervals import group_numbers
from textdiff.options.fit import FitConfig
from textdiff.pipeline.evaluation.class_scores import presence_note
from textdiff.pipeline.evaluation.summary import weights_in_words
from textdiff.pipeline.training.image_digests import shortened
from textdiff.readers.presets import PRESETS

_FEW_IMAGES = 30
_FEW_VALIDATION = 5
_WIDE = 0.10
_PAPER = ("adm-256", "clinical-biobert")


class Caveat(NamedTuple):
    """One sentence or two; a ``warning`` can change what the scores mean, a ``note`` helps to read them."""

    level: Literal["warning", "note"]
    text: str


def caveats(config: Mapping[str, Any], summary: Mapping[str, Any], log: Sequence[Mapping[str, float]]) -> list[Caveat]:
    """What holds of this run, the gravest first.

    Args:
        config: the run's ``config.json``.
        summary: the run's ``scores.json`` of one split, with ``images``.
        log: the run's ``log.csv``, a mapping per epoch.
    """
    primary = summary["primary"]
    found = [
        *_data(config, summary),
        *_certainty(summary, primary),
        *_probabilities(summary["trust"]),
        *_selection(config, summary, log, primary),
        *_comparison(summary),
    ]
    return sorted(found, key=lambda caveat: caveat.level != "warning")


def _data(config: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Caveat]:
    dataset = PRESETS.get(str(summary["about"].get("dataset")))
    if dataset is not None and dataset.synthetic:
        text = "Synthetic data: the phantom shows that the program works, and nothing about real images."
        yield Caveat("warning", text)
    if summary["split"] == "train":
        yield Caveat("warning", "Scored on the training split: the head has seen images and masks of it.")
    if summary["split"] == "val":
        yield _on_validation(config, summary)
    control = {
        "no-text": "The head of this run does not read the text (variant no-text).",
        "shuffled-text": "A control: every image was given the text of another one (variant shuffled-text).",
        "constant-text": "A control: every image was given the same text (variant constant-text).",
    }.get(summary["variant"])
    if control:
        yield Caveat("note", control)
    if changed := summary["changed_since_fit"]:
        text = f"Fitted on, or selected by, images that have changed since: {shortened(changed)}."
        yield Caveat("warning", text)
    if leaks := summary.get("leaks"):  # scores of before do not know
        yield Caveat("warning", leaks)
    if absent := presence_note(summary["present"], len(summary["images"])):
        yield Caveat("warning", absent)
    large = len(summary["too_large"])
    if large:
        which = f"{large} of {len(summary['images'])} images {'is' if large == 1 else 'are'}"
        text = f"{which} too large to be held as a whole, and without scores of objects and outlines."
        yield Caveat("note", text)
    if summary.get("sparse"):
        means, images = summary["scores"][summary["primary"]], len(summary["images"])
        share = 100 * means["said"] / means["pixels"]
        masks = some(len(summary["sparse"]), images, "mask", "says", "say")
        text = (
            f"{masks} nothing of some pixels: the scores are over "
            f"{means['said']:,} of {means['pixels']:,} pixels ({share:.2g} %), and tell nothing of the others."
        )
        yield Caveat("warning", text)
    if (config.get("git") or "").endswith("+"):
        yield Caveat("note", "Fitted with uncommitted changes: the recorded revision is not the whole code.")


def _on_validation(config: Mapping[str, Any], summary: Mapping[str, Any]) -> Caveat:
    """What scores of the validation split are worth: what these images have chosen."""
    fit, split = config["fit"], "Scored on the validation split"
    if "runs" in config:
        by = "by which its runs are weighed" if config["weighed"] else "which the fits of its runs have seen"
        return Caveat("warning", f"{split}, {by}.")
    if config["val_ids"] and config.get("parameters", 1) and fit.get("select", "best") == "best":
        return Caveat("warning", f"{split}, by which the weights were selected.")
    if config["val_ids"] and fit.get("schedule") == "plateau":
        return Caveat("warning", f"{split}, by which the learning rate was lowered.")
    tempered = len(summary["trust"]["reliability"]) > 1
    but = "; the temperature of the probabilities is of these images" if tempered else ""
    return Caveat("note", f"{split}, which chose nothing in the fit{but}.")


def _certainty(summary: Mapping[str, Any], primary: str) -> Iterator[Caveat]:
    dice = summary["scores"][primary]["dice"]
    if dice["n"] < _FEW_IMAGES:
        which = "image" if dice["n"] == 1 else "images"
        text = f"Few images: the means are over {dice['n']} {which}, and percentile intervals over few are too narrow."
        yield Caveat("warning", text)
    # What is resampled is patients: many images of few of them are few.
    named = [image.get("group", "") for image in summary["images"] if image[f"dice_{primary}"] is not None]
    groups = len(set(group_numbers(named).tolist()))
    if groups < len(named) and 1 < groups < _FEW_IMAGES <= dice["n"]:
        text = f"Few groups: the {dice['n']} images are of {groups}, and percentile intervals over few are too narrow."
        yield Caveat("warning", text)
    if dice["low"] is None:
        what = "One image has" if dice["n"] == 1 else "Images of one group have"
        yield Caveat("warning", f"{what} no interval: one says nothing about how others vary.")
    elif dice["high"] - dice["low"] > _WIDE:
        width = 100 * (dice["high"] - dice["low"])
        yield Caveat("warning", f"Wide interval: the 95% interval of the Dice spans {width:.1f} points.")
    failed = sum(image[f"dice_{primary}"] == 0 for image in summary["images"])
    if failed:
        yield Caveat("warning", f"{some(failed, dice['n'], 'image', 'has', 'have')} a Dice of 0.")
    over = summary["bootstrap"]["over"]
    over = "the scored images" if over == "images" else over
    text = f"The intervals are over {over}; they do not cover the draw of the training images."
    yield Caveat("note", text)


def _probabilities(trust: Mapping[str, Any]) -> Iterator[Caveat]:
    before, *after = (found["error"] for found in trust["reliability"])
    if not after or None in (before, *after) or after[0] <= before:
        return
    text = (
        f"The temperature that suits the validation images does not suit these: calibration error {100 * before:.1f} % "
        f"without it, {100 * after[0]:.1f} % with it (predict --temperature 1 leaves it out)."
    )
    yield Caveat("warning", text)


def _selection(
    config: Mapping[str, Any], summary: Mapping[str, Any], log: Sequence[Mapping[str, float]], primary: str
) -> Iterator[Caveat]:
    if "runs" in config:
        yield Caveat("note", f"The mean of {len(config['runs'])} runs, {weights_in_words(config)}.")
        return
    epochs = config.get("parameters", 1) > 0  # trees have none
    averaged = config["fit"].get("select") == "average"
    what = "running average of the weights was" if averaged else "weights of the last epoch were"
    if not config["val_ids"]:
        kept_last = f": the {what} kept" if epochs else ""
        yield Caveat("note", f"No validation images{kept_last}.")
        return
    chosen = {int(line["epoch"]): line["val_dice"] for line in log if "val_dice" in line}
    if not chosen:  # the log of an ensemble is that of its members
        return
    count, last = len(config["val_ids"]), config["fit"].get("select") in ("last", "average")
    kept = max(chosen) if last else max(chosen, key=chosen.__getitem__)
    reached = chosen[kept]
    if count < _FEW_VALIDATION and not last and epochs:
        text = f"The weights were selected on {count} validation image{'s' if count > 1 else ''} only."
        yield Caveat("warning", text)
    dice = summary["scores"][primary]["dice"]
    if summary["split"] == "test" and dice["low"] is not None and not dice["low"] <= reached <= dice["high"]:
        text = (
            f"Validation unlike test: the {'kept weights' if epochs else 'trees'} have a validation Dice of "
            f"{100 * reached:.1f}, outside the interval of the test images, {100 * dice['low']:.1f} to "
            f"{100 * dice['high']:.1f}."
        )
        yield Caveat("warning", text)
    if len(log) >= 10 and kept <= len(log) / 10:
        text = f"The kept weights are those of epoch {kept} of {len(log)}: validation was never better after it."
        yield Caveat("warning", text)
    if last and epochs:
        yield Caveat("note", f"The {what} kept; no validation image chose.")
    elif len(chosen) > 1 and kept == len(chosen):
        yield Caveat("note", "The best epoch is the last one: a longer fit may do better.")


def _comparison(summary: Mapping[str, Any]) -> Iterator[Caveat]:
    if not summary["published"]:
        if left_out := summary["published_left_out"]:
            yield Caveat("note", left_out)
        return
    about = summary["about"]
    ours = (("backbone", about["backbone"]), ("text encoder", about["text_encoder"]))
    other = [f"{what} {name} ({paper})" for (what, name), paper in zip(ours, _PAPER, strict=True) if name != paper]
    if summary["model"] != FitConfig.model:
        yield Caveat("note", f"A comparison: the network is a {summary['model']}, not TextDiff's.")
    elif other:
        text = f"Not the paper's models, so not like for like: {' and '.join(other)}."
        yield Caveat("warning", text)
    labels = {row["labels"] for row in summary["published"] if row["method"] == "TextDiff"}
    if labels and summary["labels"] not in labels:
        yield Caveat(
            "warning", f"{counted(summary['labels'], 'training image')}; the paper's TextDiff had {min(labels)}."
        )
    preset = PRESETS.get(str(about.get("dataset")))
    if preset is not None and about.get("protocol") != "paper":
        text = "Made with the clean protocol; of the three rows, “Paper’s mask” is scored as the published numbers are."
        yield Caveat("note", text)
