"""Which rows of a split are scored, and what to do where none is."""

__all__ = ["scored_rows"]

from functools import partial

import numpy as np

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError, quoted
from textdiff.images.images import resize_mask
from textdiff.pipeline.prediction.streamed import StreamedImages
from textdiff.pipeline.training.image_digests import shortened
from textdiff.pipeline.training.labelled import silent_images
from textdiff.readers import READERS
from textdiff.readers.presets import get_preset


def scored_rows(cache: FeatureCache, split: str) -> list[int]:
    """The annotated rows of a split: of training images the unturned views only, of the others all that are cached.

    Those of an image whose mask says nothing are left out, and so are those of one that says too little to be seen at
    the cache's image size.
    """
    rows = [r for r, entry in enumerate(cache.rows) if entry.split == split and (entry.view == 0 or split != "train")]
    annotated = [row for row in rows if cache.rows[row].mask_sha256 is not None]
    ids, masked = ({cache.rows[row].id for row in some} for some in (rows, annotated))
    if not annotated:
        raise UserError(
            f"{cache.path}: the {split} split has no image with a mask, so there is nothing to score; "
            f"{_what_to_score(cache, split)}"
        )
    cache.check_done(annotated, f"of {len(masked)} {split} images")
    if len(masked) < len(ids):
        left = len(ids) - len(masked)
        has, is_ = console.form(left, "has", "have"), console.form(left, "is", "are")
        console.warn(f"{left} of {len(ids)} {split} images {has} no mask and {is_} not scored")
    if silent := silent_images(cache, annotated, partial(_seen_truth, cache)):
        if len(silent) == len(masked):
            raise UserError(f"{cache.path}: no mask of a {split} image says anything, so there is nothing to score")
        whose = "the mask of 1" if len(silent) == 1 else f"the masks of {len(silent)}"
        says, is_ = ("says", "is") if len(silent) == 1 else ("say", "are")
        what = f"{whose} of {console.counted(len(masked), f'{split} image')} {says} nothing and {is_} not scored"
        console.warn(f"{what}: {shortened(silent)}")
    return [row for row in annotated if cache.rows[row].id not in silent]


def _what_to_score(cache: FeatureCache, split: str) -> str:
    """What to do where no image of a split has a mask."""
    masked = {entry.split for entry in cache.rows if entry.mask_sha256 is not None}
    other = next((name for name in ("test", "val") if name in masked), None)
    score = "" if other is None else f"use --split {other}, or "
    kind = get_preset(str(cache.about["dataset"])) if cache.about.get("dataset") in READERS else None
    column = "column split of texts.csv" if kind is not None and kind.mask_place else "docs/data.md"
    masks = f"{score}give masks to images of the split {split} ({column})"
    if isinstance(cache, StreamedImages):
        return masks
    masks += f" and run `textdiff extract --cache {quoted(cache.path)} --update`"
    options = cache.about.get("options", {})
    if {"val", "test"} & {*options} or all(entry.split == "train" for entry in cache.rows):
        return f"{masks}, or keep some by its --val 0.2 --test 0.2 and fit again"
    return masks  # of a data set with splits of its own none are drawn


def _seen_truth(cache: FeatureCache, row: int) -> np.ndarray | None:
    """The truth of a row as it is first scored: in the cache's image size, but for tiles."""
    truth = cache.truth(row)
    if truth is None or cache.rows[row].tile:
        return truth
    return resize_mask(truth, cache.image_size, "area", len(cache.classes) + 1)
