"""``extract --update``: after a change of the data set only what is new runs the backbone, and nothing is lost."""

import csv
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache, update
from textdiff.errors import UserError
from textdiff.experiments.experiment import Plan, plan_experiment
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.pipeline.extraction import filling

IDS = {"a": "train", "b": "train", "c": "train", "v": "val", "s": "test", "t": "test"}


REAL = Extractor.grids


class Encoder:
    """Words as tokens; what a real one costs is not what is tested."""

    sha256, max_tokens, dim, pad_to = "0" * 64, 8, 4, None

    def encode(self, texts):
        words = [["<s>", *one.split()] for one in texts]
        tokens = np.zeros((len(texts), max(map(len, words)), self.dim), np.float32)
        mask = np.zeros(tokens.shape[:2], np.bool_)
        for number, some in enumerate(words):
            for place, word in enumerate(some):
                tokens[number, place] = np.frombuffer(hashlib.sha256(word.encode()).digest()[:4], np.uint8)
            mask[number, : len(some)] = True
        return tokens, mask


class Lab:
    """A data set in a folder, and its cache."""

    def __init__(self, root: Path, backbone: Path) -> None:
        self.root, self.data, self.cache, self.backbone = root, root / "data", root / "lab.zarr", backbone
        self.encoder = root / "encoder"
        self.encoder.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (self.encoder / name).touch()

    @property
    def table(self) -> list[dict[str, str]]:
        with (self.data / "texts.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @table.setter
    def table(self, lines: list[dict[str, str]]) -> None:
        with (self.data / "texts.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "text", "split"])
            writer.writeheader()
            writer.writerows(lines)

    def change(self, name: str, **columns: str) -> None:
        self.table = [line | (columns if line["image"] == name else {}) for line in self.table]

    def draw(self, name: str, seed: int = 1) -> None:
        mask = np.random.default_rng([seed, *name.encode()]).random((64, 64)) < 0.3
        Image.fromarray(mask.astype(np.uint8) * 255).save(self.data / f"masks/{name}.png")

    def photograph(self, name: str, seed: int = 0) -> None:
        pixels = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.data / f"images/{name}.png")

    def add(self, name: str, split: str, words: str = "some nuclei") -> None:
        self.photograph(name)
        self.table = [*self.table, {"image": name, "text": words, "split": split}]

    def remove(self, name: str) -> None:
        self.table = [line for line in self.table if line["image"] != name]
        for folder in ("images", "masks"):
            (self.data / folder / f"{name}.png").unlink(missing_ok=True)

    def extract(self, cache: Path | None = None, **options) -> FeatureCache:
        small = {"blocks": (6, 8), "steps": (50, 150), "image_size": 64, "text_encoder": self.encoder, "views": 1}
        return textdiff.extract(
            "folder", data=self.data, cache=cache or self.cache, backbone=self.backbone, **(small | options)
        )

    def scratch(self, **options) -> dict[str, bytes]:
        """What a cache of the data set as it is now holds, made from nothing."""
        return files(self.extract(self.root / "scratch.zarr", overwrite=True, **options).path)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def activations(backbone: Extractor, images: np.ndarray, texts: Sequence[str] = ()) -> dict[int, torch.Tensor]:
    """What depends on the image only; one test has the real ones."""
    (image,) = images
    draw = np.random.default_rng(list(hashlib.sha256(image.tobytes()).digest()))
    shapes = backbone.network.levels(backbone.image_size)
    return {
        block: torch.from_numpy(draw.standard_normal((1, len(backbone._steps), *shapes[block]), dtype=np.float32))
        for block in backbone.blocks
    }


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "load_text_encoder", lambda *_, **__: Encoder())
        patch.setattr(Extractor, "grids", activations)
        patch.setattr(Extractor, "estimate_seconds", lambda _: 0.1)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_backbone) -> Lab:
    """Six images, ``b`` without a mask, and their cache; no test changes them."""
    lab = Lab(tmp_path_factory.mktemp("first"), tiny_backbone)
    for folder in ("images", "masks"):
        (lab.data / folder).mkdir(parents=True)
    lab.table = []
    for number, (name, split) in enumerate(IDS.items()):
        lab.add(name, split, f"{'many' if number % 2 else 'few'} nuclei")
        if name != "b":
            lab.draw(name)
    lab.extract()
    return lab


@pytest.fixture
def lab(first, tmp_path) -> Lab:
    shutil.copytree(first.data, tmp_path / "data")
    shutil.copytree(first.cache, tmp_path / "lab.zarr")
    return Lab(tmp_path, first.backbone)


@pytest.fixture
def forwards(monkeypatch) -> list[bytes]:
    """The images that went through the backbone."""
    seen = []

    def forward(backbone: Extractor, images: np.ndarray, texts: Sequence[str]) -> dict[int, torch.Tensor]:
        seen.append(images.tobytes())
        return activations(backbone, images)

    monkeypatch.setattr(Extractor, "grids", forward)
    return seen


def left_beside(lab: Lab) -> list[str]:
    return sorted(path.name for path in lab.root.iterdir() if path.name.startswith("."))


def move(lab: Lab) -> None:
    lab.change("a", split="test")


def new_mask(lab: Lab) -> None:
    lab.draw("b")


def other_mask(lab: Lab) -> None:
    lab.draw("t", seed=2)


def lost_mask(lab: Lab) -> None:
    (lab.data / "masks/a.png").unlink()


def new_image(lab: Lab) -> None:
    lab.add("aa", "train", "an unheard of text with words")


def other_image(lab: Lab) -> None:
    lab.photograph("c", seed=5)


def removed_image(lab: Lab) -> None:
    lab.remove("a")


def other_text(lab: Lab) -> None:
    lab.change("a", text="a longer text than all that were there before")


def renamed(lab: Lab) -> None:
    lab.change("c", image="zz")
    for folder in ("images", "masks"):
        (lab.data / folder / "c.png").rename(lab.data / folder / "zz.png")


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (new_mask, 0),
        (other_mask, 0),
        (lost_mask, 0),
        (other_text, 0),
        (removed_image, 0),
        (move, 0),
        (renamed, 0),
        (new_image, 1),
        (other_image, 1),
    ],
)
def test_only_new_rows_run_the_backbone_and_the_bytes_are_those_of_a_cache_from_scratch(lab, forwards, change, new):
    change(lab)
    cache = lab.extract(update=True)
    assert len(forwards) == new
    assert cache.path == lab.cache
    assert cache.done().all()
    assert cache.verify() == []
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"views": 8}, 8),
        ({"views": 8, "jitter": "he"}, 8),
        ({"tile": 32, "overlap": 0}, 4),
        ({"views": 8, "test_views": 8}, 8),
        # Views of a training image in varied colours are none of a test image.
        ({"views": 8, "test_views": 8, "jitter": "he"}, 8 + 7),
    ],
)
def test_views_and_tiles_are_taken_over_by_what_they_show(lab, forwards, options, made):
    lab.extract(overwrite=True, **options)
    lab.draw("b")
    lab.change("c", split="test")
    lab.add("aa", "train")
    forwards.clear()
    lab.extract(update=True, **options)
    assert len(forwards) == made
    assert files(lab.cache) == lab.scratch(**options)


def test_of_one_view_the_other_seven_are_new(lab, forwards):
    cache = lab.extract(update=True, views=8)
    assert len(forwards) == 2 * 7  # b has no mask, and so one view
    assert len(cache.rows) == 2 * 8 + 4


def test_without_the_option_a_changed_data_set_is_refused_in_one_line_that_names_it_and_what_is_kept(lab):
    before = files(lab.cache)
    new_image(lab)
    with pytest.raises(UserError, match=r"zarr: --update keeps 6 of 7 rows .*aa, view 0: not in the cache$") as error:
        lab.extract()
    assert "\n" not in str(error.value)
    assert "--overwrite" in str(error.value)
    assert files(lab.cache) == before


def test_only_rows_that_changed_are_named_where_a_new_text_shifts_the_others_indices(lab):
    other_text(lab)
    with pytest.raises(UserError) as error:
        lab.extract()
    changes = str(error.value).split("made of: ")[1]
    assert changes.startswith('a, view 0: text: "few nuclei" in the cache')
    assert ";" not in changes


def test_alike_changes_of_the_views_of_an_image_are_named_once(lab):
    lab.extract(overwrite=True, views=8, shard=(98, 99))
    lab.draw("a", seed=2)
    with pytest.raises(UserError, match=r"made of: a, 8 rows: mask_sha256: [^;]*$"):
        lab.extract(views=8)


def test_other_features_are_refused_whatever_is_asked_for(lab):
    before = files(lab.cache)
    with pytest.raises(UserError, match="noise_seed: 0 in the cache, 1 asked for"):
        lab.extract(update=True, seed=1)
    with pytest.raises(UserError, match="give one of them"):
        lab.extract(update=True, overwrite=True)
    assert files(lab.cache) == before


def test_a_damaged_row_of_the_old_cache_is_made_anew_and_said(lab, forwards, capsys):
    file = lab.cache / "features/b08/c.2.1.0.0.0"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    # Sound by itself, but not what was written: only the ledger tells.
    shutil.copyfile(lab.cache / "features/b06/c.4.0.0.0.0", lab.cache / "features/b06/c.3.0.0.0.0")
    new_mask(lab)
    lab.extract(update=True)
    said = capsys.readouterr().err
    assert "row 2 (c, view 0): block 8 at step 150: the checksum does not match; it is made anew" in said
    assert (
        "row 3 (v, view 0): the ledger: the chunks are sound but not those that were written; it is made anew" in said
    )
    assert len(forwards) == 2
    assert files(lab.cache) == lab.scratch()


def test_rows_the_old_cache_does_not_have_are_made(lab, forwards):
    FeatureCache.open(lab.cache, writable=True).forget([0, 5])
    new_mask(lab)
    lab.extract(update=True)
    assert len(forwards) == 2
    assert files(lab.cache) == lab.scratch()


def test_with_the_real_backbone_on_the_command_line(tmp_path, make_lvit, tiny_backbone, textdiff_once, monkeypatch):
    monkeypatch.setattr(Extractor, "grids", REAL)
    data = make_lvit(n_train=2, n_val=0, n_test=1)
    arguments = ["extract", "--dataset", "monuseg", "--data", str(data), "--backbone", str(tiny_backbone)]
    arguments += ["--text-encoder", "none", "--image-size", "64", "--steps", "50", "--blocks", "6,8"]
    textdiff_once(tmp_path, *arguments, "--cache", "c.zarr")
    shutil.copy(data / "Train_Folder/labelcol/train_001.png", data / "Train_Folder/labelcol/train_000.png")
    assert "--update keeps 3 of 3" in textdiff_once(tmp_path, *arguments, "--cache", "c.zarr", status=2).stderr
    said = textdiff_once(tmp_path, *arguments, "--cache", "c.zarr", "--update").stderr
    assert "3 rows are taken over, 0 are made" in said
    assert "next: textdiff fit --cache c.zarr" in said
    textdiff_once(tmp_path, *arguments, "--cache", "scratch.zarr")
    assert files(tmp_path / "c.zarr") == files(tmp_path / "scratch.zarr")


def test_with_nothing_else_to_update_the_new_place_of_the_data_is_recorded(lab, forwards):
    lab.extract(update=True)  # records where the backbone is from here
    before = files(lab.cache)
    lab.extract(update=True)
    assert files(lab.cache) == before
    lab.data = lab.data.rename(lab.root / "moved")
    lab.extract(update=True, dry_run=True)
    assert files(lab.cache) == before
    lab.extract(update=True)
    assert textdiff.extract(cache=lab.cache).verify() == []
    assert not forwards
    assert files(lab.cache) == lab.scratch()


def test_a_new_cache_takes_rows_of_an_update_that_was_given_up_for_another(lab, forwards, monkeypatch):
    new_image(lab)
    with monkeypatch.context() as patch:
        patch.setattr("textdiff.pipeline.extract.end_filling", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            lab.extract(update=True)
    assert len(left_beside(lab)) == 1
    assert len(forwards) == 1
    new_mask(lab)
    lab.extract(update=True)
    assert len(forwards) == 1
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


def test_an_update_whose_removal_was_interrupted_is_begun_again(lab, forwards, monkeypatch):
    new_image(lab)
    with monkeypatch.context() as patch:
        patch.setattr("textdiff.pipeline.extract.end_filling", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            lab.extract(update=True)
    (left,) = left_beside(lab)
    for gone in ("zarr.json", "table/c.0", "features/b06/c.0.0.0.0.0"):
        (lab.root / left / gone).unlink()
    lab.extract(update=True, dry_run=True)
    assert left_beside(lab) == [left]
    lab.extract(update=True)
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


def test_shards_share_an_update_and_the_last_puts_it_in_place(lab, forwards):
    new_image(lab)
    old = files(lab.cache)
    lab.extract(update=True, shard=(0, 2))
    assert files(lab.cache) == old
    lab.extract(update=True, shard=(1, 2))
    assert len(forwards) == 1
    assert files(lab.cache) == lab.scratch()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_any_moment_the_old_cache_or_the_new_is_there_and_the_same_command_goes_on(lab):
    """In a forked process, at many of its file operations."""
    new_image(lab)
    rows = FeatureCache.open(lab.cache).rows
    expected = lab.scratch()
    shutil.copytree(lab.cache, lab.root / "kept.zarr")

    def run(kill_at: int) -> int:
        child = os.fork()
        if not child:
            left = [kill_at]

            def hook(event: str, args: tuple) -> None:
                if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link") and "zarr" in str(args[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            try:
                lab.extract(update=True)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    found, point, status = set(), 0, -9
    while status == -9:
        point += 41
        status = run(point)
        update.restore(lab.cache)
        cache = FeatureCache.open(lab.cache)
        assert cache.done().all()
        assert cache.verify() == []
        found.add(cache.rows == rows)
        lab.extract(update=True)
        assert files(lab.cache) == expected
        assert left_beside(lab) == []
        shutil.rmtree(lab.cache)
        shutil.copytree(lab.root / "kept.zarr", lab.cache)
    assert status == 0
    assert found == {True, False}


def test_killed_between_the_two_steps_of_the_exchange_the_next_extract_brings_the_old_cache_back(lab, monkeypatch):
    before = files(lab.cache)
    new_mask(lab)

    def die(new: Path, path: Path) -> None:
        path.rename(path.with_name(".lab.replaced.zarr"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "put_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            lab.extract(update=True)
    assert not lab.cache.exists()
    with pytest.raises(UserError, match="--update keeps 6 of 6 rows"):
        lab.extract()
    assert files(lab.cache) == before
    lab.extract(update=True)
    assert files(lab.cache) == lab.scratch()


def test_a_disk_without_room_beside_the_old_cache_refuses_and_nothing_is_made(lab, monkeypatch):
    before = files(lab.cache)
    new_image(lab)
    row = FeatureCache.open(lab.cache).row_nbytes

    def free(rows: float) -> Callable[[object], SimpleNamespace]:
        return lambda _: SimpleNamespace(free=int(rows * row))

    monkeypatch.setattr(shutil, "disk_usage", free(0.5))
    with pytest.raises(UserError, match=r"beside the old cache.* 1 new rows need"):
        lab.extract(update=True)

    link = os.link

    def no_links(source, target, **options):
        if Path(source).parent != Path(target).parent:  # Zarr links within a directory
            raise PermissionError("no hard links here")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "disk_usage", free(5))
    with pytest.raises(UserError, match=r"1 new rows and copies of the 6 others need"):
        lab.extract(update=True)
    assert files(lab.cache) == before
    assert left_beside(lab) == []
    monkeypatch.setattr(shutil, "disk_usage", free(8))
    lab.extract(update=True)
    assert files(lab.cache) == lab.scratch()


def test_a_dry_run_says_what_is_kept_and_leaves_everything_as_it_was(lab, forwards, capsys):
    new_image(lab)
    before = files(lab.root)
    cache = lab.extract(update=True, dry_run=True)
    assert "6 rows are taken over, 1 are made" in capsys.readouterr().err
    assert len(cache.rows) == 6
    assert files(lab.root) == before
    planned = lab.extract(lab.root / "not/yet.zarr", dry_run=True)
    assert len(planned.pending()) == 7
    assert not (lab.root / "not").exists()
    assert not forwards


def test_who_reads_or_writes_a_cache_that_is_replaced_meanwhile_is_stopped(lab):
    reader = FeatureCache.open(lab.cache, writable=True)
    image, features = reader.image(1), {block: reader.features(1, block) for block in reader.blocks}
    removed_image(lab)
    lab.extract(update=True)
    now = files(lab.cache)
    for use in (
        lambda: reader.features(1, 8),
        lambda: reader.mask(0),
        lambda: reader.text(0),
        lambda: reader.truth(0),
        lambda: reader.write(1, features, image),
    ):
        with pytest.raises(UserError, match="was replaced by another cache while it was in use"):
            use()
    assert files(lab.cache) == now


# Runs fitted before


@pytest.fixture(scope="module")
def fitted(first) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(first.root)
        return textdiff.fit(first.cache, epochs=1, width=8, runs=first.root / "runs").path


def test_an_old_run_scores_the_same_after_an_update_that_shifts_rows_and_texts(lab, fitted):
    run = textdiff.open_run(shutil.copytree(fitted, lab.root / "run"))
    textdiff.score(run, cache=lab.cache)
    before = run.scores()["images"]
    lab.add("0first", "train", "new words come first")
    lab.draw("b")
    lab.extract(update=True)
    assert FeatureCache.open(lab.cache).rows[0].id == "0first"
    textdiff.score(run, cache=lab.cache)
    assert run.scores()["images"] == before


def test_an_old_run_is_not_scored_on_an_image_it_was_fitted_on(lab, fitted):
    run = textdiff.open_run(shutil.copytree(fitted, lab.root / "run"))
    move(lab)
    lab.extract(update=True)
    with pytest.raises(UserError, match=r"a is a test image now, and .*run was fitted on it"):
        textdiff.score(run, cache=lab.cache)
    # Neither if it has got another name meanwhile.
    lab.change("a", image="q")
    for folder in ("images", "masks"):
        (lab.data / folder / "a.png").rename(lab.data / folder / "q.png")
    lab.extract(update=True)
    with pytest.raises(UserError, match=r"q is a test image now, and .*run was fitted on it"):
        textdiff.score(run, cache=lab.cache)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (removed_image, "a: gone"),
        (other_text, "a: the text"),
        (other_image, "c: the image"),
        (lost_mask, "without a mask"),
    ],
)
def test_a_stopped_fit_whose_images_have_changed_is_not_resumed(lab, fitted, change, what):
    run = shutil.copytree(fitted, lab.root / "run")
    (run / "head.safetensors").unlink()
    change(lab)
    lab.extract(update=True)
    shutil.rmtree(lab.root / "elsewhere", ignore_errors=True)
    with pytest.raises(UserError, match=rf"changed since .* was begun \(.*{what}"):
        textdiff.resume(run, cache=lab.cache)


def test_a_report_is_not_made_of_scores_and_masks_that_are_not_of_each_other(lab, fitted):
    run = textdiff.open_run(shutil.copytree(fitted, lab.root / "run"))
    textdiff.score(run, cache=lab.cache)
    other_mask(lab)
    lab.extract(update=True)
    with pytest.raises(
        UserError, match=r"images have changed since .* was scored \(t: the mask\); run `textdiff score"
    ):
        textdiff.report(run, cache=lab.cache)
    textdiff.score(run, cache=lab.cache)
    textdiff.report(run, cache=lab.cache)


def test_next_names_the_command_that_keeps_what_there_is(lab, fitted, textdiff_once):
    new_image(lab)
    lab.extract(update=True)
    said = textdiff_once(lab.root, "next", "--run", str(fitted), "--cache", str(lab.cache))
    assert "aa" in said.stdout
    assert f"textdiff extract --cache {lab.cache} --update" in said.stderr


MADE = {"views": 8, "test_views": 8, "jitter": "he", "steps": (0, 50), "tile": 32, "overlap": 0, "seed": 3}


@pytest.mark.parametrize("named", [{}, {"dataset": "folder"}])
def test_the_options_that_made_a_cache_are_those_it_is_updated_with(lab, forwards, named):
    lab.extract(overwrite=True, **MADE)
    new_image(lab)
    if named:
        named["data"] = lab.data
    cache = textdiff.extract(cache=lab.cache, update=True, **named)
    assert cache.pending() == []
    assert "aa" in {row.id for row in cache.rows}
    assert files(lab.cache) == lab.scratch(**MADE)


def test_a_cache_alone_says_how_it_is_to_be_finished(lab, forwards):
    lab.extract(overwrite=True, shard=(0, 2), **MADE)
    assert FeatureCache.open(lab.cache).pending()
    textdiff.extract(cache=lab.cache)
    assert files(lab.cache) == lab.scratch(**MADE)


def test_a_cache_is_gone_on_with_from_any_directory(lab, forwards, tmp_path, monkeypatch):
    monkeypatch.chdir(lab.root)
    textdiff.extract("folder", data="data", cache="own.zarr", preset="rgb", text_encoder="none", image_size=32)
    new_image(lab)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(lab.data, elsewhere / "data")
    (elsewhere / "data/images/b.png").unlink()
    monkeypatch.chdir(elsewhere)
    cache = textdiff.extract(cache=lab.root / "own.zarr", update=True)
    assert {"aa", "b"} <= {row.id for row in cache.rows}


def test_an_option_that_is_given_comes_before_that_of_the_cache(lab):
    lab.extract(overwrite=True, views=8)
    assert len(textdiff.extract(cache=lab.cache, views=1, update=True).rows) == 6
    with pytest.raises(UserError, match="steps: "):
        textdiff.extract(cache=lab.cache, steps=(250,), update=True)


def test_an_experiment_does_not_go_on_with_other_images(lab):
    plan = Plan("curve", {}, "test", [])
    begun = plan_experiment(lab.root / "experiment", plan, FeatureCache.open(lab.cache), 1)
    begun.open_cache()
    removed_image(lab)
    cache = lab.extract(update=True)
    with pytest.raises(UserError, match="images, masks or texts have changed since"):
        begun.open_cache()
    with pytest.raises(UserError, match="the cache's images and texts"):
        plan_experiment(lab.root / "experiment", plan, cache, 1)
