"""The data set whose sentences alone say which nuclei are meant: its masks hold what scikit-image measures so."""

import csv
import sys

import numpy as np
from PIL import Image
from skimage.measure import label, regionprops

from textdiff.benchmarks.named_nuclei import SENTENCES, main

FOLDERS = {"train": "Train_Folder", "val": "Val_Folder", "test": "Test_Folder"}


def test_each_sentence_names_half_of_the_objects_of_the_whole_image(tmp_path, make_lvit_once, monkeypatch):
    data = make_lvit_once(tmp_path / "data", n_train=2, n_val=1, n_test=1, size=96)
    monkeypatch.setattr(sys, "argv", ["named_nuclei", "--source", str(data), "--out", str(tmp_path / "named")])
    main()
    rows = list(csv.DictReader((tmp_path / "named/texts.csv").open()))
    assert len(rows) == 4 * 4
    seen = dict.fromkeys(SENTENCES, 0)
    for row in rows:
        name, quarter = row["image"].rsplit("-", 1)
        folder = data / FOLDERS[row["split"]]
        pixels = np.asarray(Image.open(next(folder.glob(f"img/{name}.*"))).convert("RGB"))
        objects = regionprops(
            label(np.asarray(Image.open(next(folder.glob(f"labelcol/{name}.*"))).convert("L")) > 127, connectivity=2),
            pixels.mean(-1),
        )
        by = "area" if "large" in row["text"] or "small" in row["text"] else "intensity_mean"
        middle = np.median([getattr(one, by) for one in objects])
        wanted = np.zeros(pixels.shape[:2], bool)
        for one in objects:
            # A tie is small, and pale.
            more = getattr(one, by) > middle if by == "area" else getattr(one, by) >= middle
            if more == ("large" in row["text"] or "pale" in row["text"]):
                wanted[tuple(one.coords.T)] = True
        upper, left = divmod(int(quarter), 2)
        part = slice(48 * upper, 48 * upper + 48), slice(48 * left, 48 * left + 48)
        found = np.asarray(Image.open(tmp_path / f"named/masks/{row['image']}.png"))
        np.testing.assert_array_equal(found > 0, wanted[part])
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / f"named/images/{row['image']}.png")), pixels[part]
        )
        seen[row["text"]] += int(found.any())
    assert min(seen.values()) > 0
