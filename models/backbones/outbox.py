"""The way of activations from where they are made to the memory that is written from."""

__all__ = ["Outbox"]

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textdiff.cache.cast import Cast
from textdiff.cache.int8 import pack


class Outbox:
    """Memory for the levels of a batch of images, which come to it in the type that the cache stores.

    They are cast, and their extremes are looked for, on the device. From a CUDA device they are copied on a stream of
    their own, to pinned memory, so that neither the device nor the program waits. What is made on a CPU is in memory
    already and stays as it is: who writes it casts it on the way. What an outbox holds stays until ``send`` is called
    again.

    Args:
        shapes: of every block what a chunk of the cache holds: (C, h, w), or (C, 4 + h * w) of an int8 cache.
        steps: how many steps there are.
        batch: how many images there are at most.
        dtype: of the cache, as torch has it.
        device: where the levels come from.
        cast: whether they are cast here; by default where they come from another device than a CPU.
    """

    def __init__(
        self,
        shapes: Mapping[int, tuple[int, ...]],
        steps: int,
        batch: int,
        dtype: torch.dtype,
        device: torch.device,
        cast: bool | None = None,
    ) -> None:
        cuda = device.type == "cuda"
        self._as_made: dict[int, Tensor] | None = None
        if not (device.type != "cpu" if cast is None else cast):
            shapes, self._as_made = {}, {}
        self._grids = {
            block: torch.empty((batch, steps, *shape), dtype=dtype, pin_memory=cuda) for block, shape in shapes.items()
        }
        self._extremes = {block: torch.empty((batch, steps, 2), pin_memory=cuda) for block in shapes}
        self._device, self._packs = device, dtype == torch.int8
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._here = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def send(self, grids: Mapping[int, Tensor]) -> None:
        """Has the levels of a batch come here: for every block (B, steps, C, h, w), float, on the device."""
        if self._as_made is not None:
            self._as_made = {block: grid.float() for block, grid in grids.items()}
            return
        for block, grid in grids.items():
            found = torch.stack([grid.amin((2, 3, 4)), grid.amax((2, 3, 4))], 2)  # both NaN where a value is
            self._fetch(pack(grid) if self._packs else grid, self._grids[block][: len(grid)])
            self._fetch(found, self._extremes[block][: len(grid)])
        if self._here is not None:
            self._here.record(self._stream)

    def wait(self) -> None:
        """Waits until what was sent is here."""
        if self._here is not None:
            self._here.synchronize()

    def image(self, number: int) -> dict[int, Cast | NDArray[np.float32]]:
        """The levels of one image of the batch, once they are here: views of this memory."""
        if self._as_made is not None:
            return {block: grid[number].numpy() for block, grid in self._as_made.items()}
        return {
            block: Cast(grid[number].numpy(), self._extremes[block][number].numpy())
            for block, grid in self._grids.items()
        }

    def _fetch(self, there: Tensor, here: Tensor) -> None:
        """Copies to the host; on CUDA what is ``there`` is cast and made contiguous first, so that less is copied."""
        if self._stream is None:
            here.copy_(there)
            return
        ready = torch.empty(here.shape, dtype=here.dtype, device=self._device).copy_(there)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            here.copy_(ready, non_blocking=True)
        # Its memory must not be given to the next computation before it has been copied.
        ready.record_stream(self._stream)
