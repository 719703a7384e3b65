"""Stage one: every image once through the noised UNet, its decoder activations and its text into the cache."""

__all__ = ["ExtractConfig", "extract"]

import errno
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textdiff import console
from textdiff.cache import FeatureCache, Row
from textdiff.errors import UserError
from textdiff.pipeline import datasets, diffusion, text, weights
from textdiff.pipeline.backbone import Backbone
from textdiff.pipeline.backbones.checkpoints import load_unet
from textdiff.pipeline.device import choose_device, describe_device, resolve_precision
from textdiff.pipeline.imaging import images
from textdiff.pipeline.imaging.tiles import Grid, check_tiles, cut
from textdiff.pipeline.protocol import get_protocol
from textdiff.readers.load import load_image, load_mask
from textdiff.readers.options import ReadOptions

VIEWS = (1, 8)


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
    """1, or 8 to store the eight symmetries of every training image."""
    seed: int = 0
    """Seed of the one noise draw that all images share."""
    protocol: str = "clean"
    dtype: str = "float16"
    precision: str = "auto"
    device: str = "auto"
    shard: tuple[int, int] = (0, 1)
    """(i, n): do every n-th row from the i-th, so that n processes can share one cache."""
    overwrite: bool = False
    skip_bad: bool = False
    """Leave out the images that have errors instead of stopping."""
    dry_run: bool = False
    """Stop after the plan."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    """How the data set is read: classes, instances, splits to draw."""


@dataclass(frozen=True)
class _Prepared:
    """A row that is ready for the UNet."""

    row: int
    image: np.ndarray
    mask: np.ndarray | None
    truth: np.ndarray | None
    instances: np.ndarray | None


def extract(config: ExtractConfig) -> FeatureCache:
    """Fills the cache at ``config.cache`` with the rows it does not hold yet.

    Rows that are already there are kept if everything that determines the features is the same (the fingerprint), so
    running the same command again continues where it was stopped.

    Returns:
        The cache, opened for reading; complete unless ``shard`` or ``dry_run`` says otherwise.

    Raises:
        UserError: bad input; weights that are not there; a cache made otherwise; a disk that cannot hold the rows.
        KeyboardInterrupt: the run was stopped; the row in progress is dropped, all others are kept.
    """
    _check(config)
    protocol = get_protocol(config.protocol)
    device = choose_device(config.device)
    precision = resolve_precision(config.precision, device)

    facts = _read_data(config)
    resolved = weights.resolve_backbone(config.backbone)
    unet = load_unet(resolved.path, image_size=config.image_size, device=device)
    blocks = tuple(range(len(unet.output_blocks))) if config.blocks is None else config.blocks
    _check_blocks(blocks, len(unet.output_blocks), config.backbone)
    encoder = None
    if config.text_encoder != "none":
        encoder = text.load_text_encoder(config.text_encoder, pad_to=protocol.pad_to)

    tiling = _tiling(config)
    rows, texts = _rows(facts, config.views, tiling)
    fingerprint = {
        "backbone_sha256": resolved.sha256,
        "blocks": list(blocks),
        "colour": protocol.colour,
        "dtype": config.dtype,
        "image_size": config.image_size,
        "max_tokens": encoder.max_tokens if encoder else None,
        "noise_seed": config.seed,
        "pad_to": protocol.pad_to,
        "precision": precision,
        "resize": protocol.resize,
        "schema": 1,
        "steps": list(config.steps),
        "text_encoder_sha256": encoder.sha256 if encoder else None,
        "unet": unet.config,
        **tiling,
        **_mask_kind(facts),
    }
    if config.dry_run and config.overwrite and config.cache.exists():
        raise UserError(f"{config.cache}: --overwrite would replace it before --dry-run stops; leave one of them out")
    if config.cache.exists() and not config.overwrite:
        cache = FeatureCache.open(config.cache, writable=True)
        cache.check_fingerprint(fingerprint, rows, texts)
    else:
        tokens, token_mask = encoder.encode(texts) if encoder else (None, None)
        shapes = unet.block_shapes(config.image_size)
        cache = FeatureCache.create(
            config.cache,
            fingerprint=fingerprint,
            rows=rows,
            blocks={block: shapes[block] for block in blocks},
            steps=config.steps,
            image_size=config.image_size,
            texts=texts,
            tokens=tokens,
            token_mask=token_mask,
            about={
                "dataset": config.dataset,
                "protocol": config.protocol,
                "backbone": config.backbone,
                "text_encoder": config.text_encoder,
            },
            overwrite=config.overwrite,
            room_for=len(range(config.shard[0], len(rows), config.shard[1])),
        )
    del encoder

    shard, shards = config.shard
    pending = [row for row in cache.pending() if row % shards == shard]
    backbone = Backbone(unet, config.steps, blocks, config.seed, config.image_size, protocol.colour, precision)
    _plan(cache, pending, backbone, device, config)
    if config.dry_run or not pending:
        return cache

    sources = {(fact.sample.id): fact for fact in facts}
    done = len(cache.rows) - len(cache.pending())
    try:
        with console.Progress(done + len(pending), "extract", "rows", done=done) as progress:
            _run(cache, pending, sources, backbone, protocol.resize, progress)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = len(cache.pending())
        raise UserError(
            f"{config.cache}: the disk is full; the {len(cache.rows) - left} finished rows are safe. Free "
            f"{console.size(left * cache.row_nbytes)} and run the same command again to go on"
        ) from error
    return cache


def _run(
    cache: FeatureCache,
    pending: list[int],
    sources: dict[str, datasets.Facts],
    backbone: Backbone,
    rule: str,
    progress: console.Progress,
) -> None:
    """Reads ahead and writes behind while the UNet works; at most one row is in flight on either side."""
    # The views and tiles of an image follow one another: it is decoded once for all of them.
    read_image, read_mask = lru_cache(1)(load_image), lru_cache(1)(load_mask)

    def prepare(row: int) -> _Prepared:
        entry = cache.rows[row]
        sample = sources[entry.id].sample

        def shown(pixels: np.ndarray) -> np.ndarray:
            return images.symmetry(cut(pixels, entry.y, entry.x, entry.tile) if entry.tile else pixels, entry.view)

        size = cache.image_size
        image = images.resize_image(shown(read_image(sample.image).pixels), size, rule)
        if sample.mask is None:
            return _Prepared(row, image, None, None, None)
        stored = read_mask(sample, entry.height, entry.width)
        truth = shown(stored.labels)
        mask = images.resize_mask(truth, size, rule, classes=len(cache.classes) + 1)
        if not entry.has_truth:
            return _Prepared(row, image, mask, None, None)
        h, w = entry.truth_shape
        objects = None if stored.instances is None else shown(stored.instances)[:h, :w]
        return _Prepared(row, image, mask, truth[:h, :w], objects)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        try:
            for prepared in _ahead(reader, prepare, pending):
                features = backbone(prepared.image)
                if written is not None:
                    written.result()
                    progress.advance()
                written = writer.submit(
                    cache.write,
                    prepared.row,
                    features,
                    prepared.image,
                    prepared.mask,
                    prepared.truth,
                    prepared.instances,
                )
            if written is not None:
                written.result()
                progress.advance()
        except BaseException:
            reader.shutdown(wait=False, cancel_futures=True)
            raise


def _ahead(pool: ThreadPoolExecutor, prepare: Any, rows: list[int]) -> Iterator[_Prepared]:
    """``map(prepare, rows)`` with one call running ahead of the consumer."""
    following = pool.submit(prepare, rows[0])
    for row in rows[1:]:
        current, following = following, pool.submit(prepare, row)
        yield current.result()
    yield following.result()


def _read_data(config: ExtractConfig) -> list[datasets.Facts]:
    """Reads and checks the whole data set before any work is done on it."""
    samples, problems = datasets.read_dataset(config.dataset, config.data, config.reading)
    with console.Progress(len(samples), "check", "images") as progress:
        facts, found = datasets.inspect(samples, progress.advance, tiled=config.tile is not None)
    problems += found
    if config.skip_bad:
        bad = [problem for problem in problems if problem.severity == "error"]
        for problem in bad:
            console.warn(f"left out: {problem}")
        problems = [problem for problem in problems if problem.severity != "error"]
        facts = [fact for fact in facts if fact.usable]
    datasets.report(problems)
    if not facts:
        raise UserError(f"{config.data}: no usable image is left")
    return facts


def _tiling(config: ExtractConfig) -> dict[str, int]:
    """What the fingerprint says about tiles: nothing where there are none."""
    if config.tile is None:
        return {}
    return {"tile": config.tile, "overlap": config.tile // 8 if config.overlap is None else config.overlap}


def _rows(facts: list[datasets.Facts], views: int, tiling: dict[str, int]) -> tuple[list[Row], list[str]]:
    """The sample table, one row per (sample, tile, view), and the distinct texts in the order of their first use."""
    tile = tiling.get("tile", 0)
    index: dict[str, int] = {}
    rows = []
    for fact in facts:
        sample = fact.sample
        number = index.setdefault(sample.text, len(index))
        places = Grid(fact.height, fact.width, tile, tiling["overlap"]).places if tile else [(0, 0)]
        rows += [
            Row(
                id=sample.id,
                split=sample.split,
                view=view,
                text=number,
                source=sample.image.name,
                image_sha256=fact.image_sha256,
                mask_sha256=fact.mask_sha256,
                height=fact.height,
                width=fact.width,
                tile=tile,
                y=y,
                x=x,
            )
            for y, x in places
            for view in range(views if sample.split == "train" else 1)
        ]
    return rows, list(index)


def _mask_kind(facts: list[datasets.Facts]) -> dict[str, Any]:
    """What the fingerprint says about masks that hold more than foreground; nothing where they do not."""
    sample = facts[0].sample
    if sample.classes:
        return {"classes": list(sample.classes)}
    if sample.instances:
        return {"instances": "uint16" if max(fact.objects for fact in facts) < 2**16 else "uint32"}
    return {}


def _plan(
    cache: FeatureCache, pending: list[int], backbone: Backbone, device: torch.device, config: ExtractConfig
) -> None:
    """Says what is about to happen and refuses what cannot."""
    total = len(cache.rows)
    if not pending:
        console.info(f"{cache.path}: complete, {total} rows; nothing to do")
        return
    needed = len(pending) * cache.row_nbytes
    free = shutil.disk_usage(cache.path).free
    shapes = ", ".join(f"b{block:02d} {c}@{h}" for block, (c, h, _) in cache.blocks.items())
    console.info(f"backbone {config.backbone} on {describe_device(device)}, {backbone.precision}")
    console.info(f"blocks {shapes}; steps {', '.join(map(str, cache.steps))}; text encoder {config.text_encoder}")
    console.info(
        f"{cache.path}: {len(pending)} of {total} rows to do, {console.size(cache.row_nbytes)} each, "
        f"{console.size(needed)} of {console.size(free)} free"
    )
    if needed > free:
        raise UserError(
            f"{cache.path}: the {len(pending)} rows need {console.size(needed)} and the disk has {console.size(free)} "
            "free; free some, choose another --cache, fewer --blocks or --steps"
        )
    seconds = backbone.estimate_seconds()
    console.info(f"estimated time: {console.duration(len(pending) * seconds)} ({console.duration(seconds)} a row)")


def _check(config: ExtractConfig) -> None:
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
    if config.views not in VIEWS:
        raise UserError(f"--views {config.views}: must be 1 or 8 (the eight symmetries)")
    if config.dtype not in ("float16", "float32"):
        raise UserError(f"--dtype {config.dtype}: must be float16 or float32")
    if config.image_size < 32 or config.image_size % 32:
        raise UserError(f"--image-size {config.image_size}: must be a multiple of 32, as the UNet halves it five times")
    check_tiles(config.tile, config.overlap)
    if not 0 <= config.shard[0] < config.shard[1]:
        raise UserError(f"--shard {config.shard[0]}/{config.shard[1]}: must be i/n with 0 <= i < n")


def _check_blocks(blocks: tuple[int, ...], count: int, backbone: str) -> None:
    wrong = [block for block in blocks if not 0 <= block < count]
    if wrong:
        raise UserError(f"--blocks {wrong[0]}: the backbone {backbone} has decoder blocks 0..{count - 1}")
