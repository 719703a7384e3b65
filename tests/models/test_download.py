"""Downloads against a server on this machine that breaks off, lies, stalls and changes its mind."""

import base64
import hashlib
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.models.downloads.download import OfflineError, download
from textdiff.tests.flaky_server import DATA, names

OTHER = np.random.default_rng(1).bytes(600_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def fetch(server, tmp_path) -> Callable[..., Path]:
    """``download`` to a fixed place, without waiting between tries."""

    def run(**options) -> Path:
        given = {"pause": lambda _: None, "timeout": 5, "progress": False, **options}
        return download(server.url, tmp_path / "file.bin", **given)

    return run


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
