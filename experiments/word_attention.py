"""Where in an image a run's attention goes to a word of its sentence."""

__all__ = ["WordAttention"]

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.pipeline.prediction.preprocessing import TextEmbedder
from textdiff.pipeline.predictions import FittedNetwork, attention_of
from textdiff.pipeline.runs import Run


class WordAttention:
    """How much of every position's attention goes to words, once it is clear that it can be told.

    A position of the image asks (it is the query) and the tokens of the sentence answer, so at each position the shares
    of all tokens add up to 1. A word has those of its pieces, wherever in the sentence it stands; with attention
    that is even over L tokens it would have pieces / L everywhere.

    Args:
        run: a finished one whose network attends to the text.
        cache: of the run.
        rows: of images that are not cut into tiles, of which some may be asked for.
        words: whole words, or several in a row.
        device: where to compute.

    Raises:
        UserError: the network attends to no text, or was given texts of other images; the images are in tiles; none of
            the sentences has a word.
    """

    def __init__(self, run: Run, cache: FeatureCache, rows: Sequence[int], words: Sequence[str], device: str) -> None:
        flag = f"--words {','.join(words)}"
        if run.combined or not run.reads.text:
            what = "combines runs" if run.combined else f"is {run.label} and reads no text"
            raise UserError(f"{flag}: {run.path} {what}; name a run first that attends to the text")
        if any(cache.rows[row].tile for row in rows):
            raise UserError(f"{flag}: {cache.path} is in tiles, each with an attention of its own; use a cache without")
        given = run.texts(cache)
        if any(cache.rows[given[row]].text != cache.rows[row].text for row in rows):
            raise UserError(f"{flag}: {run.path} was given texts of other images; name a run first that had their own")
        self._cache, self._words = cache, words
        self._fitted = FittedNetwork(run, device)
        embedder = TextEmbedder(run, self._fitted.device)
        texts = {cache.text_of(cache.rows[row]) for row in rows}
        self._pieces = {text: [embedder.places(text, word) for word in words] for text in texts}
        for number, word in enumerate(words):
            if not any(pieces[number] for pieces in self._pieces.values()):
                images = len({cache.rows[row].id for row in rows})
                raise UserError(f"--words {word}: in none of the texts of the {images} images; name one that is")
        if not self.of(rows[:1]):
            raise UserError(f"{flag}: {run.path} is {run.label}, which attends to no words; name another run first")

    def of(self, rows: Sequence[int]) -> list[list[NDArray[np.float32] | None]]:
        """For each row and each word its share at every position: (h, w), from 0 to 1; None if the sentence lacks it.

        A network that attends to no words gives nothing.
        """
        shown = []
        with closing(self._fitted.network.loader(self._cache, self._fitted.device).epoch(rows, keep=False)) as items:
            for item in items:
                shares = attention_of(self._fitted.network, item)
                if shares is None:
                    return []
                pieces = self._pieces[self._cache.text_of(self._cache.rows[item.row])]
                shown.append([shares[places].sum(0) if places else None for places in pieces])
        return shown

    def missing(self, rows: Sequence[int]) -> list[str]:
        """The words that no sentence of these rows has."""
        pieces = [self._pieces[self._cache.text_of(self._cache.rows[row])] for row in rows]
        return [word for number, word in enumerate(self._words) if not any(found[number] for found in pieces)]
