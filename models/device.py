"""Where a computation runs, and in which precision."""

__all__ = ["autocast", "choose_device", "describe_device", "resolve_precision", "synchronize"]

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from textdiff.console import counted
from textdiff.errors import UserError
from textdiff.options.shared import Precision


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` is the GPU where there is one.

    Raises:
        UserError: the name is unknown, or there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such kind of device; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(
                f"--device {name}: PyTorch sees {count} CUDA devices here; use --device cpu, or --device auto"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: PyTorch sees no Apple GPU here; use --device cpu")
    elif device.type not in ("cpu", "mps"):
        raise UserError(f"--device {name}: not supported; use auto, cpu, cuda or mps")
    return device


def describe_device(device: torch.device) -> str:
    """One line for people and for ``config.json``: ``cpu, 2 threads, x86_64`` or the GPU's name and memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return f"mps, {platform.machine()}"
    threads = f"{counted(torch.get_num_threads(), 'thread')} of {counted(os.cpu_count() or 1, 'core')}"
    return f"cpu, {threads}, {platform.machine()}"


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on GPUs that compute in it and float32 elsewhere."""
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on ``device``, or nothing for ``float32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def synchronize(device: torch.device) -> None:
    """Waits for the device's queued work, so that a clock read afterwards means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
