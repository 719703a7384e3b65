"""``extract`` killed, raced, on failing disks and over damaged caches: nothing lost, nothing wrong, the same bytes."""

import os
from collections.abc import Iterator

import pytest

from textdiff.tests.fault_cases import FAULTS, Scene, try_fault
from textdiff.tests.fault_server import Server

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")  # noqa: PTH112
FEW = {"SIGKILL at a random moment": 1, "EIO on write": 1, "a flipped byte in each kind of object": 1}
MANY = {kind: 50 if "SIGKILL" in kind else 24 if "flipped" in kind else 6 for kind in FAULTS}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def scene(server, tmp_path_factory) -> Scene:
    return Scene(tmp_path_factory.mktemp("faults") / "scene", server, images=2, warm=False)


def check(scene: Scene, kind: str, times: int) -> None:
    try:
        outcome = try_fault(kind, scene, times)
    except PermissionError as error:
        pytest.skip(str(error))
    assert outcome.times == times
    assert outcome.sound, outcome


@pytest.mark.parametrize("kind", FEW)
def test_no_fault_loses_a_row_or_serves_a_wrong_one_and_the_same_command_ends_with_the_same_bytes(scene, kind):
    check(scene, kind, FEW[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAULTS if "worker" not in kind])
def test_nor_do_many_of_any_kind(scene, kind):
    check(scene, kind, MANY[kind])
