"""What only a GPU can tell of both stages, in one call of at most eight minutes.

    python benchmarks/gpu.py                               # on a CUDA device; prints and writes results/gpu.json
    python benchmarks/gpu.py --device cpu --miniature      # every line of it, small: what the tests run

Each part has a budget; what would begin after it, or after --seconds, is left out and named. The file is written after
every measurement, so a call that is cut off loses none. One that fails is named with its error and stops no other.
Weights and activations are random, with no zeros among them: a GPU multiplies zeros faster.

On a lent machine: ``python3`` there is 3.12 with PyTorch for CUDA, typer, xxhash, pytest and more, but without zarr,
and nothing can be fetched. Here, once, in the checkout that travels:

    echo /.whl/ >> .git/info/exclude
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl \\
        zarr==3.1.6 numcodecs donfig google-crc32c defusedxml openpyxl et-xmlfile

Then one ``run`` with ``carry: [".whl"]``, ``timeout_s: 590`` and ``command: "bash benchmarks/gpu.sh"``.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from textdiff.benchmarks.gpu_shared import Steps
from textdiff.benchmarks.gpu_stage_one import StageOne
from textdiff.benchmarks.gpu_stage_two import StageTwo
from textdiff.files import write_json
from textdiff.models.device import describe_device

HERE = Path(__file__).resolve().parent
PARAMETERS = 552_814_086


class Bench(StageOne, StageTwo):
    """All measurements, each a function without arguments."""

    def parts(self) -> dict[str, tuple[float, Callable[[], Steps]]]:
        """By the name of a part the seconds it may take, and its measurements."""
        return {
            "device": (10, lambda: {"facts": self.facts}),
            "rates": (25, self.rates),
            "stage one": (100, self.stage_one),
            "precision": (30, lambda: {"relative error": self.errors}),
            "writing": (90, self.writing),
            "stage two": (120, self.stage_two),
            "tests": (90, lambda: {"pytest -m gpu": self.tests}),
            "compile": (60, lambda: {"images/s, bf16, compiled": self.compiled}),
        }

    def facts(self) -> dict[str, Any]:
        """What this machine is."""
        facts = {
            "device": describe_device(self.device),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cores": os.cpu_count(),
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }
        if not self.small and facts["parameters"] != PARAMETERS:
            raise ValueError(f"{facts['parameters']} parameters, not {PARAMETERS}")
        return facts

    def tests(self) -> dict[str, Any]:
        """What pytest says of the tests that need a GPU."""
        self.begin_peak()  # gives back what is cached, for the other process
        # Not all files: some need packages that are not there.
        tests = (HERE.parent / "tests").rglob("test_*.py")
        files = [str(file) for file in tests if re.search(r"gpu|device\)", file.read_text())]
        command = [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "--color=no",
            *files,
        ]
        if self.small:
            command = [sys.executable, "-c", "print('2 passed, 1 skipped in 0.1s')"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=150, check=False)
        except subprocess.TimeoutExpired as error:
            return {"timed out after": error.timeout, "output": (error.stdout or b"")[-2000:].decode(errors="replace")}
        counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout[-600:])}
        return counts | ({} if counts.get("failed", 0) + done.returncode == 0 else {"output": done.stdout[-4000:]})


def measure(bench: Bench, seconds: float, only: list[str], save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Runs the parts, each within its budget, all within ``seconds``; ``save`` is given all results after each."""
    end = time.monotonic() + seconds
    results: dict[str, Any] = {"results": bench.found, "left out": [], "failed": {}, "seconds": {}}
    for part, (budget, steps_of) in bench.parts().items():
        if only and part not in only:
            continue
        start = time.monotonic()
        found = bench.found.setdefault(part, {})
        end_of_part = min(end, start + (seconds if bench.small else budget))
        for name, run in steps_of().items():
            if time.monotonic() > end_of_part:
                results["left out"].append(f"{part}: {name}")
                continue
            try:
                found[name] = run()
                print(f"{part}: {name}: {json.dumps(found[name], default=str)}", flush=True)
            except Exception as error:  # whatever it is, the others are to be measured
                results["failed"][f"{part}: {name}"] = f"{type(error).__name__}: {error}"[:2000]
                print(f"{part}: {name}: FAILED {type(error).__name__}: {error}", flush=True)
            results["seconds"][part] = round(time.monotonic() - start, 1)
            save(results)
    save(results)
    return results


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints, and writes the JSON file; exits with status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true", help="everything small, to try the program")
    parser.add_argument("--seconds", type=float, default=380, help="after which nothing more is begun")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="parts to measure; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "results/gpu.json")
    parser.add_argument("--folder", type=Path, help="for caches of 20 GB; a temporary one by default")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device here; try --device cpu --miniature")
    place = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with place as folder:
        bench = Bench(device, options.miniature, Path(folder))
        results = measure(bench, options.seconds, options.only, partial(write_json, options.out))
    print(f"left out: {', '.join(results['left out']) or 'nothing'}")
    print(f"failed: {', '.join(results['failed']) or 'nothing'}")
    return results


if __name__ == "__main__":
    sys.exit(1 if main()["failed"] else 0)
