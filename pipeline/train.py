"""The training loop of stage two, with checkpoints that resume to the very same weights."""

__all__ = ["train"]

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from textdiff import console
from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.files import atomic_path, write_text
from textdiff.pipeline.device import autocast
from textdiff.pipeline.losses import segmentation_loss
from textdiff.pipeline.metrics import Confusion, confusion, pooled_dice
from textdiff.pipeline.protocol import get_protocol
from textdiff.pipeline.runs import Run
from textdiff.pipeline.segmenter import Segmenter
from textdiff.pipeline.variants import assign_texts

# A checkpoint of the paper's head is 150 MB: on a GPU an epoch over five images is over sooner than it is written.
CHECKPOINT_SECONDS = 20.0


@dataclass
class _State:
    """What a checkpoint holds besides tensors."""

    epoch: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


def train(run: Run, cache: FeatureCache, network: Segmenter, device: torch.device) -> Path:
    """Trains ``network`` as ``run.config`` says, from its last checkpoint if there is one.

    Leaves ``head.safetensors``, the weights selected, and ``log.csv``, a line per epoch, in the run directory, and
    returns it.

    Raises:
        UserError: the loss is no longer finite.
    """
    options: dict[str, Any] = run.config["fit"]
    epochs, seed, patience = options["epochs"], options["seed"], options["patience"]
    rows = _rows_by_tile(cache)
    views = slice(None) if network.cached_views else slice(1)
    training = [tile[views] for name in run.config["train_ids"] for tile in rows[name]]
    validation = [tile[0] for name in run.config["val_ids"] for tile in rows[name]]
    texts = assign_texts(cache, options["variant"], options["draw_seed"], run.config["train_ids"])
    loader = network.loader(cache, device)

    _make_deterministic(device)
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=options["learning_rate"])
    state, best = _State(), _copy(network)
    checkpoint = run.path / "last.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        state, best = _State(**saved["state"]), saved["best"]
        console.info(f"{run.path}: going on after epoch {state.epoch} of {epochs}")

    written = time.monotonic()
    with console.Progress(epochs, "fit", "epochs", done=state.epoch) as progress:
        for epoch in range(state.epoch, epochs):
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(options, epoch)
            items = network.augment(loader.epoch(_order(training, seed, epoch), texts), seed, epoch)
            loss = _epoch(network, optimizer, items, options, device)
            score = _validate(network, cache, loader.epoch(validation, texts), options, device) if validation else None
            if not np.isfinite(loss):
                raise UserError(
                    f"{run.path}: the loss is {loss} in epoch {epoch + 1}; "
                    "fit with a smaller --learning-rate, or with --precision float32"
                )
            state.epoch = epoch + 1
            if score is None or options["select"] == "last" or score > state.best_dice:
                state.best_epoch, best = state.epoch, _copy(network)
                state.best_dice = -1.0 if score is None else score
            line = {"epoch": state.epoch, "lr": optimizer.param_groups[0]["lr"], "loss": loss}
            line |= {} if score is None else {"val_dice": score}
            state.log.append(line | {"seconds": round(time.perf_counter() - start, 3)})
            write_text(run.path / "log.csv", _table(state.log))
            if time.monotonic() - written > CHECKPOINT_SECONDS:
                _save(checkpoint, network, optimizer, best, state)
                written = time.monotonic()
            progress.advance(note=f"loss {loss:.3f}" + ("" if score is None else f", val Dice {100 * score:.2f}"))
            if patience is not None and validation and state.epoch - state.best_epoch >= patience:
                console.info(f"stopped early: the best validation Dice was in epoch {state.best_epoch}")
                break

    with atomic_path(run.path / "head.safetensors") as partial:
        save_file({name: value.contiguous().cpu() for name, value in best.items()}, partial)
    checkpoint.unlink(missing_ok=True)
    chosen = (
        f"epoch {state.best_epoch}, validation Dice {100 * state.best_dice:.2f}" if validation else "the last epoch"
    )
    images = len(run.config["train_ids"])
    count = f"{images} images" + (f" in {len(training)} tiles" if len(training) > images else "")
    console.info(f"{run.path}: fitted on {count}; kept are the weights of {chosen}")
    return run.path


def _learning_rate(options: Mapping[str, Any], epoch: int) -> float:
    """That of an epoch, counted from 0."""
    base: float = options["learning_rate"]
    if options["schedule"] == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * epoch / options["epochs"]))
    return base * (0.1 if epoch >= options["decay_epoch"] else 1.0)


def _epoch(
    network: Segmenter,
    optimizer: torch.optim.Optimizer,
    items: Iterator[Item],
    options: Mapping[str, Any],
    device: torch.device,
) -> float:
    """One pass over the training images; the mean loss."""
    network.train()
    dice_on = get_protocol(options["protocol"]).dice_on
    losses = []
    for batch in _batches(items, options["batch_size"]):
        labels = torch.cat([item.mask for item in batch if item.mask is not None])  # (B, H, W)
        with autocast(device, options["precision"]):
            logits = network(*network.inputs(batch))
        loss = segmentation_loss(logits.float(), labels, dice_weight=options["dice_weight"], dice_on=dice_on)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


@torch.inference_mode()
def _validate(
    network: Segmenter, cache: FeatureCache, items: Iterator[Item], options: Mapping[str, Any], device: torch.device
) -> float:
    """Mean Dice over the images, of several classes their mean; of an image in tiles over all its tiles' pixels."""
    network.eval()
    counts: dict[tuple[str, int], list[Confusion]] = {}
    for item in items:
        assert item.mask is not None
        with autocast(device, options["precision"]):
            logits = network(*network.inputs([item]))
        predicted, true = logits.argmax(1)[0].cpu().numpy(), item.mask[0].cpu().numpy()
        for label in range(1, logits.shape[1]):
            count = confusion(predicted == label, true == label)
            counts.setdefault((cache.rows[item.row].id, label), []).append(count)
    return float(np.mean([pooled_dice(pieces) for pieces in counts.values()]))


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _order(images: list[list[int]], seed: int, epoch: int) -> list[int]:
    """The epoch's rows: every image (or tile) once, in random order, each in a random one of its cached views.

    Drawn from (seed, epoch) alone, so that a resumed fit sees the rows that it would have seen.
    """
    generator = np.random.default_rng([seed, 0x0E, epoch])
    return [images[index][generator.integers(len(images[index]))] for index in generator.permutation(len(images))]


def _rows_by_tile(cache: FeatureCache) -> dict[str, list[list[int]]]:
    """By the id of an image, for each of its tiles the rows of its views; an image that is not cut is one tile."""
    rows: dict[str, dict[tuple[int, int], list[int]]] = {}
    for row, entry in enumerate(cache.rows):
        rows.setdefault(entry.id, {}).setdefault((entry.y, entry.x), []).append(row)
    return {name: list(tiles.values()) for name, tiles in rows.items()}


def _copy(network: Segmenter) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _save(
    path: Path, network: Segmenter, optimizer: torch.optim.Optimizer, best: dict[str, torch.Tensor], state: _State
) -> None:
    with atomic_path(path) as partial:
        torch.save(
            {"head": network.state_dict(), "optimizer": optimizer.state_dict(), "best": best, "state": asdict(state)},
            partial,
        )


def _table(log: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    return text.getvalue()


def _make_deterministic(device: torch.device) -> None:
    """Asks cuDNN for algorithms that repeat themselves; CPU kernels do so anyway for a fixed number of threads."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
