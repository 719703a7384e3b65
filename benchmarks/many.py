"""What ``extract`` takes for many small images: images a second and the largest memory, by their number.

    python benchmarks/many.py [--counts 100,1000,10000] [--side 32] [--backbone rgb]

The images are so small, and the backbone so cheap, that what is measured is everything else: reading a data set,
checking it, decoding, the sample table, files, ledger, progress. Whatever grows faster than the number of images shows.
Each count is a process of its own; "start" is what Python and the libraries take. Seconds of the processor are given
too, which say more on a machine that others use. Prints JSON and keeps it in results/many.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from textdiff.benchmarks.common import random_folder
from textdiff.files import write_json

HERE = Path(__file__).resolve().parent
CODE = """
import json, resource, sys, time
from textdiff.options.extract import Extract
from textdiff.pipeline.extract import extract

def used():
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

options = Extract("folder", data=sys.argv[1], cache=sys.argv[2], preset=sys.argv[3], image_size=int(sys.argv[4]),
                  text_encoder="none", views=1)
start, (processor, memory) = time.perf_counter(), used()
cache = extract(options)
seconds, (after, peak) = time.perf_counter() - start, used()
again = time.perf_counter()
extract(options)
print(json.dumps({
    "images": len(cache.rows), "seconds": seconds, "processor": after - processor, "start_bytes": memory,
    "peak_bytes": peak, "again_seconds": time.perf_counter() - again, "filled": cache.filled,
}))
"""


def measure(root: Path, count: int, side: int, backbone: str) -> dict[str, Any]:
    """Extracts ``count`` images in a process of its own, twice: the second time nothing is left to do."""
    data, cache = root / f"data{count}", root / f"{count}.zarr"
    random_folder(data, count, side)
    command = [sys.executable, "-c", CODE, str(data), str(cache), backbone, str(side)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=root)
    found: dict[str, Any] = json.loads(done.stdout)
    filled = found["filled"]
    return found | {
        "images_per_second": count / found["seconds"],
        "images_per_second_filling": count / filled["seconds"],
        "processor_ms_per_image": 1e3 * found["processor"] / count,
    }


def main() -> None:
    """Measures each number of images, prints the figures and writes them down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", default="100,1000,10000")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--backbone", default="rgb", help="a preset without a network: rgb or filters")
    parser.add_argument("--folder", type=Path, help="where to write; by default where temporary files are")
    parser.add_argument("--out", type=Path, default=HERE / "results/many.json")
    options = parser.parse_args()
    begun = time.time()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        counts = map(int, options.counts.split(","))
        lines = [measure(Path(folder), count, options.side, options.backbone) for count in counts]
    value = {"side": options.side, "backbone": options.backbone, "cores": os.cpu_count(), "counts": lines}
    print(json.dumps(value, indent=2))
    write_json(options.out, value | {"minutes": round((time.time() - begun) / 60, 1)})


if __name__ == "__main__":
    main()
