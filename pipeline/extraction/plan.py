"""What ``extract`` is about to do, said before it is done."""

__all__ = ["say_plan", "say_time"]

import textwrap
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
    licence = cache.about.get("backbone_licence", "")
    console.info(f"backbone {cache.about['backbone']} on {where}, {precision}{licence and f'; its licence: {licence}'}")
    console.info(f"blocks {shapes}; steps {', '.join(map(str, cache.steps))}; text encoder {config.text_encoder}")
    if config.views > 1:
        colours = f" in varied colours ({config.jitter})" if config.jitter else ""
        console.info(f"{config.views} views of each annotated training image{colours}; --views 1 for one")
    if config.test_views > 1:
        console.info(
            f"{config.test_views} views of each annotated validation and test image; scores are of the mean over them"
        )
    if said := _turned_texts(cache):
        console.info(said)
    free = f" of {console.size(free_space(config.cache))} free" if isinstance(config.cache, Path) else ""
    console.info(
        f"{config.cache}: {len(pending)} of {total} rows to do, {console.size(cache.row_nbytes)} each, "
        f"{console.size(needed)}{free}"
    )
    fix = "free some, choose another --cache, fewer --blocks or --steps"
    check_free_space(config.cache, needed, f"the {len(pending)} rows need", fix)


def _turned_texts(cache: FeatureCache) -> str:
    """How many texts turn along with their images' views, and how the first of them does."""
    own = {row.id: row.text for row in cache.rows if row.view == 0 and row.text >= 0}
    turned: dict[int, int] = {}
    for row in cache.rows:
        if row.view and row.text >= 0 and row.text != own[row.id]:
            turned.setdefault(own[row.id], row.text)
    if not turned:
        return ""
    first, other = (textwrap.shorten(cache.texts[number], 90) for number in next(iter(turned.items())))
    return (
        f"{len(turned)} of {len(set(own.values()))} texts tell directions and turn with the views, as "
        f'"{first}" to "{other}"; --no-turn-texts leaves them'
    )


def say_time(rows: int, backbone: Extractor) -> None:
    """Says how long ``rows`` will take here."""
    seconds = backbone.estimate_seconds()
    console.info(f"estimated time: {console.duration(rows * seconds)} ({console.duration(seconds)} a row)")
