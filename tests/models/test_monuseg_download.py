"""MoNuSeg from a zip file, wherever it is: every file as published, or nothing."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiff.errors import UserError
from textdiff.models.downloads import monuseg_files
from textdiff.models.downloads.monuseg_files import check_monuseg, download_monuseg
from textdiff.tests.flaky_server import names

FILES = {
    "Train_Folder/Train_text.xlsx": b"table",
    "Train_Folder/img/a.png": b"image" * 1000,
    "Test_Folder/labelcol/b.png": b"mask" * 1000,
}


@pytest.fixture
def small_monuseg(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Makes zip files of a data set of three files, which takes the place of the real one."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        json.dumps({name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in FILES.items()})
    )
    monkeypatch.setattr(monuseg_files, "MANIFEST", manifest)

    def make(folder: str = "", **more: bytes) -> Path:
        path = tmp_path / "made.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
            for name, data in {**{folder + name: data for name, data in FILES.items()}, **more}.items():
                content.writestr(name, data)
        return path

    return make


def unpacked(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", ["", "MoNuSeg/", "LViT-main/datasets/MoNuSeg/"])
def test_monuseg_is_unpacked_whatever_folder_encloses_it(small_monuseg, server, tmp_path, folder):
    server.data = small_monuseg(folder).read_bytes()
    assert unpacked(download_monuseg(tmp_path / "data/MoNuSeg", server.url)) == FILES
    assert names(tmp_path / "data") == {"MoNuSeg"}


def test_monuseg_comes_from_a_zip_file_on_this_machine_too(small_monuseg, tmp_path):
    archive = small_monuseg()
    assert unpacked(download_monuseg(tmp_path / "MoNuSeg", str(archive))) == FILES
    assert archive.exists()


def test_monuseg_members_cannot_escape_and_strangers_are_left_out(small_monuseg, tmp_path):
    evil = {"../../evil.txt": b"x", "/tmp/evil-textdiff.txt": b"x", "Train_Folder/../../evil.txt": b"x", "extra": b"x"}
    archive = small_monuseg("", **evil)
    before = names(tmp_path)
    assert unpacked(download_monuseg(tmp_path / "data/MoNuSeg", str(archive))) == FILES
    assert names(tmp_path) == before | {"data"}
    assert not Path("/tmp/evil-textdiff.txt").exists()


@pytest.mark.parametrize("other", [b"mask" * 999 + b"mosk", b"short"], ids=["other bytes", "other size"])
def test_monuseg_with_a_file_that_differs_leaves_nothing(small_monuseg, server, tmp_path, other):
    server.data = small_monuseg("", **{"Test_Folder/labelcol/b.png": other}).read_bytes()
    with pytest.raises(UserError, match=r"labelcol/b\.png: differs"):
        download_monuseg(tmp_path / "data/MoNuSeg", server.url)
    assert names(tmp_path / "data") == set()


def test_monuseg_that_gives_a_page_says_so(small_monuseg, server, tmp_path):
    server.data = b"<!DOCTYPE html><html>Google Drive can't scan this file for viruses</html>"
    with pytest.raises(UserError, match=r"web page.*--url"):
        download_monuseg(tmp_path / "data/MoNuSeg", server.url)
    assert names(tmp_path / "data") == set()


def test_monuseg_in_a_damaged_zip_file_leaves_nothing(small_monuseg, tmp_path):
    archive = small_monuseg()
    data = bytearray(archive.read_bytes())
    data[len(b"PK") + 60] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"damaged|differs"):
        download_monuseg(tmp_path / "data/MoNuSeg", str(archive))
    assert names(tmp_path / "data") == set()


def test_monuseg_without_an_address_says_where_it_is_published(tmp_path):
    with pytest.raises(UserError, match=r"github\.com/HUANGLIZI/LViT.*--url"):
        download_monuseg(tmp_path / "MoNuSeg")


def test_monuseg_already_there_is_checked_and_not_touched(small_monuseg, tmp_path):
    root = download_monuseg(tmp_path / "MoNuSeg", str(small_monuseg()))
    assert download_monuseg(root) == root
    (root / "Train_Folder/img/a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"a\.png: differs; remove"):
        download_monuseg(root, "http://127.0.0.1:9/x.zip")
    assert (root / "Train_Folder/img/a.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "shared",
    [
        "https://drive.google.com/file/d/1a-B_c/view?usp=sharing",
        "https://drive.google.com/open?id=1a-B_c",
        "https://drive.google.com/uc?export=download&id=1a-B_c",
        "https://docs.google.com/uc?id=1a-B_c&export=download",
    ],
)
def test_a_share_link_of_google_drive_becomes_the_address_of_its_file(shared):
    assert monuseg_files.direct_url(shared).startswith("https://drive.usercontent.google.com/download?id=1a-B_c&")


def test_the_manifest_is_that_of_the_real_data(real_monuseg):
    manifest = monuseg_files.listed_files()
    kinds = [name.split("/")[1] for name in manifest if name.count("/") == 2]
    assert (kinds.count("img"), kinds.count("labelcol"), len(manifest)) == (44, 44, 91)
    assert check_monuseg(real_monuseg) == []
