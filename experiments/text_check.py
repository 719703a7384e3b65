"""Whether a user's own sentences help: a few short fits with and without them, paired, on validation images."""

__all__ = ["in_one_sentence", "text_check"]

from collections.abc import Mapping
from typing import Any

from textdiff.cache import FeatureCache
from textdiff.console import counted
from textdiff.errors import UserError
from textdiff.experiments.nested_bootstrap import Estimate
from textdiff.experiments.result_tables import Outcome, Table, compared, notes, points, score, write_tables
from textdiff.experiments.results import gather
from textdiff.experiments.setup import conduct, draws_all, plan_methods
from textdiff.experiments.text_leak import SUSPECT, leak_warning, told_by_words
from textdiff.options.experiments import Ablate, Method, TextCheck

_METHODS: tuple[Method, ...] = ("full", "no-text", "shuffled-text")


def text_check(options: TextCheck) -> Outcome:
    """Fits the method with its texts, without, and with those of other images, and says what the texts were worth.

    It is an experiment like ``ablate``: the same draws and seeds for all three, continued where it was stopped, with
    its runs in a directory of its own. Scores are of validation images; test images are never looked at.

    Raises:
        UserError: the cache has no texts, or no annotated validation images; the check was begun with other options.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    if cache.text_dim is None:
        raise UserError(
            f"{cache.path}: has no texts to check, as it was extracted with --text-encoder none; extract with a text "
            "encoder"
        )
    if not any(row.split == "val" and row.has_mask for row in cache.rows):
        raise UserError(
            f"{cache.path}: has no annotated validation images to check texts on; put some in the split val"
        )
    # The last weights: those that are best on the validation images would be chosen by what they are measured by.
    common: dict[str, Any] = {"select": "last", "validate_every": options.epochs}
    common |= {"positions": options.positions, "places": options.places}
    asked = [word for word in ("positions", "places") if common[word]]
    # With each of them it is another check, in a directory of its own.
    name = options.name or "-".join([cache.path.stem, *asked])
    ablation = options.part(Ablate, split="val", seeds=1, set=common, name=name)
    plan = plan_methods("text-check", ablation, cache, _METHODS, options.labels)
    experiment, failures = conduct(ablation, plan, cache)
    results = {result.point["method"]: result for result in gather(experiment)}
    metric = f"dice_{options.truth}"
    gains = {name: results["full"].minus(results[name], metric) for name in _METHODS[1:]}
    rows = [
        [result.name, result.progress, score(result.estimate(metric)), *compared(gains.get(name))]
        for name, result in results.items()
    ]
    told = told_by_words(cache)
    more = "ask for more --draws"
    if draws_all(cache, options.labels):
        fewer = "ask for fewer --labels or " if options.labels > 1 else ""
        more = f"all annotated training images are drawn already, so {fewer}annotate more"
    said, warning = in_one_sentence(gains, more), leak_warning(told)
    by = "".join(f", --{word}" for word in asked)
    epochs = counted(options.epochs, "epoch")
    short = f"These are short fits of {epochs}{by}: they tell whether texts help, not how good a model can be."
    lines = [said, *([f"WARNING: {warning}"] if warning else []), short]
    lines += notes(experiment, results.values(), options.truth)
    full = results["full"].name
    table = Table(("variant", "runs", "Dice %", f"gain of {full}, points", f"{full} is"), rows, lines)
    records = [one for result in results.values() for one in result.records(results["full"])]
    summary = {
        "truth": options.truth,
        "says": said,
        "gains": {results[name].name: gain and gain._asdict() for name, gain in gains.items()},
        "told_by_words": [one._asdict() | {"suspect": one.suspect} for one in told],
        "suspect_from": SUSPECT,
    }
    return write_tables(experiment, table, records, summary)._replace(failures=failures)


def in_one_sentence(gains: Mapping[str, Estimate | None], more: str) -> str:
    """What the two differences mean, in one sentence; ``more`` is advised where one run cannot tell."""
    none, others = gains["no-text"], gains["shuffled-text"]
    if none is None or others is None:
        return "Nothing can be said yet: fits are missing."
    gained, own = none.verdict.partition(" ")[0], others.verdict.partition(" ")[0]
    if none.low is None or others.low is None:
        return f"Nothing can be said: one run on {none.alone} does not tell how others vary; {more}."
    by = f"{points(none)} points of Dice against no text, {points(others)} against the texts of other images"
    if "lower" in (gained, own):
        return f"The texts do harm here: {by}."
    if gained == own == "higher":
        return f"The texts help, by what they say of their own image: {by}."
    if gained == "higher":
        return f"A text helps, but whether it is the image's own was not seen to matter: {by}."
    if own == "higher":
        return f"A wrong text does harm, but a gain over no text was not seen: {by}."
    return f"No gain from the texts was seen, which is no proof that there is none: {by}."
