"""How long one waits in napari's window, from the button Fit to the new mask, after one scribble, two and three.

    python benchmarks/painting.py --cache cache/monuseg.zarr [--image ID] [--scribbles 3] [--presses 3]

The form of the plug-in stands beside napari's model of a viewer, on Qt's platform without a screen, so that all is in
the time but drawing. A scribble is two strokes in objects and two in the background, drawn by rule in the image's mask
(``scribbles.py``). Seconds pass on the clock, in three presses, and on the processor, all threads together; the Dice
coefficient is of the painted image, at its own size, with all objects as one class. Prints Markdown and keeps the
numbers in results/painting.json.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from textdiff.benchmarks.common import keep
from textdiff.images.labels import UNSAID
from textdiff.tables import markdown_table

PEN = 10  # pixels
TIMES = ("clock", "processor")


def main() -> None:
    """Paints, presses, waits and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--image", help="by default the first one for training")
    parser.add_argument("--scribbles", type=int, default=3)
    parser.add_argument("--presses", type=int, default=3)
    options = parser.parse_args()

    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from textdiff.benchmarks.scribbles import stroke_by_stroke
    from textdiff.napari_plugin.widget import FOUND, LABELS, Annotate

    app = QApplication.instance() or QApplication([])
    viewer = ViewerModel()
    form = Annotate(viewer)
    form.path.value = options.cache
    form.open.native.click()
    name = options.image or next(name for name in form.session.names if form.session.split(name) == "train")
    form.image.value = name
    # What the data set's mask says is the truth; the window starts without it.
    truth = np.asarray(viewer.layers[LABELS].data).astype(int) - 1
    if not (truth > 0).any():
        parser.error(f"--cache {options.cache}: has no mask of {name} to draw strokes by; make it with masks")
    strokes = stroke_by_stroke(truth > 0, PEN, np.random.default_rng(0))
    painted = np.zeros(truth.shape, np.uint8)

    rows: list[dict[str, Any]] = []
    for scribble in range(1, options.scribbles + 1):
        for _ in range(4):
            drawn, label = next(strokes)
            painted[drawn] = label + 1
        clock, processor = [], []
        for _ in range(options.presses):
            viewer.layers[LABELS].data = painted.copy()
            began, worked = time.perf_counter(), time.process_time()
            form.buttons["Fit"].native.click()
            while not form.buttons["Fit"].enabled:
                app.processEvents()
                time.sleep(0.002)
            clock.append(time.perf_counter() - began)
            processor.append(time.process_time() - worked)
        found = np.asarray(viewer.layers[FOUND].data) > 1
        both, said = np.count_nonzero(found & (truth > 0)), truth != int(UNSAID)
        dice = 200 * both / (np.count_nonzero(found & said) + np.count_nonzero(said & (truth > 0)))
        rows.append(
            {"scribbles": scribble, "pixels": int(np.count_nonzero(painted)), "dice": dice, "clock": clock,
             "processor": processor, "said": str(form.status.value).splitlines()[0]}
        )  # fmt: skip
    keep("painting", {"image": name, "cores": os.cpu_count(), "load": os.getloadavg(), "rows": rows})
    table = [
        [str(row["scribbles"]), str(row["pixels"]), f"{row['dice']:.1f}", *(_listed(row[part]) for part in TIMES)]
        for row in rows
    ]
    print(markdown_table(["scribbles", "labelled pixels", "Dice %", "seconds on the clock", "of a core"], table))


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f}" for s in seconds)


if __name__ == "__main__":
    main()
