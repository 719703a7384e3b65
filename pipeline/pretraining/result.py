"""What a pretraining run leaves: the averaged weights with their history, the log, its curves, the contact sheet."""

__all__ = ["Row", "contact_sheet", "keep_weights", "write_log", "write_result"]

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from textdiff import console
from textdiff.files import atomic_path, write_text
from textdiff.models.backbones.checkpoints import save_unet
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import describe_device
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.evaluation.figures import save_picture
from textdiff.pipeline.pretraining.config import command, trajectory
from textdiff.pipeline.pretraining.objective import Objective
from textdiff.pipeline.pretraining.unlabelled import Survey
from textdiff.tables import csv_table

Row = dict[str, float]
"""A line of the log."""


def write_log(rows: Sequence[Row], path: Path) -> None:
    """Writes the rows, which share their columns, as CSV, atomically."""
    lines = [{name: f"{value:.6g}" for name, value in row.items()} for row in rows]
    write_text(path, csv_table(lines))


def write_result(
    config: Pretrain,
    unet: UNet,
    objective: Objective,
    survey: Survey,
    log: list[Row],
    waited: float,
    precision: str,
    fixed: tuple[Tensor, Tensor],
    world: int,
) -> None:
    """Writes ``config.out``, and beside it ``.curve.png`` and, if wanted, ``.samples.png``.

    The metadata entry ``textdiff.pretrain`` is JSON: options, command, data, steps, held-out losses, hardware, log.
    ``fixed`` are held-out crops, (n, 3, S, S), and what is drawn for each; ``waited`` is the share of the time in which
    the trainer waited for images.
    """
    out, last = Path(config.out), log[-1]
    device = fixed[0].device
    held_out = {name: value for name, value in last.items() if name.startswith("held_out")}
    facts = {
        **_facts(config, survey, int(last["step"])),
        "held_out_losses": held_out,
        "seconds": last["seconds"],
        "waited_share": round(waited, 4),
        "hardware": _hardware(device, world),
        "precision": precision,
        "torch": torch.__version__,
        "log": log,
    }
    _save(config, unet, out, facts)
    _plot_log(log, out.with_suffix(".curve.png"), f"{out.stem}: loss while pretraining")
    if config.samples:
        x0, drawn = (tensor[: config.samples] for tensor in fixed)
        contact_sheet(objective.pictures(unet, x0, drawn, config, precision), out.with_suffix(".samples.png"))
    shown = ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in held_out.items())
    console.info(f"wrote {out} (step {last['step']}; held-out loss: {shown or 'none: t_max is 50 or less'})")


def keep_weights(config: Pretrain, unet: UNet, survey: Survey, crops: int, step: int) -> Path:
    """Writes the weights after ``crops`` crops, at ``step``, beside ``config.out``, as a backbone needs them."""
    out = Path(config.out)
    path = out.with_name(f"{out.stem}-{crops}.safetensors")
    _save(config, unet, path, _facts(config, survey, step))
    return path


def _save(config: Pretrain, unet: UNet, path: Path, facts: Mapping[str, Any]) -> None:
    metadata = {"textdiff.pretrain": json.dumps(facts, sort_keys=True), "licence": config.data_licence}
    save_unet(unet, path, metadata, torch.float16 if config.half else torch.float32)


def _facts(config: Pretrain, survey: Survey, step: int) -> dict[str, Any]:
    """What is known of weights without a look at how they came about."""
    return {
        "objective": config.objective,
        "options": {**trajectory(config), "init": Path(config.init).name if config.init else None},
        "command": command(config),
        "data": {**survey.description(), "licence": config.data_licence},
        "steps": step,
        "samples": step * config.batch_size,
    }


def _hardware(device: torch.device, world: int) -> str:
    name = describe_device(device)
    cpu = Path("/proc/cpuinfo")
    if device.type == "cpu" and cpu.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        name += f", {models[0]}" if models else ""
    return name if world == 1 else f"{world} processes, each {name}"


def _plot_log(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draws training and held-out losses over the samples seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    x = [row["samples"] for row in rows]
    for name in rows[0]:
        if name.startswith("held_out_t"):
            label = f"held out, t = {name.removeprefix('held_out_t')}"
            axes.plot(x, [row[name] for row in rows], label=label, marker=".")
        elif name == "loss":
            axes.plot(x, [row[name] for row in rows], label="training loss", color="0.6")
    axes.set(xlabel="crops seen", ylabel="loss", yscale="log", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    save_picture(figure, path)


def contact_sheet(rows: Sequence[Tensor], path: str | os.PathLike[str], gap: int = 4) -> None:
    """Writes a PNG with one row of pictures for each (n, 3, S, S) tensor in [-1, 1], on white, atomically."""
    size = rows[0].shape[-1]
    sheet = np.full((len(rows) * (size + gap) + gap, max(map(len, rows)) * (size + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        pictures = ((row.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for j, picture in enumerate(pictures):
            top, left = gap + i * (size + gap), gap + j * (size + gap)
            sheet[top : top + size, left : left + size] = picture
    with atomic_path(path) as partial:
        Image.fromarray(sheet).save(partial)
