"""A cache as a ``torch.utils.data.Dataset``, for training loops of one's own."""

__all__ = ["CacheDataset"]

import os
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from textdiff.cache.codec import upsample
from textdiff.cache.feature_cache import FeatureCache
from textdiff.console import counted, form
from textdiff.errors import UserError, choose
from textdiff.options.shared import Split


class CacheDataset(Dataset[dict[str, Any]]):
    """The rows of a cache as dictionaries of tensors, in the order of the table.

    It may be copied to the worker processes of a ``DataLoader``: each opens the cache by itself. The default collation
    makes batches of it, if all rows have a mask (``annotated``) and the features fit into memory.

    Args:
        cache: a cache or its path.
        split: ``train``, ``val``, ``test``, or None for all rows.
        annotated: whether rows without a mask are left out.
        blocks: which of the cache's blocks, all by default, and none if empty.
        upsampled: whether activations have the image's size, bilinearly enlarged, or the network's own.

    Raises:
        UserError: no cache; a block that it does not hold; rows that ``extract`` has not made yet; no row of that kind.
    """

    def __init__(
        self,
        cache: str | os.PathLike[str],
        split: Split | None = None,
        *,
        annotated: bool = True,
        blocks: Sequence[int] | None = None,
        upsampled: bool = False,
    ) -> None:
        if split is not None:
            choose("split", split, dict.fromkeys(get_args(Split)))
        self.cache = FeatureCache.open(cache)
        self.blocks = tuple(self.cache.blocks if blocks is None else blocks)
        self.upsampled = upsampled
        if wrong := [block for block in self.blocks if block not in self.cache.blocks]:
            there = ", ".join(map(str, self.cache.blocks))
            raise UserError(f"{self.cache.path}: holds no block {wrong[0]}; its blocks are {there}")
        self.rows = [
            row
            for row, entry in enumerate(self.cache.rows)
            if split in (None, entry.split) and (entry.has_mask or not annotated)
        ]
        """The row of the cache that each item shows."""
        if not self.rows:
            kind = f"{split} image" if split else "image"
            raise UserError(f"{self.cache.path}: has no {kind}{' with a mask' if annotated else ''}")
        if missing := len(set(self.rows) & set(self.cache.pending())):
            raise UserError(
                f"{self.cache.path}: {counted(missing, 'row')} {form(missing, 'is', 'are')} not made yet; "
                "run the same `textdiff extract` again"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row.

        Returns:
            ``features``: by block (steps, C, h, w), or with ``upsampled`` (steps, C, H, W), in the cache's dtype.
            ``image``: (3, H, W) uint8, RGB. ``mask``: (H, W) int64 class numbers, absent without one. ``text``: the
            words, empty without any. ``tokens``: (L, D) float32 and ``token_mask``: (L,) bool, False where there is
            padding; absent in a cache without text encoder. ``id``, ``split``, ``view`` and ``row`` as in the table.

        Raises:
            CacheError: the row is damaged.
        """
        row = self.rows[index]
        cache, entry = self.cache, self.cache.rows[row]
        grids = {block: cache.features(row, block) for block in self.blocks}
        if self.upsampled:
            size = (cache.image_size, cache.image_size)
            grids = {block: upsample(grid, (*grid.shape[:2], *size)) for block, grid in grids.items()}
        item = {
            "row": row,
            "id": entry.id,
            "split": entry.split,
            "view": entry.view,
            "features": {block: torch.from_numpy(grid) for block, grid in grids.items()},
            "image": torch.from_numpy(cache.image(row)).permute(2, 0, 1),
            "text": cache.text_of(entry),
        }
        mask = cache.mask(row)
        if mask is not None:
            item["mask"] = torch.from_numpy(mask).long()
        if cache.layout.tokens is not None:
            _, length, width = cache.layout.tokens
            none = np.zeros((length, width), np.float32), np.zeros(length, np.bool_)
            tokens, token_mask = cache.embedding(entry.text) if entry.text >= 0 else none
            item["tokens"], item["token_mask"] = torch.from_numpy(tokens), torch.from_numpy(token_mask)
        return item

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"cache": self.cache.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"cache": FeatureCache.open(state["cache"])})
