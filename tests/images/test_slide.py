"""Slides: any part at any resolution is, to the byte, what the array says; what cannot be read is said in one line."""

import importlib.util
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textdiff.errors import UserError
from textdiff.images.images import resize_image
from textdiff.images.scaled import Scaled
from textdiff.images.slide_files import open_slide, open_view, slide_digest
from textdiff.images.tiles import Grid
from textdiff.images.tissue import tissue_mask, tissue_places, tissue_shares

pytest.importorskip("openslide")
cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slide_cases.py")))
halved, write_svs, write_ome = cases.halved, cases.write_svs, cases.write_ome
BASE = np.random.default_rng(0).integers(0, 256, (512, 384, 3), dtype=np.uint8)
LEVELS = [BASE, halved(BASE), halved(halved(BASE))]
WRITERS = {"svs": write_svs, "ome.tif": write_ome, "tif": cases.write_generic}


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("slides")
    return {ending: write(root / f"a.{ending}", LEVELS) for ending, write in WRITERS.items()}


def area(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized by area in floating point, from every pixel's exact share."""
    for axis, new in enumerate((height, width)):
        old = pixels.shape[axis]
        edges = np.arange(new + 1) * old / new
        share = np.clip(
            np.minimum(edges[1:, None], np.arange(1, old + 1)) - np.maximum(edges[:-1, None], np.arange(old)), 0, 1
        )
        pixels = np.moveaxis(np.tensordot(share * new / old, pixels, (1, axis)), 0, axis)
    return pixels


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.floats(0.25, 8), st.data())
def test_a_part_at_any_place_and_resolution_is_that_of_the_array(slides, kind, mpp, data):
    with open_view(Scaled(slides[kind], mpp)) as view:
        y, x = data.draw(st.integers(0, view.height - 1)), data.draw(st.integers(0, view.width - 1))
        h, w = data.draw(st.integers(1, view.height - y)), data.draw(st.integers(1, view.width - x))
        found = view.region(y, x, h, w)
        level = next(each for each in LEVELS if each.shape[0] == view.level.height)
        # The coarsest level that is finer than what is asked, or within two hundredths of it.
        assert level.shape[0] >= view.height
        assert all(one.shape[0] < view.height for one in LEVELS if one.shape[0] < level.shape[0])
        assert view.pixel_size == pytest.approx((mpp, mpp), rel=0.021 if view.height > 40 else 0.1)
    exact = area(level.astype(float), view.height, view.width)[y : y + h, x : x + w]
    assert np.abs(found - exact).max() <= 0.5 + 1e-6


def test_a_square_is_what_resizing_makes_of_it(tmp_path):
    write_svs(tmp_path / "a.svs", [BASE[:384]])
    with open_view(Scaled(tmp_path / "a.svs", 0.25 * 384 / 100)) as view:
        np.testing.assert_array_equal(view.region(0, 0, 100, 100), resize_image(BASE[:384], 100, "area"))


def test_levels_that_are_no_multiples_of_each_other_are_the_same_wherever_reading_begins(tmp_path):
    odd = BASE[:509, :381]
    write_svs(tmp_path / "a.svs", [odd, halved(odd)])
    with open_slide(tmp_path / "a.svs") as slide:
        assert [(level.height, level.width) for level in slide.levels] == [(509, 381), (254, 190)]
        whole = slide.levels[1].read(0, 0, 254, 190)
        np.testing.assert_array_equal(whole, halved(odd))
        for y, x in ((3, 5), (100, 77), (213, 150)):
            np.testing.assert_array_equal(slide.levels[1].read(y, x, 40, 40), whole[y : y + 40, x : x + 40])


def test_the_bounds_of_a_scanner_are_the_image(tmp_path, monkeypatch):
    import openslide

    class Bounded(openslide.OpenSlide):
        @property
        def properties(self):
            bounds = {"x": "40", "y": "24", "width": "200", "height": "160"}
            return dict(super().properties) | {f"openslide.bounds-{name}": value for name, value in bounds.items()}

    path = write_svs(tmp_path / "a.svs", LEVELS)
    monkeypatch.setattr(openslide, "OpenSlide", Bounded)
    with open_slide(path) as slide:
        assert [(level.height, level.width) for level in slide.levels] == [(160, 200), (80, 100), (40, 50)]
        for number, level in enumerate(slide.levels):
            y, x = 24 >> number, 40 >> number
            expected = LEVELS[number][y : y + level.height, x : x + level.width]
            np.testing.assert_array_equal(level.read(0, 0, level.height, level.width), expected)
        assert "is read from (40, 24)" in slide.notes[0]


def test_an_ordinary_image_has_one_level_and_the_same_rule(tmp_path):
    Image.fromarray(BASE).save(tmp_path / "a.png", dpi=(25400 / 0.5, 25400 / 0.5))
    with open_view(Scaled(tmp_path / "a.png", 1.0)) as view:
        assert (view.height, view.width) == (256, 192)
        np.testing.assert_array_equal(
            view.region(10, 20, 30, 40), np.floor(area(BASE.astype(float), 256, 192) + 0.5)[10:40, 20:60]
        )
    with open_view(Scaled(tmp_path / "a.png", 1.0, 0.25)) as view:
        assert (view.height, view.width) == (128, 96)


@pytest.mark.parametrize("ending", sorted(WRITERS))
def test_a_resolution_that_is_unknown_or_too_fine_is_refused(tmp_path, ending):
    options = {} if ending == "tif" else {"mpp": None}
    path = WRITERS[ending](tmp_path / f"a.{ending}", LEVELS, **options)
    if ending == "tif":
        with (
            pytest.raises(UserError, match=r"a\.tif: has 0\.25 µm per pixel, and 0\.1 are asked for"),
            open_view(Scaled(path, 0.1)),
        ):
            pass
        return
    with (
        pytest.raises(UserError, match=r"does not say how many micrometres.*; give it with --own-mpp, as"),
        open_view(Scaled(path, 1.0)),
    ):
        pass
    with open_view(Scaled(path, 0.5, 0.25)) as view:
        assert view.height == 256


def test_damage_is_said_before_anything_is_read(tmp_path):
    path = write_svs(tmp_path / "a.svs", LEVELS)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"a\.svs: is truncated or damaged: a part of it lies beyond"), open_slide(path):
        pass
    (tmp_path / "b.mrxs").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"b\.mrxs: comes without its folder b"), open_slide(tmp_path / "b.mrxs"):
        pass
    (tmp_path / "c.ndpi").write_bytes(b"not a slide")
    with pytest.raises(UserError, match=r"c\.ndpi: is no slide that OpenSlide reads"), open_slide(tmp_path / "c.ndpi"):
        pass
    with pytest.raises(UserError, match=r"d\.svs"), open_slide(tmp_path / "d.svs"):
        pass


def test_without_openslide_one_line_says_what_to_install(tmp_path, monkeypatch):
    path, find = write_svs(tmp_path / "a.svs", LEVELS), importlib.util.find_spec
    monkeypatch.setattr(
        "textdiff.images.slide_files.find_spec", lambda name: None if name == "openslide" else find(name)
    )
    with (
        pytest.raises(UserError, match=r"needs the package openslide-python; pip install 'textdiff\[wsi\]'"),
        open_slide(path),
    ):
        pass
    with open_slide(write_ome(tmp_path / "a.ome.tif", LEVELS)) as slide:
        assert len(slide.levels) == 3


def test_a_mirax_slide_is_its_folder_too(tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Data0000.dat").write_bytes(b"b")
    before = slide_digest(tmp_path / "a.mrxs")
    (tmp_path / "a/Data0000.dat").write_bytes(b"c")
    assert slide_digest(tmp_path / "a.mrxs") != before


def test_tissue_is_what_is_stained():
    image, _ = cases.tissue(300, 400)
    found = tissue_mask(image)
    y, x = np.mgrid[:300, :400] + 0.5
    place = (np.abs(y / 300 - 0.5) < 0.3) & (np.abs(x / 400 - 0.5) < 0.3)
    assert (found != place).mean() < 0.01
    assert not tissue_mask(np.random.default_rng(0).integers(240, 247, (200, 200, 3), dtype=np.uint8)).any()
    assert not tissue_mask(np.random.default_rng(0).integers(0, 9, (200, 200, 3), dtype=np.uint8)).any()
    assert tissue_mask(np.full((50, 50, 3), (225, 170, 205), np.uint8)).all()


def test_shares_of_tissue_are_those_of_the_tiles():
    mask = np.random.default_rng(3).random((64, 96)) < 0.3
    grid = Grid(256, 384, 64, 16)
    shares = tissue_shares(grid, mask)
    for (y, x), share in zip(grid.places, shares, strict=True):
        assert share == pytest.approx(mask[y // 4 : -(-(y + 64) // 4), x // 4 : -(-(x + 64) // 4)].mean())


def test_real_tissue_is_found_in_its_glass(real_monuseg, tmp_path):
    file = sorted((real_monuseg / "Test_Folder/img").glob("*.tif"))[0]
    glass = np.full((2000, 3000, 3), 243, np.uint8)
    glass[512:1512, 1024:2024] = tifffile.imread(file)[..., :3]
    write_svs(tmp_path / "a.svs", [glass, halved(glass), halved(halved(glass))], tile=256)
    with open_view(Scaled(tmp_path / "a.svs", 0.5)) as view:
        grid = Grid(view.height, view.width, 128, 16)
        places, square = tissue_places(view, grid, 0.05)
    assert square == pytest.approx(0.25**2, rel=0.05)  # a thousand pixels of a quarter of a micrometre, squared
    for y, x in grid.places:
        share = (np.clip([y + 128 - 256, 756 - y], 0, 128).min() / 128) * (
            np.clip([x + 128 - 512, 1012 - x], 0, 128).min() / 128
        )
        if not 0.0 < share < 0.3:
            assert ((y, x) in places) == (share >= 0.3)
