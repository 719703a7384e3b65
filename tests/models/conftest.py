"""The server that downloads are tried against, and a small network."""

import threading
from collections.abc import Iterator

import pytest

from textdiff.tests.checkpoint_cases import NEW, build
from textdiff.tests.flaky_server import Server


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TEXTDIFF_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def unet():
    return build(NEW)


@pytest.fixture(scope="module")
def state(unet):
    return {name: entry.detach() for name, entry in unet.state_dict().items()}
