"""The masks of a data set have one foreground, in whatever encodings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.readers.datasets import inspect, read_dataset
from textdiff.tests.image_files import (
    BLACK,
    GREEN,
    INSIDE,
    MASK,
    RED,
    TWO_CLASSES,
    WHITE,
    jpeg,
    painted,
    palette,
    png,
    tiff,
)


def folder(root: Path, masks: list[bytes]) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rows = ["image,text,split"]
    for number, mask in enumerate(masks):
        pixels = np.random.default_rng([1, number]).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        (root / f"masks/{number}.{'tif' if mask[:1] in b'IM' else 'png'}").write_bytes(mask)
        rows.append(f"{number},,{('train', 'val', 'test')[number % 3]}")
    (root / "texts.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (
            [png(MASK * np.uint8(n)) for n in (1, 1, 2, 4)],
            r"2.png: has the foreground 2 \(1 mask\), and .*0.png has the foreground 1 \(2 masks\)",
        ),
        ([png(MASK), png(MASK * 255)], "1.png: has the foreground 255 .*, and .*0.png has the foreground 1 "),
        ([png(MASK * 255), png(MASK), png(MASK), png(MASK)], "0.png: has the foreground 255"),
        ([png(MASK * np.uint8(n)) for n in (85, 170, 255)], "1.png: has the foreground 170"),
        ([tiff(MASK.astype(np.uint16) * n) for n in (1045, 1046, 1045)], "1.tif: has the foreground 1046"),
        (
            [png(painted(MASK, BLACK, colour)) for colour in (RED, GREEN)],
            "has the foreground #00ff00 .* has the foreground #ff0000",
        ),
        ([palette(MASK, BLACK, (128, 0, 0)), palette(MASK * np.uint8(2), BLACK, RED, GREEN)], "#00ff00"),
    ],
    ids=["classes", "1 and 255", "255 and 1", "greys", "16 bits", "colours", "palettes"],
)
def test_masks_that_differ_in_their_foreground_are_refused(tmp_path, textdiff_once, masks, words):
    folder(tmp_path / "d", masks)
    check = textdiff_once(tmp_path, "data", "check", "--dataset", "folder", "--data", "d", "--json", status=1)
    errors = json.loads(check.stdout)["errors"]
    assert any(re.search(words, f"{error['where']}: {error['what']}") for error in errors)
    assert all("--classes" in error["fix"] for error in errors)


def test_masks_of_one_foreground_in_many_encodings_are_one_data_set(tmp_path):
    masks = [png(MASK * 255), png(INSIDE), jpeg(MASK * 255, 80), png(MASK * 0), tiff(MASK.astype(np.uint16) * 65535)]
    masks += [png(painted(MASK, BLACK, WHITE)), tiff(MASK.astype(np.float32)), TWO_CLASSES["inverted by ImageJ"]]
    masks += [png(np.asarray(Image.fromarray(MASK * 255).resize((96, 80)).resize((48, 40))))]
    facts, problems = inspect(read_dataset("folder", folder(tmp_path / "d", masks))[0])
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert all(fact.usable for fact in facts)


def test_with_skip_bad_only_masks_of_the_usual_foreground_are_left(tmp_path, textdiff_once):
    folder(tmp_path / "d", [png(MASK * np.uint8(n)) for n in (1, 1, 1, 2)])
    options = ("--preset", "rgb", "--image-size", "32", "--views", "1", "--skip-bad", "--cache", "c.zarr")
    result = textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "d", *options)
    assert "left out: d/masks/3.png: has the foreground 2" in result.stdout + result.stderr
    assert "3 " in textdiff_once(tmp_path, "cache", "info", "c.zarr").stdout


@pytest.mark.parametrize(("inverted", "told"), [((), []), ((3,), ["3.png"]), ((0, 1, 2), []), (range(4), [])])
def test_a_mask_that_is_mostly_foreground_where_most_are_not_is_told(tmp_path, inverted, told):
    inside = np.zeros((40, 48), bool)
    inside[10:20, 10:25] = True
    masks = [png((inside ^ (number in inverted)).astype(np.uint8) * 255) for number in range(4)]
    facts, problems = inspect(read_dataset("folder", folder(tmp_path, masks))[0])
    said = [problem for problem in problems if "of its pixels" in problem.what]
    assert [problem.where.rsplit("/", 1)[-1] for problem in said] == told
    wanted = "is foreground in 92.2% of its pixels, and half of the masks in at most 7.8%"
    assert {problem.what for problem in said} <= {wanted}
    assert all(fact.usable for fact in facts)


@pytest.mark.parametrize("command", [("data", "check"), ("extract", "--preset", "rgb", "--image-size", "32")])
def test_whole_masks_of_which_the_foreground_is_said_to_be_unknown_are_refused_in_one_line(
    tmp_path, textdiff_once, command
):
    folder(tmp_path / "data", [png(MASK * 255)] * 3)
    common = ("--dataset", "folder", "--data", "data")
    done = textdiff_once(tmp_path, *command, *common, "--unlabelled-value", "255", status=2)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line == (
        "error: --unlabelled-value 255: all 3 masks hold 0 and 255 alone, so that no foreground is left; leave the "
        "option out if 255 is the foreground, else store the foreground as 1"
    )
    assert not list(tmp_path.glob("cache/*"))


def test_masks_of_which_one_shows_foreground_may_say_nothing_elsewhere(tmp_path, textdiff_once):
    strokes = np.full_like(MASK, 255)
    strokes[:4], strokes[-4:] = 0, 1
    folder(tmp_path / "data", [png(MASK * 255), png(MASK * 255), png(strokes)])
    options = ("--dataset", "folder", "--data", "data", "--unlabelled-value", "255")
    assert "sound: 0 errors" in textdiff_once(tmp_path, "data", "check", *options).stdout


def test_strokes_in_the_background_alone_are_no_whole_masks(tmp_path, textdiff_once):
    strokes = np.full_like(MASK, 255)
    strokes[:4] = 0
    folder(tmp_path / "data", [png(strokes)] * 3)
    options = ("--dataset", "folder", "--data", "data", "--unlabelled-value", "255")
    assert "sound: 0 errors" in textdiff_once(tmp_path, "data", "check", *options).stdout
