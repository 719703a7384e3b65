"""A file that changes while ``extract`` runs: what is stored is what was checked, or nothing is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.images import formats
from textdiff.models.backbones.extractor import Extractor
from textdiff.tests.file_tools import files

NAMES = ("a", "b", "c", "d")


def pixels(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def shape(seed: int, size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return ((y - 20 - seed) ** 2 + (x - 30) ** 2 < 100).astype(np.uint8) * 255


def outlines(first: int) -> str:
    corners = ((first, 10), (first + 20, 10), (first + 20, 30), (first, 30))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    regions = f"<Regions><Region><Vertices>{vertices}</Vertices></Region></Regions>"
    return f"<Annotations><Annotation>{regions}</Annotation></Annotations>"


def folder(root: Path, suffix: str = "png", mask: str = "png", size: int = 64) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        save(root / f"images/{name}.{suffix}", pixels(number, size))
        if mask == "xml":
            (root / f"masks/{name}.xml").write_text(outlines(number))
        else:
            save(root / f"masks/{name}.{mask}", shape(number, size))
    (root / "texts.csv").write_text("image,text,split\n" + "".join(f"{name},some nuclei,train\n" for name in NAMES))


def save(path: Path, values: np.ndarray) -> None:
    if path.suffix == ".tif":
        kind = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=kind, rowsperstrip=16, compression="zlib")
    else:
        Image.fromarray(values).save(path)


def hdf5(root: Path) -> None:
    root.mkdir()
    with h5py.File(root / "all.h5", "w") as file:
        file["images"] = np.stack([pixels(number) for number in range(4)])
        file["masks"] = np.stack([shape(number) for number in range(4)])


def stored(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        # In a copy that takes its place, as the file may be open for reading just then.
        with h5py.File(shutil.copyfile(root / "all.h5", root / "new.h5"), "r+") as file:
            file[name][3] = file[name][0]
        (root / "new.h5").replace(root / "all.h5")

    return change


FOLDER = ("--dataset", "folder", "--data", "data")
TILED = (*FOLDER, "--tile", "64", "--overlap", "0")
HDF5 = ("--dataset", "hdf5", "--data", "data/all.h5")
# What is read, how the last image of it changes, and the name that is to be said.
CASES = {
    "image": (folder, FOLDER, lambda d: save(d / "images/d.png", pixels(9)), "images/d.png"),
    "mask": (folder, FOLDER, lambda d: save(d / "masks/d.png", shape(9)), "masks/d.png"),
    "size": (folder, FOLDER, lambda d: save(d / "images/d.png", pixels(9, 80)), "images/d.png"),
    "both, of another size": (
        folder,
        FOLDER,
        lambda d: (save(d / "images/d.png", pixels(9, 80)), save(d / "masks/d.png", shape(9, 80))),
        "images/d.png",
    ),
    "other image's file": (folder, FOLDER, lambda d: shutil.copy2(d / "images/a.png", d / "images/d.png"), "d.png"),
    "lost mask": (folder, FOLDER, lambda d: (d / "masks/d.png").unlink(), "masks/d.png"),
    "outlines": (
        lambda d: folder(d, mask="xml"),
        FOLDER,
        lambda d: (d / "masks/d.xml").write_text(outlines(30)),
        "masks/d.xml",
    ),
    "hdf5 image": (hdf5, HDF5, stored("images"), "images[3]"),
    "hdf5 mask": (hdf5, HDF5, stored("masks"), "masks[3]"),
    "tiff in parts": (
        lambda d: folder(d, "tif", "tif", 128),
        TILED,
        lambda d: save(d / "images/d.tif", pixels(9, 128)),
        "images/d.tif",
    ),
    "mask in parts": (
        lambda d: folder(d, "tif", "tif", 128),
        TILED,
        lambda d: save(d / "masks/d.tif", shape(9, 128)),
        "masks/d.tif",
    ),
    "lost tiff in parts": (
        lambda d: folder(d, "tif", "tif", 128),
        TILED,
        lambda d: (d / "images/d.tif").unlink(),
        "images/d.tif",
    ),
}


@pytest.fixture
def extract(tmp_path, textdiff_once, monkeypatch) -> Callable[..., str]:
    """Runs ``extract`` with ``more`` options; ``meanwhile`` is called once the first row is computed."""
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    computed = Extractor.grids

    def run(*more: str, status: int = 0, cache: str = "c.zarr", meanwhile: Callable[[], object] | None = None) -> str:
        left = [meanwhile] if meanwhile else []

        def compute(backbone: Extractor, images: np.ndarray, texts: list[str]) -> object:
            while left:
                left.pop()()
            return computed(backbone, images, texts)

        monkeypatch.setattr(Extractor, "grids", compute)
        options = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "64", "--views", "1", "--cache", cache)
        return textdiff_once(tmp_path, "extract", *options, *more, status=status).stderr

    return run


@pytest.mark.parametrize("case", CASES)
def test_what_changed_is_named_and_not_stored_and_the_next_commands_mend_it(tmp_path, extract, case):
    make, options, change, name = CASES[case]
    data = tmp_path / "data"
    make(data)
    said = extract(*options, status=2, meanwhile=lambda: change(data))
    assert name in said.splitlines()[-1]
    assert "run the same command again" in said or "cannot be read" in said
    cache = FeatureCache.open(tmp_path / "c.zarr")
    assert cache.verify() == []
    rows = [row for row, entry in enumerate(cache.rows) if entry.id == cache.rows[-1].id]
    assert not cache.done()[rows].any()  # of the others those are written that had been begun
    if case not in ("size", "lost tiff in parts"):  # of which no data set is left
        # The cache is of the data set as it was; what to do is said.
        assert "--update keeps" in extract(*options, status=2)
        extract(*options, "--update")
        assert FeatureCache.open(tmp_path / "c.zarr").done().all()
        extract(*options, cache="scratch.zarr")
        assert files(tmp_path / "c.zarr") == files(tmp_path / "scratch.zarr")


@pytest.mark.parametrize("case", ["image", "mask", "tiff in parts", "mask in parts"])
def test_a_file_that_is_written_again_as_it_was_is_no_change(tmp_path, extract, case):
    make, options, _, name = CASES[case]
    make(tmp_path / "data")
    file = tmp_path / "data" / name

    def again() -> None:
        shutil.copyfile(file, tmp_path / "copy")
        (tmp_path / "copy").replace(file)

    extract(*options, meanwhile=again)
    assert FeatureCache.open(tmp_path / "c.zarr").done().all()


@pytest.mark.parametrize("name", ["images/d.tif", "masks/d.tif"])
def test_a_large_file_that_changes_while_it_is_looked_at_is_refused(tmp_path, extract, monkeypatch, name):
    folder(tmp_path / "data", "tif", "tif", 128)

    def hashed(path: Path) -> str:
        if str(path).endswith(name):
            path.write_bytes(path.read_bytes())
        return "0" * 64

    monkeypatch.setattr("textdiff.readers.inspection.sha256_file", hashed)
    said = extract(*TILED, status=2)
    assert f"{name}: was changed while it was read" in said
    assert not (tmp_path / "c.zarr").exists()
