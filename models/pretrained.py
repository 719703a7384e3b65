"""Models of the transformers library: read from a directory with all their weights, or refused in one line."""

__all__ = ["architecture", "load_model", "loading", "quiet"]

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from textdiff.errors import UserError, explain
from textdiff.models.downloads.hub import weights_size


def load_model(
    name: str, directory: Path, kind: str, tower: Callable[[str, Any], Any], spare: Collection[str] = ("pooler",)
) -> Any:
    """The part of a model that is used, frozen, in evaluation mode and float32, on the CPU.

    Args:
        name: as it was asked for.
        directory: that has the configuration and the weights.
        kind: what it is to be, as in ``a text encoder``.
        tower: picks the part that is used of the whole model, or refuses it.
        spare: parts of the names of weights that are not used, and may be missing.

    Raises:
        UserError: it is damaged, of no architecture that the library knows, or lacks weights.
    """
    from transformers import AutoModel

    architecture(name, directory, kind)
    with loading(name, directory, kind):
        whole, report = AutoModel.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    model = tower(name, whole)
    # Weights that are not in the file would be drawn at random.
    used = {id(parameter) for parameter in model.parameters()}
    names = {key for key, parameter in whole.named_parameters(remove_duplicate=False) if id(parameter) in used}
    lost = sorted(key for key in report["missing_keys"] if key in names and not any(part in key for part in spare))
    if lost:
        raise UserError(
            f"{name}: {directory} lacks the weights {lost[0]} and {len(lost) - 1} others of its config.json"
        )
    return model.float().eval().requires_grad_(False)


def architecture(name: str, directory: Path, kind: str) -> Any:
    """The model of a directory without its weights, once it is known that they can be those of its configuration.

    Raises:
        UserError: it cannot be read, or is of a model many times as large.
    """
    from transformers import AutoConfig, AutoModel

    with loading(name, directory, kind):
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    entries, size = weights_size(directory)
    layers = max((value for key, value in _numbers(config.to_dict()) if "layer" in key), default=0)
    absurd = layers > 10 * entries  # a layer has an entry or more, unless layers share them
    if not absurd:
        with loading(name, directory, kind), torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        # A part that isn't used, as the decoder of an encoder, may be missing.
        absurd = sum(parameter.numel() for parameter in model.parameters()) > 10 * size
    if absurd:
        raise UserError(
            f"{name}: {directory / 'config.json'} is of a model many times as large as the weights there; copy both "
            "from where the model is"
        )
    return model


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration and of those within it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield key, value


@contextlib.contextmanager
def loading(name: str, directory: Path, kind: str) -> Iterator[None]:
    """Tells in one line what the library could not read."""
    try:
        yield
    except Exception as error:  # a damaged file shows as any of a dozen kinds
        if explain(error):
            raise
        said = " ".join(str(error).split())
        raise UserError(f"{name}: {directory} cannot be loaded as {kind} ({said})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' advice and progress bars off standard error."""
    from transformers.utils import logging as noise

    verbosity, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity(logging.ERROR)
    noise.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()  # type: ignore[no-untyped-call]
