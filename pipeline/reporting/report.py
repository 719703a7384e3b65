"""A scored run as one self-contained HTML page: scores, curves, every image with its prediction and uncertainty."""

__all__ = ["write_report"]

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.files import check_ours, write_text
from textdiff.images.slide import SAME_SIZE
from textdiff.metrics.instances import METHODS
from textdiff.metrics.pixels import entropy
from textdiff.models.networks.models import get_model
from textdiff.options.run import Report
from textdiff.outputs.colours import CONFUSIONS, UNSAID_VEIL, VEILED, class_colours
from textdiff.pipeline.evaluation.calibration import in_words
from textdiff.pipeline.evaluation.figures import veiled
from textdiff.pipeline.evaluation.image_predictions import image_predictions, panels
from textdiff.pipeline.evaluation.scored_rows import scored_rows
from textdiff.pipeline.evaluation.summary import weights_in_words
from textdiff.pipeline.mixture import open_fitted
from textdiff.pipeline.predictions import cached_predictions, view_count
from textdiff.pipeline.reporting.caveats import caveats
from textdiff.pipeline.reporting.html_page import data_uri, render_page
from textdiff.pipeline.reporting.measured import Measured
from textdiff.pipeline.runs import Run, of_split
from textdiff.pipeline.training.image_digests import changes, image_digests, shortened
from textdiff.readers.presets import name_of_data

_TRUTHS = {
    "clean": ("Mask by area", "is resized to the size of the network's output."),
    "paper": ("Paper’s mask", "is resized as in the paper's code, which dilates it."),
    "original": ("Original size", "is the mask as it is, with the probabilities enlarged to it."),
}
_MARK = "TextDiff report"
"""How the title of every page ends."""
_TRAINING_SHOWN = 24
_THUMBNAIL = 144


def write_report(options: Report) -> Path:
    """Writes ``report.html`` (``report-<split>.html`` for another split than test) and returns its path.

    The numbers are those that ``score`` has stored; the predictions are computed again from the cache, as they are too
    large to be kept. At most ``images`` of them are shown; all are in the table.

    Raises:
        UserError: the run was not scored on that split, its cache is gone or another one, looks at images at another
            resolution than is given, or a file in the place is no report.
    """
    run, split, limit = Run(options.directory()), options.split, options.images
    path = Path(options.out) if options.out else run.path / f"report{of_split(split)}.html"
    check_ours(path, "report of a run", lambda there: f"{_MARK}</title>".encode() in there.read_bytes())
    summary, config, log = run.scores(split), run.config, run.log()
    cache = run.open_cache(options.cache)
    _check_images(run, cache, summary)
    _check_resolution(cache, options.own_mpp)
    primary = summary["primary"]
    ids = [image["id"] for image in sorted(summary["images"], key=lambda image: -image[f"dice_{primary}"])]
    if len(ids) > limit:
        ids = [ids[index] for index in np.linspace(0, len(ids) - 1, limit).round().astype(int)]
    objects = summary.get("objects", {})
    measured = Measured(cache, options.own_mpp, objects.get("prediction", METHODS[0]), objects.get("min_area", 0))
    data = {
        "name": run.path.name,
        "split": split,
        "facts": {
            "dataset": name_of_data(summary["about"]),
            "made": run.label,
            "labels": summary["labels"],
            "images": len(summary["images"]),
        },
        "primary": primary,
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(cache.classes, class_colours(len(cache.classes)), strict=True)
        ],
        "confusions": [{"name": name, "colour": colour} for name, colour in CONFUSIONS.items()],
        "unsaid": {"name": "nothing said", "colour": UNSAID_VEIL, "alpha": VEILED} if cache.sparse else None,
        "scores": _score_rows(summary, primary),
        "caveats": [caveat._asdict() for caveat in caveats(config, summary, log)],
        "images": summary["images"],
        "pictures": _pictures(run, cache, split, ids, options.device, measured),
        "measured": measured.data(),
        "trust": summary["trust"] | {"lines": in_words(summary["trust"])},
        "log": log,
        "keptEpoch": _kept_epoch(log, config["fit"].get("select", "best")) if config.get("parameters", 1) else None,
        "training": _training(cache, config["train_ids"]),
        "options": _options(run, cache, summary["views"]),
        "versions": [[name, value] for name, value in config["versions"].items()],
        "command": shlex.join([Path(config["command"][0]).name, *config["command"][1:]]),
    }
    write_text(path, render_page(f"{run.path.name} · {_MARK}", data))
    return path


def _check_images(run: Run, cache: FeatureCache, summary: Mapping[str, Any]) -> None:
    """Refuses to show scores beside images and masks that they are not of."""
    ids = [image["id"] for image in summary["images"]]
    changed = changes(summary["facts"], image_digests(cache, ids, run.texts(cache)))
    again = run.score_command(summary["split"])
    if changed:
        raise UserError(
            f"{cache.path}: its images have changed since {run.path} was scored ({shortened(changed)}); "
            f"run {again} first"
        )
    views, scored = view_count(cache, scored_rows(cache, summary["split"])), summary["views"]
    if views != scored:
        raise UserError(
            f"{cache.path}: has {views} views of each image, and {run.path} was scored on {scored}; run {again} first"
        )


def _check_resolution(cache: FeatureCache, mpp: float | None) -> None:
    """Refuses the images' own micrometres per pixel where masks are at those of the cache."""
    seen_at: float | None = cache.fingerprint.get("mpp")
    if mpp is not None and seen_at is not None and abs(mpp / seen_at - 1) > SAME_SIZE:
        raise UserError(
            f"--own-mpp {mpp:g}: {cache.path} was extracted with --mpp {seen_at:g}, and its masks have that; leave it "
            "out"
        )


def _score_rows(summary: Mapping[str, Any], primary: str) -> list[dict[str, Any]]:
    ours = []
    for name, value in sorted(summary["scores"].items(), key=lambda entry: entry[0] != primary):
        title, hint = _TRUTHS.get(name, (name, ""))
        ours += _with_present({"name": title, "hint": hint, "labels": summary["labels"]}, value)
        for number, (label, own) in enumerate(value.get("classes", {}).items(), start=1):
            ours += _with_present({"name": label, "hint": "", "labels": summary["labels"], "class": number}, own)
    published = [
        {
            "kind": "published",
            "name": row["method"],
            "hint": f"from {row['source']}",
            "labels": row["labels"],
            "dice": {"mean": row["dice"] / 100, "low": None, "high": None, "n": None},
            "iou": {"mean": row["iou"] / 100, "low": None, "high": None, "n": None},
        }
        for row in summary["published"]
    ]
    return ours + published


def _with_present(row: dict[str, Any], means: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of our scores, and one over the images that have what it is of, where these are fewer."""
    rows = [{"kind": "ours", **row, "dice": means["dice"], "iou": means["iou"]}]
    if means["dice_present"] != means["dice"]:
        none = {"mean": None, "low": None, "high": None, "n": 0}
        dice, iou = (means[f"{metric}_present"] or none for metric in ("dice", "iou"))
        rows.append({**rows[0], "name": "where present", "hint": "", "part": True, "dice": dice, "iou": iou})
    return rows


def _mask_uri(labels: NDArray[np.integer[Any]], cache: FeatureCache) -> str:
    """Class numbers (H, W) as a picture: one bit for the foreground where there is nothing else but the background."""
    plain = len(cache.classes) == 1 and not cache.sparse
    return data_uri(labels > 0, "mask") if plain else data_uri(labels.astype(np.uint8), "labels")


def _pictures(
    run: Run, cache: FeatureCache, split: str, ids: Sequence[str], device: str, measured: Measured
) -> dict[str, dict[str, Any]]:
    """For each id its image, truth, prediction and entropy over its maximum, all at the network's size.

    ``measured`` is shown each image, too: it is predicted once.
    """
    found = {}
    rows = [row for row in scored_rows(cache, split) if cache.rows[row].id in ids]
    with closing(cached_predictions(open_fitted(run, device), cache, rows, "report")) as predicted:
        for image in image_predictions(cache, predicted):
            measured.add(image)
            uncertainty = entropy(image.probability) / np.log(len(image.probability))
            found[cache.rows[image.row].id] = {
                "image": data_uri(panels(cache, image.row)[0], "photo", 2 * cache.image_size),
                "truth": _mask_uri(image.clean, cache),
                "prediction": _mask_uri(image.probability.argmax(0), cache),
                "entropy": data_uri(np.round(255 * uncertainty.clip(0, 1)).astype(np.uint8), "photo"),
                "meanEntropy": float(uncertainty.mean()),
            }
    return found


def _training(cache: FeatureCache, train_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The images that were drawn; the first ones with a picture."""
    rows = {entry.id: row for row, entry in reversed(list(enumerate(cache.rows))) if entry.view == 0}
    return [
        {
            "id": name,
            "text": cache.text_of(cache.rows[rows[name]]),
            "image": data_uri(_thumbnail(cache, rows[name]), "photo", _THUMBNAIL) if index < _TRAINING_SHOWN else None,
        }
        # An updated cache may no longer have them all.
        for index, name in enumerate(name for name in train_ids if name in rows)
    ]


def _thumbnail(cache: FeatureCache, row: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8; of a sparse cache with its classes in colour, and a veil where nothing is said."""
    image, mask = cache.image(row), cache.mask(row) if cache.sparse else None
    if mask is None:
        return image
    picture = veiled(image, mask)
    for label, colour in enumerate(class_colours(len(cache.classes)), start=1):
        picture[mask == label] = colour
    return picture


def _kept_epoch(log: Sequence[Mapping[str, float]], select: str) -> int | None:
    """The epoch whose weights were kept: the first of the best validation Dice, or the last; an average is of many."""
    if select == "average":
        return None
    scored = [line for line in log if "val_dice" in line]
    if scored and select == "best":
        return int(max(scored, key=lambda line: line["val_dice"])["epoch"])
    return int(log[-1]["epoch"]) if log else None


def _options(run: Run, cache: FeatureCache, views: int) -> list[list[str]]:
    config = run.config
    if run.combined:
        return _combined_options(run, views)
    about, made, fit = config["about"], config["fingerprint"], config["fit"]
    revision = config.get("git") or ""
    schedule = f"a tenth from epoch {fit['decay_epoch']}" if fit["schedule"] == "step" else fit["schedule"]
    rows = {
        "data set": name_of_data(about),
        "protocol": f"{about.get('protocol')} (extract), {fit['protocol']} (fit)",
        "backbone": f"{about.get('backbone')}, sha256 {made['backbone_sha256'][:12]}…",
        "blocks": ", ".join(map(str, cache.blocks)),
        "steps": ", ".join(map(str, cache.steps)),
        "image size": f"{cache.image_size} px",
        "text encoder": about.get("text_encoder"),
        "noise seed": made["noise_seed"],
        "model": config["model"],
        "variant": fit["variant"] if len(get_model(config["model"]).variants) > 1 else None,
        "labels": f"{len(config['train_ids'])} drawn" + (" (all)" if fit["labels"] is None else ""),
        "labelled pixels": f"{fit['label_pixels']:g} of each image" if fit.get("label_pixels") else None,
        "seed": f"{fit['seed']}, of the draw {fit['draw_seed']}",
        "epochs": fit["epochs"],
        "recipe": fit.get("recipe"),
        "learning rate": f"{fit['learning_rate']:g}, {schedule}",
        "batch size": fit["batch_size"],
        "views averaged in scores": views if views > 1 else None,
        "width": config["head"].get("width"),
        "parameters": f"{config['parameters']:,}".replace(",", " "),
        "precision": fit["precision"],
        "device": config["device"],
        "revision": f"{revision[:12]}{' with changes' * revision.endswith('+')}" if revision else "not a checkout",
    }
    # The cache has these, and the fit did not use them.
    unused = () if run.reads.activations else ("backbone", "blocks", "steps", "noise seed")
    for name in (*unused, *(() if run.reads.text else ("text encoder",))):
        del rows[name]
    return [[name, str(value)] for name, value in rows.items() if value is not None]


def _combined_options(run: Run, views: int) -> list[list[str]]:
    config = run.config
    rows = [["data set", name_of_data(config["about"])]]
    rows += [[f"run {one['run']}", f"{one['label']}, weight {one['weight']:.3g}"] for one in config["runs"]]
    rows += [["weights", weights_in_words(config)], ["labels", f"{len(config['train_ids'])} in all"]]
    rows += [["image size", f"{config['fingerprint']['image_size']} px"]]
    rows += [["views averaged in scores", str(views)]] if views > 1 else []
    return [*rows, ["parameters", f"{config['parameters']:,}".replace(",", " ")]]
