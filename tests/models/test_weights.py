"""Backbones by name: where they are looked for, how they are verified, what is said when they are missing."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from textdiff.errors import UserError
from textdiff.models import weights
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.weights import CHECKPOINTS, fetch_weights, status, weights_dir
from textdiff.options.tools import Download
from textdiff.pipeline.fetch import download

DATA = b"the weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
FILE = "256x256_diffusion_uncond.pt"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty weights directory, without the environment of the machine."""
    for name in ("TEXTDIFF_ADM_256", "TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def small_adm(monkeypatch) -> None:
    """Makes adm-256 a small file, at an address where nobody is."""
    small = replace(CHECKPOINTS["adm-256"], size=len(DATA), sha256=SHA256, url=f"http://127.0.0.1:9/{FILE}")
    monkeypatch.setitem(CHECKPOINTS, "adm-256", small)


@pytest.fixture
def published(tmp_path, small_adm, monkeypatch) -> Path:
    """The directory that the address of adm-256 serves, with the file in it."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / FILE).write_bytes(DATA)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{FILE}"
        monkeypatch.setitem(CHECKPOINTS, "adm-256", replace(CHECKPOINTS["adm-256"], url=url))
        yield folder
        server.shutdown()


def put(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_path_is_taken_as_it_is(tmp_path, place):
    path = put(tmp_path / "mine.pt")
    assert resolve_backbone(path)[:3] == (str(path), path, SHA256)


def test_adm_256_is_taken_from_its_variable_first(tmp_path, place, small_adm, monkeypatch):
    put(place / FILE)
    monkeypatch.setenv("TEXTDIFF_ADM_256", str(put(tmp_path / "elsewhere.pt")))
    assert resolve_backbone("adm-256").path == tmp_path / "elsewhere.pt"


def test_adm_256_is_taken_from_the_weights_directory_next(place, small_adm):
    path = put(place / FILE)
    assert resolve_backbone("adm-256")[:3] == ("adm-256", path, SHA256)


def test_adm_256_is_downloaded_last(place, published):
    assert resolve_backbone("adm-256")[:3] == ("adm-256", place / FILE, SHA256)
    assert (place / FILE).read_bytes() == DATA


def test_a_download_that_is_another_file_does_not_become_adm_256(place, published):
    (published / FILE).write_bytes(DATA[::-1])
    with pytest.raises(UserError, match="wrong content"):
        resolve_backbone("adm-256")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("offline", ["nobody answers", "by the environment", "not allowed"])
def test_missing_adm_256_names_file_address_place_and_the_ways_out_in_one_line(place, small_adm, monkeypatch, offline):
    if offline == "by the environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        resolve_backbone("adm-256", download=offline != "not allowed")
    said = str(caught.value)
    for part in (FILE, CHECKPOINTS["adm-256"].url, str(place), "TEXTDIFF_ADM_256", "--backbone nano-he"):
        assert part in said
    assert "\n" not in said


def test_a_variable_that_points_nowhere_is_no_reason_to_look_elsewhere(tmp_path, place, small_adm, monkeypatch):
    put(place / FILE)
    monkeypatch.setenv("TEXTDIFF_ADM_256", str(tmp_path / "gone.pt"))
    with pytest.raises(UserError, match=r"TEXTDIFF_ADM_256=.*gone\.pt: no such file"):
        resolve_backbone("adm-256")


def test_a_variable_that_names_another_file_is_obeyed_with_a_warning(tmp_path, place, small_adm, monkeypatch, capsys):
    monkeypatch.setenv("TEXTDIFF_ADM_256", str(put(tmp_path / "other.pt", b"other")))
    assert resolve_backbone("adm-256").sha256 == hashlib.sha256(b"other").hexdigest()
    assert "warning: TEXTDIFF_ADM_256" in capsys.readouterr().err


def test_a_damaged_file_in_the_weights_directory_is_refused(place, small_adm):
    put(place / FILE, DATA[:-1])
    with pytest.raises(UserError, match=r"damaged.*delete"):
        resolve_backbone("adm-256")


@pytest.mark.parametrize("name", ["nano-he", "nano-cxr"])
def test_a_packaged_backbone_needs_no_network(tmp_path, place, monkeypatch, name):
    monkeypatch.setattr(weights, "PACKAGED", tmp_path)
    with pytest.raises(UserError, match=rf"{name}\.safetensors is missing.*reinstall"):
        resolve_backbone(name)
    put(tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=rf"{name}\.safetensors is damaged, its sha256 is {SHA256}; reinstall"):
        resolve_backbone(name)
    monkeypatch.undo()
    assert resolve_backbone(name).path == fetch_weights(name).path


@pytest.mark.parametrize(("wrong", "meant"), [("adm256", "adm-256"), ("nano_he", "nano-he"), ("ADM-256", "adm-256")])
def test_a_name_that_is_nearly_right_is_met_with_the_right_one(place, wrong, meant):
    with pytest.raises(UserError, match=f"did you mean {meant}"):
        resolve_backbone(wrong)


def test_a_path_that_is_not_there_says_so(tmp_path, place):
    with pytest.raises(UserError, match=r"gone\.pt: no such checkpoint file; name a backbone") as error:
        resolve_backbone(tmp_path / "gone.pt")
    names = re.findall(r"efficientnet-lite0|untrained:\S*|hub:\S*|sd:\S*", str(error.value))
    assert names == ["efficientnet-lite0", "untrained:...,", "hub:...,", "sd:...)"]
    with pytest.raises(
        UserError, match=rf"a directory, not a checkpoint file; give .*as hub:{re.escape(str(tmp_path))} "
    ):
        resolve_backbone(tmp_path)


def test_the_weights_directory_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TEXTDIFF_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_dir() == tmp_path / "textdiff/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_dir() == Path.home() / ".cache/textdiff/weights"
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", "~/elsewhere")
    assert weights_dir() == Path.home() / "elsewhere"


def test_fetch_can_use_another_address_and_another_place(tmp_path, place, published):
    url = CHECKPOINTS["adm-256"].url
    assert download(Download("adm-256", to=tmp_path / "there", url=url)) == tmp_path / "there" / FILE
    assert not place.exists()
    with pytest.raises(UserError, match=r"did you mean monuseg\?.*adm-256"):
        download(Download("monusegg"))


# Files that change


def in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def by_a_copy(path: Path) -> None:
    put(path.with_name("other"), path.read_bytes()[:-1] + b"!")
    path.with_name("other").replace(path)


@pytest.mark.parametrize("how", [in_place, by_a_copy])
def test_a_checkpoint_that_changes_is_another_one_though_its_size_and_time_stay(tmp_path, how):
    path = put(tmp_path / "mine.pt")
    assert resolve_backbone(path).sha256 == SHA256
    before = path.stat()
    how(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p, rsync -t and failing disks leave it
    assert path.stat().st_size == before.st_size
    assert resolve_backbone(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != SHA256


@pytest.mark.parametrize("before", ["", "untrained:"])
def test_a_checkpoint_that_changes_between_its_digest_and_its_loading_is_refused(tmp_path, tiny_backbone, before):
    path = put(tmp_path / "mine.safetensors", tiny_backbone.read_bytes())
    found = resolve_backbone(f"{before}{path}")
    load_backbone(found, 64, torch.device("cpu"))
    put(tmp_path / "new", path.read_bytes()).replace(path)
    with pytest.raises(UserError, match=r"mine\.safetensors: was changed while it was loaded"):
        load_backbone(found, 64, torch.device("cpu"))


# For doctor


def line(name: str) -> tuple[str, str, str]:
    return next((verdict, detail, fix) for verdict, what, detail, fix in status() if what == name)


def test_status_tells_missing_verified_and_damaged_apart(place, small_adm):
    assert line("adm-256")[::2] == ("WARN", "textdiff download adm-256")
    put(place / FILE)
    assert line("adm-256")[0] == "PASS"
    assert "verified" in line("adm-256")[1]
    put(place / FILE, DATA[::-1])
    assert line("adm-256")[0] == "FAIL"


def test_status_names_every_backbone_and_text_encoder(place):
    assert [what for _, what, _, _ in status()] == ["adm-256", "nano-he", "nano-cxr", "clinical-biobert", "minilm"]


def test_weights_are_known_without_loading_pytorch():
    code = "import sys, textdiff.models.weights; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
