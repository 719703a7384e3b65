"""One network in training: its steps, its validation, its log and its checkpoint."""

__all__ = ["CHECKPOINT_SHARE", "Trainer"]

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from textdiff import console
from textdiff.cache import FeatureCache, Item, Loader
from textdiff.errors import UserError, explain, quoted
from textdiff.files import write_text
from textdiff.images.labels import UNSAID
from textdiff.models.device import autocast, synchronize
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Criterion, Segmenter
from textdiff.models.tensor_files import load_state, save_state, save_tensors
from textdiff.options.fit import MEAN_TEACHER
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.predictions import logits_of
from textdiff.pipeline.runs import IDENTITY, Run
from textdiff.pipeline.training import recorded
from textdiff.pipeline.training.average import RunningAverage
from textdiff.pipeline.training.epochs import random_window
from textdiff.pipeline.training.labelled import Labelled
from textdiff.pipeline.training.losses import LOSSES, segmentation_loss
from textdiff.pipeline.training.mean_teacher import MeanTeacher
from textdiff.pipeline.training.schedules import learning_rate
from textdiff.pipeline.training.unlabelled import Unlabelled
from textdiff.pipeline.training.validation import ValidationDice
from textdiff.tables import csv_table

# Of the time, for checkpoints at most. That of the paper's head has 150 MB: on a GPU an epoch over five images is over
# sooner than it is written. A small head's is written after every epoch.
CHECKPOINT_SHARE = 0.05


@dataclass
class _State:
    """What a checkpoint holds besides tensors."""

    epoch: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    log: list[dict[str, float | None]] = field(default_factory=list)


class Trainer:
    """One network in training: its weights, optimiser and log, and their checkpoint; an epoch has ``rows`` rows."""

    def __init__(
        self,
        run: Run,
        network: Segmenter,
        cache: FeatureCache,
        loader: Loader,
        device: torch.device,
        rows: int,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        self.run, self.cache, self.loader, self.device, self.unlabelled = run, cache, loader, device, unlabelled
        self.options: dict[str, Any] = run.config["fit"]
        self.labelled = Labelled(cache, self.options)
        self.samples: float = network.steps_of_row
        """The samples that a step can be made on in one row, on average."""
        if self.samples > 1 and not self.labelled.all:
            self.samples = int(self.labelled.counts(run.config["train_ids"]).sum()) / rows
        with_teacher = self.options["unlabelled"] == MEAN_TEACHER
        self.size: int = self.options["batch_size"] * (2 if with_teacher else 1)
        """The samples of a step."""
        self.steps = math.ceil(rows * self.samples / self.size)
        self.texts = run.texts(cache)
        self.network = network.to(device)
        self.recipe = Recipe(**run.config["recipe"])
        dice_on = PROTOCOLS[self.options["protocol"]].dice_on
        own = partial(segmentation_loss, dice_weight=self.options["dice_weight"], dice_on=dice_on)
        self._criterion: Criterion = LOSSES.get(self.recipe.loss, own)
        self.optimizer = _optimizer(network, self.recipe, self.options["learning_rate"], device)
        averaged = with_teacher or self.options["select"] == "average"
        self.average = RunningAverage(self.network) if averaged else None
        self.teacher: MeanTeacher | None = None
        if with_teacher:
            steps = self.options["epochs"] * self.steps
            self.teacher = MeanTeacher(self.kept, steps, self.options["precision"])
        self.state, self.best = _State(), _copy(network)
        self.losses: list[torch.Tensor] = []
        self.validation = ValidationDice(cache.image_size**2)
        self.steps_recorded: recorded.RecordedSteps | None = None
        if self.teacher is None and network.steady and (recorder := recorded.recorder_for(device)) is not None:
            loss = partial(self._loss, network.scores_of, network)
            self.steps_recorded = recorded.RecordedSteps(network, loss, recorder)
        self.checkpoint = run.path / "last.pt"
        if self.checkpoint.exists():
            self._load()
            console.info(f"{run.path}: goes on after epoch {self.state.epoch} of {self.options['epochs']}")
        self.written, self.writing = time.monotonic(), 0.0

    @property
    def over(self) -> bool:
        """Whether the last epoch is done, or ``patience`` at its end."""
        patience: int | None = self.options["patience"]
        epochs: int = self.options["epochs"]
        waited = self.state.epoch - self.state.best_epoch
        # Between two validations nothing is known that could be a reason to stop.
        validated = bool(self.state.log) and self.state.log[-1].get("val_dice") is not None
        stopped = patience is not None and validated and waited >= patience
        return stopped or self.network.trained or self.state.epoch >= epochs

    @property
    def kept(self) -> Segmenter:
        """The network that is validated, and whose weights are kept."""
        return self.network if self.average is None else self.average.network

    def learn(self, items: Iterator[Item], seed: int) -> Iterator[None]:
        """One pass over the training images, a step at a time."""
        network, epoch = self.network, self.state.epoch
        network.train()
        shown = self.labelled.shown(items, self.unlabelled.number if self.unlabelled else ())
        shown = self.narrowed(self.unlabelled.shown(shown, epoch) if self.unlabelled else shown)
        fitted = network.learn(shown, seed, self.options["learning_rate"], self._criterion)
        if fitted is not None:
            self.losses.append(fitted)
            yield
            return
        scores = [line.get("val_dice") for line in self.state.log]
        places = np.random.default_rng([seed, 0x81D, epoch])
        batches = network.batches(shown, self.size, seed, epoch)
        for step, (inputs, labels) in enumerate(batches):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.options, epoch + step / self.steps, scores)
            part, truth = self._part(network, inputs, labels, places)
            with _own_chance(self.device, [seed, 0xD0, epoch, step]):
                if self.steps_recorded is not None:
                    loss = self.steps_recorded(network.prepare(*part), truth)
                else:
                    loss = self._step_loss(network, part, truth, epoch * self.steps + step)
                    self.optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.average is not None:
                self.average.follow(network, epoch * self.steps + step)
            self.losses.append(loss.detach())
            del inputs, labels, part, truth, loss
            yield

    def _part(
        self, network: Segmenter, inputs: tuple[Any, ...], labels: torch.Tensor, places: np.random.Generator
    ) -> tuple[tuple[Any, ...], torch.Tensor]:
        """Inputs and labels of a step, on a window drawn with ``places`` where the recipe has windows."""
        if not self.options.get("window"):
            return inputs, labels
        grid = network.grid(self.cache)
        assert grid is not None
        said = None if self.labelled.all and self.unlabelled is None else (labels != UNSAID).cpu().numpy()
        window = random_window(places, self.options["window"], labels.shape[-1], grid, said)
        labels = labels[:, window.top : window.top + window.size, window.left : window.left + window.size]
        return (*inputs, window), labels

    def _step_loss(self, network: Segmenter, inputs: tuple[Any, ...], labels: torch.Tensor, step: int) -> torch.Tensor:
        if self.teacher is None:
            return self._loss(network, network, inputs, labels)
        return self.teacher.loss(network, inputs, labels, self._criterion, step)

    def _loss(
        self,
        scores_of: Callable[..., torch.Tensor],
        network: Segmenter,
        inputs: tuple[Any, ...],
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of a batch, whose scores ``scores_of`` gives."""
        with autocast(self.device, self.options["precision"]):
            logits = scores_of(*inputs)
        return network.loss(logits.float(), labels, self._criterion)

    def estimate_seconds(self, item: Item) -> float | None:
        """Expected seconds of one row's share of an epoch, from a step on ``item`` with a copy of the network.

        The first of two steps is not counted: it allocates memory and picks kernels. None for a network that is not
        trained step by step.
        """
        if not any(True for _ in self.network.parameters()):
            return None
        seconds = 0.0
        with torch.random.fork_rng(_generators(self.device)):
            trial = copy.deepcopy(self.network).train()
            own = list(self.narrowed(self.labelled.shown([item])))
            size = min(self.options["batch_size"], trial.steps_of_row)
            inputs, labels = next(trial.batches(own, size, 0, 0))
            inputs, labels = self._part(trial, inputs, labels, np.random.default_rng(0))
            for _ in range(2):
                start = time.perf_counter()
                loss = self._loss(trial, trial, inputs, labels)
                loss.backward()  # type: ignore[no-untyped-call]
                synchronize(self.device)
                seconds = time.perf_counter() - start
        share: float = seconds * self.samples / min(size, self.samples)
        return share

    @property
    def due(self) -> bool:
        """Whether this epoch's weights are validated."""
        epochs: int = self.options["epochs"]
        every: int = self.options.get("validate_every", 1)
        return (self.state.epoch + 1) % every == 0 or self.state.epoch + 1 == epochs or self.network.trained

    def validate(self, items: Iterator[Item]) -> Iterator[None]:
        """Counts right and wrong pixels of the validation images, a row at a time; nobody waits for the counts."""
        for item in self.narrowed(items):
            assert item.mask is not None
            logits = logits_of(self.kept, item, self.options["precision"])
            self.validation.add(self.cache.rows[item.row].id, logits, item.mask)
            yield

    def close_epoch(self, seconds: float) -> None:
        """Selects, logs, and writes a checkpoint if the last one is old."""
        state = self.state
        loss = float(torch.stack(self.losses).mean())
        score = self.validation.mean()
        self.losses, self.validation = [], ValidationDice(self.cache.image_size**2)
        if not np.isfinite(loss):
            raise UserError(
                f"{self.run.path}: the loss is {loss} in epoch {state.epoch + 1}; "
                "fit with a smaller --learning-rate, or with --precision float32"
            )
        state.epoch += 1
        last = self.options["select"] != "best" or not self.run.config["val_ids"]
        if last or (score is not None and score > state.best_dice):
            state.best_epoch, self.best = state.epoch, _copy(self.kept)
            state.best_dice = -1.0 if score is None else score
        line = {"epoch": state.epoch, "lr": self.optimizer.param_groups[0]["lr"], "loss": loss}
        line |= {"val_dice": score} if self.run.config["val_ids"] else {}
        state.log.append(line | {"seconds": round(seconds, 3)})
        write_text(self.run.path / "log.csv", csv_table(state.log))
        start = time.monotonic()
        if (start - self.written) * CHECKPOINT_SHARE >= self.writing:
            self._save()
            self.written = time.monotonic()
            self.writing = self.written - start

    def note(self) -> str:
        """How it stands, for the progress line."""
        if not self.state.log:
            return "no epoch yet"
        line = self.state.log[-1]
        scores = [score for line in self.state.log if (score := line.get("val_dice")) is not None]
        return f"loss {line['loss']:.3f}" + (f", val Dice {100 * scores[-1]:.2f}" if scores else "")

    def finish(self, tiles: int) -> None:
        """Leaves the weights selected, and no checkpoint; ``tiles`` is how many rows an epoch had."""
        state, validated = self.state, bool(self.run.config["val_ids"])
        if state.epoch < self.options["epochs"] and not self.network.trained:
            console.info(f"stopped early: the best validation Dice was in epoch {state.best_epoch}")
        weights = {name: value.contiguous().cpu() for name, value in self.best.items()}
        save_tensors(self.run.path / "head.safetensors", weights, {IDENTITY: self.run.identity})
        self.checkpoint.unlink(missing_ok=True)
        images = len(self.run.config["train_ids"])
        count = console.counted(images, "image") + (f" in {tiles} tiles" if tiles > images else "")
        dice = f" (validation Dice {100 * state.best_dice:.2f})" if validated else ""
        if not self.run.config["parameters"]:  # trees are grown once, and have neither epochs nor weights
            console.info(f"fitted on {count}{dice}")
            return
        if self.options["select"] == "average":
            console.info(f"fitted on {count}; the running average of the weights{dice} is kept")
            return
        console.info(f"fitted on {count}; the weights of epoch {state.best_epoch}{dice} are kept{self._better()}")

    def _better(self) -> str:
        """What is to be said of an epoch with a higher validation Dice than the one whose weights are kept."""
        scores = {line["epoch"]: score for line in self.state.log if (score := line.get("val_dice")) is not None}
        best = max(scores, key=scores.__getitem__, default=self.state.best_epoch)
        if not scores or scores[best] <= self.state.best_dice:
            return ""
        return f"; epoch {best:.0f} had {100 * scores[best]:.2f}, and --select best would keep its weights"

    def _save(self) -> None:
        state = {
            IDENTITY: self.run.identity,
            "head": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "average": None if self.average is None else self.kept.state_dict(),
            "state": asdict(self.state),
        }
        save_state(self.checkpoint, state)

    def _load(self) -> None:
        try:
            saved = load_state(self.checkpoint, self.device)
            if saved[IDENTITY] != self.run.identity:
                raise ValueError
            self.network.load_state_dict(saved["head"])
            if self.average is not None:
                self.kept.load_state_dict(saved["average"])
            for saved_group, group in zip(saved["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
                saved_group["fused"] = group["fused"]  # it goes with the device, which may be another now
            self.optimizer.load_state_dict(saved["optimizer"])
            self.state, self.best = _State(**saved["state"]), saved["best"]
        except Exception as error:  # reading arbitrary bytes as a pickle can raise anything
            if explain(error):
                raise
            raise UserError(
                f"{self.checkpoint}: damaged, or of another run ({type(error).__name__}); remove it and run "
                f"`textdiff fit --resume --run {quoted(self.run.path)}`, which begins at the first epoch and gives the "
                "same weights"
            ) from error

    def narrowed(self, items: Iterable[Item]) -> Iterator[Item]:
        """What this run sees of rows read for several: its blocks, its steps, its text."""
        for item in items:
            yield self.loader.narrowed(item, self.texts[item.row], self.network.blocks, self.network.times)


def _optimizer(network: Segmenter, recipe: Recipe, rate: float, device: torch.device) -> torch.optim.Optimizer:
    # PyTorch has no optimiser of nothing, which is what trees need.
    weights = list(network.parameters()) or [torch.nn.Parameter(torch.empty(0, device=device))]
    fused = True if device.type == "cuda" else None  # one kernel for all weights
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.Adam(weights, rate, recipe.betas, weight_decay=recipe.weight_decay, fused=fused)


@contextmanager
def _own_chance(device: torch.device, seed: Sequence[int]) -> Iterator[None]:
    """Dropout that depends on the step alone, not on what was drawn before: by a killed process, or in another fit."""
    with torch.random.fork_rng(_generators(device)):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield


def _generators(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _copy(network: Segmenter) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
