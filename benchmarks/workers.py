"""What many workers cost and gain over one process: time, the scheduler's memory, tasks, and bytes on the way.

    python benchmarks/workers.py [--images 2000] [--size 32] [--rounds 1]

Small images through ``extract --preset rgb``, whose rows cost little to compute, so that what is measured is the way of
the work to the workers and back: by one process, by a process for each of two devices, and by two and four workers of a
Dask scheduler in a process of its own, which are there before. A row's bytes go from the worker to the cache, and never
through the scheduler. "Command" is the whole command, from the start of Python on; "rows" is from the first row asked
for to the last one there, so the start of workers is in it, and of Dask's workers the import of PyTorch. Bytes are
counted by a proxy between the command and the scheduler. Each cache is compared with that of the one process, byte by
byte. Prints Markdown and keeps the numbers in results/workers.json.
"""

import argparse
import contextlib
import filecmp
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textdiff.benchmarks.common import keep, random_folder
from textdiff.pipeline.extraction.dask_crew import task_rows
from textdiff.tables import markdown_table


class Proxy:
    """Counts the bytes of connections that it passes on to an address."""

    def __init__(self, host: str, port: int) -> None:
        self._target, self.bytes = (host, port), 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                near = self._socket.accept()[0]
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                self.bytes += len(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def memory(process: int, what: str) -> float:
    """MB that a process has now (VmRSS) or had at most (VmHWM)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1000


@contextlib.contextmanager
def cluster(workers: int, place: Path) -> Iterator[tuple[int, Proxy]]:
    """The scheduler's process and a way to it, with workers of one thread each."""
    file = place / f"scheduler-{workers}.json"
    log = (place / "cluster.log").open("a")
    module = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [*module, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        stderr=log,
    )
    while not file.exists():
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    worker = [*module, "distributed.cli.dask_worker", address, "--no-dashboard", "--local-directory", str(place)]
    crew = subprocess.Popen([*worker, "--nworkers", str(workers), "--nthreads", "1"], stderr=log)
    try:
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers)
        host, port = address.removeprefix("tcp://").split(":")
        yield scheduler.pid, Proxy(host, int(port))
    finally:
        for process in (crew, scheduler):
            process.terminate()
            process.wait()


def extract(place: Path, cache: Path, size: int, *more: str) -> dict[str, float]:
    """Seconds of the command and of its rows, from nothing."""
    shutil.rmtree(cache, ignore_errors=True)
    words = ["extract", "--dataset", "folder", "--data", str(place / "data"), "--cache", str(cache), "--preset", "rgb"]
    words += ["--views", "1", "--text-encoder", "none", "--image-size", str(size), *more]
    start, first, last = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen([sys.executable, "-m", "textdiff.cli", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        # The plan is said when all is ready, the last line of progress when all rows are there.
        first = time.perf_counter() if " rows to do" in line else first
        last = time.perf_counter() if line.startswith("extract: ") else last
    if process.wait():
        raise SystemExit("".join(said))
    return {"command": time.perf_counter() - start, "rows": last - first}


def equal(one: Path, other: Path) -> bool:
    """Whether two directories hold the same bytes."""
    names = [sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) for root in (one, other)]
    return names[0] == names[1] and filecmp.cmpfiles(one, other, names[0], shallow=False)[0] == names[0]


def measure(place: Path, images: int, size: int) -> Iterator[dict[str, Any]]:
    """One round of all ways."""
    one = place / "one.zarr"
    yield {"way": "one process", **extract(place, one, size)}
    cache = place / "other.zarr"
    seconds = extract(place, cache, size, "--devices", "cpu,cpu")
    yield {"way": "--devices cpu,cpu", **seconds, "equal": equal(one, cache)}
    for workers in (2, 4):
        with cluster(workers, place) as (scheduler, proxy):
            before = memory(scheduler, "VmRSS")
            # The second time, the workers have PyTorch and the network.
            for way in ("fresh", "warm"):
                sent = proxy.bytes
                seconds = extract(place, cache, size, "--scheduler", proxy.address)
                rows = task_rows(images, workers)
                yield {
                    "way": f"{workers} Dask workers, {way}",
                    **seconds,
                    "equal": equal(one, cache),
                    "tasks": -(-images // rows),
                    "rows_each": rows,
                    "scheduler_before": before,
                    "scheduler_most": memory(scheduler, "VmHWM"),
                    "bytes": proxy.bytes - sent,
                }


def main() -> None:
    """Measures, prints and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        random_folder(place / "data", options.images, options.size)
        for _ in range(options.rounds):
            for found in measure(place, options.images, options.size):
                known = best.setdefault(found["way"], found)
                best[found["way"]] = found | {key: min(found[key], known[key]) for key in ("command", "rows")}
                print(found, file=sys.stderr, flush=True)
    results = list(best.values())
    lines = [
        [
            found["way"],
            f"{found['command']:.1f}",
            f"{found['rows']:.1f}",
            f"{options.images / found['rows']:.0f}",
            f"{results[0]['rows'] / found['rows']:.2f}",
            *(f"{found[key]:.0f}" if key in found else "" for key in ("tasks", "scheduler_before", "scheduler_most")),
            f"{found['bytes'] / 1000:.0f}" if "bytes" in found else "",
            {True: "yes", False: "NO"}.get(found.get("equal"), ""),
        ]
        for found in results
    ]
    head = [
        "way",
        "command, s",
        "rows, s",
        "images/s",
        "to one",
        "tasks",
        "scheduler before, MB",
        "most, MB",
        "sent, kB",
    ]
    print(markdown_table([*head, "same bytes"], lines))
    about = {"images": options.images, "size": options.size, "rounds": options.rounds, "cores": os.cpu_count()}
    keep("workers", {**about, "load": os.getloadavg(), "ways": results})


if __name__ == "__main__":
    main()
