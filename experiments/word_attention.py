"""Where in an image a run's attention goes to a word of its sentence."""

__all__ = ["word_attention"]

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.pipeline.prediction.preprocessing import TextEmbedder
from textdiff.pipeline.predictions import FittedNetwork, attention_of
from textdiff.pipeline.runs import Run


def word_attention(
    run: Run, cache: FeatureCache, rows: Sequence[int], words: Sequence[str], device: str
) -> list[list[NDArray[np.float32] | None]]:
    """For each row and each word how much of every position's attention goes to it: (h, w), from 0 to 1.

    A position of the image asks (it is the query) and the tokens of the sentence answer, so at each position the shares
    of all tokens add up to 1. A word has those of its pieces, wherever in the sentence it stands; with attention
    that is even over L tokens it would have pieces / L everywhere.

    Args:
        run: a finished one whose network attends to the text.
        cache: of the run.
        rows: of images that are not cut into tiles.
        words: whole words, or several in a row.
        device: where to compute.

    Returns:
        None in place of a map where the sentence does not have the word.

    Raises:
        UserError: the network attends to no text, or was given texts of other images; the images are in tiles; none of
            the sentences has a word.
    """
    flag = f"--words {','.join(words)}"
    if run.combined or not run.reads.text:
        what = "combines runs" if run.combined else f"is {run.label} and reads no text"
        raise UserError(f"{flag}: {run.path} {what}; name a run first that attends to the text")
    if any(cache.rows[row].tile for row in rows):
        raise UserError(f"{flag}: {cache.path} is in tiles, each with an attention of its own; use a cache without")
    given = run.texts(cache)
    if any(cache.rows[given[row]].text != cache.rows[row].text for row in rows):
        raise UserError(f"{flag}: {run.path} was given texts of other images; name a run first that had their own")
    fitted = FittedNetwork(run, device)
    embedder = TextEmbedder(run, fitted.device)
    shown: list[list[NDArray[np.float32] | None]] = []
    with closing(fitted.network.loader(cache, fitted.device).epoch(rows, keep=False)) as items:
        for item in items:
            shares = attention_of(fitted.network, item)
            if shares is None:
                raise UserError(f"{flag}: {run.path} is {run.label}, which attends to no words; name another run first")
            text = cache.texts[cache.rows[item.row].text]
            pieces = [embedder.places(text, word) for word in words]
            shown.append([shares[places].sum(0) if places else None for places in pieces])
    for number, word in enumerate(words):
        if all(maps[number] is None for maps in shown):
            raise UserError(f"--words {word}: in none of the texts of the {len(rows)} images shown; name one that is")
    return shown
