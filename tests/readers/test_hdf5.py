"""HDF5 files of images: the rows of a folder with the same content, and nothing from elsewhere or too large."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import inspect, read_dataset, report
from textdiff.tests.reader_cases import EXTRACT, SPLITS, labels_of, make_folder


@pytest.fixture
def h5(tmp_path) -> Path:
    """Four images with masks, texts, splits and groups."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        draw = np.random.default_rng(0)
        file["images"] = draw.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        file["masks"] = np.stack([labels_of(number) > 0 for number in range(4)]).astype(np.uint8)
        file["texts"] = ["Dense nuclei.", "Läsionen: 3 µm", "", "Few nuclei."]
        file["split"] = list(SPLITS)
        file["group"] = [1, 1, 2, 3]
    return tmp_path / "data.h5"


def test_an_hdf5_file_gives_the_rows_of_a_folder_with_the_same_content(h5, tmp_path, tiny_backbone, textdiff_once):
    with h5py.File(h5) as file:
        masks = list(file["masks"][:])
        root = make_folder(tmp_path / "folder", masks)
        for number, pixels in enumerate(file["images"][:]):
            Image.fromarray(pixels).save(root / f"images/{number}.png")
    backbone = ("--backbone", str(tiny_backbone))
    textdiff_once(tmp_path, *EXTRACT, *backbone, "--dataset", "hdf5", "--data", "data.h5")
    textdiff_once(tmp_path, *EXTRACT, *backbone, "--dataset", "folder", "--data", "folder")
    ours, theirs = (FeatureCache.open(tmp_path / f"cache/{name}.zarr") for name in ("data", "folder"))
    assert [(row.id, row.split) for row in ours.rows] == [(row.id, row.split) for row in theirs.rows]
    assert ours.texts == ("Dense nuclei.", "Läsionen: 3 µm", "", "Few nuclei.")
    assert ours.rows[1].source == "images[1]"
    for row in range(4):
        np.testing.assert_array_equal(ours.features(row, 4), theirs.features(row, 4))
        np.testing.assert_array_equal(ours.truth(row), theirs.truth(row))


def test_hdf5_groups_of_images_may_differ_in_size_and_have_any_names(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for name, side in (("b", 20), ("a", 32)):
            file[f"raw/slides/{name}"] = np.random.default_rng(side).integers(0, 65535, (side, side), dtype=np.uint16)
        file["gt/a"] = labels_of(0, 32).astype(np.uint16)
        file["notes/a"], file["notes/b"] = "one", "two"
    options = ReadOptions(h5_images="raw/slides", h5_masks="gt", h5_texts="notes", instances=True)
    samples, problems = read_dataset("hdf5", tmp_path / "d.h5", options)
    assert [(s.id, s.text, s.mask is None) for s in samples] == [("a", "one", False), ("b", "two", True)]
    facts, found = inspect(samples)
    assert [fact.image.width for fact in facts] == [32, 20]
    assert facts[0].mask.objects == labels_of(0, 32).max()
    assert facts[1].mask is None
    assert [p for p in [*problems, *found] if p.severity == "error"] == []


def test_hdf5_images_are_read_one_at_a_time(h5, monkeypatch):
    asked = []
    read = h5py.Dataset.__getitem__

    def spy(self, key, *rest, **named):
        if self.ndim > 1:
            asked.append(key)
        return read(self, key, *rest, **named)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    inspect(read_dataset("hdf5", h5)[0])
    assert sorted(asked) == [0, 0, 1, 1, 2, 2, 3, 3]


def change(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


HDF5 = {
    "no such file": (lambda p: p.unlink(), {}, "data.h5: no such file"),
    "a directory": (lambda p: (p.unlink(), p.mkdir()), {}, "data.h5: is a directory; .*--dataset folder"),
    "no HDF5": (lambda p: p.write_text("x"), {}, "data.h5: is not an HDF5 file"),
    "no images": (lambda p: change(p, "images", None), {}, "has no dataset images; .*--h5-images; found group, masks"),
    "masks of another name": (lambda p: None, {"h5_masks": "labels"}, "has no dataset labels; name .*--h5-masks"),
    "another number of masks": (lambda p: change(p, "masks", np.zeros((3, 64, 64))), {}, "has 4 images and 3 masks"),
    "another number of texts": (
        lambda p: change(p, "texts", ["a"]),
        {},
        r"texts has the shape \(1,\) and not \(4,\); store one value per image",
    ),
    "channels first": (
        lambda p: change(p, "images", np.zeros((4, 3, 64, 64))),
        {},
        "channels first; store channels last",
    ),
    "one image only": (
        lambda p: change(p, "images", np.zeros((64, 64))),
        {},
        r"has the shape \(64, 64\); store images",
    ),
    "no image at all": (lambda p: change(p, "images", np.zeros((0, 64, 64))), {}, "images holds no images"),
    "a group inside a group": (
        lambda p: (change(p, "images", None), change(p, "images/a/b", np.zeros((9, 9)))),
        {"h5_masks": None, "h5_texts": "images"},
        r"data.h5: images/a is a group and not \(\); store one value per image",
    ),
    "an unknown split": (
        lambda p: change(p, "split", ["train", "train", "valdiation", "test"]),
        {},
        "images/2: has the split valdiation; did you mean val",
    ),
    "a text that is missing": (
        lambda p: change(p, "texts", ["x", "nan", "y", "z"]),
        {},
        "images/1: has nan, which stands for a missing value, for its text or group; write an empty string for none",
    ),
    "a group that is no number": (
        lambda p: change(p, "group", np.array([1, 1, 2, np.nan])),
        {},
        "images/3: has nan, which stands for a missing value",
    ),
    "masks of another size": (lambda p: change(p, "masks", np.zeros((4, 9, 9))), {}, "4 errors|is 9x9 pixels"),
    "splits given and drawn": (lambda p: None, {"val": 0.2}, "data.h5 has splits of its own"),
}


@pytest.mark.parametrize("case", HDF5)
def test_bad_hdf5_files_get_one_clear_line(h5, case):
    damage, options, line = HDF5[case]
    damage(h5)
    with pytest.raises(UserError, match=line):
        look_through(h5, ReadOptions(**options))


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """Bytes that no data set should bring in, as they are and in an HDF5 file."""
    (tmp_path / "secret.bin").write_bytes(bytes(range(256)) * 400)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.full((4, 64, 64, 3), 7, np.uint8)
    return tmp_path


def linked(file: h5py.File, folder: Path) -> None:
    del file["images"]
    file["images"] = h5py.ExternalLink(str(folder / "other.h5"), "/images")


def linked_within(file: h5py.File, folder: Path) -> None:
    file["there"] = h5py.ExternalLink(str(folder / "other.h5"), "/")
    del file["images"]
    file["images"] = h5py.SoftLink("/there/images")


def linked_members(file: h5py.File, folder: Path) -> None:
    del file["images"], file["masks"], file["texts"], file["split"], file["group"]
    file["images/a"] = h5py.ExternalLink(str(folder / "other.h5"), "/images")


def stored_outside(file: h5py.File, folder: Path) -> None:
    del file["images"]
    file.create_dataset("images", (4, 64, 64), np.uint8, external=[(str(folder / "secret.bin"), 0, 4 * 64 * 64)])


def virtual(file: h5py.File, folder: Path) -> None:
    del file["images"]
    layout = h5py.VirtualLayout((4, 64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "images", (4, 64, 64, 3))
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize(
    ("put", "what"),
    [
        (linked, "has a link at /images, which is not followed"),
        (linked_within, "has a link at /images, which is not followed"),
        (linked_members, "has a link at /images/a, which is not followed"),
        (stored_outside, "images: has its bytes in another file"),
        (virtual, "images: is a virtual data set"),
    ],
)
def test_hdf5_brings_in_nothing_from_outside(h5, elsewhere, put, what):
    with h5py.File(h5, "a") as file:
        put(file, elsewhere)
    with pytest.raises(UserError, match=what):
        look_through(h5, ReadOptions())


CLAIMS = {
    "large images": (
        "images",
        (3, 40_000, 40_000),
        np.float64,
        {},
        "images: was never written: 0 of 1 parts are there",
    ),
    "many images": ("images", (10**9, 64, 64), np.uint8, {"chunks": (1, 64, 64)}, "0 of 1000000000 parts are there"),
    "large chunks": ("images", (2, 40_000, 40_000), np.uint8, {"chunks": (1, 40_000, 40_000)}, "has chunks of"),
    "many texts": ("texts", (10**9,), h5py.string_dtype(), {"chunks": (1000,)}, "texts: was never written"),
    "long texts": ("texts", (4,), "S900000000", {}, "texts: was never written"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_small_hdf5_files_do_not_ask_for_a_large_memory(tmp_path, claim):
    name, shape, dtype, options, what = CLAIMS[claim]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(name, shape, dtype, **options)
        if name != "images":
            file["images"] = np.zeros((4, 9, 9), np.uint8)
    assert (tmp_path / "a.h5").stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=what):
            look_through(tmp_path / "a.h5", ReadOptions())
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_an_hdf5_file_that_the_library_never_comes_back_from_is_refused(h5):
    data = bytearray(h5.read_bytes())
    # The first object of the heap of texts is said to be so large that the next one is itself.
    size = data.index(b"GCOL") + 16 + 8
    data[size : size + 8] = (2**64 - 16).to_bytes(8, "little")
    h5.write_bytes(data)
    with pytest.raises(UserError, match=r"data.h5: is damaged, so that the HDF5 library does not come to an end"):
        look_through(h5, ReadOptions())


def test_images_of_hdf5_that_were_written_in_part_are_no_black_images(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset("images", (4, 64, 64), np.uint8, chunks=(1, 64, 64))
        images[:3] = 9
    with pytest.raises(UserError, match=r"images: was never written: 3 of 4 parts are there"):
        look_through(tmp_path / "a.h5", ReadOptions())


def test_a_filter_that_is_not_here_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        coded = {"compression": 32001, "allow_unknown_filter": True, "chunks": (1, 8, 8)}
        images = file.create_dataset("images", (1, 8, 8), np.uint8, **coded)
        images.id.write_direct_chunk((0, 0, 0), bytes(64))
    with pytest.raises(
        UserError, match="images: is compressed with the filter 32001, which is not here; store it with gzip"
    ):
        look_through(tmp_path / "a.h5", ReadOptions())


def test_an_image_of_a_group_is_looked_at_before_it_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images/a", (12_000, 9_000), np.uint8, data=None, chunks=True, compression="gzip")[:] = 0
        file["images/b"] = np.zeros((9, 9), np.complex64)
        file["images/c"] = ["text"]
    _, problems = inspect(read_dataset("hdf5", tmp_path / "a.h5")[0])
    assert [problem.what for problem in problems if problem.severity == "error"][:3] == [
        "has 9000x12000 pixels, more than 80 megapixels",
        "is complex64 (9, 9) and no image",
        "is object (1,) and no image",
    ]


def look_through(path: Path, options: ReadOptions) -> None:
    samples, problems = read_dataset("hdf5", path, options)
    report(problems + inspect(samples)[1])
