"""What on this machine would keep TextDiff from working well, each with its fix."""

__all__ = ["EXAMINATIONS", "Check", "diagnose", "memory_limit", "requirements"]

import importlib
import operator
import os
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from textdiff.console import size
from textdiff.errors import UserError
from textdiff.files import free_space
from textdiff.plugins import added

_DISK = 10e9  # bytes: two dozen MoNuSeg images with eight views, in adm-256 activations
_MEMORY = 6e9  # bytes: the full-size UNet in float32 and its activations
PATIENCE = 3.0  # seconds for the hub to answer
_REINSTALL = "pip install --upgrade textdiff, or pip install -e . in a checkout"


class Check(NamedTuple):
    """One line of the diagnosis."""

    status: Literal["PASS", "WARN", "FAIL"]
    """WARN: works, but not for everything. FAIL: a command will not run."""
    what: str
    detail: str
    fix: str = ""
    """What to do about it; empty where it passed."""

    def __str__(self) -> str:
        return f"{self.status}  {self.what}: {self.detail}" + (f"; fix: {self.fix}" if self.fix else "")


def diagnose(directory: Path) -> list[Check]:
    """Examines the machine; never raises.

    A check that cannot be made is a FAIL that says why. Asks the hub for a sign of life and waits for it about three
    seconds at most; nothing is downloaded and nothing written.

    Args:
        directory: where caches are to be stored; it need not exist.
    """
    checks: list[Check] = []
    for what, examine in EXAMINATIONS.items():
        try:
            checks += examine(directory)
        except Exception as error:
            said = " ".join(str(error).split())  # one line, whatever the library printed into its message
            detail = f"the check failed with {type(error).__name__}: {said}".rstrip(": ")
            checks.append(Check("FAIL", what, detail, f"{_REINSTALL}; if it stays, report this line"))
    return checks


def _python() -> list[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    required = metadata.metadata("textdiff")["Requires-Python"]
    if not _in_range(version, required):
        return [
            Check("FAIL", "Python", f"{version}, but {required} is needed", "make an environment with a newer Python")
        ]
    return [Check("PASS", "Python", f"{version} in {sys.prefix}")]


def _packages() -> list[Check]:
    faults = [problem for name, wanted in requirements().items() if (problem := _problem(name, wanted))]
    if faults:
        return [Check("FAIL", "packages", ", ".join(faults), _REINSTALL)]
    return [Check("PASS", "packages", f"all {len(requirements())} required ones in their ranges")]


def _import(name: str) -> Check:
    """A package that is installed can still fail to load: a missing library, a mixed-up environment."""
    wanted = requirements()[name]
    if problem := _problem(name, wanted):
        return Check("FAIL", name, problem, f'pip install "{name}{wanted}"')
    importlib.import_module(name)
    return Check("PASS", name, metadata.version(name))


def _device() -> list[Check]:
    import torch

    from textdiff.models.device import choose_device, describe_device

    device = choose_device("auto")
    described = describe_device(device)
    if device.type == "cuda":
        torch.ones(2, device=device).sum().item()  # an old driver or an unsupported card shows only when used
        free = torch.cuda.mem_get_info(device)[0]
        if free < _MEMORY:
            fix = "end other programs on the GPU (nvidia-smi lists them), or use --device cpu"
            return [Check("WARN", "device", f"{described}, {size(free)} free; adm-256 needs {size(_MEMORY)}", fix)]
        return [Check("PASS", "device", f"{described}, {size(free)} free")]
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        fix = "install a CUDA build of PyTorch that suits the driver, see https://pytorch.org/get-started/locally/"
        return [
            Check(
                "WARN", "device", f"{described}; PyTorch {torch.__version__} sees no GPU though nvidia-smi is here", fix
            )
        ]
    return [Check("PASS", "device", described if device.type != "cpu" else f"{described}; no GPU")]


def _memory() -> list[Check]:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = memory_limit()
    usable, detail = physical, f"{size(physical)}"
    if limit is not None and limit < physical:
        usable, detail = limit, f"{size(limit)} (limit of the container or job; the machine has {size(physical)})"
    if usable < _MEMORY:
        fix = "raise the limit or use a larger machine; a small --backbone needs less"
        return [Check("WARN", "memory", f"{detail}; adm-256 needs {size(_MEMORY)}", fix)]
    return [Check("PASS", "memory", detail)]


def memory_limit(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """The memory in bytes that the control groups of this process allow it, or ``None`` without a limit.

    Containers and batch systems set it; the process is killed beyond it, however much the machine has. Versions 1 and
    2: https://docs.kernel.org/admin-guide/cgroup-v2.html. The narrowest group up to the root counts.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        inside = base / group.lstrip("/")
        # In a container the group's path is the host's and is not mounted; the root then is the container's own.
        for folder in (inside, *inside.parents):
            try:
                value = (folder / name).read_text().strip()
            except OSError:
                value = "max"
            if value != "max":
                limits.append(int(value))
            if folder == base:
                break
    # Version 1 says "no limit" with a number near 2^63.
    return min((limit for limit in limits if limit < 1 << 60), default=None)


def _zarr() -> list[Check]:
    version = _import("zarr")
    if version.status != "PASS":
        return [version]
    name = "textdiff.upsample"
    found = metadata.entry_points(group="zarr.codecs", name=name)
    if not found:
        return [Check("FAIL", "zarr", f"{version.detail}, but the codec {name} is not registered", _REINSTALL)]
    from zarr.registry import get_codec_class

    get_codec_class(name)
    return [Check("PASS", "zarr", f"{version.detail} with the codec {name}")]


def _disk(directory: Path) -> list[Check]:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        fix = "choose another directory with --cache-dir, or mend its permissions"
        return [Check("FAIL", "disk", f"{place} is not a directory that can be written to", fix)]
    free = free_space(place)
    if free < _DISK:
        fix = "free some space, or store caches on another disk (--cache-dir here, --cache for extract)"
        return [Check("WARN", "disk", f"{size(free)} free at {place}", fix)]
    return [Check("PASS", "disk", f"{size(free)} free at {place}")]


def _weights() -> list[Check]:
    from textdiff.models import weights

    return [Check(*line) for line in weights.status()]


def _plug_ins() -> list[Check]:
    """A line for each package that adds something, and one for each of its names that cannot be used."""
    from textdiff.models.backbones import BACKBONES
    from textdiff.models.backbones.base import Backbone
    from textdiff.models.networks.models import MODELS
    from textdiff.models.networks.segmenter import Segmenter
    from textdiff.outputs import FORMATS
    from textdiff.readers import READERS

    groups: dict[str, tuple[Mapping[str, object], type]] = {
        "backbones": (BACKBONES, Backbone),
        "networks": (MODELS, Segmenter),
        "readers": (READERS, object),
        "formats": (FORMATS, object),
    }
    faults, sound = list[Check](), dict[str, list[str]]()
    for group, names in added().items():
        known, kind = groups.get(group, (None, object))
        for name, package in names.items():
            place = f"{name}: the plug-in of {package} (textdiff.{group})"
            if known is None:
                fix = f"name the group textdiff.{' or textdiff.'.join(groups)}"
                faults.append(Check("WARN", "plug-ins", f"{place} is looked for by nothing", fix))
                continue
            if name not in known:  # of a release that another one, earlier on the path, hides
                continue
            try:
                found = known[name]
                if isinstance(found, type) and not issubclass(found, kind):
                    raise UserError(f"{place} is no {kind.__name__}; mend it, or uninstall it")
            except UserError as error:
                detail, _, fix = str(error).rpartition("; ")
                faults.append(Check("FAIL", "plug-ins", detail, fix))
            else:
                sound.setdefault(package, []).append(f"{name} ({group})")
    lines = [f"{package} adds {', '.join(names)}" for package, names in sound.items()]
    return [Check("PASS", "plug-ins", line) for line in lines or ["none"] * (not faults)] + faults


def _hub() -> list[Check]:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return [Check("WARN", "hub", f"offline by {variable}", f"unset {variable} to download weights")]
    outcome = ["no answer"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE):
                outcome[0] = ""
        except urllib.error.HTTPError as error:
            outcome[0] = f"it answers {error.code}"
        except Exception as error:  # a thread's exception would be printed among the lines
            outcome[0] = " ".join(str(error).split())

    # The timeout of a socket does not cover the look-up of the name, which can hang for half a minute.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if outcome[0]:
        fix = (
            "connect, or set HTTPS_PROXY or HF_ENDPOINT; without the hub, put weights in place by hand, "
            "and use --text-encoder minilm"
        )
        return [Check("WARN", "hub", f"{endpoint} not reachable: {outcome[0]}", fix)]
    return [Check("PASS", "hub", f"{endpoint} reachable")]


def requirements() -> dict[str, str]:
    """What the installed package needs at run time, as ``{"zarr": "<4,>=3.1.3"}``: pyproject.toml is the one source."""
    lines = [line for line in metadata.requires("textdiff") or [] if ";" not in line]
    pairs = (re.match(r"([\w.-]+)\s*(.*)", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


def _problem(name: str, wanted: str) -> str:
    """Why the installed release of a package will not do, or nothing."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return "" if _in_range(version, wanted) else f"{name} {version} is not in {wanted}"


def _in_range(version: str, wanted: str) -> bool:
    """Whether a release satisfies ``<4,>=3.1.3``. Local and pre-release suffixes are left out of account."""
    have = _release(version)
    tests = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
    bounds = re.findall(r"([<>=]=|[<>])\s*([\d.]+)", wanted)
    return all(tests[sign](have, _release(bound)) for sign, bound in bounds)


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    return tuple(parts + [0] * (6 - len(parts)))  # 2.6 and 2.6.0 are one release


EXAMINATIONS: dict[str, Callable[[Path], list[Check]]] = {
    "Python": lambda _: _python(),
    "packages": lambda _: _packages(),
    "torch": lambda _: [_import("torch")],
    "device": lambda _: _device(),
    "memory": lambda _: _memory(),
    "zarr": lambda _: _zarr(),
    "transformers": lambda _: [_import("transformers")],
    "disk": _disk,
    "weights": lambda _: _weights(),
    "plug-ins": lambda _: _plug_ins(),
    "hub": lambda _: _hub(),
}  # each by its name, and given where caches are to be stored
