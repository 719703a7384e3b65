"""Unlike runs used as one: the weighted mean of their probabilities, each from its own inputs and its own cache."""

__all__ = ["Mixture", "matching_rows", "mixed", "open_fitted"]

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from numpy.typing import NDArray

from textdiff.cache import FeatureCache, Item, Row
from textdiff.errors import UserError
from textdiff.models.device import choose_device
from textdiff.pipeline.predictions import FittedNetwork, Predicted
from textdiff.pipeline.runs import Run


def open_fitted(run: Run, device: str | torch.device = "auto") -> FittedNetwork:
    """The network of a finished run, or those that a combined one consists of, on a device.

    Raises:
        UserError: as ``FittedNetwork``, or a run that it combines is not as it was.
    """
    return Mixture(run, device) if run.combined else FittedNetwork(run, device)


class Mixture(FittedNetwork):
    """The runs that a combined one consists of; each of them is a member.

    Their mean is that of probabilities, an opinion pool (Genest and Zidek 1986,
    https://doi.org/10.1214/ss/1177013825, section 3.1), as within an ensemble. A row is predicted by one run after the
    other: what is held beside the networks does not grow with their number or with that of the images.

    Args:
        run: a combined one.
        device: where to compute.
    """

    def __init__(self, run: Run, device: str | torch.device = "auto") -> None:
        run.check_members()
        self.run = run
        self.device = choose_device(device) if isinstance(device, str) else device
        self.parts = [FittedNetwork(member, self.device) for member in run.members]
        self.classes, self.member_count = self.parts[0].classes, len(self.parts)

    def combined(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weighted mean (classes, ...) of what the runs say, (runs, classes, ...)."""
        return mixed(members, self.run.weights)

    def of_rows(
        self, cache: FeatureCache, rows: Sequence[int], *, each: bool = False, source: Iterable[Item] | None = None
    ) -> Generator[Predicted, None, None]:
        """Predictions of rows of the first run's cache; if ``each`` what every run says, (runs, classes, S, S).

        Raises:
            UserError: another run's cache is gone, or lacks a row; a source is given.
        """
        if source is not None:
            raise UserError(f"{self.run.path}: combines runs, which read images in ways of their own; use their caches")
        with ExitStack() as stack:
            sources = []
            for part, own in zip(self.parts, self._caches(cache), strict=True):
                found = rows if own is cache else matching_rows(cache, rows, own)
                sources.append(stack.enter_context(closing(part.of_rows(own, found))))
            for row, *predicted in zip(rows, *sources, strict=True):
                members = np.concatenate([one for _, one in predicted])
                yield row, members if each else self.combined(members)[None]

    def changed(self, cache: FeatureCache) -> list[str]:
        """What is no longer as it was when one of the runs was begun, of its training and validation images."""
        caches = zip(self.parts, self._caches(cache), strict=True)
        return list(dict.fromkeys(line for part, own in caches for line in part.changed(own)))

    def _caches(self, cache: FeatureCache) -> list[FeatureCache]:
        """The cache of each run: the given one where it was made in the same way, otherwise the run's own."""
        caches = []
        for part in self.parts:
            given = cache.fingerprint_hash == part.run.config["fingerprint_hash"]
            # The given one is opened again: that checks it against this run, too.
            opened = part.run.open_cache(cache.path if given else None)
            caches.append(cache if given else opened)
        return caches


def mixed(members: NDArray[np.float32], weights: Sequence[float]) -> NDArray[np.float32]:
    """The weighted mean (classes, ...) of probabilities (members, classes, ...); ``weights`` add up to 1."""
    mean: NDArray[np.float32] = np.tensordot(np.asarray(weights, np.float32), members, axes=1)
    return mean


def matching_rows(cache: FeatureCache, rows: Sequence[int], other: FeatureCache) -> list[int]:
    """The rows of another cache that show what some rows of ``cache`` do: the same image, mask, tile and view.

    Raises:
        UserError: there is none for a row, or it has not been extracted; names it.
    """
    there = {_shown(entry): row for row, entry in enumerate(other.rows)}
    done, found = other.done(), []
    for row in rows:
        entry = cache.rows[row]
        match = there.get(_shown(entry))
        if match is None:
            raise UserError(
                f"{other.path}: has no row for {entry} as {cache.path} has it, with the same image and mask; bring "
                "both up to date with `textdiff extract --update`"
            )
        if not done[match]:
            raise UserError(f"{other.path}: not complete, {entry} is to do; finish it with `textdiff extract`")
        found.append(match)
    return found


def _shown(entry: Row) -> tuple[object, ...]:
    return entry.id, *entry.determined_by
