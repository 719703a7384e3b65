"""The geometry of tiles: every pixel covered, weights of one, and the same image back from any grid."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from textdiff.errors import UserError
from textdiff.images.tiles import Band, Grid, cut, reblock, stitch
from textdiff.options.extract import Extract

sizes = st.integers(1, 90)


@st.composite
def grids(draw) -> Grid:
    size = draw(st.integers(2, 40))
    overlap = draw(st.integers(0, size // 2))
    return Grid(
        draw(sizes), draw(sizes), size, overlap, draw(st.integers(0, (size - 2 * overlap) // 2 - (overlap == 0)))
    )


def shared(grid: Grid) -> int:
    return grid.overlap + 2 * grid.margin


@given(grids())
@settings(deadline=None)
def test_tiles_cover_every_pixel_lie_inside_and_share_the_overlap(grid):
    covered = np.zeros((grid.height, grid.width), int)
    for y, x in grid.places:
        assert 0 <= y <= max(0, grid.height - grid.size)
        assert 0 <= x <= max(0, grid.width - grid.size)
        covered[y : y + grid.size, x : x + grid.size] += 1
    assert covered.min() >= 1
    assert len(grid.places) == len(grid) == len(set(grid.places))
    for starts in (grid.tops, grid.lefts):
        assert all(0 < after - before <= grid.size - shared(grid) for before, after in pairwise(starts))


@given(grids())
@settings(deadline=None)
def test_no_grid_of_fewer_tiles_would_do(grid):
    for starts, length in ((grid.tops, grid.height), (grid.lefts, grid.width)):
        reach = (len(starts) - 1) * (grid.size - shared(grid)) + shared(grid)  # of one tile fewer, set regularly
        assert len(starts) == 1 or reach < length


@given(grids())
@settings(deadline=None)
def test_weights_of_the_tiles_sum_to_one_at_every_pixel(grid):
    down, across = grid.weights
    assert min(down.min(), across.min()) > 0
    total = np.zeros((max(grid.height, grid.size), max(grid.width, grid.size)))
    for row, y in enumerate(grid.tops):
        for column, x in enumerate(grid.lefts):
            total[y : y + grid.size, x : x + grid.size] += np.outer(down[row], across[column])
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_tile_counts_least_at_its_edges_where_another_one_sees_further():
    down = Grid(100, 40, 40, 10).weights[0]  # tiles from 0, 30 and 60
    overlap = down[1, :10]
    assert (np.diff(overlap) > 0).all()
    assert overlap[0] < 0.01
    assert overlap[-1] > 0.99
    np.testing.assert_allclose(overlap + down[0, 30:], 1, atol=1e-6)
    assert (down[1, 10:30] == 1).all()
    assert (down[0, :30] == 1).all()  # at the border of the image there is no other


def test_with_a_margin_as_wide_as_a_filter_reaches_tiles_are_one_piece():
    image = np.random.default_rng(3).random((150, 130))
    whole = uniform_filter(image, 17)

    def off(margin: int) -> float:
        grid = Grid(150, 130, 48, 8, margin)
        tiles = (uniform_filter(cut(image, y, x, 48), 17)[None] for y, x in grid.places)
        return float(np.abs(np.concatenate([band.values[0] for band in stitch(grid, tiles)]) - whole).max())

    assert off(8) < 1e-5
    assert off(0) > 1e-2


@given(grids(), st.integers(1, 3))
@settings(deadline=None)
def test_cutting_and_stitching_gives_the_image_back(grid, classes):
    image = np.random.default_rng(0).random((grid.height, grid.width, classes), dtype=np.float32)
    tiles = (cut(image, y, x, grid.size).transpose(2, 0, 1) for y, x in grid.places)
    bands = list(stitch(grid, tiles))
    assert [(band.y, band.x) for band in bands] == [(y, 0) for y in grid.tops]
    assert max(band.values.shape[1] for band in bands) <= grid.size
    np.testing.assert_allclose(np.concatenate([band.values for band in bands], 1).transpose(1, 2, 0), image, atol=1e-5)


def test_stitching_is_the_weighted_mean_of_all_tiles_computed_at_once():
    grid, rng = Grid(70, 55, 32, 12), np.random.default_rng(1)
    tiles = rng.random((len(grid), 2, 32, 32), dtype=np.float32)
    taper = np.minimum(1, np.sin(np.pi / 2 * np.minimum(1, (np.arange(32) + 0.5) / 12)) ** 2)
    window = np.outer(taper * taper[::-1], taper * taper[::-1])
    total, weight = np.zeros((2, 70, 55)), np.zeros((70, 55))
    for tile, (y, x) in zip(tiles, grid.places, strict=True):
        total[:, y : y + 32, x : x + 32] += tile * window
        weight[y : y + 32, x : x + 32] += window
    stitched = np.concatenate([band.values for band in stitch(grid, tiles)], axis=1)
    np.testing.assert_allclose(stitched, total / weight, atol=1e-5)


def test_finished_rows_are_given_before_later_tiles_are_asked_for():
    grid = Grid(1000, 64, 64, 8)
    asked = []

    def tiles():
        for place in grid.places:
            asked.append(place)
            yield np.ones((1, 64, 64), np.float32)

    for band, following in zip(stitch(grid, tiles()), grid.tops[1:], strict=False):
        assert asked[-1][0] == band.y
        assert band.y + band.values.shape[1] == following


@pytest.mark.parametrize("count", [0, 5, 7])
def test_a_wrong_number_of_tiles_is_refused(count):
    grid = Grid(60, 90, 40, 10)
    assert len(grid) == 6
    with pytest.raises(ValueError, match="6"):
        list(stitch(grid, [np.ones((1, 40, 40))] * count))


def test_a_small_image_is_continued_by_its_mirror_image():
    image = np.arange(6).reshape(2, 3)
    assert cut(image, 0, 0, 5).tolist() == [
        [0, 1, 2, 2, 1],
        [3, 4, 5, 5, 4],
        [3, 4, 5, 5, 4],
        [0, 1, 2, 2, 1],
        [0, 1, 2, 2, 1],
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 12))
def test_reblocking_keeps_the_rows(heights, height):
    rows = np.arange(sum(heights) * 2).reshape(1, -1, 2)
    starts = np.cumsum([0, *heights])
    bands = [Band(int(y), 0, rows[:, y : y + h]) for y, h in zip(starts[:-1], heights, strict=True)]
    blocks = list(reblock(bands, height))
    assert all(block.values.shape[1] == height for block in blocks[:-1])
    assert [block.y for block in blocks] == list(range(0, sum(heights), height))
    assert (np.concatenate([block.values for block in blocks], axis=1) == rows).all()


@pytest.mark.parametrize(("tile", "overlap"), [(16, None), (256, 129), (256, -1), (None, 32)])
def test_useless_tiles_are_refused(tile, overlap):
    with pytest.raises(UserError, match=r"--(tile|overlap) "):
        Extract("folder", tile=tile, overlap=overlap)


@pytest.mark.parametrize("seed", range(12))
def test_tiles_that_are_left_out_leave_their_place_to_the_others(seed):
    draw = np.random.default_rng(seed)
    overlap = int(draw.integers(0, 17))
    margin = int(draw.integers(0, 16 - overlap)) if seed % 2 and overlap < 16 else 0
    grid = Grid(int(draw.integers(40, 300)), int(draw.integers(40, 200)), 32, overlap, margin)
    kept = draw.random(len(grid)) < [0.9, 0.5, 0.1, 0.02][seed % 4]
    kept[int(draw.integers(len(grid)))] = True
    tiles = draw.random((len(grid), 1, 3, 32, 32), np.float32)
    down, across = grid.weights
    total, weight = (
        np.zeros((3, max(grid.height, 32), max(grid.width, 32))),
        np.zeros((max(grid.height, 32), max(grid.width, 32))),
    )
    for number, (y, x) in enumerate(grid.places):
        if kept[number]:
            row, column = divmod(number, len(grid.lefts))
            share = down[row][:, None] * across[column].astype(np.float64)
            total[:, y : y + 32, x : x + 32] += tiles[number, 0] * share
            weight[y : y + 32, x : x + 32] += share
    expected = np.where(weight > 0, total / np.maximum(weight, 1e-12), np.array([1, 0, 0])[:, None, None])
    places = [place for place, keep in zip(grid.places, kept, strict=True) if keep]
    blocks = list(reblock(stitch(grid, tiles[kept], places), 50))
    assert {block.values.shape[-2] for block in blocks[:-1]} <= {50}
    found = np.concatenate([block.within(0, grid.width) for block in blocks], axis=-2)[0]
    np.testing.assert_allclose(found, expected[:, : grid.height, : grid.width], atol=4e-6)


def test_of_a_wide_image_no_more_columns_are_held_than_tiles_show():
    grid = Grid(1000, 100_000, 64, 8)
    places = [(y, x) for y, x in grid.places if 300 < y < 400 and 50_000 < x < 50_300]
    bands = list(reblock(stitch(grid, (np.ones((1, 2, 64, 64), np.float32) for _ in places), places), 100))
    shown = [band for band in bands if band.values.size]
    assert [band.y for band in shown] == [300, 400, 500]
    assert all(places[0][1] == band.x and band.values.shape[-1] < 400 for band in shown)
    with pytest.raises(ValueError, match=f"0 tiles for a grid of {len(places)}"):
        list(stitch(grid, [], places))
