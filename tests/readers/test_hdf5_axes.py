"""The axes of HDF5 images and masks: which say nothing, and which hold a channel for each class."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_image, load_mask
from textdiff.tests.image_files import MASK, RED


def h5(path: Path, masks: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
        file["masks"] = masks
        file["split"] = ["train", "val", "test"]
    return path


STACK = np.stack([MASK, np.roll(MASK, 3, 0), np.roll(MASK, 3, 1)])


@pytest.mark.parametrize(
    "masks",
    [
        STACK,
        STACK.astype(bool),
        STACK.astype(np.int64),
        STACK.astype(np.float16),
        STACK[..., None],
        STACK[:, None],
        np.stack([STACK * 255] * 3, -1),
        STACK[..., None] * np.array(RED, np.uint8),
    ],
    ids=["8 bits", "bool", "64 bits", "half", "last axis of 1", "first axis of 1", "rgb", "red"],
)
def test_hdf5_masks_may_have_an_axis_of_channels_that_says_nothing(tmp_path, masks):
    samples, _ = read_dataset("hdf5", h5(tmp_path / "d.h5", masks))
    for sample in samples:
        np.testing.assert_array_equal(load_mask(sample, 40, 48).labels, STACK[int(sample.id)])


ONE_HOT = np.stack([STACK == 0, STACK == 1], -1).astype(np.uint8)
HALVES = np.broadcast_to(np.arange(48) < 24, STACK.shape)
THREE = np.stack([STACK == 0, (STACK == 1) & HALVES, (STACK == 1) & ~HALVES], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("masks", "shape"),
    [
        (ONE_HOT, r"\(3, 40, 48, 2\)"),
        (np.moveaxis(ONE_HOT, -1, 1), r"\(3, 2, 40, 48\)"),
        (THREE, r"\(40, 48, 3\)"),
        (np.moveaxis(THREE, -1, 1), r"\(3, 3, 40, 48\)"),
        (THREE.astype(np.float32) * 0.8 + 0.1, r"\(40, 48, 3\)"),
        (np.concatenate([THREE, ONE_HOT * 0], -1), r"\(3, 40, 48, 5\)"),
        (np.concatenate([THREE, ONE_HOT[..., :1] * 0], -1), r"\(3, 40, 48, 4\)"),
    ],
    ids=["2 last", "2 first", "3 last", "3 first", "soft", "5 last", "4 last"],
)
@pytest.mark.parametrize(
    "options", [{}, {"classes": ("a", "b")}, {"instances": True}], ids=["plain", "classes", "instances"]
)
def test_hdf5_masks_with_a_channel_for_each_class_are_refused_by_their_shape(tmp_path, masks, shape, options):
    path = h5(tmp_path / "d.h5", masks)
    with pytest.raises(UserError, match=f"shape {shape}.*argmax.*--classes"):
        load_mask(read_dataset("hdf5", path, ReadOptions(**options))[0][0], 40, 48)


def test_hdf5_channels_of_zeros_and_ones_are_no_colours_where_a_region_has_none(tmp_path):
    masks = THREE.copy()
    masks[:, :5] = 0
    masks[..., 1:] = 0
    with pytest.raises(UserError, match=r"shape \(40, 48, 3\).*argmax"):
        load_mask(read_dataset("hdf5", h5(tmp_path / "d.h5", masks), ReadOptions())[0][0], 40, 48)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.arange(60, dtype=np.uint8).reshape(1, 1, 20, 3), (1, 20)),
        (np.arange(20, dtype=np.uint8).reshape(1, 1, 20, 1), (1, 20)),
        (np.arange(60, dtype=np.uint8).reshape(1, 20, 1, 3), (20, 1)),
        (np.arange(4, dtype=np.uint8).reshape(1, 1, 1, 4), (1, 1)),
    ],
    ids=["a row of colours", "a row of grey", "a column", "a pixel"],
)
def test_hdf5_images_of_one_row_are_not_turned(tmp_path, images, expected):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images
    image = load_image(read_dataset("hdf5", path)[0][0].image)
    assert image.pixels.shape == (*expected, 3)
    np.testing.assert_array_equal(image.pixels[..., 0], images[0, ..., 0])
    assert ("alpha (dropped)" in image.notes) == (images.shape[-1] == 4)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (np.zeros((2, 8, 8, 2), np.uint8), r"has the shape \(8, 8, 2\), two channels"),
        (np.uint8(3), r"images has the shape \(\); store images as \(N, H, W\)"),
    ],
    ids=["two channels", "a number"],
)
def test_hdf5_images_of_another_shape_are_named(tmp_path, images, what):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images
    with pytest.raises(UserError, match=what):
        load_image(read_dataset("hdf5", path)[0][0].image)


@pytest.mark.parametrize("column", ["texts", "split", "group"])
def test_hdf5_arrays_beside_a_group_of_images_are_refused_since_its_members_have_no_order(tmp_path, column):
    path, names = tmp_path / "d.h5", [f"img_{number}" for number in range(12)]
    values = {"texts": names, "split": ["train"] * 12, "group": names}
    with h5py.File(path, "w") as file:
        for name in names:
            file[f"images/{name}"] = np.full((8, 8), 7, np.uint8)
        file[column] = values[column]
    said = f"{column} is an array, and images a group, whose members have no order; store {column} as a group, too"
    with pytest.raises(UserError, match=said):
        read_dataset("hdf5", path)
    with h5py.File(path, "a") as file:
        del file[column]
        for name, value in zip(names, values[column], strict=True):
            file[f"{column}/{name}"] = value
    field = "text" if column == "texts" else column
    got = {sample.id: getattr(sample, field) for sample in read_dataset("hdf5", path)[0]}
    assert got == dict(zip(names, values[column], strict=True))


@pytest.mark.parametrize("matlab", [True, False])
def test_hdf5_images_that_matlab_saved_are_told_to_lie_on_their_side(tmp_path, matlab):
    path, pixels = tmp_path / "d.mat", np.arange(120, dtype=np.uint8).reshape(8, 5, 3)
    with h5py.File(path, "w") as file:
        file["images"] = pixels.T  # as MATLAB stores an array (8, 5, 3), three images of 8 x 5 pixels
        if matlab:
            file["images"].attrs["MATLAB_class"] = np.bytes_("uint8")
    samples, problems = read_dataset("hdf5", path)
    np.testing.assert_array_equal(load_image(samples[1].image).pixels[..., 0], pixels[..., 1].T)
    told = [problem.what for problem in problems if "MATLAB" in problem.what]
    said = "was saved by MATLAB, which reverses axes: what it calls (H, W, N) is read as images on their side"
    assert told == [said] * matlab
