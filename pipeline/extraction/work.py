"""What the options of ``extract`` stand for: the data set, read and checked, the networks, and the cache to be made."""

__all__ = ["Work", "plan_of", "resolve_work"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.cache.stores import store_at
from textdiff.errors import UserError
from textdiff.models import text
from textdiff.models.backbones.base import Backbone
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone
from textdiff.models.device import choose_device, resolve_precision
from textdiff.models.weights import ResolvedWeights
from textdiff.options.extract import Extract
from textdiff.options.protocol import Protocol, get_protocol
from textdiff.pipeline.extraction.config import ExtractConfig, check_fit, colours, resolve, tiling
from textdiff.pipeline.extraction.prepare import Prepared, preparation
from textdiff.pipeline.extraction.requirements import require_models
from textdiff.pipeline.extraction.sample_table import mask_kind, sample_table
from textdiff.readers import datasets


@dataclass
class Work:
    """What the options stand for: the data set, what a row goes through, and which rows are this process's."""

    config: ExtractConfig
    protocol: Protocol
    device: torch.device
    precision: str
    resolved: ResolvedWeights
    facts: list[datasets.Inspected]
    network: Backbone
    shapes: dict[int, tuple[int, int, int]]
    blocks: tuple[int, ...]
    encoder: text.TextEncoder | None

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Tokens and their mask, as the encoder gives them; nothing without one."""
        return self.encoder.encode(texts) if self.encoder else (None, None)

    def preparation(self, cache: FeatureCache) -> Callable[[], Callable[[int], Prepared]]:
        """Makes the functions that make rows of ``cache`` ready, one for each thread."""
        facts = {fact.sample.id: fact for fact in self.facts}
        config, rule = self.config, self.protocol.resize
        return lambda: preparation(cache, facts, rule, config.jitter, config.seed)

    def extractor(self) -> Extractor:
        """The backbone with everything fixed."""
        config = self.config
        return Extractor(self.network, config.steps, self.blocks, config.image_size, self.device, self.precision)


def resolve_work(options: Extract) -> Work:
    """Finds, reads and checks what the options name, before any work is done on it."""
    config = resolve(options)
    protocol = get_protocol(config.protocol)
    device = choose_device(config.device)
    precision = resolve_precision(config.precision, device)

    resolved = require_models(config.dataset, config.data, config.backbone, config.text_encoder)
    network = load_backbone(resolved, config.image_size, device, config.seed, protocol.colour)
    shapes = network.levels(config.image_size)
    blocks = tuple(shapes) if config.blocks is None else config.blocks
    check_fit(config, network)
    facts = _read_data(config)
    encoder = None
    if config.text_encoder != "none":
        encoder = text.load_text_encoder(config.text_encoder, pad_to=protocol.pad_to)
    return Work(config, protocol, device, precision, resolved, facts, network, shapes, blocks, encoder)


def plan_of(work: Work) -> dict[str, Any]:
    """The cache as it is to be, as arguments of :meth:`FeatureCache.plan`: its rows, texts, levels and fingerprint."""
    config, protocol, encoder = work.config, work.protocol, work.encoder
    tiles = tiling(config)
    rows, texts = sample_table(work.facts, config.views, config.test_views, tiles)
    fingerprint = {
        "backbone_sha256": work.resolved.sha256,
        "blocks": list(work.blocks),
        "colour": protocol.colour,
        "dtype": config.dtype,
        "image_size": config.image_size,
        "max_tokens": encoder.max_tokens if encoder else None,
        "noise_seed": config.seed if work.network.steps else None,
        "pad_to": protocol.pad_to,
        "precision": work.precision,
        "resize": protocol.resize,
        "schema": 1,
        "steps": list(config.steps),
        "text_encoder_sha256": encoder.sha256 if encoder else None,
        "unet": work.network.config,
        **tiles,
        **colours(config),
        **mask_kind(work.facts),
        **({"reads_text": True} if work.network.reads_text else {}),
    }
    if config.dry_run and config.overwrite and store_at(config.cache).occupied():
        raise UserError(f"{config.cache}: --overwrite would replace it before --dry-run stops; leave one of them out")
    return {
        "fingerprint": fingerprint,
        "rows": rows,
        "blocks": {block: work.shapes[block] for block in work.blocks},
        "steps": config.steps,
        "image_size": config.image_size,
        "texts": texts,
        "about": {
            "dataset": config.dataset,
            "protocol": config.protocol,
            "backbone": config.backbone,
            "backbone_parameters": sum(parameter.numel() for parameter in work.network.parameters()),
            "text_encoder": config.text_encoder,
            "options": config.given,
        },
    }


def _read_data(config: ExtractConfig) -> list[datasets.Inspected]:
    """Reads and checks the whole data set before any work is done on it."""
    samples, problems = datasets.read_dataset(config.dataset, config.data, config)
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
