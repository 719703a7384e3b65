"""Scored images that are not what they seem: copies of training images, others of their patients, copies of others."""

__all__ = ["leaks_note", "learned_from", "to_learn_from"]

from collections.abc import Mapping, Sequence
from typing import Any

from textdiff.cache import FeatureCache
from textdiff.console import form, some
from textdiff.errors import few
from textdiff.pipeline.training.image_digests import Digests, image_digests, unlabelled_digests

_NAMED = 3


def learned_from(config: Mapping[str, Any]) -> dict[str, Digests]:
    """The images that a run learned from, with labels and without, by their ids."""
    labelled, unlabelled = set(config["train_ids"]), unlabelled_digests(config)
    return {name: digests for name, digests in config["images"].items() if name in labelled} | unlabelled


def to_learn_from(cache: FeatureCache) -> dict[str, Digests]:
    """The annotated training images of a cache, by their ids."""
    ids = {entry.id for entry in cache.rows if entry.split == "train" and entry.mask_sha256 is not None}
    return image_digests(cache, ids, {row: row for row in range(len(cache.rows))})


def leaks_note(
    fitted: Mapping[str, Digests], cache: FeatureCache, split: str, facts: Mapping[str, Sequence[object]]
) -> str:
    """What a reader of the scores must know of such images; empty where there are none.

    A copy is known by its file. Whose an image is, is known where the cache has the training images, too.

    Args:
        fitted: the training images, see ``learned_from`` and ``to_learn_from``.
        cache: where the scored images are.
        split: theirs; where it is ``train`` only copies of one another are told.
        facts: the digests of the scored images and of their masks, by their ids.
    """
    if split == "train":
        fitted = {}
    pictures = {digests[0]: name for name, digests in fitted.items()}
    copies = [f"{name} of {pictures[digests[0]]}" for name, digests in facts.items() if digests[0] in pictures]
    groups = {entry.group for entry in cache.rows if entry.group and entry.id in fitted}
    related = {entry.id: entry.group for entry in cache.rows if entry.id in facts and entry.group in groups}
    parts, said = list[str](), list[str]()
    if copies:
        are = some(len(copies), len(facts), f"{split} image", "is a copy of a training", "are copies of training")
        parts.append(f"{are} {form(len(copies), 'image', 'images')} ({few(copies, _NAMED)})")
    if related:
        are = some(len(related), len(facts), f"{split} image", "is of the group", "are of the groups")
        parts.append(f"{are} of training images ({few(sorted({*related.values()}), _NAMED)})")
    if parts:
        said.append(f"{', and '.join(parts)}: the scores are too good.")
    if twice := _copies(cache, facts):
        are = some(len(twice), len(facts), f"{split} image", "is a copy of another", "are copies of others")
        count = form(len(twice), "counts as one of its own", "count as ones of their own")
        said.append(f"{are} ({few(twice, _NAMED)}), and {count}.")
    return " ".join(said)


def _copies(cache: FeatureCache, facts: Mapping[str, Sequence[object]]) -> list[str]:
    """The images that are copies of earlier ones, each as ``name of the other``.

    One that comes with another text and another mask is none: something else is to be found in the same picture.
    """
    texts = {entry.id: entry.text for entry in cache.rows if entry.id in facts and not entry.view}
    first, copies = dict[tuple[Any, ...], str](), list[str]()
    for name, (image, mask, *_) in facts.items():
        kinds = (image, "text", texts[name]), (image, "mask", mask)
        if one := next((first[kind] for kind in kinds if kind in first), ""):
            copies.append(f"{name} of {one}")
        for kind in kinds:
            first.setdefault(kind, name)
    return copies
