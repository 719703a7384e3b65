"""A damaged cache: ``cache verify`` names what is wrong; the same ``extract`` puts it right and keeps sound rows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.cache.staging import staging
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.tests.cache_cases import left_by_the_dead
from textdiff.tests.file_tools import files, flip

NAMES = ("a", "b", "c")


class Encoder:
    """Letters as tokens; what a real one costs is not what is tested."""

    sha256, max_tokens, dim, pad_to = "0" * 64, 8, 4, None

    def encode(self, texts):
        letters = [(one + "       ")[:6].encode() for one in texts]
        tokens = np.array([[[letter] * 4 for letter in word] for word in letters], np.float32)
        return tokens, np.ones(tokens.shape[:2], np.bool_)


@pytest.fixture(scope="module", autouse=True)
def cheap():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "load_text_encoder", lambda *_, **__: Encoder())
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("made")
    (root / "letters").mkdir()
    for name in ("config.json", "model.safetensors"):
        (root / "letters" / name).touch()
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / f"data/images/{name}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[10 : 30 + number] = 255
        Image.fromarray(mask).save(root / f"data/masks/{name}.png")
    lines = "".join(f"{name},{name} text,{'test' if name == 'c' else 'train'}\n" for name in NAMES)
    (root / "data/texts.csv").write_text("image,text,split\n" + lines)
    textdiff_once(root, *extract())
    return root


def extract(*more: str) -> list[str]:
    options = [
        "--preset",
        "rgb",
        "--text-encoder",
        "letters",
        "--image-size",
        "64",
        "--views",
        "1",
        "--cache",
        "c.zarr",
    ]
    return ["extract", "--dataset", "folder", "--data", "data", *options, *more]


@pytest.fixture
def lab(made, tmp_path, textdiff_once, monkeypatch) -> SimpleNamespace:
    """A copy of the data set and its cache; ``run`` runs a command, ``computed`` counts the rows it computes."""
    root = Path(shutil.copytree(made, tmp_path / "lab"))
    computed, compute = [], Extractor.grids
    monkeypatch.setattr(Extractor, "grids", lambda self, *given: computed.append(1) or compute(self, *given))
    return SimpleNamespace(
        root=root,
        cache=root / "c.zarr",
        computed=computed,
        run=lambda *arguments, status=0: textdiff_once(root, *arguments, status=status),
    )


def directory(file: Path) -> None:
    file.unlink()
    (file / "something").mkdir(parents=True)


def a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("no directory")


def swap(one: Path, two: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


# What happens to a cache, what `cache verify` calls it, and how many of the three rows have to be made again.
DAMAGE: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "root emptied": (lambda c: (c / "zarr.json").write_bytes(b""), "zarr.json", 0),
    "root cut off": (lambda c: (c / "zarr.json").write_bytes((c / "zarr.json").read_bytes()[:100]), "zarr.json", 0),
    "root zeroed": (lambda c: (c / "zarr.json").write_bytes(bytes(500)), "zarr.json", 0),
    "root deleted": (lambda c: (c / "zarr.json").unlink(), "zarr.json", 0),
    "root flipped": (lambda c: flip(c / "zarr.json", 40), "zarr.json", 0),
    "root a directory": (lambda c: directory(c / "zarr.json"), "zarr.json", 0),
    "node type flipped": (lambda c: flip(c / "zarr.json", -8), "root: zarr.json is missing or damaged", 0),
    "table deleted": (lambda c: (c / "table/c.0").unlink(), "table is damaged: the chunk is missing", 0),
    "table flipped": (lambda c: flip(c / "table/c.0", 40), "table is damaged", 0),
    "table a directory": (lambda c: directory(c / "table/c.0"), "table is damaged", 0),
    "table's array deleted": (lambda c: shutil.rmtree(c / "table"), "table is damaged", 0),
    "group flipped": (lambda c: flip(c / "features/zarr.json", 5), "features: zarr.json", 0),
    "array's metadata flipped": (lambda c: flip(c / "image/zarr.json", 40), "image: zarr.json", 0),
    "metadata deleted": (lambda c: (c / "text/mask/zarr.json").unlink(), "text/mask: zarr.json", 0),
    "tokens flipped": (lambda c: flip(c / "text/tokens/c.1.0.0", 40), "text/tokens of text 1: the checksum", 0),
    "tokens deleted": (lambda c: (c / "text/tokens/c.1.0.0").unlink(), "text/tokens of text 1: the chunk is", 0),
    "tokens swapped": (
        lambda c: swap(c / "text/tokens/c.0.0.0", c / "text/tokens/c.1.0.0"),
        "text: the chunks are sound but not those that were written",
        0,
    ),
    "texts deleted": (lambda c: shutil.rmtree(c / "text"), "text/tokens: zarr.json", 0),
    "activations deleted": (lambda c: shutil.rmtree(c / "features/b08"), "features/b08: zarr.json", 3),
    "all activations deleted": (lambda c: shutil.rmtree(c / "features"), "features: zarr.json", 3),
    "activations a file": (lambda c: a_file(c / "features/b08"), "features/b08: zarr.json", 3),
    "truth deleted": (lambda c: shutil.rmtree(c / "truth"), "truth: zarr.json", 3),
    "ledger deleted": (lambda c: shutil.rmtree(c / "ledger"), "ledger: zarr.json", 3),
    "ledger a file": (lambda c: a_file(c / "ledger"), "ledger: zarr.json", 3),
    "chunk a directory": (lambda c: directory(c / "features/b08/c.1.0.0.0.0"), "row 1 (b, view 0): features/b08", 1),
    "entry a directory": (lambda c: directory(c / "ledger/c.1.0"), "row 1 (b, view 0): ledger", 1),
    "chunks swapped": (
        lambda c: swap(c / "features/b08/c.0.0.0.0.0", c / "features/b08/c.1.0.0.0.0"),
        "row 1 (b, view 0): ledger: the chunks are sound but not those that were written",
        2,
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names_it_and_the_same_extract_restores_the_very_bytes(lab, made, kind):
    damage, words, again = DAMAGE[kind]
    damage(lab.cache)
    cannot_open = words == "zarr.json" or words.startswith("table")
    for command in ("verify", "repair"):
        said = lab.run("cache", command, "c.zarr", status=2 if cannot_open else int(command == "verify"))
        assert words in said.stdout + said.stderr
    if not cannot_open:  # what is left is as it was written, but for embeddings, which need the encoder
        assert all(fault.array.startswith("text") for fault in FeatureCache.open(lab.cache).verify())
    lab.run(*extract())
    assert len(lab.computed) == again
    assert files(lab.cache) == files(made / "c.zarr")
    assert lab.run("cache", "verify", "c.zarr").stdout == ""


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind not in ("tokens flipped", "chunks swapped")])
def test_extract_alone_is_enough_for_all_that_shows_without_reading_every_byte(lab, made, kind):
    damage, _, again = DAMAGE[kind]
    damage(lab.cache)
    said = lab.run(*extract()).stderr
    if kind != "chunk a directory":  # the row's own; it is refused when it is read
        assert len(lab.computed) == again
        assert files(lab.cache) == files(made / "c.zarr")
        assert "is repaired" in said or kind == "entry a directory"


def test_fit_and_score_refuse_a_chunk_of_another_row_and_say_what_to_do(lab):
    lab.run("fit", "--cache", "c.zarr", "--epochs", "1")
    chunks = [lab.cache / f"features/b08/c.{row}.0.0.0.0" for row in (0, 2)]
    swap(*chunks)
    for command in (("fit", "--cache", "c.zarr", "--epochs", "1"), ("score",)):
        said = lab.run(*command, status=2).stderr.splitlines()[-1]
        assert "is damaged: the ledger: the chunks are sound but not those that were written" in said
        assert "textdiff cache repair " in said
        assert "c.zarr, then the same textdiff extract" in said


@pytest.mark.parametrize("damage", ["root emptied", "table deleted"])
@pytest.mark.parametrize("options", [("--steps", "50"), ("--blocks", "6,8"), ("--seed", "1")])
def test_another_command_does_not_make_a_root_or_table_for_rows_of_this_one(lab, made, damage, options):
    DAMAGE[damage][0](lab.cache)
    before = files(lab.cache)
    said = lab.run(*extract(*options), status=2).stderr.splitlines()[-1]
    assert "was not made by this very command" in said
    assert "--overwrite" in said
    assert files(lab.cache) == before
    lab.run(*extract())
    assert files(lab.cache) == files(made / "c.zarr")


@pytest.mark.parametrize("damage", ["root emptied", "table deleted"])
def test_a_changed_data_set_does_not_make_a_root_or_table_either_and_nothing_is_lost(lab, made, damage):
    DAMAGE[damage][0](lab.cache)
    before, mask = files(lab.cache), (lab.root / "data/masks/a.png").read_bytes()
    shutil.copyfile(lab.root / "data/masks/b.png", lab.root / "data/masks/a.png")
    for more in ((), ("--update",)):
        assert "not made by this very command" in lab.run(*extract(*more), status=2).stderr
    assert files(lab.cache) == before
    (lab.root / "data/masks/a.png").write_bytes(mask)
    lab.run(*extract())
    assert files(lab.cache) == files(made / "c.zarr")


@pytest.mark.parametrize("damage", ["root emptied", "root deleted", "table deleted", "ledger deleted"])
def test_overwrite_replaces_a_damaged_cache(lab, made, damage):
    DAMAGE[damage][0](lab.cache)
    lab.run(*extract("--overwrite"))
    assert len(lab.computed) == 3
    assert files(lab.cache) == files(made / "c.zarr")


def test_rows_that_are_not_of_the_rebuilt_root_are_made_again(lab, made):
    (lab.cache / "zarr.json").write_bytes(b"")
    shutil.copyfile(lab.cache / "image/c.0.0.0.0", lab.cache / "image/c.1.0.0.0")
    said = lab.run(*extract()).stderr
    assert "1 of 3 rows" in said
    assert len(lab.computed) == 1
    assert files(lab.cache) == files(made / "c.zarr")


def test_a_dry_run_repairs_nothing(lab):
    shutil.rmtree(lab.cache / "features/b08")
    before = files(lab.cache)
    lab.run(*extract("--dry-run"))
    (lab.cache / "zarr.json").write_bytes(b"")
    assert "zarr.json is damaged" in lab.run(*extract("--dry-run"), status=2).stderr
    assert files(lab.cache) == before | {"zarr.json": b""}


def test_verify_as_json_says_the_same(lab):
    (lab.cache / "features/zarr.json").unlink()
    said = json.loads(lab.run("cache", "verify", "c.zarr", "--json", status=1).stdout)
    assert [(fault["row"], fault["array"]) for fault in said] == [(None, "features")]


def test_leftovers_beside_a_cache_go_with_the_next_run_and_those_in_use_stay(lab):
    """Killed after the cache came to its place, a process leaves what is beside it."""
    for name in ("c.zarr", ".c.update-0123456789abcdef.zarr"):
        left_by_the_dead(lab.root, name)
    other = lab.root / ".other.zarr.0123.partial"
    other.mkdir()
    with staging(lab.root, "c.zarr") as used:
        lab.run(*extract("--update"))
        assert used.exists()
    assert [path.name for path in lab.root.iterdir() if path.name.startswith(".")] == [other.name]
    left = left_by_the_dead(lab.root, "c.zarr")
    FeatureCache.open(lab.cache)  # looking is not running
    assert left.exists()
    lab.run(*extract())
    assert not left.exists()
