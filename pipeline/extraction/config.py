"""The options of ``extract``, and which of them cannot be."""

__all__ = ["ExtractConfig", "check_blocks", "check_config", "colours", "tiling"]

from dataclasses import dataclass, field
from pathlib import Path

from textdiff.errors import UserError
from textdiff.pipeline import diffusion
from textdiff.pipeline.imaging.colour import MODALITIES
from textdiff.pipeline.imaging.images import SYMMETRIES
from textdiff.pipeline.imaging.tiles import check_tiles
from textdiff.readers.options import ReadOptions


@dataclass(frozen=True)
class ExtractConfig:
    """What to extract, from what, to where. Paths may be relative to the working directory."""

    dataset: str
    data: Path
    cache: Path
    backbone: str
    text_encoder: str
    blocks: tuple[int, ...] | None
    """Decoder blocks whose activations are kept, numbered as in ``output_blocks``; None for all of them."""
    steps: tuple[int, ...]
    """Diffusion time steps at which the image is noised, each in 0..999."""
    image_size: int = 256
    tile: int | None = None
    """Side in pixels of the tiles that images are cut into, each resized to ``image_size``; by default they are not."""
    overlap: int | None = None
    """What neighbouring tiles share, in pixels; an eighth of a tile by default."""
    views: int = 1
    """1, or 8 to store the eight symmetries of every training image; with ``jitter`` a larger multiple of 8 as well."""
    test_views: int = 1
    """1, or 8 to store the symmetries of annotated validation and test images; scores are of their mean."""
    jitter: str | None = None
    """``he`` or ``cxr``: vary the colours of all views of a training image but the first, after that modality."""
    seed: int = 0
    """Seed of the one noise draw that all images share."""
    protocol: str = "clean"
    dtype: str = "float16"
    precision: str = "auto"
    device: str = "auto"
    shard: tuple[int, int] = (0, 1)
    """(i, n): do every n-th row from the i-th, so that n processes can share one cache."""
    overwrite: bool = False
    update: bool = False
    """Where the data set has changed since the cache was made, keep the rows that still hold and make the others."""
    skip_bad: bool = False
    """Leave out the images that have errors instead of stopping."""
    dry_run: bool = False
    """Stop after the plan."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    """How the data set is read: classes, instances, splits to draw."""


def tiling(config: ExtractConfig) -> dict[str, int]:
    """What the fingerprint says about tiles: nothing where there are none."""
    if config.tile is None:
        return {}
    return {"tile": config.tile, "overlap": config.tile // 8 if config.overlap is None else config.overlap}


def colours(config: ExtractConfig) -> dict[str, str]:
    """What the fingerprint says about varied colours: nothing where they are not."""
    return {} if config.jitter is None else {"jitter": config.jitter}


def check_config(config: ExtractConfig) -> None:
    """Refuses what is wrong whatever the data.

    Raises:
        UserError: an option is out of its range.
    """
    wrong = [step for step in config.steps if not 0 <= step < diffusion.STEPS]
    if wrong or not config.steps:
        raise UserError(f"--steps {wrong[0] if wrong else ''}: must be in 0..{diffusion.STEPS - 1}, as in 50,150,250")
    if len(set(config.steps)) < len(config.steps):
        raise UserError(f"--steps {','.join(map(str, config.steps))}: a step is named twice")
    blocks = config.blocks
    if blocks is not None and (not blocks or len(set(blocks)) < len(blocks)):
        raise UserError(f"--blocks {','.join(map(str, blocks))}: name at least one block, and none twice")
    if blocks is not None and list(blocks) != sorted(blocks):
        raise UserError(f"--blocks {','.join(map(str, blocks))}: give them in ascending order")
    if config.jitter not in (None, *MODALITIES):
        raise UserError(f"--jitter {config.jitter}: must be {' or '.join(MODALITIES)}")
    several = config.views >= SYMMETRIES and config.views % SYMMETRIES == 0
    if config.views != 1 and not several:
        raise UserError(f"--views {config.views}: must be 1, 8 (the symmetries), or with --jitter a multiple of 8")
    if config.test_views not in (1, SYMMETRIES):
        raise UserError(f"--test-views {config.test_views}: must be 1, or 8 (the symmetries)")
    if config.views > SYMMETRIES and config.jitter is None:
        raise UserError(f"--views {config.views}: there are eight symmetries; --jitter he makes more views of an image")
    if config.views == 1 and config.jitter is not None:
        raise UserError(f"--jitter {config.jitter} varies the views of an image but the first; give --views 8 or more")
    if config.dtype not in ("float16", "float32"):
        raise UserError(f"--dtype {config.dtype}: must be float16 or float32")
    if config.image_size < 32 or config.image_size % 32:
        raise UserError(f"--image-size {config.image_size}: must be a multiple of 32, as the UNet halves it five times")
    if config.overwrite and config.update:
        raise UserError("--overwrite makes all rows anew and --update keeps those that still hold; give one of them")
    check_tiles(config.tile, config.overlap)
    if not 0 <= config.shard[0] < config.shard[1]:
        raise UserError(f"--shard {config.shard[0]}/{config.shard[1]}: must be i/n with 0 <= i < n")


def check_blocks(blocks: tuple[int, ...], count: int, backbone: str) -> None:
    """Refuses blocks that a backbone of ``count`` decoder blocks does not have.

    Raises:
        UserError: it lacks one.
    """
    wrong = [block for block in blocks if not 0 <= block < count]
    if wrong:
        raise UserError(f"--blocks {wrong[0]}: the backbone {backbone} has decoder blocks 0..{count - 1}")
