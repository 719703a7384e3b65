"""What is counted is said in the number that it has, and what is shared adds up."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from textdiff.console import counted, duration, shares

# "1 images", but not "1 of 9 images", "0.1 images" or "32x1 images".
PLURAL_OF_ONE = re.compile(
    r"(?<![\d.,x/] )(?<![\w.,:/-])1 (?:(?:bad|test|val|validation|training|labelled|distinct|new) )?"
    r"(?:images|rows|masks|texts|tokens|objects|tiles|views|runs|pixels|jobs|draws|seeds|epochs|files|processes|threads|"
    r"cores|classes|members|errors|leaks|notes|faults|candidates|groups)\b"
)
ABOUT_ALL = re.compile(r"\b1 of 1 \w+s\b|\b1 of \d+ (?:\w+ )?images (?:have|are|do)\b")


def test_one_is_singular_and_all_else_is_plural():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(3, "process", "processes") == "3 processes"


@pytest.mark.parametrize("parts", [(1, 1, 1), (0.4, 0.4, 0.2), (996, 2, 2), (1, 0, 0), tuple(range(1, 20))])
def test_shares_are_within_one_of_the_exact_ones_and_add_up_to_100(parts):
    found = shares(parts)
    assert sum(found) == 100
    assert np.abs(np.subtract(found, 100 * np.array(parts) / sum(parts))).max() < 1


def test_nothing_is_shared_as_nothing():
    assert shares((0.0, 0.0)) == [0, 0]


def test_a_time_has_two_digits_however_short_it_is():
    assert [duration(seconds) for seconds in (0, 0.0142, 0.5, 59.4, 61)] == [
        *("0.0 s", "14 ms", "0.5 s", "59 s"),
        "1 min 01 s",
    ]


def test_a_data_set_of_one_image_of_each_kind_is_told_in_the_singular(tmp_path, textdiff_once):
    data, lines = tmp_path / "data", ["image,text,split"]
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, split in (("a", "train"), ("b", "val"), ("c", "test"), ("d", "test")):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 10:24] = 1
        picture = np.clip(220 - 120 * mask[..., None] + draw.normal(0, 5, (32, 32, 3)), 0, 255)
        Image.fromarray(picture.astype(np.uint8)).save(data / f"images/{name}.png")
        if name != "d":
            Image.fromarray(255 * mask).save(data / f"masks/{name}.png")
        lines.append(f"{name},Cells.,{split}")
    (data / "texts.csv").write_text("\n".join(lines))
    said = []
    for command in (
        "data check --dataset folder --data data",
        "extract --dataset folder --data data --preset rgb --image-size 32 --views 1 --cache c.zarr "
        "--text-encoder none",
        "cache info c.zarr",
        "fit --cache c.zarr --model trees",
        "score",
        "report",
        "predict data/images/d.png",
        "predict data/images/d.png",
        "predict --dataset folder --data data --out others",
        "next",
        "ablate --cache c.zarr --variants no-text --no-unet --labels 1 --draws 1 --seeds 1 --epochs 1 --jobs 1",
    ):
        done = textdiff_once(tmp_path, *command.split())
        said += [done.stdout, done.stderr]
    said += [file.read_text() for kind in ("*.md", "*.html") for file in sorted((tmp_path / "runs").rglob(kind))]
    page = next((tmp_path / "runs").rglob("report.html")).read_text()
    shown = json.loads(re.search(r'<script[^>]*id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert shown["keptEpoch"] is None
    assert not [one["text"] for one in shown["caveats"] if "epoch" in one["text"] or "weights" in one["text"]]
    assert any("fitted on 1 image (validation Dice" in text for text in said)  # trees have neither epochs nor weights
    assert any("1 of 2 test images has no mask and is not scored" in text for text in said)
    for text in said:
        assert [found[0] for pattern in (PLURAL_OF_ONE, ABOUT_ALL) for found in pattern.finditer(text)] == []
