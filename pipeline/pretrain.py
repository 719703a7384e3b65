"""Pretraining: an ADM UNet learns to restore a directory of unlabelled images."""

__all__ = ["Pretrain", "pretrain"]

import copy
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from textdiff import console
from textdiff.errors import UserError, explain
from textdiff.models.device import autocast, choose_device, describe_device, resolve_precision
from textdiff.models.tensor_files import load_state, save_state
from textdiff.options.pretrain import Pretrain
from textdiff.options.shared import Precision
from textdiff.pipeline.pretraining.config import build_unet, rate, scales, trajectory
from textdiff.pipeline.pretraining.crops import Batch, CropLoader, Crops, ImageCache, as_input
from textdiff.pipeline.pretraining.objective import Denoising, Objective, Unmasking
from textdiff.pipeline.pretraining.result import Row, keep_weights, write_log, write_result
from textdiff.pipeline.pretraining.unlabelled import survey
from textdiff.stopping import stop_signals

# Adam's usual 1e-8 is far above the gradients of a small network's coarse levels, 1e-10 and less at the middle, which
# then take a hundredth of the steps that the others take.
EPSILON = 1e-15


def pretrain(config: Pretrain) -> Path:
    """Trains until ``config.steps`` or the time limit and writes the averaged weights; gives their path.

    The same call again goes on where the last one was stopped, from ``.resume.pt`` beside ``config.out``; on a CPU,
    with as many threads, the weights are then bit by bit those of an uninterrupted run. Under ``torchrun`` every
    process takes its share of each batch and the first one writes.

    Raises:
        UserError: options or images that cannot be used, or training diverges.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(config.device)
    if device.type == "cuda" and world > 1:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if config.batch_size % world:
        raise UserError(f"--batch-size {config.batch_size}: must be a multiple of the {world} processes")
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        return _Run(config, device, rank, world).train()
    finally:
        if world > 1:
            dist.destroy_process_group()


class _Run:
    """One invocation: the network, its average, the optimiser, and how far they are."""

    def __init__(self, config: Pretrain, device: torch.device, rank: int, world: int) -> None:
        self.config, self.device, self.rank, self.world = config, device, rank, world
        self.out = Path(config.out)
        self.resume_file = self.out.with_suffix(".resume.pt")
        if self.out.exists() and not self.resume_file.exists():
            raise UserError(
                f"--out {self.out}: exists, and nothing to resume it from; choose another name or remove it"
            )
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.out}: {error.strerror}; choose a directory you can write to") from error
        self.precision = _precision(config.precision, device)
        on_gpu = device.type == "cuda"
        channels_last = on_gpu if config.channels_last is None else config.channels_last
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

        self.unet = build_unet(config).to(device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.unet).eval().requires_grad_(False)
        optimiser = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        self.optimiser = optimiser(
            self.unet.parameters(),
            lr=config.learning_rate,
            eps=EPSILON,
            weight_decay=config.weight_decay,
            fused=on_gpu or None,
        )
        self.workers = config.workers or min(os.cpu_count() or 1, 16)
        smallest = math.ceil(config.crop / scales(config)[1])
        looked = smallest, config.modality, self.workers, rank > 0
        self.survey = survey(config.data, *looked)
        if config.target is not None:
            self.survey = self.survey.both(survey(config.target, *looked, flag="--target"))
        self.step, self.seconds, self.loss_sum, self.loss_count = 0, 0.0, 0.0, 0
        self.log: list[Row] = []
        self.waited = 0.0
        if self.resume_file.exists():
            self._resume()

        masked = config.objective == "masked"
        self.objective: Objective = Unmasking() if masked else Denoising(config.noise_loss, device)
        training, self.held_out = self.survey.split()
        self.crops = Crops(
            tuple(training),
            config.crop,
            scales(config),
            config.modality,
            config.t_max,
            config.seed,
            ImageCache(int(config.cache_gb * 1e9)),
            self.objective.corruption,
        )
        network: nn.Module = self.unet
        if world > 1:
            network = DistributedDataParallel(network, device_ids=[device.index] if on_gpu else None)
        self.network = torch.compile(network) if (on_gpu if config.compile is None else config.compile) else network

    def train(self) -> Path:
        """Trains, then writes everything."""
        config = self.config
        if self.rank == 0:
            count = sum(parameter.numel() for parameter in self.unet.parameters())
            console.info(
                f"training {count:,} parameters on {describe_device(self.device)}, {self.precision},"
                f" from step {self.step}; Ctrl-C saves, the same command goes on"
            )
        began = saved = time.monotonic()
        before = self.seconds
        steps_before = self.step
        progress = console.Progress(config.steps, "pretraining", "steps", done=self.step, every=60)
        loader = CropLoader(self.crops, config.batch_size, self.step, self.workers, self.rank, self.world)
        reason = ""
        with loader, stop_signals() as signalled:
            for batch in loader if self.step < config.steps else ():
                loss = self._update(batch)
                self._keep()
                self.seconds = before + time.monotonic() - began
                now = time.monotonic()
                if self.rank == 0:
                    limit = config.time_limit and f", time limit in {console.duration(config.time_limit - now + began)}"
                    progress.advance(note=f"loss {loss:.4f}{limit or ''}")
                if self.step % config.eval_every == 0:
                    self._record()
                out_of_time = config.time_limit is not None and now - began >= config.time_limit
                reason = self._agree("stopped" if signalled else "time" if out_of_time else "")
                if reason or self.step >= config.steps:
                    break
                if now - saved >= 60 * config.save_minutes:
                    self._save()
                    saved = time.monotonic()
            self.seconds = before + time.monotonic() - began
            self.waited = loader.waited / max(time.monotonic() - began, 1e-9)
        if reason != "stopped" and (not self.log or self.log[-1]["step"] != self.step):
            self._record()
        self._save()
        if reason == "stopped":
            raise KeyboardInterrupt
        if self.rank == 0:
            pace = (self.step - steps_before) * config.batch_size / max(self.seconds - before, 1e-9)
            if self.step > steps_before:
                console.info(f"{pace:.1f} crops/s; the trainer waited for images {100 * self.waited:.1f}% of the time")
            fixed = self._fixed(max(config.samples, 1))
            trained = self.average, self.objective
            write_result(config, *trained, self.survey, self.log, self.waited, self.precision, fixed, self.world)
            console.info(f"{self.resume_file} goes on from here with more --steps or time; else it can be removed")
        return self.out

    def _update(self, batch: Batch) -> float:
        """One optimiser step; gives this process's mean loss."""
        config = self.config
        x0 = batch.x0.to(self.device, memory_format=self.memory_format)
        t, drawn = batch.t.to(self.device), batch.drawn.to(self.device, memory_format=self.memory_format)
        for group in self.optimiser.param_groups:
            group["lr"] = rate(config, self.step)
        x_t = self.objective.seen(x0, t, drawn)
        with autocast(self.device, self.precision):
            out = self.network(x_t, t)
        loss = self.objective.loss(out, x0, x_t, t, drawn).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.unet.parameters(), config.clip)
        value = float(loss.detach())
        if not math.isfinite(value):
            kept = f"; {self.resume_file} holds an earlier step" if self.resume_file.exists() else ""
            raise UserError(
                f"training diverged: the loss at step {self.step} is {value}; use a smaller --learning-rate{kept}"
            )
        self.optimiser.step()
        self.step += 1
        self.loss_sum += value
        self.loss_count += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(list(self.average.parameters()), list(self.unet.parameters()), 0)
        return value

    def _keep(self) -> None:
        """Writes the averaged weights where so many crops have just been seen."""
        batch = self.config.batch_size
        for crops in self.config.keep or ():
            if self.rank == 0 and (self.step - 1) * batch < crops <= self.step * batch:
                keep_weights(self.config, self.average, self.survey, crops, self.step)

    def _agree(self, reason: str) -> str:
        """Makes every process stop after the same step: the gravest reason of any."""
        if self.world == 1:
            return reason
        reasons = ("", "time", "stopped")
        flag = torch.tensor(reasons.index(reason), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return reasons[int(flag)]

    @torch.no_grad()
    def _record(self) -> None:
        """Adds a line to the log: the training loss since the last one, and the held-out losses of the average."""
        row: Row = {
            "step": self.step,
            "samples": self.step * self.config.batch_size,
            "seconds": round(self.seconds, 3),
            "lr": rate(self.config, self.step),
            "loss": self.loss_sum / max(self.loss_count, 1),
        }
        self.loss_sum, self.loss_count = 0.0, 0
        if self.rank > 0:
            return
        parts = [torch.split(tensor, self.config.batch_size) for tensor in self._fixed(self.config.eval_images)]
        for step in self.objective.held_out_steps:
            if step < self.config.t_max:
                errors = []
                for x0, drawn in zip(*parts, strict=True):
                    t = torch.full((len(x0),), step, device=self.device)
                    with autocast(self.device, self.precision):
                        out = self.average(self.objective.corruption.apply(x0, t, drawn), t)
                    errors.append(self.objective.error(out, x0, drawn))
                row[f"held_out_t{step}"] = float(torch.cat(errors).mean())
        self.log.append(row)
        write_log(self.log, self.out.with_suffix(".log.csv"))

    def _fixed(self, count: int) -> tuple[Tensor, Tensor]:
        """The fixed crops of up to ``count`` held-out images, (n, 3, S, S), and what is drawn for each."""
        crops, drawn = zip(*(self.crops.fixed(path) for path in self.held_out[:count]), strict=True)
        x0 = as_input(crops).to(self.device, memory_format=self.memory_format)
        return x0, torch.from_numpy(np.stack(drawn)).to(self.device, memory_format=self.memory_format)

    def _save(self) -> None:
        if self.rank > 0:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "loss": [self.loss_sum, self.loss_count],
            "log": self.log,
            "unet": self.unet.state_dict(),
            "ema": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "trajectory": trajectory(self.config),
            "digest": self.survey.digest,
        }
        save_state(self.resume_file, state)

    def _resume(self) -> None:
        state = _load_state(self.resume_file, trajectory(self.config), self.survey.digest)
        self.unet.load_state_dict(state["unet"])
        self.average.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
        self.loss_sum, self.loss_count = state["loss"]


def _precision(precision: Precision, device: torch.device) -> str:
    """As ``resolve_precision``; ``auto`` is bfloat16 also on CPUs that multiply in it (1.4x as fast on a Zen 5)."""
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if precision == "auto" and device.type == "cpu" and has_bf16():
        return "bfloat16"
    return resolve_precision(precision, device)


def _told(options: Mapping[str, Any], name: str) -> str:
    """An option's value as a message tells it; one that was not given is none."""
    value = options.get(name)
    return "none" if value is None else str(value)


def _load_state(path: Path, trajectory: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Reads a state on the CPU; nothing in the file is executed.

    With it are the options (``trajectory``) and the images (``digest``, that of the survey) that it belongs to.

    Raises UserError if the file is damaged, or if it belongs to other options, which it names, or other images.
    """
    try:
        state: dict[str, Any] = load_state(path)
        then: dict[str, Any] = state["trajectory"]
        images = state["digest"]
    except Exception as error:  # reading arbitrary bytes as a pickle can raise anything
        if explain(error):
            raise
        raise UserError(f"{path}: damaged ({type(error).__name__}); remove it to start afresh") from error
    differ = {name for name in {*then, *trajectory} if then.get(name) != trajectory.get(name)}
    if "objective" in differ:
        differ.discard("loss")  # masked patches have their own, so it goes with the objective
    changed = [f"{name} was {_told(then, name)}, is {_told(trajectory, name)}" for name in sorted(differ)]
    if images != digest:
        changed.append("the images differ in names or contents")
    if changed:
        raise UserError(
            f"{path}: belongs to a run with other options: {'; '.join(changed)};"
            " repeat that run's options, or choose another --out"
        )
    return state
