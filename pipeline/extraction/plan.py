"""What ``extract`` is about to do, said before it is done."""

__all__ = ["say_plan", "say_time"]

from collections.abc import Sequence
from pathlib import Path

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.files import check_free_space, free_space
from textdiff.models.backbones.extractor import Extractor
from textdiff.pipeline.extraction.config import ExtractConfig


def say_plan(cache: FeatureCache, pending: Sequence[int], config: ExtractConfig, where: str, precision: str) -> None:
    """Says what is about to happen and refuses what cannot."""
    total = len(cache.rows)
    if not pending:
        console.info(f"{config.cache}: complete, {total} rows; nothing to do")
        return
    needed = len(pending) * cache.row_nbytes
    shapes = ", ".join(f"b{block:02d} {c}@{h}" for block, (c, h, _) in cache.blocks.items())
    console.info(f"backbone {config.backbone} on {where}, {precision}")
    console.info(f"blocks {shapes}; steps {', '.join(map(str, cache.steps))}; text encoder {config.text_encoder}")
    if config.views > 1:
        colours = f" in varied colours ({config.jitter})" if config.jitter else ""
        console.info(f"{config.views} views of each annotated training image{colours}; --views 1 for one")
    if config.test_views > 1:
        console.info(
            f"{config.test_views} views of each annotated validation and test image; scores are of the mean over them"
        )
    free = f" of {console.size(free_space(config.cache))} free" if isinstance(config.cache, Path) else ""
    console.info(
        f"{config.cache}: {len(pending)} of {total} rows to do, {console.size(cache.row_nbytes)} each, "
        f"{console.size(needed)}{free}"
    )
    fix = "free some, choose another --cache, fewer --blocks or --steps"
    check_free_space(config.cache, needed, f"the {len(pending)} rows need", fix)


def say_time(rows: int, backbone: Extractor) -> None:
    """Says how long ``rows`` will take here."""
    seconds = backbone.estimate_seconds()
    console.info(f"estimated time: {console.duration(rows * seconds)} ({console.duration(seconds)} a row)")
