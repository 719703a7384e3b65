"""What a user left out, filled in: one place for the command line and for the Python API."""

__all__ = ["extract_config"]

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from textdiff.pipeline.extract import ExtractConfig
from textdiff.pipeline.extraction.requirements import require_data
from textdiff.pipeline.locations import OWN
from textdiff.pipeline.presets import get_preset


def extract_config(
    dataset: str,
    *,
    preset: str = "paper",
    data: str | PathLike[str] | None = None,
    cache: str | PathLike[str] | None = None,
    backbone: str | PathLike[str] | None = None,
    text_encoder: str | PathLike[str] | None = None,
    blocks: Sequence[int] | Literal["all"] | None = None,
    steps: Sequence[int] | None = None,
    image_size: int | None = None,
    views: int | None = None,
    jitter: str | None = None,
    **options: Any,
) -> ExtractConfig:
    """The options of ``extract``, with ``None`` replaced by the data set's preset and its usual places.

    Args:
        dataset: a name in ``PRESETS``.
        preset: ``paper``, ``nano`` or ``rgb``.
        data: its directory or file; looked for where ``find_data`` says.
        cache: where to store; ``cache/<dataset>.zarr``, named after ``data`` for a lab's own.
        backbone: a name or a checkpoint file.
        text_encoder: a name, a hub id, a directory or ``none``.
        blocks: decoder blocks, or ``"all"``.
        steps: diffusion steps.
        image_size: H = W in pixels.
        views: 1, 8 or a multiple of 8.
        jitter: ``he``, ``cxr``, or ``none`` where the preset varies colours.
        options: the other fields of ``ExtractConfig``, as they are.

    Raises:
        UserError: an unknown data set or preset, or one that is in none of its usual places.
    """
    usual = get_preset(dataset, preset)
    views = usual.views if views is None else views
    if jitter is None and views > 1:
        jitter = usual.jitter
    backbone = usual.backbone if backbone is None else str(backbone)
    text_encoder = usual.text_encoder if text_encoder is None else str(text_encoder)
    where = require_data(dataset, backbone, text_encoder) if data is None else Path(data)
    place = where.resolve()
    name = dataset if dataset not in OWN else place.stem if place.is_file() else place.name
    return ExtractConfig(
        dataset=dataset,
        data=where,
        cache=Path("cache") / f"{name}.zarr" if cache is None else Path(cache),
        backbone=backbone,
        text_encoder=text_encoder,
        blocks=usual.blocks if blocks is None else None if blocks == "all" else tuple(blocks),
        steps=usual.steps if steps is None else tuple(steps),
        image_size=usual.image_size if image_size is None else image_size,
        views=views,
        jitter=None if jitter == "none" else jitter,
        **options,
    )
