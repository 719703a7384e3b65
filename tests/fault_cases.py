"""``extract`` under faults: killed, raced, on disks that fail, over caches that are damaged; and what is left of it.

A command is a list of arguments, so whatever ``extract`` can do (devices, schedulers, shards) meets the same faults.
"""

import contextlib
import errno
import hashlib
import io
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textdiff.tests.fault_server import Command, Server


def make_data(root: Path, images: int) -> None:
    """A data set of so many images of 64 px, most of them for training, each with a mask and a text."""
    (root / "letters").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (root / "letters" / name).touch()
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    lines = ["image,text,split"]
    for number in range(images):
        draw = np.random.default_rng(number)
        pixels, mask = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros((64, 64), np.uint8)
        mask[10 : 30 + number % 30] = 255
        Image.fromarray(pixels).save(root / f"data/images/c{number}.png")
        Image.fromarray(mask).save(root / f"data/masks/c{number}.png")
        lines.append(f"c{number},{number % 5} cells,{'test' if number % 4 == 3 else 'train'}")
    (root / "data/texts.csv").write_text("\n".join(lines) + "\n")


EXTRACT = (
    *("extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "64", "--views", "8"),
    *("--text-encoder", "letters"),
)


@dataclass
class Outcome:
    """What became of a cache under one kind of fault."""

    kind: str
    times: int = 0
    lost: int = 0
    """Rows that were in the ledger before and are not after."""
    wrong: int = 0
    """Rows in the ledger that are not what an undisturbed run wrote."""
    unequal: int = 0
    """Caches that, gone on with by the same command, are not the same bytes, or have something beside them."""
    untold: int = 0
    """Commands that ended neither well nor with one line."""
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.wrong or self.unequal or self.untold)


class Scene:
    """A data set, a command, and the cache that it makes when nothing happens."""

    def __init__(
        self,
        root: Path,
        server: Server,
        more: Sequence[str] = (),
        images: int = 8,
        seed: int = 0,
        warm: bool = True,
    ) -> None:
        make_data(root, images)
        self.root, self.server, self.more, self.draw = root, server, tuple(more), random.Random(seed)
        self._number = 0
        self.seconds = 1e9
        for _ in range(1 + warm):  # the first one reads from the disk what all others find in memory
            start = time.monotonic()
            self.whole = self.fresh()
            assert self.command(self.whole).wait() == 0, self.last_log()
            self.seconds = min(self.seconds, time.monotonic() - start)
        self.bytes = self.tree(self.whole)

    def tree(self, cache: Path) -> dict[str, str]:
        """The SHA-256 of every file of a cache."""
        return tree(cache)

    def entries(self, cache: Path) -> int:
        """How many files there are in the ledger: an entry of each row, and the array's own."""
        return len([*(cache / "ledger").glob("*")])

    def beside(self, cache: Path) -> list[str]:
        """What is beside a cache, which should be nothing."""
        return [path.name for path in cache.parent.iterdir() if path != cache and path.suffix != ".txt"]

    def drop(self, cache: Path) -> None:
        """Removes a cache, of which no more is asked."""
        shutil.rmtree(cache.parent)

    def copied(self) -> Path:
        """A copy of the whole cache."""
        cache = self.fresh()
        shutil.copytree(self.whole, cache)
        return cache

    def read(self, cache: Path, name: str) -> bytes:
        """A file of a cache."""
        return (cache / name).read_bytes()

    def write(self, cache: Path, name: str, data: bytes) -> None:
        """Changes a file of a cache."""
        (cache / name).write_bytes(data)

    def fresh(self) -> Path:
        """A place for a cache, in a directory where nothing else is."""
        self._number += 1
        (self.root / str(self._number)).mkdir()
        return self.root / str(self._number) / "c.zarr"

    def command(self, cache: Path, *more: str, fault: dict[str, Any] | None = None) -> Command:
        return self.server.start(self.root, [*EXTRACT, "--cache", str(cache), *self.more, *more], fault)

    def last_log(self) -> str:
        return max(self.root.glob("log-*.txt")).read_text()

    def look(self, cache: Path, outcome: Outcome, before: set[int]) -> set[int]:
        """Adds to the outcome what is lost and wrong by now; the rows that are there."""
        from textdiff.cache import FeatureCache
        from textdiff.cache.ledger import read_entry

        if not self.entries(cache):
            outcome.lost += len(before)
            return set()
        opened, whole = FeatureCache.open(cache), FeatureCache.open(self.whole)
        here = set(np.flatnonzero(opened.done()).tolist())
        bad = {fault.row for fault in opened.verify() if fault.row is None or fault.row in here}
        bad |= {row for row in here if read_entry(opened.store, row) != read_entry(whole.store, row)}
        outcome.lost += len(before - here)
        outcome.wrong += len(bad)
        return here

    def go_on(self, cache: Path, outcome: Outcome, *more: str) -> None:
        """Runs the same command without any fault, and compares."""
        command = self.command(cache, *more)
        status = command.wait()
        if status != 0:
            outcome.notes.append(command.log.read_text()[-2000:])
        beside = self.beside(cache)
        if status != 0 or self.tree(cache) != self.bytes or beside:
            outcome.unequal += 1
            outcome.notes.append(f"{cache}: status {status}, beside it {beside}")

    def told(self, command: Command, outcome: Outcome) -> None:
        """Counts a command that had to end well or say in one line why not."""
        status, said = command.wait(), command.log.read_text()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if "Traceback" in said or not (status == 0 or (status == 2 and len(errors) == 1)):
            outcome.untold += 1
            outcome.notes.append(f"status {status}: {said[-2000:]}")
            command.kill()


def tree(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a cache."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file()
    }


def killed(scene: Scene, outcome: Outcome, times: int, one_below: bool = False) -> None:
    """At random moments of a run, again and again on one cache until it is whole; then on a new one.

    Every second time within some milliseconds of a row that is drawn, as rows take a small part of a short run.
    """
    cache, here, counts = scene.fresh(), set[int](), list[int]()
    rows = len([name for name in scene.bytes if name.startswith("ledger/c.")])
    while outcome.times < times:
        command = scene.command(cache)
        if outcome.times % 2:
            wanted = scene.draw.randrange(rows) + 2  # with the array's own file
            while (status := command.wait(0.0)) is None and scene.entries(cache) < wanted:
                time.sleep(0.001)
            status = command.wait(scene.draw.uniform(0, 0.03))
        else:
            status = command.wait(scene.draw.uniform(0, scene.seconds))
        if status is None:
            if one_below:
                outcome.times += command.kill_one_below(scene.draw)
                scene.told(command, outcome)
            else:
                outcome.times += 1
                command.kill()
        here = scene.look(cache, outcome, here)
        counts.append(len(here))
        if status is not None or len(here) == rows or outcome.times == times:
            scene.go_on(cache, outcome)
            scene.drop(cache)
            cache, here = scene.fresh(), set()
    outcome.notes.append(f"rows there after each kill: {counts}")


def worker_killed(scene: Scene, outcome: Outcome, times: int) -> None:
    """One of the processes that the command starts."""
    killed(scene, outcome, times, one_below=True)


def raced(scene: Scene, outcome: Outcome, times: int) -> None:
    """Two of the same command on one cache from nothing; of every second pair one is killed."""
    for number in range(times):
        cache = scene.fresh()
        commands = [scene.command(cache) for _ in range(2)]
        if number % 2 and commands[1].wait(scene.draw.uniform(0, scene.seconds)) is None:
            commands[1].kill()
            scene.told(commands[0], outcome)
        else:
            for command in commands:
                scene.told(command, outcome)
        scene.look(cache, outcome, set())
        scene.go_on(cache, outcome)
        outcome.times += 1


def failing(kind: str, code: int) -> Callable[[Scene, Outcome, int], None]:
    """An operation of this kind fails with ``code``, and so do all after it, until the command is run again."""

    def fail(scene: Scene, outcome: Outcome, times: int) -> None:
        more = ("--durable",) if kind == "fsync" else ()
        files = len(scene.bytes)
        # A cache is made of some twenty files, so that every second fault comes while it is made or not long after.
        for number in range(times):
            cache = scene.fresh()
            at = scene.draw.randrange(40) if number % 2 else scene.draw.randrange(files)
            command = scene.command(cache, *more, fault={"kind": kind, "errno": code, "at": at})
            scene.told(command, outcome)
            scene.look(cache, outcome, set())
            scene.go_on(cache, outcome, *more)
            outcome.times += 1

    return fail


def disk_full(scene: Scene, outcome: Outcome, times: int) -> None:
    """Four writers, a shard each, on a file system with room for a part of the rows; then with room for all."""
    size = sum(file.stat().st_size + 4096 for file in scene.whole.rglob("*"))
    for _ in range(times):
        cache = scene.fresh()
        with mounted(cache.parent, size * scene.draw.uniform(0.2, 0.8)):
            for command in [scene.command(cache, "--shard", f"{shard}/4") for shard in range(4)]:
                scene.told(command, outcome)
            here = scene.look(cache, outcome, set())
            subprocess.run(["mount", "-o", f"remount,size={8 * size}", str(cache.parent)], check=True)
            scene.look(cache, outcome, here)
            scene.go_on(cache, outcome)
            outcome.times += 1


@contextlib.contextmanager
def mounted(place: Path, size: float) -> Iterator[None]:
    """A file system of its own of so many bytes; PermissionError where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={int(size)}", "none", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise PermissionError("only the superuser can mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def damaged(name: str, data: bytes, draw: random.Random) -> bytes:
    """A file's bytes with one changed; in JSON not only a space into a tab, which says the same and stays."""
    while True:
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        try:
            same = name.endswith("zarr.json") and json.loads(changed) == json.loads(data)
        except ValueError:
            same = False
        if not same:
            return bytes(changed)


def flipped(scene: Scene, outcome: Outcome, times: int) -> None:
    """A byte of an object of each kind in turn: found, repaired, made again, and no other row with it."""
    from textdiff.cache import CacheError, FeatureCache
    from textdiff.cache.repair import repair_cache

    kinds: dict[str, list[str]] = {}
    for name in sorted(scene.bytes):
        kinds.setdefault(name if name.endswith("zarr.json") else str(Path(name).parent), []).append(name)
    outcome.notes.append(f"{len(kinds)} kinds: {', '.join(kinds)}")
    order = scene.draw.sample([*kinds], len(kinds))
    rows = set(range(len(FeatureCache.open(scene.whole).rows)))
    for number in range(times):
        kind = order[number % len(order)]
        cache = scene.copied()
        name = scene.draw.choice(kinds[kind])
        scene.write(cache, name, damaged(name, scene.read(cache, name), scene.draw))
        of_row = not name.endswith("zarr.json") and not name.startswith(("table", "text"))
        expected = rows - {int(Path(name).name.split(".")[1])} if of_row else rows
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                found = repair_cache(cache)
                here = set(np.flatnonzero(FeatureCache.open(cache).done()).tolist())
                outcome.lost += len(expected - here)
                outcome.wrong += len(here - expected)
                outcome.untold += not found
            except CacheError as error:  # the root or the table, which need the command that made the cache
                outcome.untold += name not in ("zarr.json", "table/c.0") or "damaged" not in str(error)
        scene.go_on(cache, outcome)
        scene.drop(cache)
        outcome.times += 1


FAULTS: dict[str, Callable[[Scene, Outcome, int], None]] = {
    "SIGKILL at a random moment": killed,
    "SIGKILL of one worker": worker_killed,
    "two writers race, one of every second pair is killed": raced,
    "ENOSPC on write": failing("write", errno.ENOSPC),
    "EIO on write": failing("write", errno.EIO),
    "EIO on rename": failing("rename", errno.EIO),
    "EIO on mkdir": failing("mkdir", errno.EIO),
    "EIO on fsync, --durable": failing("fsync", errno.EIO),
    "a full disk under four writers": disk_full,
    "a flipped byte in each kind of object": flipped,
}


def try_fault(
    kind: str, scene: Scene, times: int, faults: dict[str, Callable[[Any, Outcome, int], None]] = FAULTS
) -> Outcome:
    """What becomes of so many trials of one kind."""
    outcome = Outcome(kind)
    faults[kind](scene, outcome, times)
    return outcome
