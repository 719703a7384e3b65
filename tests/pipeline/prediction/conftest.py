"""A run, and images that it predicts."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory, make_lvit_once, textdiff_once, tiny_backbone) -> Path:
    """A data set with its cache and a run, the quickest there is."""
    root = tmp_path_factory.mktemp("predict")
    make_lvit_once(root / "data", n_train=2, n_val=1, n_test=3, size=(72, 96))
    arguments = ("--data", "data", "--backbone", str(tiny_backbone), "--text-encoder", "none")
    smallest = ("--image-size", "64", "--blocks", "6,8", "--steps", "50,150")
    textdiff_once(root, "extract", "--dataset", "monuseg", *arguments, *smallest, "--cache", "cache.zarr")
    textdiff_once(root, "fit", "--cache", "cache.zarr", "--epochs", "2", "--variant", "no-text")
    return root


@pytest.fixture
def images(made, tmp_path) -> Path:
    """Three images, one in a subdirectory, and something that is none."""
    folder = tmp_path / "images"
    shutil.copytree(made / "data/Test_Folder/img", folder)
    (folder / "deeper").mkdir()
    (folder / "test_001.tif").rename(folder / "deeper/test_000.tif")
    (folder / "notes.txt").write_text("not an image")
    return folder
