"""Stage one: every image once through the noised UNet, its decoder activations and its text into the cache."""

__all__ = ["ExtractConfig", "extract"]

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.pipeline import datasets, text, weights
from textdiff.pipeline.backbone import Backbone
from textdiff.pipeline.backbones.checkpoints import load_unet
from textdiff.pipeline.device import choose_device, resolve_precision
from textdiff.pipeline.extraction.config import ExtractConfig, check_blocks, check_config, tiling
from textdiff.pipeline.extraction.plan import say_plan
from textdiff.pipeline.extraction.prepare import Prepared, preparation
from textdiff.pipeline.extraction.table import mask_kind, sample_table
from textdiff.pipeline.protocol import get_protocol


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
    check_config(config)
    protocol = get_protocol(config.protocol)
    device = choose_device(config.device)
    precision = resolve_precision(config.precision, device)

    facts = _read_data(config)
    resolved = weights.resolve_backbone(config.backbone)
    unet = load_unet(resolved.path, image_size=config.image_size, device=device)
    blocks = tuple(range(len(unet.output_blocks))) if config.blocks is None else config.blocks
    check_blocks(blocks, len(unet.output_blocks), config.backbone)
    encoder = None
    if config.text_encoder != "none":
        encoder = text.load_text_encoder(config.text_encoder, pad_to=protocol.pad_to)

    tiles = tiling(config)
    rows, texts = sample_table(facts, config.views, tiles)
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
        **tiles,
        **mask_kind(facts),
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
    say_plan(cache, pending, backbone, device, config)
    if config.dry_run or not pending:
        return cache

    done = len(cache.rows) - len(cache.pending())
    try:
        with console.Progress(done + len(pending), "extract", "rows", done=done) as progress:
            _run(cache, pending, {fact.sample.id: fact for fact in facts}, backbone, protocol.resize, progress)
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
    facts: dict[str, datasets.Facts],
    backbone: Backbone,
    rule: str,
    progress: console.Progress,
) -> None:
    """Reads ahead and writes behind while the UNet works; at most one row is in flight on either side."""
    prepare = preparation(cache, facts, rule)
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


def _ahead(pool: ThreadPoolExecutor, prepare: Callable[[int], Prepared], rows: list[int]) -> Iterator[Prepared]:
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
