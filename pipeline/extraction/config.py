"""The options of ``extract`` with what the user left out filled in."""

__all__ = ["ExtractConfig", "check_blocks", "colours", "resolve", "tiling"]

from dataclasses import dataclass
from pathlib import Path

from textdiff.errors import UserError
from textdiff.options.extract import Extract
from textdiff.options.shared import Jitter
from textdiff.pipeline.extraction.requirements import require_data
from textdiff.pipeline.locations import OWN
from textdiff.pipeline.presets import get_preset


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Extract):
    """What to extract, from what, to where: what has a default in the preset is settled here."""

    data: Path
    cache: Path
    backbone: str
    text_encoder: str
    blocks: tuple[int, ...] | None
    """None for all of them."""
    steps: tuple[int, ...]
    image_size: int = 256
    views: int = 1
    jitter: Jitter | None = None
    """None where colours are not varied."""


def resolve(options: Extract) -> ExtractConfig:
    """The options with the data set's preset and its usual places where they say nothing.

    Raises:
        UserError: the data set is in none of its usual places, or the options contradict the preset's.
    """
    if isinstance(options, ExtractConfig):
        return options
    usual = get_preset(options.dataset, options.preset)
    views = options.views or usual.views
    jitter = options.jitter or (usual.jitter if views > 1 else None)
    backbone = str(options.backbone or usual.backbone)
    text_encoder = str(options.text_encoder or usual.text_encoder)
    data = Path(options.data) if options.data else require_data(options.dataset, backbone, text_encoder)
    place = data.resolve()
    name = options.dataset if options.dataset not in OWN else place.stem if place.is_file() else place.name
    return options.part(
        ExtractConfig,
        data=data,
        cache=options.cache or Path("cache") / f"{name}.zarr",
        backbone=backbone,
        text_encoder=text_encoder,
        blocks=None if options.blocks == "all" else options.blocks or usual.blocks,
        steps=options.steps or usual.steps,
        image_size=options.image_size or usual.image_size,
        views=views,
        jitter=None if jitter == "none" else jitter,
    )


def tiling(config: ExtractConfig) -> dict[str, int]:
    """What the fingerprint says about tiles: nothing where there are none."""
    if config.tile is None:
        return {}
    return {"tile": config.tile, "overlap": config.tile // 8 if config.overlap is None else config.overlap}


def colours(config: ExtractConfig) -> dict[str, str]:
    """What the fingerprint says about varied colours: nothing where they are not."""
    return {} if config.jitter is None else {"jitter": config.jitter}


def check_blocks(blocks: tuple[int, ...], count: int, backbone: str) -> None:
    """Refuses blocks that a backbone of ``count`` decoder blocks does not have.

    Raises:
        UserError: it lacks one.
    """
    wrong = [block for block in blocks if not 0 <= block < count]
    if wrong:
        raise UserError(f"--blocks {wrong[0]}: the backbone {backbone} has decoder blocks 0..{count - 1}")
