"""Commands that are forked from a server that has imported everything, as most of a small run would be imports.

python tests/fault_server.py      # the server: see ``Server``
"""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FAULT = "TEXTDIFF_TEST_FAULT"
SECONDS = 300.0
"""After so long a command hangs."""


class Encoder:
    """Letters as tokens; what a real one costs is not what is tested."""

    sha256, max_tokens, dim, pad_to = "0" * 64, 8, 4, None

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        letters = [(one + "       ")[:6].encode() for one in texts]
        tokens = np.array([[[letter] * 4 for letter in word] for word in letters], np.float32)
        return tokens, np.ones(tokens.shape[:2], np.bool_)


def serve() -> None:
    """Starts the commands that it reads, a JSON a line, and says how they ended."""
    from textdiff import cli
    from textdiff.models import text

    text.load_text_encoder = lambda *_, **__: Encoder()  # type: ignore[assignment]
    with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
        cli.app(["extract", "--cache", "nowhere.zarr"], standalone_mode=False)  # for what it imports
    statuses: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "arguments" in asked:
            if (child := os.fork()) == 0:
                os.setsid()
                os.chdir(asked["directory"])
                log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for stream in (1, 2):
                    os.dup2(log, stream)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                if asked["fault"]:
                    os.environ[FAULT] = json.dumps(asked["fault"])
                    install_fault()
                sys.argv = ["textdiff", *asked["arguments"]]
                cli.main()
            answer = child
        else:
            child = asked["ended"]
            if child and child not in statuses:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    statuses[child] = os.waitstatus_to_exitcode(status)
            answer = statuses.get(child)
        print(json.dumps(answer), flush=True)


def install_fault() -> None:
    """Has the n-th operation of a kind on a cache's files, and all after it, fail in this process and its children."""
    if FAULT not in os.environ:
        return
    fault = json.loads(os.environ[FAULT])
    left = [fault["at"]]

    def check(path: object) -> None:
        if ".zarr" in str(path):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(fault["errno"], os.strerror(fault["errno"]), str(path))

    def checked(function: Callable[..., Any], place: Callable[..., object]) -> Callable[..., Any]:
        def checking(*arguments: Any, **options: Any) -> Any:
            check(place(*arguments))
            return function(*arguments, **options)

        return checking

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            check(self.name)
            return super().write(data)

    plain = io.open

    def opening(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
        if buffering == 0 and set(mode) & set("xwa") and ".zarr" in str(file):
            return File(os.fspath(file), mode.replace("b", ""))
        return plain(file, mode, buffering, *more, **options)

    def of_descriptor(descriptor: int, *_: Any) -> object:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        return ""

    names = {"write": ("write", "writev", "pwrite"), "fsync": ("fsync", "fdatasync"), "rename": ("rename", "replace")}
    names["mkdir"] = ("mkdir",)
    for name in names[fault["kind"]]:
        place = of_descriptor if fault["kind"] in ("write", "fsync") else lambda path, *_: path
        setattr(os, name, checked(getattr(os, name), place))
    if fault["kind"] == "write":
        io.open = opening  # type: ignore[assignment]  # pathlib asks for it there
    # What this process starts anew, rather than forks, begins with what lies beside this file.
    place = Path(__file__).with_name("fault_site")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])


class Server:
    """Starts commands in directories; each is the first process of a group of its own."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._ask(ended=0)  # answered once all is imported

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, directory: Path, arguments: Sequence[str], fault: dict[str, Any] | None = None) -> "Command":
        log = directory / f"log-{time.monotonic_ns()}.txt"
        child = self._ask(directory=str(directory), arguments=list(arguments), log=str(log), fault=fault)
        return Command(self, child, log)

    def ended(self, child: int) -> int | None:
        """The status of a child, negative for a signal; None while it runs."""
        status: int | None = self._ask(ended=child)
        return status


@dataclass
class Command:
    """A command that was started."""

    server: Server
    child: int
    log: Path

    def wait(self, seconds: float = SECONDS) -> int | None:
        """Its status; None if it still runs after so long."""
        end = time.monotonic() + seconds
        while (status := self.server.ended(self.child)) is None and time.monotonic() < end:
            time.sleep(0.003)
        return status

    def kill(self) -> None:
        """Ends it and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        assert self.wait() is not None

    def kill_one_below(self, draw: random.Random) -> bool:
        """Ends one of the Python processes that it started; whether there was one."""
        mine = read(f"/proc/{self.child}/cmdline")  # and that of what it forks, which guards it and works on nothing
        commands = {pid: read(f"/proc/{pid}/cmdline") for pid in descendants(self.child)}
        # Python's own keeper of semaphores works on nothing either, and says at length that it was killed.
        workers = [
            pid for pid, command in commands.items() if b"python" in command and b"resource_tracker" not in command
        ]
        below = [pid for pid in workers if commands[pid] != mine]
        if not below:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(below), signal.SIGKILL)
        return True


def read(path: str) -> bytes:
    """A file of /proc; nothing if its process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def descendants(parent: int) -> list[int]:
    """The processes below one that runs."""
    found = [int(pid) for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]
    return found + [pid for child in found for pid in descendants(child)]


if __name__ == "__main__":
    serve()
