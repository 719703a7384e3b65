"""Slides of several scanners in one data set go the whole way, as the same pictures without a scanner do."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.cache import FeatureCache

pytest.importorskip("openslide")
tests = Path(__file__).parents[1]
cases = SimpleNamespace(**runpy.run_path(str(tests / "slide_cases.py")))
scanners = SimpleNamespace(**runpy.run_path(str(tests / "scanner_cases.py")))
SIZE = (256, 256)
PLAIN = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1")
MOST = {"dicom": 0, "hamamatsu": 12, "mirax": 0, "ome": 0}
"""By how much pixels may differ: one of them is in JPEG."""


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> SimpleNamespace:
    """A data set of slides of 1 µm, its cache at 2 µm, and the pictures at 2 µm."""
    root = tmp_path_factory.mktemp("scanners")
    writers = {
        "dicom": lambda at, levels: scanners.write_dicom(at, levels, 1.0),
        "hamamatsu": lambda at, levels: scanners.write_ndpi(at.with_suffix(".ndpi"), levels, 1.0),
        "mirax": lambda at, levels: scanners.write_mrxs(at.with_suffix(".mrxs"), levels, 1.0),
        "ome": lambda at, levels: cases.write_ome(at.with_suffix(".ome.tif"), levels, 1.0),
    }
    for folder in ("slides/images", "slides/masks", "plain"):
        (root / folder).mkdir(parents=True)
    lines, pictures = ["image,text,split"], {}
    for number, (name, write) in enumerate(writers.items()):
        image, inside = cases.tissue(*SIZE, seed=number)
        pictures[name] = cases.halved(image)
        write(root / "slides/images" / name, [image, pictures[name]])
        Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(root / f"slides/masks/{name}.png")
        Image.fromarray(pictures[name]).save(root / f"plain/{name}.png", dpi=(12700, 12700))
        lines.append(f"{name},The nuclei are sparse.,{'test' if number == 3 else 'train'}")
    (root / "slides/texts.csv").write_text("\n".join(lines) + "\n")
    tile = ("--mpp", "2", "--tile", "64", "--overlap", "8")
    textdiff_once(root, "extract", "--dataset", "folder", "--data", "slides", *tile, *PLAIN, "--cache", "slides.zarr")
    return SimpleNamespace(root=root, pictures=pictures)


def test_a_slide_of_several_files_is_one_image_of_a_data_set(made):
    cache = FeatureCache.open(made.root / "slides.zarr")
    assert {row.id for row in cache.rows} == set(MOST)
    for number, row in enumerate(cache.rows):
        expected = made.pictures[row.id][row.y : row.y + 64, row.x : row.x + 64]
        assert np.abs(cache.image(number).astype(int) - expected).max() <= MOST[row.id]


def test_a_slide_in_dicom_without_a_resolution_is_refused(made, textdiff_once):
    arguments = ("--data", "slides", "--tile", "64", *PLAIN, "--cache", "bad.zarr")
    said = textdiff_once(made.root, "extract", "--dataset", "folder", *arguments, status=2).stderr
    assert "level0.dcm: is a slide; say at which resolution, as with --mpp 0.5 --tile 256" in said


@pytest.mark.slow
def test_a_slide_of_several_files_is_one_image_of_a_directory(made, textdiff_once):
    fit = ("--variant", "no-text", "--width", "16", "--epochs", "1")
    textdiff_once(made.root, "fit", "--cache", "slides.zarr", *fit)
    for source, folder in (("slides/images", "of-slides"), ("plain", "of-plain")):
        textdiff_once(made.root, "predict", source, "--out", folder, "--tissue", "0", "--probabilities")
    masks = {path.stem.removesuffix("_probability"): path for path in (made.root / "of-slides").glob("*_probability.*")}
    assert set(masks) == set(MOST)
    for name, path in masks.items():
        found = tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))
        expected = np.asarray(Image.open(made.root / f"of-plain/{name}_probability.png"))
        if name == "ome":  # no scanner's: a picture, whose mask has its own size
            assert found.shape == SIZE
        elif MOST[name] == 0:
            np.testing.assert_array_equal(found, expected)
        else:
            assert np.abs(found.astype(int) - expected).mean() < 0.02 * 65535
