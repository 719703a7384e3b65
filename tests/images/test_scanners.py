"""Slides as several scanners write them: OpenSlide and we read the right pixels, at the right micrometres."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.images.scaled import Scaled
from textdiff.images.slide_dicom import dicom_slides
from textdiff.images.slide_files import is_slide, open_slide, open_view, slide_digest
from textdiff.options.reading import ReadOptions
from textdiff.pipeline.prediction.inputs import from_paths
from textdiff.readers.folder import read_folder

openslide = pytest.importorskip("openslide")
tests = Path(__file__).parents[1]
cases = SimpleNamespace(**runpy.run_path(str(tests / "slide_cases.py")))
scanners = SimpleNamespace(**runpy.run_path(str(tests / "scanner_cases.py")))
BASE = cases.tissue(256, 384)[0]
LEVELS = [BASE, cases.halved(BASE), cases.halved(cases.halved(BASE))]
JPEG = 12
"""Most that a pixel changes in our JPEGs."""
FORMATS: dict[str, tuple[str, Callable[[Path], Path], int]] = {
    "dicom": ("dicom", lambda at: scanners.write_dicom(at / "a", LEVELS), 0),
    "dicom of JPEG": ("dicom", lambda at: scanners.write_dicom(at / "a", LEVELS, compressed=True), JPEG),
    "ndpi": ("hamamatsu", lambda at: scanners.write_ndpi(at / "a.ndpi", LEVELS), JPEG),
    "mrxs": ("mirax", lambda at: scanners.write_mrxs(at / "a.mrxs", LEVELS), 0),
    # What OpenSlide does not know as a scanner's is ours to read: it would see the finest level alone.
    "ome": ("generic-tiff", lambda at: cases.write_ome(at / "a.ome.tif", LEVELS), 0),
    "generic": ("generic-tiff", lambda at: cases.write_generic(at / "a.tif", LEVELS), 0),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_and_micrometres_are_those_that_were_written(tmp_path, kind):
    vendor, write, most = FORMATS[kind]
    path = write(tmp_path)
    assert openslide.OpenSlide.detect_format(path) == vendor
    assert is_slide(path) == (vendor != "generic-tiff")
    with open_slide(path) as slide:
        assert slide.pixel_size == pytest.approx((0.25, 0.25))
        assert [(level.height, level.width) for level in slide.levels][:3] == [one.shape[:2] for one in LEVELS]
        for level, pixels in zip(slide.levels, LEVELS, strict=False):
            found = level.read(30, 20, level.height - 30, level.width - 20)
            assert np.abs(found.astype(int) - pixels[30:, 20:]).max() <= most
    with open_view(Scaled(path, 0.5)) as view:
        assert (view.height, view.width) == LEVELS[1].shape[:2]
        assert np.abs(view.region(0, 0, 128, 192).astype(int) - LEVELS[1]).max() <= most


def test_a_slide_in_dicom_is_all_files_of_its_series_and_of_those_alone(tmp_path):
    path, other = (scanners.write_dicom(tmp_path / name, LEVELS) for name in ("a", "b"))
    for file in other.parent.iterdir():
        file.rename(path.parent / f"other-{file.name}")
    (path.parent / "level9.dcm").write_bytes(path.read_bytes()[:900])
    slides = dicom_slides(sorted(path.parent.iterdir()))
    names = {slide.name: [file.name for file in files] for slide, files in slides.items()}
    assert names.pop("level9.dcm") == ["level9.dcm"]
    assert names == {
        f"{first}level0.dcm": [f"{first}level{number}.dcm" for number in range(3)] for first in ("", "other-")
    }
    before = {name: slide_digest(path.parent / name) for name in ("level0.dcm", "other-level0.dcm")}
    smallest = path.parent / "level2.dcm"
    smallest.write_bytes(smallest.read_bytes()[:-1] + b"x")
    assert slide_digest(path) != before["level0.dcm"]
    assert slide_digest(path.parent / "other-level0.dcm") == before["other-level0.dcm"]
    bad = path.parent / "level9.dcm"
    with pytest.raises(UserError, match=r"level9\.dcm: cannot be opened as a slide .*replace it"), open_slide(bad):
        pass


def test_a_slide_in_dicom_is_never_read_as_its_first_frame(tmp_path, monkeypatch):
    path = scanners.write_dicom(tmp_path, LEVELS)
    monkeypatch.setattr("textdiff.images.slide_files.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"level0\.dcm: is a slide, .*openslide-python; pip install"), open_slide(path):
        pass


def test_a_segmentation_of_a_slide_is_no_slide(tmp_path):
    """Its head names the slide that it was made of."""
    path = scanners.write_dicom(tmp_path, LEVELS[:1])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"77.1.6", b"66.400", 1))
    assert b"77.1.6" in path.read_bytes()[:1024]
    assert dicom_slides([path]) == {}


def test_files_of_slides_are_each_one_image_whichever_folder_they_lie_in(tmp_path):
    def found(root: Path) -> tuple[list[tuple[str, str]], list[str]]:
        samples, problems = read_folder(root, ReadOptions())
        return [(one.id, one.split) for one in samples], [str(one) for one in problems if one.severity == "error"]

    two = LEVELS[:2]
    scanners.write_dicom(tmp_path / "flat/images/train", two)
    assert found(tmp_path / "flat") == ([("level0", "train")], [])
    path = scanners.write_dicom(tmp_path / "beside/images/train/a", two)
    scanners.write_dicom(tmp_path / "beside/images/b", two)
    beside = "images/b/level0.dcm: lies beside the folders of splits (train); move it into one of them"
    assert found(tmp_path / "beside") == ([("a", "train")], [beside])
    for file in scanners.write_dicom(tmp_path / "other", two).parent.iterdir():
        file.rename(path.parent / f"other-{file.name}")
    said = found(tmp_path / "beside")[1]
    assert "images/train/a: holds 2 slides in DICOM; give each series a folder of its own" in said
    given = from_paths(sorted(path.parent.iterdir()), "", tmp_path / "out")
    assert [one.name for one in given] == ["level0", "other-level0"]


def test_what_is_in_the_folder_of_a_mirax_slide_is_not_said_to_be_passed_over(tmp_path, capsys):
    scanners.write_mrxs(tmp_path / "in/a.mrxs", LEVELS)
    assert [one.name for one in from_paths([tmp_path / "in"], "", tmp_path / "out")] == ["a"]
    assert "passed over" not in capsys.readouterr().err
