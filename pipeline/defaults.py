"""What a user left out, filled in: one place for the command line and for the Python API."""

__all__ = ["extract_config"]

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from textdiff.errors import UserError
from textdiff.pipeline.extract import ExtractConfig
from textdiff.pipeline.locations import OWN, find_data
from textdiff.pipeline.presets import PRESETS


def extract_config(
    dataset: str,
    *,
    data: str | PathLike[str] | None = None,
    cache: str | PathLike[str] | None = None,
    backbone: str | PathLike[str] | None = None,
    text_encoder: str | PathLike[str] | None = None,
    blocks: Sequence[int] | Literal["all"] | None = None,
    steps: Sequence[int] | None = None,
    image_size: int | None = None,
    **options: Any,
) -> ExtractConfig:
    """The options of ``extract``, with ``None`` replaced by the data set's preset and its usual places.

    Args:
        dataset: a name in ``PRESETS``.
        data: its directory or file; looked for where ``find_data`` says.
        cache: where to store; ``cache/<dataset>.zarr``, named after ``data`` for a lab's own.
        backbone: a name or a checkpoint file.
        text_encoder: a name, a hub id, a directory or ``none``.
        blocks: decoder blocks, or ``"all"``.
        steps: diffusion steps.
        image_size: H = W in pixels.
        options: the other fields of ``ExtractConfig``, as they are.

    Raises:
        UserError: an unknown data set, or one that is in none of its usual places.
    """
    preset = PRESETS.get(dataset)
    if preset is None:
        raise UserError(f"--dataset {dataset}: unknown; use one of {', '.join(PRESETS)}")
    where = find_data(dataset) if data is None else Path(data)
    place = where.resolve()
    name = dataset if dataset not in OWN else place.stem if place.is_file() else place.name
    return ExtractConfig(
        dataset=dataset,
        data=where,
        cache=Path("cache") / f"{name}.zarr" if cache is None else Path(cache),
        backbone=preset.backbone if backbone is None else str(backbone),
        text_encoder=preset.text_encoder if text_encoder is None else str(text_encoder),
        blocks=preset.blocks if blocks is None else None if blocks == "all" else tuple(blocks),
        steps=preset.steps if steps is None else tuple(steps),
        image_size=preset.image_size if image_size is None else image_size,
        **options,
    )
