"""Flipped bits and sound chunks in wrong places: each is found or harmless, and nothing of them is ever served."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from textdiff.cache import CacheError, FeatureCache, Loader, Row, native_twin
from textdiff.errors import UserError
from textdiff.tests import cache_cases as cases

FEATURES = tuple(f"features/b{block:02d}" for block in sorted(cases.BLOCKS))
PIXELS = ("image", "mask", "truth", "instances")


def make(path: Path, seed: int, fingerprint: str, images: str = "") -> FeatureCache:
    """Seven rows with all that a row can have; ``images`` makes them others, of the same sizes."""
    rows = [Row(**{**vars(row), "image_sha256": images + row.image_sha256}) for row in cases.make_rows()]
    made = cases.FINGERPRINT | {"weights": fingerprint, "instances": "uint16"}
    tokens = np.random.default_rng([3, seed]).standard_normal(cases.TOKENS.shape, dtype=np.float32)
    cache = cases.make(path, fingerprint=made, rows=rows, tokens=tokens)
    for row, entry in enumerate(rows):
        draw = np.random.default_rng([seed, row])
        truth = draw.integers(0, 2, entry.truth_shape, dtype=np.uint8) if entry.has_truth else None
        cache.write(
            row,
            {
                b: draw.standard_normal((len(cases.STEPS), *shape), dtype=np.float32)
                for b, shape in cache.blocks.items()
            },
            draw.integers(0, 256, (cases.SIZE, cases.SIZE, 3), dtype=np.uint8),
            draw.integers(0, 2, (cases.SIZE, cases.SIZE), dtype=np.uint8) if entry.has_mask else None,
            truth,
            None if truth is None else truth * np.uint16(1 + seed + row),
        )
    return cache


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """A cache; one of the same images made otherwise; one of other images made in the same way."""
    root = tmp_path_factory.mktemp("originals")
    return {
        "one": make(root / "one.zarr", 1, "ab").path,
        "other options": make(root / "options.zarr", 2, "cd").path,
        "other images": make(root / "images.zarr", 3, "ab", "0").path,
    }


def served(cache: FeatureCache) -> Iterator[tuple[str, Any]]:
    """Whatever can be had of an open cache, by name; None where it is refused."""
    yield "table", (cache.rows, cache.texts, cache.steps, cache.blocks)
    reads: dict[str, Callable[[int], Any]] = {name: getattr(cache, name) for name in (*PIXELS, "text")}
    reads |= {name: lambda row, name=name: cache.features(row, int(name[-2:])) for name in FEATURES}
    for row in range(len(cache.rows)):
        for name, read in reads.items():
            try:
                found = read(row)
            except UserError:
                yield f"{name} of row {row}", None
                continue
            parts = found if isinstance(found, tuple) else [found]
            yield f"{name} of row {row}", [None if part is None else (part.shape, part.tobytes()) for part in parts]


def opened(path: Path) -> FeatureCache | None:
    try:
        return FeatureCache.open(path)
    except CacheError:
        return None


def seen_by_zarr(path: Path) -> dict[str, bytes]:
    """What another reader gets, the activations as they are stored."""
    group = zarr.open(path, mode="r")
    arrays = {name: member for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array)}
    return {"": json.dumps(group.attrs.asdict()).encode()} | {
        name: np.asarray((native_twin(array) if name in FEATURES else array)[...]).tobytes()
        for name, array in arrays.items()
    }


class Trial:
    """A copy of the cache that is damaged again and again, and mended in between."""

    def __init__(self, original: Path, path: Path) -> None:
        self.original, self.path = original, Path(shutil.copytree(original, path))
        self.sound = dict(served(FeatureCache.open(original)))
        self.zarr = seen_by_zarr(original)
        self.table: Counter[tuple[str, str]] = Counter()

    def judge(self, kind: str, damage: Callable[[], object]) -> None:
        """Does the damage and finds out what comes of it; nothing of it may be served, and ``verify`` must see it."""
        warm = FeatureCache.open(self.path)
        assert dict(served(warm)) == self.sound
        damage()
        # Who opens it now, who has read it before, and who reads a single thing of it.
        now = dict(served(cache)) if (cache := opened(self.path)) else {}
        for name, found in [*now.items(), *served(warm)]:
            assert found in (None, self.sound[name]), (kind, name)
        for name in FEATURES:
            if cache := opened(self.path):
                for row in range(len(cache.rows)):
                    try:
                        grid = cache.features(row, int(name[-2:]))
                    except CacheError:
                        continue
                    assert self.sound[f"{name} of row {row}"] == [(grid.shape, grid.tobytes())], (kind, name)
        cache = opened(self.path)
        faults = ["it cannot be opened"] if cache is None else cache.verify()
        if faults:
            self.table[kind, "found"] += 1
        else:
            assert now == self.sound, kind
            assert seen_by_zarr(self.path) == self.zarr, kind
            self.table[kind, "harmless"] += 1
        for file in [*self.path.rglob("*")]:
            if file.is_file():
                file.unlink()
        shutil.copytree(self.original, self.path, dirs_exist_ok=True)

    def show(self) -> None:
        for kind in dict.fromkeys(kind for kind, _ in self.table):
            print(f"{kind:44} {self.table[kind, 'found']:4} found {self.table[kind, 'harmless']:4} harmless")
        print(f"{'in all':44} {sum(self.table.values()):4}, 0 served")


def flip(file: Path, draw: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    data[draw.integers(len(data))] ^= 1 << draw.integers(8)
    file.write_bytes(data)


def kind_of(file: Path) -> str:
    if file.name == "zarr.json":
        return "metadata of the root" if file.parent == Path() else "metadata of arrays and groups"
    return "features" if file.parts[0] == "features" else str(file.parent)


FLIPPED = ("features", *PIXELS, "text/tokens", "text/mask", "table", "ledger", "metadata of the root")
FLIPPED += ("metadata of arrays and groups",)


@pytest.mark.parametrize("count", [44, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_are_found_or_harmless_and_never_served(originals, tmp_path, count):
    draw, trial = np.random.default_rng(count), Trial(originals["one"], tmp_path / "c.zarr")
    files: dict[str, list[Path]] = {}
    for file in sorted(originals["one"].rglob("*")):
        if file.is_file():
            relative = file.relative_to(originals["one"])
            files.setdefault(kind_of(relative), []).append(trial.path / relative)
    assert files.keys() == set(FLIPPED)
    for number in range(count):
        kind = FLIPPED[number % len(FLIPPED)]
        trial.judge(kind, lambda kind=kind: flip(files[kind][draw.integers(len(files[kind]))], draw))
    trial.show()
    assert sum(trial.table[kind, "found"] for kind in FLIPPED) > 0.9 * count


def row_files(root: Path, row: int) -> list[Path]:
    return [root / "ledger" / f"c.{row}.0"] + [
        f for name in (*FEATURES, *PIXELS) for f in (root / name).glob(f"c.{row}.*")
    ]


class Swaps:
    """Sound files in places that are not theirs: of this cache, or of another one with the same layout."""

    def __init__(self, path: Path, others: dict[str, Path], draw: np.random.Generator) -> None:
        self.path, self.others, self.draw = path, others, draw

    def between(self, name: str, chunks: list[str]) -> None:
        """Exchanges two chunks of an array of this cache."""
        one, two = (self.path / name / chunk for chunk in self.draw.choice(chunks, 2, replace=False))
        one.rename(self.path / "aside")
        two.rename(one)
        (self.path / "aside").rename(two)

    def from_other(self, other: str, *names: str) -> None:
        """Puts files of another cache in the place of this one's."""
        for name in names:
            shutil.copyfile(self.others[other] / name, self.path / name)

    def row_from(self, source: Path, row: int, to: int) -> None:
        """Puts a whole row, with its ledger entry, in the place of another."""
        copies = {file.relative_to(source): file.read_bytes() for file in row_files(source, row)}
        for file, data in copies.items():
            (self.path / file.parent / file.name.replace(f"c.{row}.", f"c.{to}.", 1)).write_bytes(data)

    def kinds(self) -> dict[str, Callable[[], None]]:
        draw = self.draw
        # Rows that have everything, so that each of them could stand for each other.
        whole = [row for row, entry in enumerate(cases.make_rows()) if entry.has_truth]
        row = lambda: int(draw.choice(whole))  # noqa: E731
        pair = lambda: [int(r) for r in draw.choice(whole, 2, replace=False)]  # noqa: E731
        feature = lambda: str(draw.choice(FEATURES))  # noqa: E731
        texts = range(len(cases.TEXTS))
        found: dict[str, Callable[[], None]] = {
            "features between rows": lambda: self.between(
                feature(), [f"c.{r}.{step}.0.0.0" for step in [draw.integers(3)] for r in whole]
            ),
            "features between steps": lambda: self.between(
                feature(), [f"c.{r}.{step}.0.0.0" for r in [row()] for step in range(3)]
            ),
            "image between rows": lambda: self.between("image", [f"c.{r}.0.0.0" for r in whole]),
            **{
                f"{name} between rows": lambda name=name: self.between(name, [f"c.{r}.0.0" for r in whole])
                for name in ("mask", "truth", "instances")
            },
            "tokens between texts": lambda: self.between("text/tokens", [f"c.{text}.0.0" for text in texts]),
            "token masks between texts": lambda: self.between("text/mask", [f"c.{text}.0" for text in texts]),
            "ledger entries between rows": lambda: self.between("ledger", [f"c.{r}.0" for r in whole]),
            "whole rows between rows": lambda: self.row_from(self.path, *pair()),
        }
        every_text = [f"text/{name}" for text in texts for name in (f"tokens/c.{text}.0.0", f"mask/c.{text}.0")]
        for other in self.others:
            copy = lambda *names, other=other: self.from_other(other, *names)  # noqa: E731
            found |= {
                f"features, {other}": lambda copy=copy: copy(f"{feature()}/c.{row()}.{draw.integers(3)}.0.0.0"),
                f"image, {other}": lambda copy=copy: copy(f"image/c.{row()}.0.0.0"),
                **{
                    f"{name}, {other}": lambda copy=copy, name=name: copy(f"{name}/c.{row()}.0.0")
                    for name in ("mask", "truth", "instances")
                },
                f"tokens, {other}": lambda copy=copy: copy(f"text/tokens/c.{draw.integers(3)}.0.0"),
                f"ledger entry, {other}": lambda copy=copy: copy(f"ledger/c.{row()}.0"),
                f"table, {other}": lambda copy=copy: copy("table/c.0", "table/zarr.json"),
                f"root, {other}": lambda copy=copy: copy("zarr.json"),
                f"all texts, {other}": lambda copy=copy: copy(*every_text),
                f"whole row, {other}": lambda other=other: self.row_from(self.others[other], row(), row()),
            }
        return found


@pytest.mark.parametrize("count", [32, pytest.param(96, marks=pytest.mark.slow)])
def test_sound_chunks_in_places_of_others_are_found_and_never_served(originals, tmp_path, count):
    draw, trial = np.random.default_rng(count), Trial(originals["one"], tmp_path / "c.zarr")
    others = {name: path for name, path in originals.items() if name != "one"}
    swaps = list(Swaps(trial.path, others, draw).kinds().items())
    for number in range(count):
        trial.judge(*swaps[number % len(swaps)])
    trial.show()
    assert sum(trial.table[kind, "harmless"] for kind, _ in swaps) <= 0.05 * count


@pytest.mark.parametrize("other", ["other options", "other images"])
def test_rows_under_the_root_table_and_texts_of_another_cache_are_refused(originals, tmp_path, other):
    """All that belongs to no row is sound and fits together; only the rows are not its own."""
    path = shutil.copytree(originals["one"], tmp_path / "c.zarr")
    for file in originals[other].rglob("*"):
        if file.is_file() and (file.name == "zarr.json" or file.parent.name in ("table", "tokens")):
            shutil.copyfile(file, path / file.relative_to(originals[other]))
    shutil.copytree(originals[other] / "text", path / "text", dirs_exist_ok=True)
    cache = FeatureCache.open(path)
    for row in range(len(cache.rows)):
        with pytest.raises(CacheError, match=rf"row {row} .*: the ledger: the chunks are sound but not those"):
            cache.image(row)
    assert [fault.row for fault in cache.verify()] == [*range(len(cache.rows))]


def test_who_trains_on_some_blocks_is_told_of_a_chunk_that_is_not_the_rows(originals, tmp_path):
    path = shutil.copytree(originals["one"], tmp_path / "c.zarr")
    shutil.copyfile(path / "features/b08/c.2.1.0.0.0", path / "features/b08/c.0.1.0.0.0")
    for blocks in ((8,), (6, 12)):  # the row is refused, whatever is asked for
        with pytest.raises(CacheError, match=r"row 0 \(image 0, view 0\) is damaged: .*cache repair "):
            list(Loader(FeatureCache.open(path), "cpu", blocks=blocks).epoch([0]))
        assert [item.row for item in Loader(FeatureCache.open(path), "cpu", blocks=blocks).epoch([1, 2])] == [1, 2]


def test_a_reader_serves_what_another_process_has_written_since(tmp_path):
    """A row may be written again with other values, as after a change of the code; the new ones are whole as well."""
    reader = cases.fill(cases.make(tmp_path / "c.zarr"))
    before = reader.features(3, 8)
    changed = cases.arrays(reader, 3)
    changed["features"][8] += 1

    def write() -> None:
        FeatureCache.open(reader.path, writable=True).write(3, **changed)

    assert cases.ended(cases.in_child(write)) == 0
    after = reader.features(3, 8)
    assert np.array_equal(after, changed["features"][8].astype(np.float16))
    assert not np.array_equal(after, before)
    assert np.array_equal(reader.image(3), changed["image"])
    assert reader.verify() == []
