"""What the head's two rewritings save: FLOPs, seconds and memory, beside the plain form of the same network.

    python benchmarks/head.py [--quick] [--repeats 3] [--tokens 10] [--out benchmarks/head.json]

Every figure comes from a fresh process: the peak of its resident memory, less what it held before the first pass
(Python, PyTorch, weights and inputs), and the median time after one pass to warm up. Numbers of threads as in
OMP_NUM_THREADS. Both forms compute the same function to rounding error (tests/models/test_head.py).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# dims, native sizes, image size, width, text_dim
CASES = {
    "tiny": ((16, 16, 8, 8), (8, 16, 32, 64), 64, 24, 384),
    "nano": ((64, 64, 32, 32), (32, 64, 128, 256), 256, 96, 384),
    "qata": ((1024, 512, 512, 256), (16, 32, 64, 128), 256, 768, 768),
    "monuseg": ((512, 512, 256, 256), (32, 64, 128, 256), 256, 768, 768),
}
STEPS = 3


def measure(case: str, form: str, what: str, tokens: int, repeats: int) -> dict[str, float]:
    """One cell of the table; ``what`` is ``forward`` or ``step`` (forward and backward)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from textdiff.benchmarks.common import peak_memory
    from textdiff.models.networks.head import Head
    from textdiff.pipeline.training.losses import segmentation_loss

    dims, sizes, image_size, width, text_dim = CASES[case]
    torch.manual_seed(0)
    network = Head(dims, STEPS, text_dim, width=width, image_size=image_size)
    scores = {"folded": network.forward, "plain": network.plain}[form]
    features = [torch.randn(1, STEPS * dim, s, s) for dim, s in zip(dims, sizes, strict=True)]
    text, labels = torch.randn(1, tokens, text_dim), torch.rand(1, image_size, image_size) < 0.3
    network.train(what == "step")

    def once() -> float:
        start = time.perf_counter()
        if what == "forward":
            with torch.inference_mode():
                scores(features, text)
        else:
            network.zero_grad()
            segmentation_loss(scores(features, text), labels).backward()
        return time.perf_counter() - start

    before = peak_memory()
    once()
    seconds = statistics.median(once() for _ in range(repeats))
    peak = peak_memory() - before
    network.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        scores([x.to("meta") for x in features], text.to("meta"))
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "forward_flops": counter.get_total_flops(),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Runs every cell in its own process, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small heads only, one repetition")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=10, help="text tokens")
    parser.add_argument("--out", type=Path, default=HERE / "head.json")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(*args.cell, args.tokens, args.repeats)))
        return

    from textdiff.files import write_json

    repeats = 1 if args.quick else args.repeats
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    print(f"{'head':8} {'pass':8} {'GFLOP':>14} {'seconds':>20} {'MB above start':>20}   (ours / plain)", flush=True)
    for case in ("tiny", "nano") if args.quick else ("nano", "qata", "monuseg"):
        for what in ("forward", "step"):
            cells = {}
            for form in ("folded", "plain"):
                command = [sys.executable, __file__, "--cell", case, form, what]
                command += ["--tokens", str(args.tokens), "--repeats", str(repeats)]
                cells[form] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            ours, plain = cells["folded"], cells["plain"]
            results.setdefault(case, {})[what] = cells
            flops = (
                f"{ours['forward_flops'] / 1e9:.0f} / {plain['forward_flops'] / 1e9:.0f}" if what == "forward" else ""
            )
            speed = f"{ours['seconds']:.2f} / {plain['seconds']:.2f} {plain['seconds'] / ours['seconds']:5.1f}x"
            memory = f"{ours['peak_bytes'] / 1e6:.0f} / {plain['peak_bytes'] / 1e6:.0f}"
            memory += f" {plain['peak_bytes'] / max(ours['peak_bytes'], 1):5.1f}x"
            print(f"{case:8} {what:8} {flops:>14} {speed:>20} {memory:>20}", flush=True)
    write_json(args.out, {"tokens": args.tokens, "repeats": repeats, "results": results})


if __name__ == "__main__":
    main()
