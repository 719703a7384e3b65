"""Downloads against a server on this machine that breaks off, lies, stalls and changes its mind."""

import base64
import hashlib
import json
import re
import shutil
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.models.downloads import monuseg_files
from textdiff.models.downloads.download import OfflineError, download
from textdiff.models.downloads.monuseg_files import check_monuseg, download_monuseg

DATA = np.random.default_rng(0).bytes(600_000)
OTHER = np.random.default_rng(1).bytes(600_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file. Each request takes the next entry of ``script``; without one it is answered as it should be."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag, self.headers = DATA, '"one"', {}
        self.script: list[dict] = []
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        act = server.script.pop(0) if server.script else {}
        if "change" in act:
            server.data, server.etag = act["change"], '"two"'
        if "status" in act:
            self.send_error(act["status"])
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, server.etag) or act.get("careless")
        if asked and fresh and not act.get("ignore_range"):
            start = int(asked[1])
        if start >= len(server.data):
            self.send_error(416)
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if act.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif not act.get("no_length"):
            self.send_header("Content-Length", str(act.get("length", len(body))))
        self.end_headers()
        part = body[: act.get("cut", len(body))]
        server.sent += len(part)
        if act.get("chunked"):
            part = b"%x\r\n" % len(part) + part + b"\r\n" + (b"" if "cut" in act else b"0\r\n\r\n")
        self.wfile.write(part)
        self.wfile.flush()
        if "stall" in act:
            time.sleep(act["stall"])
        self.close_connection = bool(act)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def fetch(server, tmp_path) -> Callable[..., Path]:
    """``download`` to a fixed place, without waiting between tries."""

    def run(**options) -> Path:
        given = {"pause": lambda _: None, "timeout": 5, "progress": False, **options}
        return download(server.url, tmp_path / "file.bin", **given)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_whole_file_comes_with_nothing_left_beside_it(fetch, tmp_path):
    assert fetch(sha256=SHA256, size=len(DATA)).read_bytes() == DATA
    assert names(tmp_path) == {"file.bin"}


def test_a_connection_that_breaks_is_resumed_where_it_broke(fetch, server):
    server.script = [{"cut": 100_000}, {"cut": 50_000}, {"cut": 1}]
    assert fetch().read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert server.sent == len(DATA)


def test_many_breaks_are_no_reason_to_give_up_while_bytes_keep_coming(fetch, server):
    server.script = [{"cut": 20_000}] * 25
    assert fetch(retries=2).read_bytes() == DATA


def test_the_next_call_goes_on_where_a_stopped_one_ended(fetch, server, tmp_path):
    server.script = [{"cut": 200_000}, {"status": 503}]
    with pytest.raises(UserError, match=r"503.*kept.*goes on"):
        fetch(retries=1)
    assert names(tmp_path) == {"file.bin.part", "file.bin.part.json"}
    assert fetch().read_bytes() == DATA
    assert server.asked[-1][1] == "bytes=200000-"
    assert server.sent == len(DATA)


@pytest.mark.parametrize("careless", [False, True], ids=["If-Range honoured", "If-Range ignored"])
def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one(fetch, server, careless):
    server.script = [{"cut": 200_000}, {"change": OTHER, "careless": careless}]
    assert fetch().read_bytes() == OTHER
    assert len(server.asked) == (3 if careless else 2)


def test_a_shorter_file_that_changed_meanwhile_starts_again(fetch, server):
    server.script = [{"cut": 200_000}, {"change": OTHER[:1000], "careless": True}]
    assert fetch().read_bytes() == OTHER[:1000]


def test_without_a_validator_nothing_is_resumed_by_a_later_call(fetch, server):
    server.etag = ""
    server.script = [{"cut": 200_000}, {"status": 503}]
    with pytest.raises(UserError):
        fetch(retries=1)
    server.data = OTHER
    assert fetch().read_bytes() == OTHER


def test_a_server_that_ignores_ranges_starts_again(fetch, server):
    server.script = [{"cut": 200_000}, {"ignore_range": True}]
    assert fetch(sha256=SHA256).read_bytes() == DATA


def test_an_announced_length_that_never_comes_is_given_up(fetch, server, tmp_path):
    server.script = [{"length": len(DATA) + 10, "ignore_range": True}] * 20
    with pytest.raises(UserError, match=rf"gave up after 3 tries.*byte {len(DATA)} of {len(DATA) + 10}"):
        fetch(retries=3)
    assert "file.bin" not in names(tmp_path)
    assert len(server.asked) == 4


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"size": len(DATA)}], ids=["sha256", "size"])
def test_an_announced_length_that_is_too_short_is_found_out(fetch, server, tmp_path, known):
    server.script = [{"length": 1000}]
    with pytest.raises(UserError, match="expected"):
        fetch(**known)
    assert names(tmp_path) == set()


def test_wrong_bytes_are_deleted_and_both_hashes_named(fetch, server, tmp_path):
    server.data = OTHER
    with pytest.raises(UserError) as caught:
        fetch(sha256=SHA256)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert names(tmp_path) == set()


def test_content_md5_of_the_server_is_checked(fetch, server, tmp_path):
    server.headers["Content-MD5"] = base64.b64encode(hashlib.md5(OTHER).digest()).decode()
    with pytest.raises(UserError, match="MD5"):
        fetch()
    assert names(tmp_path) == set()
    server.headers["Content-MD5"] = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    server.script = [{"cut": 1000}]
    assert fetch().read_bytes() == DATA


def test_not_found_is_final(fetch, server, tmp_path):
    server.script = [{"status": 404}]
    with pytest.raises(UserError, match="404"):
        fetch()
    assert len(server.asked) == 1
    assert names(tmp_path) == set()


def test_an_error_of_the_server_is_tried_again_with_growing_pauses(fetch, server):
    server.script = [{"status": 500}, {"status": 503}, {"status": 429}]
    pauses: list[float] = []
    assert fetch(pause=pauses.append).read_bytes() == DATA
    assert pauses == [2, 4, 8]


def test_a_connection_that_stalls_counts_as_broken(fetch, server):
    server.script = [{"cut": 100_000, "stall": 1.0}]
    start = time.monotonic()
    assert fetch(timeout=0.2).read_bytes() == DATA
    assert time.monotonic() - start < 0.9


def test_a_chunked_answer_is_taken_whole_and_resumed(fetch, server):
    server.script = [{"chunked": True, "cut": 100_000}, {"chunked": True}]
    assert fetch().read_bytes() == DATA
    assert server.asked[1][1] == "bytes=100000-"


def test_an_answer_of_unknown_length_is_refused_unless_something_else_tells(fetch, server):
    server.script = [{"no_length": True}, {"no_length": True}]
    with pytest.raises(UserError, match="how long"):
        fetch()
    assert fetch(size=len(DATA)).read_bytes() == DATA


def test_a_file_already_there_is_asked_for_only_if_it_is_another(fetch, server, tmp_path):
    (tmp_path / "file.bin").write_bytes(DATA)
    fetch(sha256=SHA256)
    assert server.asked == []
    (tmp_path / "file.bin").write_bytes(OTHER)
    assert fetch(sha256=SHA256).read_bytes() == DATA


def test_two_at_once_fetch_it_once(fetch, server):
    server.script = [{"stall": 0.2}]
    found: list[bytes] = []
    both = [threading.Thread(target=lambda: found.append(fetch(sha256=SHA256).read_bytes())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found == [DATA, DATA]
    assert server.sent == len(DATA)


def test_stopping_keeps_what_came_and_says_so(fetch, server, tmp_path, capsys):
    server.script = [{"cut": 100_000}]

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pause=stop)
    assert (tmp_path / "file.bin.part").read_bytes() == DATA[:100_000]
    assert "100.0 kB are kept" in capsys.readouterr().err


def test_a_disk_too_small_is_noticed_before_the_first_byte(fetch, server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 500_000}))
    with pytest.raises(UserError, match=r"needs 600\.0 kB .* has 500\.0 kB"):
        fetch()
    assert names(tmp_path) == set()


def test_nobody_at_the_address_means_offline_at_once(tmp_path, monkeypatch):
    for name in ("TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
    with pytest.raises(OfflineError, match="cannot be reached"):
        download(url, tmp_path / "file.bin", pause=lambda _: pytest.fail("waited"))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("variable", ["TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_by_the_environment_asks_nobody(fetch, server, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match=variable):
        fetch()
    assert server.asked == []


def test_only_web_addresses_are_fetched(tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UserError, match="https://"):
        download(f"file://{tmp_path}/secret", tmp_path / "copy")


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib reads the environment once
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    download("http://far.invalid/file.bin", tmp_path / "file.bin", progress=False)
    assert server.asked[0][0] == "http://far.invalid/file.bin"


def test_progress_counts_what_an_earlier_call_left(fetch, server, capsys):
    server.script = [{"cut": 200_000}, {"status": 503}]
    with pytest.raises(UserError):
        fetch(retries=1)
    capsys.readouterr()
    fetch(progress=True)
    assert "600.0 kB of 600.0 kB" in capsys.readouterr().err


# MoNuSeg

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
    monkeypatch.setattr(monuseg_files, "_MANIFEST", manifest)

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
    assert monuseg_files._direct(shared).startswith("https://drive.usercontent.google.com/download?id=1a-B_c&")


def test_the_manifest_is_that_of_the_real_data(real_monuseg):
    manifest = monuseg_files._manifest()
    kinds = [name.split("/")[1] for name in manifest if name.count("/") == 2]
    assert (kinds.count("img"), kinds.count("labelcol"), len(manifest)) == (44, 44, 91)
    assert check_monuseg(real_monuseg) == []
