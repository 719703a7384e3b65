"""Which images a run was fitted on, as they were then, and whether a cache still has them so."""

__all__ = [
    "CONTROLS",
    "GONE",
    "VIEWS",
    "Digests",
    "changed_images",
    "changes",
    "check_fitted",
    "image_digests",
    "shortened",
    "unlabelled_digests",
    "without_masks",
]

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from textdiff.cache import FeatureCache
from textdiff.errors import UserError

DIGITS = 16
CONTROLS = ("shuffled-text", "constant-text")
"""Variants that give an image a text that depends on other images."""
GONE, VIEWS = "gone", "the number of views or tiles"
Digests = list[str | int | None]
"""Digests of an image, its mask and the text it is given, and the number of its rows."""


def image_digests(cache: FeatureCache, ids: Collection[str], texts: Mapping[int, int]) -> dict[str, Digests]:
    """By the ids that the cache has: digests of the image, its mask and the text it is given, and the number of rows.

    Of images that are not trained on turned rows do not count: they change scores, which say so, and no fit.

    Args:
        cache: where the images are.
        ids: which.
        texts: for every row the row whose text it is given; see ``assign_texts``.
    """
    wanted, found, given = set(ids), dict[str, Digests](), dict[str, dict[str, None]]()
    for row, entry in enumerate(cache.rows):
        if entry.id not in wanted or (entry.view and entry.split != "train"):
            continue
        if entry.id not in found:
            found[entry.id] = [_short(entry.image_sha256), _short(entry.mask_sha256), None, 0]
        if (number := cache.rows[texts[row]].text) >= 0:
            given.setdefault(entry.id, {})[cache.texts[number]] = None
        count = found[entry.id][-1]
        assert isinstance(count, int)
        found[entry.id][-1] = count + 1
    for name, own in given.items():
        # Where views turn the text along, it has as many forms.
        found[name][2] = _short(hashlib.sha256("\0".join(own).encode()).hexdigest())
    return {name: found[name] for name in sorted(found)}


def check_fitted(config: Mapping[str, Any], cache: FeatureCache, what: str) -> None:
    """Checks that the images a run was fitted on and selected by are, in this cache, of no other split.

    Where it is, it would be scored on what it was fitted on. An image that comes under another name is known by its
    digest.

    Args:
        config: of the run.
        cache: which it is to be used with.
        what: the run, for the message.

    Raises:
        UserError: one of them is; names the first.
    """
    splits = {name: split for split in ("train", "val") for name in config[f"{split}_ids"]}
    unlabelled = unlabelled_digests(config)
    splits |= dict.fromkeys(unlabelled, "train")
    present = {entry.id for entry in cache.rows}
    known = config["images"] | unlabelled
    gone = {facts[0]: splits[name] for name, facts in known.items() if name in splits and name not in present}
    for entry in cache.rows:
        before = splits.get(entry.id) or gone.get(_short(entry.image_sha256))
        if before and before != entry.split:
            use = "fitted on" if before == "train" else "selected by"
            raise UserError(
                f"{cache.path}: {entry.id} is a {entry.split} image now, and {what} was {use} it; fit again on this "
                "cache, or give one with the images of then with --cache"
            )


def changed_images(config: Mapping[str, Any], cache: FeatureCache, texts: Mapping[int, int]) -> list[str]:
    """What is no longer as it was when a run was begun, of the images that it depends on; see ``changes``."""
    changed = changes(config["images"], image_digests(cache, config["images"], texts))
    unlabelled = unlabelled_digests(config)
    return changed + changes(unlabelled, without_masks(image_digests(cache, unlabelled, texts)))


def changes(then: Mapping[str, Digests], now: Mapping[str, Digests]) -> list[str]:
    """The images that are not as they were: ``id: the mask, the text`` and so on, those that are gone first.

    Args:
        then: what ``image_digests`` said before.
        now: what it says.
    """
    parts = ("the image", "the mask", "the text", VIEWS)
    changed = []
    for name in {**then, **now}:
        if name not in then:
            changed.append(f"{name}: new")
        elif name not in now or now[name][1] is None:
            changed.append(f"{name}: {GONE if name not in now else 'without a mask'}")
        elif now[name] != then[name]:
            pairs: Iterable[tuple[str, Any, Any]] = zip(parts, now[name], then[name], strict=True)
            changed.append(f"{name}: {', '.join(part for part, here, before in pairs if here != before)}")
    return sorted(changed, key=lambda line: not line.endswith(f": {GONE}"))


def shortened(changed: Sequence[str]) -> str:
    """The first of some ``changes``, and how many more there are."""
    return changed[0] + (f"; {len(changed) - 1} more" if len(changed) > 1 else "")


def without_masks(digests: Mapping[str, Digests]) -> dict[str, Digests]:
    """Digests of images whose masks a fit has not read: these may come, change and go."""
    return {name: [image, "", text, rows] for name, (image, _, text, rows) in digests.items()}


def unlabelled_digests(config: Mapping[str, Any]) -> dict[str, Digests]:
    """What the images without labels were that a run learns from."""
    images: dict[str, Digests] = (config["unlabelled"] or {"images": {}})["images"]
    return images


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest[:DIGITS]
