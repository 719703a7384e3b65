"""A user's mistake: one line that names the thing, exit status 2, no traceback, nothing lost or left behind."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from openpyxl import load_workbook
from PIL import Image

EXTRACT = ("extract", "--dataset", "monuseg", "--text-encoder", "none", "--image-size", "64")


@pytest.fixture(scope="module")
def good(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once) -> Path:
    """A sound data set with its cache and a finished run; tests damage copies of it."""
    root = tmp_path_factory.mktemp("good")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=1, size=64)
    shutil.copy(tiny_backbone, root / "tiny.safetensors")
    textdiff_once(root, *EXTRACT, "--data", "data", "--backbone", "tiny.safetensors", "--cache", "good.zarr")
    textdiff_once(root, "fit", "--cache", "good.zarr", "--epochs", "1", "--variant", "no-text")
    return root


@pytest.fixture
def copy(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy", symlinks=True))


def truncate_image(root: Path) -> None:
    image = sorted((root / "data/Train_Folder/img").iterdir())[0]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def add_text_without_image(root: Path) -> None:
    path = root / "data/Train_Folder/Train_text.xlsx"
    book = load_workbook(path)
    book.active.append(["ghost.png", "There is no such image."])
    book.save(path)


def make_empty(root: Path) -> None:
    shutil.rmtree(root / "data")
    (root / "data").mkdir()


def other_mask_size(root: Path) -> None:
    mask = sorted((root / "data/Train_Folder/labelcol").iterdir())[0]
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(mask)


def foreign_checkpoint(root: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(10, 64)}, root / "tiny.safetensors")
    (root / "tiny.safetensors").rename(root / "resnet.pt")


def flip_byte(root: Path) -> None:
    chunk = sorted((root / "good.zarr/features/b06").glob("c.0.*"))[0]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 0x10
    chunk.write_bytes(data)


def drop_head(root: Path) -> None:
    (root / "runs/latest/head.safetensors").unlink()


MORE = ("--data", "data", "--backbone", "tiny.safetensors", "--cache", "new.zarr")
OLD = ("--data", "data", "--backbone", "tiny.safetensors", "--cache", "good.zarr")
CASES = {
    "no such directory": (None, (*EXTRACT, "--data", "nowhere", *MORE[2:]), ["nowhere"]),
    "an empty directory": (make_empty, (*EXTRACT, *MORE), ["data", "empty"]),
    "a missing text file": (
        lambda r: (r / "data/Test_Folder/Test_text.xlsx").unlink(),
        (*EXTRACT, *MORE),
        ["Test_text.xlsx"],
    ),
    "a text without an image": (add_text_without_image, (*EXTRACT, *MORE), ["ghost"]),
    "a truncated PNG": (truncate_image, (*EXTRACT, *MORE), ["train_000", "truncated"]),
    "a mask of another size": (other_mask_size, (*EXTRACT, *MORE), ["48", "64"]),
    "a checkpoint of another architecture": (
        foreign_checkpoint,
        (*EXTRACT, "--data", "data", "--backbone", "resnet.pt", "--cache", "new.zarr"),
        ["resnet.pt"],
    ),
    "no such checkpoint": (None, (*EXTRACT, *MORE[:2], "--backbone", "gone.pt", *MORE[4:]), ["gone.pt"]),
    "a mistyped checkpoint": (
        None,
        (*EXTRACT, *MORE[:2], "--backbone", "tiny.safetensor", *MORE[4:]),
        ["did you mean tiny.safetensors?"],
    ),
    "a mistyped backbone": (None, (*EXTRACT, *MORE[:2], "--backbone", "nano-eh"), ["did you mean nano-he?"]),
    "a cache of another fingerprint": (None, (*EXTRACT, *OLD, "--steps", "50,150"), ["good.zarr", "steps"]),
    "a step beyond the schedule": (None, (*EXTRACT, *MORE, "--steps", "5000"), ["--steps 5000", "999"]),
    "a block that is not there": (None, (*EXTRACT, *MORE, "--blocks", "40"), ["--blocks 40", "0..17"]),
    "blocks that are no numbers": (None, (*EXTRACT, *MORE, "--blocks", "a,b"), ["--blocks a,b"]),
    "an unknown data set": (None, ("extract", "--dataset", "cityscapes"), ["cityscapes", "monuseg"]),
    "an unknown protocol": (None, (*EXTRACT, *MORE, "--protocol", "papr"), ["papr"]),
    "an odd image size": (None, (*EXTRACT, *MORE, "--image-size", "100"), ["--image-size 100"]),
    "three views": (None, (*EXTRACT, *MORE, "--views", "3"), ["--views 3"]),
    "four views of a test image": (None, (*EXTRACT, *MORE, "--test-views", "4"), ["--test-views 4", "1, or 8"]),
    "two views to predict": (None, ("predict", "data/Test_Folder/img", "--views", "2"), ["--views 2", "1, or 8"]),
    "sixteen symmetries": (None, (*EXTRACT, *MORE, "--views", "16"), ["--views 16", "eight symmetries", "--jitter he"]),
    "colours of one view": (None, (*EXTRACT, *MORE, "--jitter", "he"), ["--jitter he", "--views 8"]),
    "colours of an MRI": (
        None,
        (*EXTRACT, *MORE, "--views", "8", "--jitter", "mri"),
        ["--jitter mri", "he, cxr, none"],
    ),
    "a negative loss": (
        None,
        ("fit", "--cache", "good.zarr", "--dice-weight", "-1"),
        ["--dice-weight -1", "at least 0"],
    ),
    "more labels than images": (
        None,
        ("fit", "--cache", "good.zarr", "--labels", "500", "--variant", "no-text"),
        ["--labels 500", "2"],
    ),
    "a variant that needs text": (None, ("fit", "--cache", "good.zarr", "--variant", "full"), ["--text-encoder none"]),
    "a flipped byte": (flip_byte, ("fit", "--cache", "good.zarr", "--variant", "no-text"), ["textdiff cache repair"]),
    "no cache": (None, ("fit", "--cache", "gone.zarr"), ["gone.zarr"]),
    "a directory that is no cache": (None, ("fit", "--cache", "data"), ["data"]),
    "a run without a head": (drop_head, ("score",), ["head.safetensors", "--resume"]),
    "a directory that is no run": (None, ("score", "--run", "data"), ["data", "config.json"]),
    "no run at all": (lambda r: shutil.rmtree(r / "runs"), ("score",), ["textdiff fit"]),
    "an unknown split": (None, ("score", "--split", "tset"), ["tset"]),
    "no such image": (None, ("predict", "gone.png"), ["gone.png"]),
    "an image that is none": (None, ("predict", "data/Train_Folder/Train_text.xlsx"), ["1 of 1 image could"]),
    "a missing option": (None, ("extract",), ["--dataset"]),
    "an unknown command": (None, ("exract",), ["exract"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_line_and_status_2(case, copy, textdiff_once):
    damage, arguments, words = CASES[case]
    if damage:
        damage(copy)
    result = textdiff_once(copy, *arguments, status=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors, result.stderr
    for word in words:
        assert word in "\n".join(errors)
    assert "Traceback" not in result.stderr
    assert not list(copy.rglob("*.partial*"))
    assert not (copy / "new.zarr").exists()


def test_debug_shows_the_traceback(good, textdiff_once):
    result = textdiff_once(good, "--debug", "score", "--run", "nowhere", status=2)
    assert "Traceback" in result.stderr
    assert "error: --run nowhere" in result.stderr


def test_flipped_byte_is_named_by_verify_and_mended_by_repair_and_the_command_it_names(copy, textdiff_once):
    flip_byte(copy)
    assert "train_000" in textdiff_once(copy, "cache", "verify", "good.zarr", status=1).stdout
    said = textdiff_once(copy, "cache", "repair", "good.zarr").stderr
    textdiff_once(copy, *re.search(r"textdiff (extract --cache \S+) makes", said)[1].split())
    textdiff_once(copy, "cache", "verify", "good.zarr")


def test_stopping_extract_says_how_to_go_on(good, tmp_path):
    """SIGINT in the middle: status 130, a sentence, and a cache that goes on."""
    code = (
        "import os, signal, sys; from textdiff.cache import FeatureCache; write = FeatureCache.write\n"
        "def once(*a, **k):\n    write(*a, **k); os.kill(os.getpid(), signal.SIGINT)\n"
        "FeatureCache.write = once\n"
        "from textdiff import cli; sys.argv = ['textdiff', *sys.argv[1:]]; cli.main()"
    )
    arguments = [*EXTRACT, *MORE[:4], "--cache", str(tmp_path / "new.zarr")]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=good, capture_output=True, text=True, check=False
    )
    assert process.returncode == 130
    assert "again" in process.stderr
    assert "Traceback" not in process.stderr
