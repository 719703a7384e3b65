"""Runs that differ only in how their network is used afterwards: their weights are the same, and are trained once."""

__all__ = ["take_weights", "trained_alike"]

from collections.abc import Iterable
from typing import Any

from textdiff import console
from textdiff.files import write_text
from textdiff.models.networks.segmenter import Segmenter
from textdiff.models.tensor_files import save_tensors
from textdiff.pipeline.runs import IDENTITY, Run, write_config
from textdiff.tables import csv_table


def trained_alike(run: Run, others: Iterable[Run]) -> Run | None:
    """The run among ``others`` that is trained like ``run`` to the bit, and with batch normalisation; None without one.

    ``run`` is one that normalises each image by its own statistics only after training (``norms.OwnNorm``), and both
    keep their last weights: by the best validation Dice they would not keep those of the same epoch.
    """
    if run.config["head"].get("norm") != "own" or run.config["fit"]["select"] != "last":
        return None
    if run.config["unlabelled"]:
        return None  # its teacher says something else of images than the other's
    plain = (other for other in others if other.config["head"].get("norm") == "batch")
    return next((other for other in plain if _training(other) == _training(run)), None)


def take_weights(run: Run, network: Segmenter, other: Run) -> None:
    """Finishes ``run`` with the weights of ``other``, and says in its ``config.json`` whose they are.

    Its log has the other's losses, but no validation: that is of a network used otherwise.

    Args:
        run: one that :func:`trained_alike` gave ``other`` for.
        network: of ``run``; tells which of the other's tensors are weights and which are averages.
        other: a finished one.
    """
    weights = other.load_network().state_dict()
    write_config(run, run.config | {"weights_of": other.path.name})
    log = [{name: line[name] for name in ("lr", "loss", "seconds")} for line in other.log()]
    write_text(run.path / "log.csv", csv_table([{"epoch": epoch, **line} for epoch, line in enumerate(log, 1)]))
    # Last, because a run with weights is a finished one.
    own = {name: weights[name] for name in network.state_dict()}
    save_tensors(run.path / "head.safetensors", own, {IDENTITY: run.identity})
    (run.path / "last.pt").unlink(missing_ok=True)
    console.info(f"{run.path}: trained like {other.path.name}, so it has its weights")


def _training(run: Run) -> dict[str, Any]:
    """All that the weights depend on."""
    options = {name: value for name, value in run.config["fit"].items() if name != "recipe"}
    recipe = {name: value for name, value in run.config["recipe"].items() if name != "norm"}
    head = {name: value for name, value in run.config["head"].items() if name != "norm"}
    same = ("model", "cache", "fingerprint_hash", "train_ids", "val_ids", "images")
    return {"fit": options, "recipe": recipe, "head": head} | {name: run.config.get(name) for name in same}
