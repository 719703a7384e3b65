"""UNet checkpoints: OpenAI's and ddpm-segmentation's ``.pt`` files, and our own ``.safetensors``."""

__all__ = ["load_unet", "pretraining_of", "read_checkpoint", "read_state", "save_unet", "unsaid_heads"]

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from textdiff.errors import UserError, explain
from textdiff.models.backbones.recognise import check_entries, recognise
from textdiff.models.backbones.unet import UNet
from textdiff.models.tensor_files import load_tensors, read_zip, save_tensors

_PRETRAINING = "textdiff.pretrain"  # and the one that holds what `pretrain` says of it
_CONFIG = "textdiff.unet"  # the metadata key of a safetensors file that holds the constructor's arguments as JSON
# Where trainers put the state dict, averaged weights first: they are the ones to sample with.
_WRAPPERS = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "unet")
_ANCHOR = "time_embed.0.weight"


def read_checkpoint(path: str | os.PathLike[str], image_size: int = 256) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's state dict under the names of ``UNet``, and the arguments that construct the ``UNet``.

    The tensors are views into the file (memory-mapped) in the file's own dtype. Wrappers such as ``{"ema": ...}`` are
    opened and prefixes such as ``module.`` removed; of several copies of the weights the averaged one is taken. The
    arguments come from the metadata of a safetensors file, else from the shapes (see ``recognise``), with
    ``image_size`` as given. Nothing in the file is executed (``weights_only=True``).

    Raises UserError for a file that is missing, damaged, holds other things than tensors, or is another architecture,
    and if names or shapes differ from the architecture's in any entry.
    """
    state, config, _ = _read(path, image_size, {})
    return state, config


def _read(
    path: str | os.PathLike[str], image_size: int, overrides: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], UNet]:
    """A checkpoint's state dict, its arguments with ``overrides``, and the network of them without any memory."""
    path = Path(path)
    content, config = _content(path)
    state = _without_prefix(_unwrapped(content, path))
    if config is None:
        config = recognise({name: tuple(tensor.shape) for name, tensor in state.items()}, image_size, str(path))
    config |= overrides
    unet = _fitting(state, config, path)
    # Only now: other networks have whole numbers beside their weights, and are better told what they are not.
    if whole := next((name for name, tensor in state.items() if not tensor.is_floating_point()), None):
        kind = str(state[whole].dtype).removeprefix("torch.")
        raise UserError(f"{path}: holds whole numbers ({whole}, {kind}), as quantised weights are; give them as floats")
    return state, config, unet


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of any network's checkpoint, a ``.safetensors`` file or PyTorch's, mapped from it.

    A wrapper such as ``{"model": ...}`` is opened. Nothing in the file is executed (``weights_only=True``).

    Raises UserError for a file that is missing, damaged, or holds other things than tensors.
    """
    path = Path(path)
    return _unwrapped(_content(path)[0], path)


def pretraining_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``pretrain`` recorded of a checkpoint: its objective, options, data and log; nothing for those of others.

    Only the header is read, and a file that is no safetensors file has none: who loads the weights is told of damage.
    """
    try:
        facts = json.loads(_metadata(path).get(_PRETRAINING, "{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def unsaid_heads(path: str | os.PathLike[str], unet: UNet) -> str:
    """How attention is taken to divide into heads, in words, where neither the file nor the shapes of ``unet`` say so.

    Nothing of a file that holds its configuration, and of OpenAI's network of 256 channels and those that share its
    shapes, whose heads are known.
    """
    config = unet.config
    if (config["model_channels"], config["channel_mult"]) == (256, [1, 1, 2, 2, 4, 4]) or _CONFIG in _metadata(path):
        return ""
    heads, channels = config["num_heads"], config["num_head_channels"]
    return f"{heads} heads" if channels == -1 else f"heads of {channels} channels"


def _metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What the header of a safetensors file says beside the tensors; nothing of other files, and of damaged ones."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception:  # the library has exceptions of its own
        return {}


def _content(path: Path) -> tuple[Any, dict[str, Any] | None]:
    """What a checkpoint holds, and the arguments of the ``UNet`` if it is one of ours."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), None)


def _fitting(state: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> UNet:
    """The network of a configuration, on the meta device, once it is known to be the one of these weights.

    What the configuration asks for is bounded by what the file holds: it has at least one entry for each block.
    """
    try:
        blocks = (config["num_res_blocks"] + 1) * len(config["channel_mult"])
        if not 0 < blocks <= len(state):
            raise ValueError(f"{blocks} decoder blocks, and {len(state)} entries in the file")
        with torch.device("meta"):
            unet = UNet(**config)
    except (TypeError, ValueError, KeyError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: no UNet has this configuration: {reason[:200]}") from error
    check_entries(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()},
        str(path),
    )
    return unet


def load_unet(
    path: str | os.PathLike[str],
    image_size: int = 256,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> UNet:
    """The ``UNet`` of a checkpoint with its weights, frozen and in evaluation mode.

    ``config`` overrides some of the arguments read from the checkpoint: needed where the shapes don't tell, as with
    ``num_head_channels``. Weights of another dtype than ``dtype`` are converted one by one and no second copy is made:
    a float32 checkpoint is used where it lies in the file's mapping.

    Raises UserError as ``read_checkpoint`` does.
    """
    state, _, unet = _read(path, image_size, config or {})
    for name in state:
        state[name] = state[name].to(device, dtype)
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False)


def save_unet(
    unet: UNet,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes the weights in ``dtype`` and the configuration as safetensors, atomically; ``metadata`` goes along.

    Raises UserError, writing nothing, if a weight is not finite in ``dtype``.
    """
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in unet.state_dict().items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: not written: {name} has values that are not finite in {dtype}")
    save_tensors(path, state, {**(metadata or {}), _CONFIG: json.dumps(unet.config, sort_keys=True)})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        state, metadata = load_tensors(path)
    except Exception as error:  # the library has exceptions of its own
        if explain(error):
            raise
        raise _damaged(path, error) from error
    if _CONFIG not in metadata:
        return state, None
    try:
        config = json.loads(metadata[_CONFIG])
    except ValueError as error:
        raise UserError(f"{path}: its metadata entry {_CONFIG} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: its metadata entry {_CONFIG} holds no constructor arguments: {metadata[_CONFIG]}")
    return state, config


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            return read_zip(path, mmap=True)
        # From before torch 1.6: cannot be mapped, and has no checksums.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # reading arbitrary bytes as a pickle can raise anything
        if explain(error):
            raise
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path}: holds Python objects ({refused[1]}) beside tensors, and reading those could run code;"
                " save the state dict alone: torch.save(model.state_dict(), ...)"
            ) from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    # torch's own first line is advice to read the file unsafely, so look for what it says was wrong.
    said = re.search(r"WeightsUnpickler error: (.*)", str(error)) or re.search(r"(.*)", str(error))
    reason = f"{type(error).__name__}: {said[1][:100] if said else ''}"
    return UserError(f"{path}: not a readable checkpoint ({reason}); it may be damaged or incomplete: fetch it again")


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict within a trainer's wrapping; entries beside it (step counts, optimisers) are left out."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrapped(content[key], path)
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path}: holds no tensors, only {', '.join(map(str, list(content)[:3])) or 'nothing'}")
    return state


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes what a wrapper module (``module.``, ``model.``, ``ema_model.``) put before every name."""
    prefixes = [name.removesuffix(_ANCHOR) for name in state if name.endswith(_ANCHOR)]
    if not prefixes:
        return state
    best = max(prefixes, key=lambda prefix: "ema" in prefix)
    others = tuple(prefix for prefix in prefixes if prefix != best and prefix)
    # The other copies of the weights go; anything else stays, so that strict loading can object to it.
    return {
        name.removeprefix(best): tensor
        for name, tensor in state.items()
        if (best and name.startswith(best)) or not (others and name.startswith(others))
    }
