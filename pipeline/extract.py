"""Stage one: every image once through the noised UNet, its decoder activations and its text into the cache."""

__all__ = ["ExtractConfig", "extract"]

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.cache.stores import store_at
from textdiff.errors import UserError
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone
from textdiff.models.device import choose_device, describe_device, resolve_precision
from textdiff.options.extract import Extract
from textdiff.options.protocol import get_protocol
from textdiff.pipeline.extraction.config import ExtractConfig, check_fit, resolve, tiling
from textdiff.pipeline.extraction.crew import Crew, hire
from textdiff.pipeline.extraction.fill_rows import fill_rows, full_disk
from textdiff.pipeline.extraction.filling import Filling, begin_filling, end_filling
from textdiff.pipeline.extraction.job_array import say_shard
from textdiff.pipeline.extraction.plan import say_plan, say_time
from textdiff.pipeline.extraction.prepare import preparation
from textdiff.pipeline.extraction.requirements import require_models
from textdiff.pipeline.extraction.row_worker import Job, Order
from textdiff.pipeline.extraction.sample_table import mask_kind, read_samples, sample_table, turning
from textdiff.pipeline.extraction.sharing import shares
from textdiff.pipeline.extraction.timings import Timings


def extract(options: Extract) -> FeatureCache:
    """Fills the cache at ``options.cache`` with the rows it does not hold yet.

    Rows that are already there are kept if everything that determines the features is the same (the fingerprint), so
    running the same command again continues where it was stopped. If so, but the data set has changed, ``update`` makes
    a new cache beside the old one, of its rows as far as they hold, and puts it in its place once it is complete.

    Returns:
        The cache, opened; complete unless ``shard`` or ``dry_run`` says otherwise. A dry run makes none: it returns the
        one that is there, or ``FeatureCache.plan``'s. Where the time went, of all processes together,
        is in its ``filled``.

    Raises:
        UserError: bad input; weights that are not there; a cache made otherwise; a disk that cannot hold the rows.
        KeyboardInterrupt: the run was stopped; the rows in progress are dropped, all others are kept.
    """
    config = resolve(options)
    say_shard(config.shard, options.shard, os.environ)
    with hire(config) as crew:
        work = _Work(config, crew)
        filling = begin_filling(config, work.plan(), work.embed)
        work.encoder = None  # its memory is for the backbone
        return work.fill(filling)


class _Work:
    """What the options stand for: found, read and checked, before any work is done on it.

    Args:
        config: the options.
        crew: who computes; None for this process.
    """

    def __init__(self, config: ExtractConfig, crew: Crew | None) -> None:
        self.config, self.crew, self.protocol = config, crew, get_protocol(config.protocol)
        self.device = choose_device("cpu" if crew else config.device)
        self.precision = crew.precision if crew else resolve_precision(config.precision, self.device)
        self.resolved = require_models(config.dataset, config.data, config.backbone, config.text_encoder)
        self.network = load_backbone(
            self.resolved, config.image_size, self.device, config.seed, self.protocol.colour, config.enlarge
        )
        self.shapes = self.network.levels(config.image_size)
        every = config.given.get("blocks") == "all"
        self.blocks = config.blocks or (tuple(self.shapes) if every else self.network.usual(config.image_size))
        check_fit(config, self.network)
        self.facts = read_samples(config)
        self.encoder: text.TextEncoder | None = None
        if config.text_encoder != "none":
            self.encoder = text.load_text_encoder(config.text_encoder, pad_to=self.protocol.pad_to)

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Tokens and their mask, as the encoder gives them; nothing without one."""
        return self.encoder.encode(texts) if self.encoder else (None, None)

    def plan(self) -> dict[str, Any]:
        """The cache as it is to be, as arguments of :meth:`FeatureCache.plan`."""
        config, protocol, encoder, network = self.config, self.protocol, self.encoder, self.network
        tiles = tiling(config)
        words = turning(config)
        rows, texts = sample_table(
            self.facts, config.views, config.test_views, tiles, config.tissue, config.annotated_only, words
        )
        fingerprint = {
            "backbone_sha256": self.resolved.sha256,
            "blocks": list(self.blocks),
            "colour": protocol.colour,
            "dtype": config.dtype,
            "image_size": config.image_size,
            "max_tokens": encoder.max_tokens if encoder else None,
            "noise_seed": config.seed if network.steps else None,
            "pad_to": protocol.pad_to,
            "precision": self.precision,
            "resize": protocol.resize,
            "schema": 1,
            "steps": list(config.steps),
            "text_encoder_sha256": encoder.sha256 if encoder else None,
            "unet": network.config,
            **tiles,
            **({"jitter": config.jitter} if config.jitter else {}),
            **({"enlarge": config.enlarge} if config.enlarge > 1 else {}),
            **mask_kind(self.facts),
            **({"reads_text": True} if network.reads_text else {}),
        }
        if config.dry_run and config.overwrite and store_at(config.cache).occupied():
            raise UserError(
                f"{config.cache}: --overwrite would replace it before --dry-run stops; leave one of them out"
            )
        return {
            "fingerprint": fingerprint,
            "rows": rows,
            "blocks": {block: self.shapes[block] for block in self.blocks},
            "steps": config.steps,
            "image_size": config.image_size,
            "texts": texts,
            "about": {
                "dataset": config.dataset,
                "protocol": config.protocol,
                "backbone": self.resolved.name,
                **{f"backbone_{fact}": said for fact in ("licence", "revision") if (said := getattr(network, fact))},
                "backbone_parameters": sum(parameter.numel() for parameter in network.parameters()),
                "text_encoder": config.text_encoder,
                "options": config.given,
                **self._pretraining(),
                **({"turned_texts": words.record()} if words and config.text_encoder != "none" else {}),
            },
        }

    def _pretraining(self) -> dict[str, Any]:
        """What the cache tells of its backbone's training, and how many of these images it has seen there, by split."""
        told = dict(self.network.pretraining)
        if target := told.get("target"):
            known = tuple(target["sha256"])
            seen = Counter(fact.sample.split for fact in self.facts if fact.image.sha256.startswith(known))
            of = {name: target[name] for name in ("directory", "images")}
            told["target"] = of | {"seen_here": dict(sorted(seen.items()))}
            counts = ", ".join(f"{count} {split}" for split, count in sorted(seen.items())) or "none"
            name = self.config.backbone
            console.info(f"{name}: pretrained on images of its target, without labels; of these: {counts}")
        return {"pretraining": told} if told else {}

    def fill(self, filling: Filling) -> FeatureCache:
        """Takes over or makes each row that is missing, unless in a dry run; ends the filling."""
        config, cache = self.config, filling.cache
        facts = {fact.sample.id: fact for fact in self.facts}
        prepare = partial(preparation, cache, facts, self.protocol.resize, config.jitter, config.seed)
        taken: list[Timings] = []
        backbone = Extractor(self.network, config.steps, self.blocks, config.image_size, self.device, self.precision)
        with full_disk(config.cache, cache):
            if filling.old is not None:
                console.info(f"{config.cache}: {len(filling.taken)} rows are taken over, {len(filling.made)} are made")
            if filling.made or filling.old is None:
                where = self.crew.where if self.crew else describe_device(self.device)
                say_plan(cache, filling.made, config, where, self.precision)
                if filling.made and self.crew is None:
                    say_time(len(filling.made), backbone)
            for part in () if config.dry_run else shares(filling, config.shard):
                done = len(cache.rows) - len(cache.pending())
                with console.Progress(done + len(part.to_do), "extract", "rows", done=done) as progress:
                    if self.crew is None:
                        taken.append(fill_rows(part, prepare, backbone, progress.advance, config.batch))
                    else:
                        # What is taken over takes no time, and the caches it comes from are open here.
                        fill_rows(replace(part, made=[]), prepare, backbone, progress.advance)
                        taken.append(self.crew.fill(Job(Order.of(config, cache), cache, facts, part.made, progress)))
        if taken:
            of_whom = f" of {self.crew.where}" if self.crew else ""
            console.info(f"where the time{of_whom} went: {Timings.total(taken)}")
        if config.dry_run:
            return filling.old or cache
        complete = end_filling(filling)
        complete.filled = Timings.total(taken).as_json() if taken else None
        return complete
