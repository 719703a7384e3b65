import json
import shutil
import threading
import time
import tomllib
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
import torch

from textdiff.models import weights
from textdiff.pipeline import doctor
from textdiff.pipeline.doctor import diagnose, memory_limit

PLENTY = 10**12


@pytest.fixture(autouse=True)
def offline_environment(monkeypatch):
    """No test asks the real hub, and none depends on this machine's memory or disk."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    set_memory(monkeypatch, PLENTY, None)
    set_disk(monkeypatch, PLENTY)


def set_memory(monkeypatch, physical, limit):
    monkeypatch.setattr(
        doctor.os, "sysconf", lambda name: {"SC_PHYS_PAGES": physical // 4096, "SC_PAGE_SIZE": 4096}[name]
    )
    monkeypatch.setattr(doctor, "memory_limit", lambda: limit)


def set_disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(free, 0, free))


def find(what, directory=Path()):
    checks = [check for check in diagnose(directory) if check.what == what]
    assert checks, f"no line about {what}"
    return checks[0]


def test_every_line_has_a_status_and_everything_but_a_pass_has_its_fix():
    checks = diagnose(Path())
    assert {"Python", "torch", "device", "memory", "zarr", "transformers", "disk", "hub"} <= {c.what for c in checks}
    for check in checks:
        assert check.status in ("PASS", "WARN", "FAIL")
        assert check.detail
        assert bool(check.fix) == (check.status != "PASS"), check
        assert "\n" not in str(check)
        assert str(check).startswith(f"{check.status}  {check.what}: {check.detail}")
    json.dumps([check._asdict() for check in checks])


@pytest.mark.parametrize("what", ["Python", "packages", "torch", "device", "memory", "disk", "transformers"])
def test_a_sound_machine_passes(what):
    assert find(what).status == "PASS"


def test_the_codec_registered_by_the_entry_point_passes():
    pytest.importorskip("textdiff.cache.codec")
    check = find("zarr")
    assert check.status == "PASS"
    assert "textdiff.upsample" in check.detail


def test_an_unregistered_codec_fails(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda **_: ())
    check = find("zarr")
    assert check.status == "FAIL"
    assert "textdiff.upsample is not registered" in check.detail


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4, "final", 0))
    check = find("Python")
    assert check.status == "FAIL"
    assert "3.10.4" in check.detail
    assert ">=3.11" in check.detail


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("zarr", "2.18.4", "FAIL"),
        ("zarr", "3.1.2", "FAIL"),
        ("zarr", "4.0.0", "FAIL"),
        ("torch", "2.5.1+cu124", "FAIL"),
        ("torch", "2.6.0+cu124", "PASS"),
        ("torch", "3.0", "FAIL"),
        ("transformers", "4.49.0", "FAIL"),
        ("transformers", "4.50", "PASS"),
        ("transformers", "6.0.0", "FAIL"),
    ],
)
def test_releases_outside_the_range_of_pyproject_fail(monkeypatch, package, version, status):
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: version if name == package else real(name))
    checks = {check.what: check for check in diagnose(Path())}
    check = checks[package]
    assert check.status == checks["packages"].status == status
    assert version in check.detail
    if status == "FAIL":
        assert f'pip install "{package}' in check.fix


def test_a_missing_package_is_named(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "h5py":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    check = find("packages")
    assert check.status == "FAIL"
    assert "h5py is not installed" in check.detail


def test_the_ranges_checked_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = doctor.requirements()
    assert len(wanted) == len(project["dependencies"])
    for line in project["dependencies"]:
        name = next(name for name in wanted if line.startswith(name))
        assert sorted(wanted[name].split(",")) == sorted(line[len(name) :].split(","))


def test_a_package_that_does_not_load_fails_with_the_reason(monkeypatch):
    def broken(name):
        raise OSError(f"lib{name}.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    check = find("torch")
    assert check.status == "FAIL"
    assert "OSError: libtorch.so: cannot open shared object file" in check.detail


@pytest.mark.parametrize("part", doctor.EXAMINATIONS)
def test_a_check_that_raises_becomes_a_line_and_the_others_go_on(monkeypatch, part):
    def broken(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(weights, "status", lambda: [("PASS", "weights", "verified", "")])
    before = diagnose(Path())
    monkeypatch.setitem(doctor.EXAMINATIONS, part, broken)
    after = diagnose(Path())
    assert [check.what for check in after] == [check.what for check in before]
    changed = [check for check, old in zip(after, before, strict=True) if check.detail != old.detail]
    assert changed
    assert all(check.status == "FAIL" and "RuntimeError: boom" in check.detail and check.fix for check in changed)


def test_what_is_known_about_each_model_is_shown(monkeypatch):
    lines = [
        ("PASS", "minilm", "in site-packages, verified", ""),
        ("WARN", "adm-256", "no file", "textdiff download adm-256"),
        ("FAIL", "clinical-biobert", "damaged", "delete it"),
    ]
    monkeypatch.setattr(weights, "status", lambda: lines)
    shown = [check for check in diagnose(Path()) if check.what in ("minilm", "adm-256", "clinical-biobert")]
    assert [tuple(check) for check in shown] == lines


def test_too_little_memory_warns(monkeypatch):
    set_memory(monkeypatch, 4 * 10**9, None)
    check = find("memory")
    assert check.status == "WARN"
    assert "4.0 GB" in check.detail


def test_the_limit_of_a_container_counts_not_the_machine(monkeypatch):
    set_memory(monkeypatch, PLENTY, 2 * 10**9)
    check = find("memory")
    assert check.status == "WARN"
    assert "2.0 GB" in check.detail
    assert "limit" in check.detail


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "4000000000"}, 4_000_000_000),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "3000", "memory.max": "9000"}, 3000),
        ("0::/not/mounted\n", {"memory.max": "7000"}, 7000),  # inside a container the path is the host's
        ("0::/../../other\n", {"memory.max": "7000"}, 7000),
        ("4:memory:/docker/1\n0::/\n", {"memory/docker/1/memory.limit_in_bytes": "5000"}, 5000),
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": "6000"}, 6000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("3:cpu:/\n", {"memory.max": "8000"}, None),
        ("", {}, None),
    ],
)
def test_limits_of_control_groups_are_found(tmp_path, membership, files, expected):
    (tmp_path / "self").write_text(membership)
    for name, value in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    assert memory_limit(tmp_path / "mount", tmp_path / "self") == expected


def test_a_system_without_control_groups_has_no_limit(tmp_path):
    assert memory_limit(tmp_path, tmp_path / "absent") is None


def test_little_free_disk_warns_and_names_the_place(monkeypatch, tmp_path):
    set_disk(monkeypatch, 9 * 10**9)
    check = find("disk", tmp_path / "not" / "yet" / "made")
    assert check.status == "WARN"
    assert "9.0 GB" in check.detail
    assert str(tmp_path) in check.detail
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_a_file_fails(tmp_path):
    (tmp_path / "file").write_text("")
    assert find("disk", tmp_path / "file").status == "FAIL"


def test_a_directory_without_permission_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)  # root may write anywhere, and CI is often root
    assert find("disk", tmp_path).status == "FAIL"


def test_a_gpu_that_torch_does_not_see_warns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check = find("device")
    assert check.status == "WARN"
    assert torch.__version__ in check.detail
    assert "CUDA" in check.fix


@pytest.mark.parametrize(("free", "status"), [(80 * 10**9, "PASS"), (10**9, "WARN")])
def test_the_free_memory_of_a_gpu_decides(monkeypatch, free, status):
    import textdiff.models.device as devices

    # A stand-in for the card: the tests run where there is none.
    monkeypatch.setattr(devices, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(devices, "describe_device", lambda device: "cuda, Some GPU, 80 GiB")
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(2))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * 10**9))
    check = find("device")
    assert check.status == status
    assert "Some GPU" in check.detail


@pytest.fixture
def hub(monkeypatch):
    """A loopback server in the hub's place; ``hub.answer`` is its status, ``hub.delay`` how long it thinks."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            time.sleep(server.delay)
            self.send_response(server.answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.delay = 200, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_passes(hub):
    assert find("hub").status == "PASS"


def test_a_hub_that_refuses_warns_with_its_answer(hub):
    hub.answer = 403
    check = find("hub")
    assert check.status == "WARN"
    assert "403" in check.detail


def test_a_hub_that_hangs_is_not_waited_for(monkeypatch, hub):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    hub.delay = 1.0
    start = time.monotonic()
    [check] = doctor.EXAMINATIONS["hub"](Path())
    assert time.monotonic() - start < 0.8
    assert check.status == "WARN"


def test_a_name_look_up_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)

    def hang(*_, **__):
        time.sleep(1)
        raise OSError("look-up failed")

    monkeypatch.setattr(doctor.urllib.request, "urlopen", hang)
    start = time.monotonic()
    [check] = doctor.EXAMINATIONS["hub"](Path())
    assert time.monotonic() - start < 0.8
    assert check.status == "WARN"
    assert "no answer" in check.detail


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[", "http://127.0.0.1:9"])
def test_an_endpoint_that_cannot_be_asked_warns(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    check = find("hub")
    assert check.status == "WARN"
    assert endpoint in check.detail


def test_no_network_warns_with_the_fix():
    check = find("hub")
    assert check.status == "WARN"
    assert "minilm" in check.fix


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_by_choice_asks_nothing(monkeypatch, variable):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(doctor.urllib.request, "urlopen", asked)
    check = find("hub")
    assert check.status == "WARN"
    assert variable in check.detail
