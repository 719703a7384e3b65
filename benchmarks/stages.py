"""What the two stages save against the plain way: the UNet run again in every epoch, and the head as published.

    python benchmarks/stages.py              # FLOPs and bytes: counted on the meta device
    python benchmarks/stages.py --measure    # and seconds and peak memory of a small network on this machine

Prints Markdown and keeps the numbers in results/stages.json. The plain way is what the authors' training script does:
per image and epoch one full UNet forward for each of three steps, then forward and backward through a head that
upsamples before it convolves. Ours: per image once the UNet up to the deepest block wanted, then per image and epoch
forward and backward through the folded head.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from textdiff import console
from textdiff.benchmarks.common import keep, peak_memory
from textdiff.models.backbones.unet import UNet
from textdiff.models.device import describe_device
from textdiff.models.networks.head import Head
from textdiff.readers.presets import PRESETS
from textdiff.tables import markdown_table

TEXT_DIM = 768


@dataclass(frozen=True)
class Case:
    """One experiment: a preset on a backbone."""

    name: str
    dataset: str
    model_channels: int
    images: int
    tokens: int
    epochs: int = 100

    def unet(self) -> UNet:
        """The 256x256 ADM topology at this width."""
        return UNet(256, 3, self.model_channels, 6, 2, (8, 16, 32), (1, 1, 2, 2, 4, 4), 4, 64, True, True).eval()

    def inputs(self) -> tuple[Tensor, Tensor]:
        """The three noised copies of an image (3, 3, 256, 256) and their steps (3,)."""
        steps = torch.tensor(PRESETS[self.dataset].steps)
        return torch.randn(len(steps), 3, 256, 256), steps

    def shapes(self) -> list[tuple[int, int, int]]:
        """(C, h, w) of each block used."""
        with torch.device("meta"):
            shapes = self.unet().block_shapes()
        return [shapes[block] for block in PRESETS[self.dataset].blocks]

    def head(self, plain: bool) -> Callable[[list[Tensor], Tensor], Tensor]:
        """The head's scores of features and a text in either form, at the width that ``fit`` gives it."""
        dims = [c for c, _, _ in self.shapes()]
        head = Head(dims, 3, TEXT_DIM, width=min(768, 3 * min(dims))).train()
        return head.plain if plain else head


CASES = (
    Case("adm-256, MoNuSeg", "monuseg", 256, images=5, tokens=12),
    Case("adm-256, QaTa", "qata", 256, images=150, tokens=24),
    Case("nano (32 channels), MoNuSeg", "monuseg", 32, images=5, tokens=12),
)
MEASURED = CASES[-1]


def flops(run: Callable[[], object]) -> int:
    """Floating-point operations of a call, two per multiply-add, backward included where it runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def train(head: Callable[[list[Tensor], Tensor], Tensor], features: list[Tensor], text: Tensor, label: Tensor) -> None:
    """One forward and backward pass."""
    F.cross_entropy(head(features, text), label).backward()


def count(case: Case) -> list[dict[str, Any]]:
    """FLOPs and bytes of one case."""
    with torch.device("meta"):
        unet, (x, t) = case.unet(), case.inputs()
        features = [torch.randn(1, 3 * c, h, w) for c, h, w in case.shapes()]
        text, label = torch.randn(1, case.tokens, TEXT_DIM), torch.zeros(1, 256, 256, dtype=torch.long)
        blocks = PRESETS[case.dataset].blocks
        full = flops(torch.no_grad()(lambda: unet(x, t)))
        stopped = flops(torch.no_grad()(lambda: unet.features(x, t, blocks)))
        heads = [case.head(plain) for plain in (True, False)]
        plain, folded = (flops(partial(train, head, features, text, label)) for head in heads)
    # Three steps in float16, two bytes each.
    native = sum(3 * c * h * w * 2 for c, h, w in case.shapes())
    upsampled = sum(3 * c * 256 * 256 * 2 for c, _, _ in case.shapes())
    passes = case.epochs * case.images
    total = f"FLOPs, {case.epochs} epochs x {case.images} images"
    return [
        row("FLOPs, stage one, per image and step", full / 3, stopped / 3),
        row("FLOPs, stage one, per image", full, stopped),
        row("FLOPs, stage two, per image and epoch", plain, folded),
        row("FLOPs, training, per image and epoch", full + plain, folded),
        row(total, passes * (full + plain), case.images * stopped + passes * folded),
        row("bytes on disk per image, upsampled cache", upsampled, native),
        row("bytes on disk per image, no cache", 0, native),
    ]


def row(what: str, plain: float, ours: float) -> dict[str, Any]:
    """A line of a table; the ratio is how many times less ours takes."""
    return {"what": what, "plain": plain, "ours": ours, "ratio": plain / ours if plain else None}


def work(part: str, kind: str, folder: Path) -> Callable[[], object]:
    """What is timed: ``extract`` an image, train the ``head`` on it, or one training ``step`` from start to end."""
    case, plain, blocks = MEASURED, kind == "plain", PRESETS[MEASURED.dataset].blocks
    torch.manual_seed(0)
    if part == "extract":
        unet, (x, t) = case.unet(), case.inputs()
        return torch.no_grad()(lambda: unet(x, t) if plain else unet.features(x, t, blocks))
    head = case.head(plain)
    text, label = torch.randn(1, case.tokens, TEXT_DIM), torch.randint(2, (1, 256, 256))
    folder.mkdir(exist_ok=True)
    files = [folder / f"{block}.npy" for block in blocks]
    for path, (c, h, w) in zip(files, case.shapes(), strict=True):
        np.save(path, torch.randn(1, 3 * c, h, w).half().numpy())

    def read() -> list[Tensor]:
        return [torch.from_numpy(np.load(path)).float() for path in files]

    if part == "step" and plain:
        unet, (x, t) = case.unet(), case.inputs()

        @torch.no_grad()
        def again() -> list[Tensor]:
            kept: list[Tensor] = []
            hooks = [unet.output_blocks[b].register_forward_hook(lambda *a: kept.append(a[-1])) for b in blocks]
            unet(x, t)
            for hook in hooks:
                hook.remove()
            return [h.flatten(0, 1).unsqueeze(0) for h in kept]  # (1, steps * C, h, w)

        return lambda: train(head, again(), text, label)
    features = read() if part == "head" else []
    return lambda: train(head, features or read(), text, label)


def child(part: str, kind: str, folder: str) -> None:
    """Makes a pass for every line read and prints its seconds; at the end, the memory that all of it added."""
    before = peak_memory()
    run = work(part, kind, Path(folder))
    run()  # allocates, picks kernels
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)
    print(peak_memory() - before)


def measure(passes: int = 5) -> list[dict[str, Any]]:
    """Seconds and peak memory of the small case.

    Each way has a process, and so a memory, of its own. The two make their passes in turn, so that a busy machine
    slows down both, and the fastest pass of each counts.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    parts = {
        "extract": "stage one, per image",
        "head": "stage two, per image and epoch",
        "step": "training, per image and epoch",
    }
    with console.Progress(len(parts) * passes, "measure", "pairs") as progress:
        for part in parts:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--child", part]
                start = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                children = {kind: start([*command, kind, f"{folder}/{kind}"]) for kind in ("plain", "ours")}
                seconds: dict[str, list[float]] = {kind: [] for kind in children}
                for _ in range(passes):
                    for kind, process in children.items():
                        print(file=process.stdin, flush=True)
                        seconds[kind].append(float(process.stdout.readline()))
                    progress.advance()
                for kind, process in children.items():
                    found[part, kind] = {"seconds": min(seconds[kind]), "memory": int(process.communicate()[0])}
    rows = [
        row(f"{label}, {name}", found[part, "plain"][unit], found[part, "ours"][unit])
        for unit, label in (("seconds", "seconds"), ("memory", "bytes of peak memory"))
        for part, name in parts.items()
    ]
    rows.insert(0, row("seconds, stage one, per image and step", rows[0]["plain"] / 3, rows[0]["ours"] / 3))
    total, once, step = MEASURED.epochs * MEASURED.images, rows[1], rows[3]
    what = f"seconds, {MEASURED.epochs} epochs x {MEASURED.images} images (from the lines above)"
    return [*rows, row(what, total * step["plain"], MEASURED.images * once["ours"] + total * step["ours"])]


def markdown(title: str, rows: list[dict[str, Any]]) -> str:
    """One table."""

    def show(what: str, value: float) -> str:
        if what.startswith("FLOPs"):
            return f"{value / 1e9:,.1f} G"
        return f"{value:,.2f} s" if what.startswith("seconds") else console.size(value)

    cells = [
        (what, show(what, plain), show(what, ours), f"{ratio:.2f}" if ratio else "")
        for what, plain, ours, ratio in (line.values() for line in rows)
    ]
    return f"### {title}\n\n{markdown_table(('what', 'plain', 'ours', 'ratio'), cells, 'lrrr')}\n"


def main() -> None:
    """Prints the tables and writes them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="seconds and memory too, of the smallest case")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    tables = {case.name: count(case) for case in CASES}
    machine = describe_device(torch.device("cpu"))
    if options.measure:
        tables[f"{MEASURED.name}, measured on {machine}"] = measure()
    for title, rows in tables.items():
        print(markdown(title, rows))
    about = {"torch": torch.__version__, "device": machine, "cases": [vars(case) for case in CASES]}
    keep("stages", about | {"tables": tables})


if __name__ == "__main__":
    main()
