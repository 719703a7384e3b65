"""The ablations of the paper (table 2) and two controls that tell what the text itself contributes."""

__all__ = ["VARIANTS", "assign_texts", "check_variant", "head_variant"]

from collections import Counter
from collections.abc import Collection

import numpy as np

from textdiff.cache import FeatureCache
from textdiff.errors import UserError

VARIANTS = {
    "full": "the method: cross-attention to the image's own text",
    "no-text": "zeta 1: activations straight to the classifier",
    "concat": "zeta 2: the pooled text embedding concatenated, no cross-attention",
    "shuffled-text": "control: every image gets the text of another one of its split",
    "constant-text": "control: every image gets the most frequent text of the training images",
}


def check_variant(variant: str, cache: FeatureCache, variants: Collection[str] = VARIANTS) -> None:
    """Refuses a variant that needs texts where the cache holds none.

    Args:
        variant: the one asked for.
        cache: what it is to be trained on.
        variants: those of the network.

    Raises:
        UserError: with how to make a cache with texts.
    """
    if variant != "no-text" and cache.text_dim is None:
        other = "use --variant no-text, or " if "no-text" in variants else ""
        raise UserError(
            f"--variant {variant}: {cache.path} was extracted with --text-encoder none and holds no text embeddings; "
            f"{other}extract with a text encoder"
        )


def head_variant(variant: str) -> str:
    """The network of a variant; the controls differ from ``full`` in their texts only."""
    return variant if variant in ("no-text", "concat") else "full"


def assign_texts(cache: FeatureCache, variant: str, seed: int, train_ids: Collection[str]) -> dict[int, int]:
    """For every row the row whose text it is given.

    ``shuffled-text`` draws one cyclic permutation per split from ``seed``, so that no image keeps its own entry (its
    sentence may still be the same one, where images share sentences); all views of an image move together.
    ``constant-text`` uses the sentence that is most frequent among ``train_ids``.
    """
    rows = range(len(cache.rows))
    first = {cache.rows[row].id: row for row in reversed(rows)}
    # Texts may have turned along with the views: the text of another image turns as this one's image does.
    viewed = {(cache.rows[row].id, cache.rows[row].view): row for row in reversed(rows)}

    def donor(row: int, source: int) -> int:
        return viewed.get((cache.rows[source].id, cache.rows[row].view), source)

    if variant == "constant-text":
        # One row of each image, since a large one has more of them.
        used = sorted(row for name, row in first.items() if name in train_ids)
        most = Counter(cache.rows[row].text for row in used).most_common(1)[0][0]
        source = next(row for row in used if cache.rows[row].text == most)
        return {row: donor(row, source) for row in rows}
    if variant != "shuffled-text":
        return {row: row for row in rows}
    donors: dict[str, int] = {}
    for number, split in enumerate(("train", "val", "test")):
        # Training images are shuffled among those that were drawn: no text comes in that the fit would not have had.
        ids = sorted({r.id for r in cache.rows if r.split == split and (split != "train" or r.id in train_ids)})
        order = np.random.default_rng([seed, 0x7E27, number]).permutation(len(ids))
        for here, there in zip(order, np.roll(order, 1), strict=True):
            donors[ids[here]] = first[ids[there]]
    return {row: donor(row, donors[cache.rows[row].id]) if cache.rows[row].id in donors else row for row in rows}
