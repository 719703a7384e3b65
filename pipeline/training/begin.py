"""A fit begins: its options are resolved, its training images drawn, and a run directory says all of that."""

__all__ = ["begin", "draw_images"]

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError, few, quoted
from textdiff.files import sha256_file
from textdiff.images.directions import Directions
from textdiff.models.device import choose_device, describe_device, resolve_precision
from textdiff.models.networks.models import check_mean_teacher, get_model, get_recipe
from textdiff.models.networks.recipes import Recipe
from textdiff.models.networks.segmenter import Segmenter
from textdiff.models.networks.variants import assign_texts
from textdiff.options.fit import MEAN_TEACHER, FitConfig
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.prediction.blank import blank_limit
from textdiff.pipeline.prediction.unlike import FILE as LIKENESS
from textdiff.pipeline.prediction.unlike import Likeness, training_contrasts
from textdiff.pipeline.program import git_revision, versions
from textdiff.pipeline.runs import SCHEMA, Run, write_config
from textdiff.pipeline.training.epochs import rows_by_tile
from textdiff.pipeline.training.image_digests import image_digests
from textdiff.pipeline.training.labelled import Labelled, silent_images
from textdiff.pipeline.training.unlabelled import unlabelled_record

_NAMED = 8
"""Images that are named at most where many are left out."""


def begin(config: FitConfig, directory: Callable[[str], Path]) -> Run:
    """Makes a run directory that :func:`resume` can train, with all options resolved and the training images drawn.

    Args:
        config: the options.
        directory: makes the directory, or finds its place, for a cache's name.

    Raises:
        UserError: bad options, or a cache that cannot be fitted.
    """
    assert config.cache is not None
    cache = FeatureCache.open(config.cache)
    device = choose_device(config.device)
    draw_seed = config.seed if config.draw_seed is None else config.draw_seed
    train_ids, val_ids = draw_images(cache, config.labels, draw_seed)
    labelled = Labelled(cache, {"label_pixels": config.label_pixels, "draw_seed": draw_seed})
    tiles = rows_by_tile(cache)
    if not labelled.all:
        labelled.check(train_ids)
    if absent := labelled.absent(train_ids):
        size = f"{cache.image_size}x{cache.image_size} pixels{' among those drawn' if config.label_pixels else ''}"
        what = ("foreground", "nothing") if len(absent) == len(cache.classes) else (", ".join(absent), "none of it")
        console.warn(f"no training mask has any {what[0]} at {size}: the run learns to find {what[1]}")
    shown = sum(labelled.has(tile[0]) for name in train_ids for tile in tiles[name])
    config, recipe = _resolve(replace(config, draw_seed=draw_seed), cache, device, shown)
    if config.positions and not get_model(config.model).locates:
        raise UserError(f"--positions: {get_model(config.model).title} takes none; leave it out")
    check_mean_teacher(config)
    if config.places:
        _check_places(config, cache)
    network = get_model(config.model).build(cache, config, recipe)
    if config.select == "average" and not any(True for _ in network.parameters()):
        raise UserError(f"--select average: {network.title} have no weights to average; leave it out")
    if config.places and not _names_places(cache, network, train_ids):
        console.warn(
            "--places: no text of the training images names a place by words that are known, so their maps say "
            "nothing; give your words with extract --direction-words (docs/texts.md)"
        )
    learns_texts = network.reads.text and config.variant != "no-text" and "no-text" in network.variants
    if learns_texts and not any(_texts(cache, train_ids)):
        console.warn("no training image has a text, so nothing is learnt from texts; fit with --variant no-text")
    window = _window(config, recipe, cache, network)
    pretrained = _begin_pretrained(config, network, cache)
    shown_ids = [entry.id for entry in cache.rows if entry.split == "train"] if config.unlabelled else train_ids
    texts = assign_texts(cache, config.variant, draw_seed, shown_ids)
    unlabelled = unlabelled_record(cache, train_ids, config.unlabelled, texts) if config.unlabelled else None
    blank_below = blank_limit(cache, [*train_ids, *val_ids])
    record = {
        "schema": SCHEMA,
        "fit": asdict(config) | {"cache": str(config.cache), "window": window, "pretrained": pretrained},
        "pretrained_sha256": pretrained and sha256_file(Path(pretrained)),
        "model": config.model,
        "recipe": recipe._asdict(),
        "head": network.config,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "cache": str(cache.path.resolve()),
        "about": cache.about,
        "fingerprint": cache.fingerprint,
        "fingerprint_hash": cache.fingerprint_hash,
        "train_ids": train_ids,
        "val_ids": val_ids,
        "images": image_digests(cache, [*train_ids, *val_ids], texts),
        "unlabelled": unlabelled,
        "blank_below": blank_below,
        "device": describe_device(device),
        "versions": versions(),
        "git": git_revision(),
        "command": sys.argv,
    }
    contrasts = training_contrasts(cache, network, train_ids, blank_below)
    run = Run(directory(cache.path.resolve().stem))
    try:
        write_config(run, record | {"likeness_sha256": Likeness.save(run, contrasts)})
    except BaseException:
        with suppress(OSError):  # it is not empty: another process writes there
            (run.path / LIKENESS).unlink(missing_ok=True)
            run.path.rmdir()
        raise
    return run


def _texts(cache: FeatureCache, ids: Sequence[str]) -> set[str]:
    """The distinct texts of some images, in all their forms; none of a cache that was made without a text encoder."""
    wanted = set(ids)
    known = {row.text for row in cache.rows if row.id in wanted}
    return {cache.texts[number] for number in known if number >= 0}


def _check_places(config: FitConfig, cache: FeatureCache) -> None:
    """Refuses ``--places`` where no text is read, or where what the network sees is not the image that the text is of.

    Raises:
        UserError: for that.
    """
    model = get_model(config.model)
    if not model.maps_places:
        raise UserError(f"--places: {model.title} takes none; leave it out")
    if config.variant == "no-text":
        raise UserError("--places: the variant no-text reads no text; leave one of them out")
    if cache.text_dim is None:
        raise UserError(f"--places: {cache.path} was extracted with --text-encoder none; extract with a text encoder")
    if cache.rows[0].tile:
        raise UserError(f"--places: {cache.path} holds tiles, and a text says where in the whole image; leave it out")


def _names_places(cache: FeatureCache, network: Segmenter, ids: Sequence[str]) -> bool:
    """Whether a text of these images names a place, by the network's table of words."""
    words, wanted = Directions.of(network.config["places"]), set(ids)
    return any(words.places(cache.sentence(row)) for row, entry in enumerate(cache.rows) if entry.id in wanted)


def draw_images(cache: FeatureCache, labels: int | None, seed: int) -> tuple[list[str], list[str]]:
    """The ids to train on and to select by: only images whose rows are in the cache, with a mask that says something.

    Raises:
        UserError: rows are missing, or there are fewer such images than ``labels``.
    """
    rows = [row for row, entry in enumerate(cache.rows) if entry.split in ("train", "val") and entry.has_mask]
    cache.check_done(rows, "annotated train or val images")
    ids = {split: {cache.rows[row].id for row in rows if cache.rows[row].split == split} for split in ("train", "val")}
    if silent := silent_images(cache, [row for row in rows if cache.rows[row].view == 0], cache.mask):
        size = f"{cache.image_size}x{cache.image_size} pixels"
        console.warn(
            f"the {console.form(len(silent), 'mask', 'masks')} of {console.counted(len(silent), 'image')} "
            f"{console.form(len(silent), 'says', 'say')} nothing at {size}, so "
            f"{console.form(len(silent), 'it is', 'they are')} not drawn: {few(silent, _NAMED)}"
        )
        ids = {split: names.difference(silent) for split, names in ids.items()}
    available = sorted(ids["train"])
    if not available:
        what, fix = "is there", f"draw some, and run `textdiff extract --cache {quoted(cache.path)} --update`"
        if silent:
            what, fix = "says anything", "draw wider strokes, or extract with a larger --image-size"
        raise UserError(f"{cache.path}: no mask of a training image {what}, so there is nothing to fit; {fix}")
    if labels is not None and labels > len(available):
        raise UserError(
            f"--labels {labels}: the cache has {console.counted(len(available), 'annotated training image')}; use "
            f"{console.form(len(available), '1', f'1..{len(available)}')}"
        )
    if labels is not None:
        drawn = np.random.default_rng([seed, 0xD4A]).choice(len(available), size=labels, replace=False)
        available = [available[index] for index in sorted(drawn)]
    return available, sorted(ids["val"])


def _resolve(config: FitConfig, cache: FeatureCache, device: torch.device, images: int) -> tuple[FitConfig, Recipe]:
    """The options with what recipe and protocol say where they say nothing, for so many images (or tiles) an epoch."""
    name = config.recipe or get_model(config.model).usual_recipe(cache)
    recipe = get_recipe(config.model, name)
    # Stopping early is of no use but to the weights that were best.
    select = config.select or ("best" if config.patience else recipe.select)
    if config.unlabelled == MEAN_TEACHER and select == "last":
        select = "average"  # which the teacher is; that of the best epoch is one, too
    batch_size = config.batch_size or recipe.batch_size
    batch = min(batch_size, images)
    in_epoch = math.ceil(images / batch)
    rate = recipe.learning_rate * (batch / recipe.rate_batch if recipe.rate_batch else 1)
    # A recipe whose length is in steps counts all else that takes time in them too.
    unit = in_epoch if recipe.steps else 1
    epochs = recipe.steps and math.ceil(recipe.steps / unit)
    patience = recipe.patience and math.ceil(recipe.patience / unit)
    every = math.ceil(recipe.validate_every / unit)
    resolved = replace(
        config,
        recipe=name,
        epochs=config.epochs or recipe.epochs or epochs or PROTOCOLS[config.protocol].epochs,
        learning_rate=config.learning_rate or rate,
        schedule=config.schedule or recipe.schedule,
        decay_epoch=recipe.decay_epoch if config.decay_epoch is None else config.decay_epoch,
        batch_size=batch_size,
        select=select,
        patience=config.patience or (patience if select == "best" else None),
        validate_every=config.validate_every or (every if select in (recipe.select, "average") else 1),
        precision=resolve_precision(config.precision, device),
    )
    return resolved, recipe


def _begin_pretrained(config: FitConfig, network: Segmenter, cache: FeatureCache) -> str | None:
    """The file of weights to begin with, once it has been read; says where there could be one."""
    path = network.own_weights(cache) if config.pretrained is None else Path(config.pretrained).resolve()
    if path is not None:
        network.load_pretrained(path)
        return str(path)
    if network.pretrained:
        console.info(
            f"{config.model} begins with random weights; its authors began with pretrained ones "
            f"({network.pretrained}), which --pretrained reads"
        )
    return None


def _window(config: FitConfig, recipe: Recipe, cache: FeatureCache, network: Segmenter) -> int | None:
    """The size of the windows to train on, None for whole images."""
    whole, grid = cache.image_size, network.grid(cache)
    if config.window is None:
        fits = recipe.window and grid and recipe.window < whole and recipe.window % grid == 0
        return recipe.window if fits else None
    if grid is None:
        raise UserError(f"--window {config.window}: {config.model} is not trained on squares of an image; leave it out")
    if config.window % grid or not 0 <= config.window <= whole:
        raise UserError(
            f"--window {config.window}: must be a multiple of {grid} up to {whole}; a position of the coarsest block "
            f"stands for {grid} pixels"
        )
    return config.window or None
