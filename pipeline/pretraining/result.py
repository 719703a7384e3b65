"""What a pretraining run leaves: the averaged weights with their history, the curves, the contact sheet."""

__all__ = ["keep_weights", "write_result"]

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textdiff import console
from textdiff.models.backbones.checkpoints import save_unet
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import describe_device
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.pretraining.config import command, trajectory
from textdiff.pipeline.pretraining.log import Row, plot_log
from textdiff.pipeline.pretraining.objective import Objective
from textdiff.pipeline.pretraining.sampling import contact_sheet
from textdiff.pipeline.pretraining.unlabelled import Survey


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
    metadata = {"textdiff.pretrain": json.dumps(facts, sort_keys=True), "licence": config.data_licence}
    save_unet(unet, out, metadata, torch.float16 if config.half else torch.float32)
    plot_log(log, out.with_suffix(".curve.png"), f"{out.stem}: loss while pretraining")
    if config.samples:
        x0, drawn = (tensor[: config.samples] for tensor in fixed)
        contact_sheet(objective.pictures(unet, x0, drawn, config, precision), out.with_suffix(".samples.png"))
    shown = ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in held_out.items())
    console.info(f"wrote {out} (step {last['step']}; held-out loss: {shown or 'none: t_max is 50 or less'})")


def keep_weights(config: Pretrain, unet: UNet, survey: Survey, crops: int, step: int) -> Path:
    """Writes the weights after ``crops`` crops, at ``step``, beside ``config.out``, as a backbone needs them."""
    out = Path(config.out)
    path = out.with_name(f"{out.stem}-{crops}.safetensors")
    metadata = {"textdiff.pretrain": json.dumps(_facts(config, survey, step), sort_keys=True)}
    save_unet(unet, path, metadata | {"licence": config.data_licence}, torch.float16 if config.half else torch.float32)
    return path


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
