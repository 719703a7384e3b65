"""Training steps recorded as CUDA graphs: hundreds of small kernels, launched at once.

A small head computes for less time than Python takes to launch its kernels one after the other. What is recorded are
the very kernels, on the same numbers, so a step gives the bits that it would have given. CUDA graphs rather than
``torch.compile``, which needs a compiler on the user's machine, minutes for a fit that may take one, and computes
otherwise.
"""

__all__ = ["CudaRecorder", "RecordedSteps", "recorder_for"]

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from textdiff import console

MOST = 16
"""Recordings that a fit keeps at most: each has inputs of its own. Shapes that come later run step by step."""
RECORD = True
"""Whether steps are recorded at all, where a device can."""

Compute = Callable[[tuple[Any, ...], Tensor], Tensor]
"""Inputs and labels to the loss."""
Results = list[Tensor | None]
Run = Callable[[], Results]


class CudaRecorder:
    """Records on one GPU. All its recordings share their scratch memory, as they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """On the stream that is recorded from: the first run there makes the handles and picks the kernels."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, run: Run) -> tuple[Results, Callable[[], None]]:
        """Records what ``run`` launches, without doing it: its results' places, and what fills them each time."""
        graph = torch.cuda.CUDAGraph()
        # The loader's threads allocate and copy meanwhile, which is an error in the default mode.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"),
        ):
            results = run()
        return results, graph.replay


def recorder_for(device: torch.device) -> CudaRecorder | None:
    """What records on a device; None where nothing does."""
    return CudaRecorder(device) if RECORD and device.type == "cuda" else None


class _Recording(NamedTuple):
    inputs: tuple[Any, ...]
    labels: Tensor
    results: Results
    """The loss, and the gradient of each parameter."""
    replay: Callable[[], None]


class RecordedSteps:
    """Forward, loss and backward of a network: gradients in its parameters, the loss (a scalar, detached) returned.

    The first step of a kind runs as usual, the second is recorded, and all from then on are replayed. Steps are of a
    kind if their tensors have the same shapes and types, and all else in their inputs is equal.

    Args:
        network: what is trained; its steps depend on nothing but inputs, weights, and numbers drawn by the device's
            default generator, which a replayed graph draws by the generator's state of then.
        compute: inputs and labels to the loss.
        recorder: of the device.
    """

    def __init__(self, network: nn.Module, compute: Compute, recorder: CudaRecorder) -> None:
        self._parameters = list(network.parameters())
        self._compute = compute
        self._recorder: CudaRecorder | None = recorder
        self._recordings: dict[Hashable, _Recording | None] = {}

    @property
    def count(self) -> int:
        """How many kinds of steps are recorded."""
        return sum(recording is not None for recording in self._recordings.values())

    def __call__(self, inputs: tuple[Any, ...], labels: Tensor) -> Tensor:
        """One step; its loss is on the device, and nobody has waited for it."""
        kind = _kind((*inputs, labels))
        known = kind in self._recordings
        if self._recorder is None or (not known and len(self._recordings) >= MOST):
            return self._plain(inputs, labels)
        recording = self._recordings.setdefault(kind, None)
        if recording is None:
            recording = self._record(self._recorder, inputs, labels) if known else None
            self._recordings[kind] = recording
        if recording is None:
            with self._recorder.aside() if self._recorder is not None else nullcontext():
                return self._plain(inputs, labels)
        for own, new in zip(_tensors((*recording.inputs, recording.labels)), _tensors((*inputs, labels)), strict=True):
            own.copy_(new, non_blocking=True)
        recording.replay()
        loss, *gradients = recording.results
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss.clone()

    def _plain(self, inputs: tuple[Any, ...], labels: Tensor) -> Tensor:
        loss = self._compute(inputs, labels)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _record(self, recorder: CudaRecorder, inputs: tuple[Any, ...], labels: Tensor) -> _Recording | None:
        """Records a step on copies of these inputs; None where that fails, after which no other is tried."""
        own, truth = _copied(inputs), labels.clone()

        def run() -> Results:
            loss = self._plain(own, truth)
            return [loss, *(parameter.grad for parameter in self._parameters)]

        try:
            results, replay = recorder.record(run)
        except RuntimeError as error:
            self._recorder = None
            self._recordings.clear()
            (line, *_) = str(error).splitlines() or [type(error).__name__]
            console.warn(f"the training step could not be recorded as a CUDA graph, and runs kernel by kernel: {line}")
            return None
        return _Recording(own, truth, results, replay)


def _copied(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.clone()
    return type(x)(map(_copied, x)) if type(x) in (list, tuple) else x


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif type(x) in (list, tuple):
        for one in x:
            yield from _tensors(one)


def _kind(x: Any) -> Hashable:
    if isinstance(x, Tensor):
        return tuple(x.shape), x.dtype
    return tuple(map(_kind, x)) if type(x) in (list, tuple) else x
