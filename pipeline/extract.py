"""Stage one: every image once through the noised UNet, its decoder activations and its text into the cache."""

__all__ = ["Crew", "ExtractConfig", "Work", "extract"]

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.cache.create import CachePlan
from textdiff.cache.stores import store_at
from textdiff.errors import UserError
from textdiff.files import check_free_space, free_space
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.models.backbones.load import load_backbone
from textdiff.models.device import choose_device, describe_device, resolve_precision
from textdiff.options.extract import Extract
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.extraction.config import ExtractConfig, check_fit, require_models, resolve, say_shard, tiling
from textdiff.pipeline.extraction.fill_rows import fill_rows, full_disk
from textdiff.pipeline.extraction.filling import Filling, begin_filling, end_filling, shares
from textdiff.pipeline.extraction.prepare import preparation
from textdiff.pipeline.extraction.row_worker import Job, Order
from textdiff.pipeline.extraction.sample_table import mask_kind, read_samples, sample_table, turning
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
    with _hire(config) as crew:
        work = Work(config, crew)
        filling = begin_filling(config, work.plan(), work.embed)
        work.encoder = None  # its memory is for the backbone
        return work.fill(filling)


class Crew(Protocol):
    """Workers that fill a cache which is there, with all its metadata."""

    @property
    def precision(self) -> str:
        """What all of them compute in; it determines the features, so it is asked for first."""

    @property
    def where(self) -> str:
        """Who and where they are, in a few words."""

    def fill(self, job: Job) -> Timings:
        """Has the rows made; those of a worker that dies are done again by others.

        Returns:
            Where the time of all workers together went, but for what those did that died of it.

        Raises:
            UserError: bad input, or no worker is left; what is finished is kept.
        """


@contextmanager
def _hire(config: ExtractConfig) -> Iterator[Crew | None]:
    """The crew that the options ask for, until the work is done; None where this process does it.

    Raises:
        UserError: there is none to be had.
    """
    if config.scheduler is not None:
        from textdiff.pipeline.extraction.dask_crew import dask_crew

        with dask_crew(config.scheduler, config.device, config.precision) as crew:
            yield crew
    elif config.devices:
        from textdiff.pipeline.extraction.device_crew import DeviceCrew

        yield DeviceCrew(config.devices, config.precision)
    else:
        yield None


class Work:
    """What the options stand for: found, read and checked, before any work is done on it.

    Args:
        config: the options.
        crew: who computes; None for this process.
    """

    def __init__(self, config: ExtractConfig, crew: Crew | None) -> None:
        self.config, self.crew, self.protocol = config, crew, PROTOCOLS[config.protocol]
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

    def plan(self) -> CachePlan:
        """The cache as it is to be."""
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
            said = "was pretrained on images of its target, without labels; of the images here it saw"
            console.info(f"{self.config.backbone}: {said} {counts}")
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
                kept, made = (
                    f"{console.counted(len(rows), 'row')} {console.form(len(rows), 'is', 'are')}"
                    for rows in (filling.taken, filling.made)
                )
                console.info(f"{config.cache}: {kept} taken over, and {made} made")
            if filling.made or filling.old is None:
                where = self.crew.where if self.crew else describe_device(self.device)
                _say_plan(cache, filling.made, config, where, self.precision)
                if filling.made and self.crew is None:
                    _say_time(len(filling.made), backbone)
            for part in () if config.dry_run else shares(filling, config.shard):
                done = len(cache.rows) - len(cache.pending())
                with console.Progress(done + len(part.to_do), "extract", "rows", done=done) as progress:
                    if self.crew is None:
                        taken.append(fill_rows(part, prepare, backbone, progress.advance, config.batch))
                    else:
                        # What is taken over takes no time, and the caches it comes from are open here.
                        fill_rows(replace(part, made=[]), prepare, backbone, progress.advance)
                        taken.append(self.crew.fill(Job(Order.of(config, cache), cache, facts, part.made, progress)))
                        # A worker that died left what it was at, and the others sweep only when they begin.
                        cache.store.sweep()
        if taken:
            of_whom = f" of {self.crew.where}" if self.crew else ""
            console.info(f"where the time{of_whom} went: {Timings.total(taken)}")
        if config.dry_run:
            return filling.old or cache
        complete = end_filling(filling)
        complete.filled = Timings.total(taken).as_json() if taken else None
        return complete


def _say_plan(cache: FeatureCache, pending: Sequence[int], config: ExtractConfig, where: str, precision: str) -> None:
    """Says what is about to happen and refuses what cannot."""
    total = len(cache.rows)
    if not pending:
        console.info(f"{config.cache}: is complete, with {console.counted(total, 'row')}; there is nothing to do")
        return
    needed = len(pending) * cache.row_nbytes
    shapes = ", ".join(f"b{block:02d} {c}@{h}" for block, (c, h, _) in cache.blocks.items())
    licence = cache.about.get("backbone_licence", "")
    under = licence and f"; its licence is {licence}"
    console.info(f"the backbone {cache.about['backbone']} runs on {where}, in {precision}{under}")
    blocks = console.form(len(cache.blocks), "block {} is", "blocks {} are").format(shapes)
    steps = f"{console.form(len(cache.steps), 'step', 'steps')} {', '.join(map(str, cache.steps))}"
    reads = config.text_encoder != "none"
    texts = f"{config.text_encoder} embeds the texts" if reads else "no text is embedded"
    console.info(f"{blocks} kept (channels@side) at {steps}; {texts}")
    if config.views > 1:
        colours = f" in varied colours ({config.jitter})" if config.jitter else ""
        console.info(f"{config.views} views of each annotated training image{colours} are stored; --views 1 stores one")
    if config.test_views > 1:
        console.info(
            f"{config.test_views} views of each annotated validation and test image are stored; "
            "scores are of the mean over them"
        )
    if reads and (said := _turned_texts(cache)):
        console.info(said)
    free = f" of {console.size(free_space(config.cache))} free" if isinstance(config.cache, Path) else ""
    console.info(
        f"{config.cache}: {len(pending)} of {console.counted(total, 'row')} "
        f"{console.form(len(pending), 'is', 'are')} to do, {console.size(cache.row_nbytes)} each, "
        f"{console.size(needed)}{free}"
    )
    fix = "free some, choose another --cache, fewer --blocks or --steps"
    check_free_space(
        config.cache,
        needed,
        f"the {console.counted(len(pending), 'row')} {console.form(len(pending), 'needs', 'need')}",
        fix,
    )


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
        f"{console.some(len(turned), len(set(own.values())), 'text', 'tells', 'tell')} directions and "
        f"{console.form(len(turned), 'turns', 'turn')} with the views, as "
        f'"{first}" to "{other}"; --no-turn-texts leaves them'
    )


def _say_time(rows: int, backbone: Extractor) -> None:
    """Says how long ``rows`` will take here."""
    seconds = backbone.estimate_seconds()
    console.info(f"estimated time: {console.duration(rows * seconds)} ({console.duration(seconds)} a row)")
