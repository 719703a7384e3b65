"""Scored images that are not what they seem: copies of training images, others of their patients, copies of others."""

__all__ = ["leaks_note"]

from collections.abc import Mapping
from typing import Any

from textdiff.cache import FeatureCache
from textdiff.console import form, some
from textdiff.errors import few
from textdiff.pipeline.training.image_digests import Digests, unlabelled_digests

_NAMED = 3


def leaks_note(config: Mapping[str, Any], cache: FeatureCache, split: str, facts: Mapping[str, Digests]) -> str:
    """What a reader of the scores must know of such images; empty where there are none.

    A copy is known by its file. Whose an image is, is known where the cache has the training images, too. Training
    images are all that the run learned from, with labels and without.

    Args:
        config: of the run.
        cache: where the scored images are.
        split: theirs.
        facts: their digests, by their ids.
    """
    unlabelled = unlabelled_digests(config)
    fitted = {*config["train_ids"], *unlabelled} if split != "train" else set[str]()
    pictures = {digests[0]: name for name, digests in (config["images"] | unlabelled).items() if name in fitted}
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


def _copies(cache: FeatureCache, facts: Mapping[str, Digests]) -> list[str]:
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
