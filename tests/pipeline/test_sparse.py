"""Masks that say nothing of some pixels: read, resized, fitted on, scored; beside oracles that drop those pixels."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from textdiff.cache import FeatureCache, Item
from textdiff.errors import UserError
from textdiff.images.images import BandedMask, resize_mask, symmetry
from textdiff.images.labels import UNSAID
from textdiff.models.networks.augment import AUGMENTATIONS
from textdiff.options.reading import ReadOptions
from textdiff.pipeline.training.labelled import Labelled
from textdiff.pipeline.training.losses import LOSSES, segmentation_loss
from textdiff.readers.datasets import inspect, read_dataset
from textdiff.readers.decoding import load_mask

SIZE = 64
SAID = 18 * SIZE  # pixels in the strokes of an image
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "val", "e": "test", "f": "test"}
NOTHING = "c"


def full(number: int) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return ((y - 16 - 3 * number) ** 2 + (x - 30 + 3 * number) ** 2 < 120).astype(np.uint8)


def sparse(name: str) -> np.ndarray:
    """Strokes of three pixels, none in one image, and a full mask in ``f``."""
    mask = full(list(SPLITS).index(name))
    said = np.zeros(mask.shape, bool)
    if name != NOTHING:
        said[::12], said[1::12], said[2::12] = True, True, True
    return np.where(said | (name == "f"), mask, UNSAID).astype(np.uint8)


def write(root: Path, masks: dict[str, np.ndarray]) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, (name, mask) in enumerate(masks.items()):
        noise = np.random.default_rng(number).integers(0, 60, (*mask.shape, 3))
        shade = np.where(full(number)[..., None], 60, 180)[: mask.shape[0], : mask.shape[1]]
        Image.fromarray((shade + noise).astype(np.uint8)).save(root / f"images/{name}.png")
        Image.fromarray(mask).save(root / f"masks/{name}.png")
    lines = ["image,text,split", *(f"{name},a disc,{SPLITS[name]}" for name in masks)]
    (root / "texts.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> Path:
    root = tmp_path_factory.mktemp("sparse")
    write(root / "data", {name: sparse(name) for name in SPLITS})
    textdiff_once(
        root, "extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", str(SIZE),
        *("--views", "8", "--text-encoder", "none", "--unlabelled-value", "255", "--cache", "cache.zarr"),
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def fitted(made, textdiff_once) -> SimpleNamespace:
    return fit(made, textdiff_once)


def fit(root: Path, textdiff_once, *more: str, status: int = 0) -> SimpleNamespace:
    options = ("--cache", "cache.zarr", "--variant", "no-text", "--epochs", "2", "--width", "8")
    return textdiff_once(root, "fit", *options, *more, status=status)


# Reading and resizing


@pytest.mark.parametrize(
    ("classes", "value", "stored", "labels", "names"),
    [
        ((), "255", [0, 1, 255], [0, 1, UNSAID], ()),
        ((), "128", [0, 255, 128], [0, 1, UNSAID], ()),
        (("x", "y"), "255", [0, 1, 2, 255], [0, 1, 2, UNSAID], ("x", "y")),
        (("x", "none", "y"), "none", [0, 1, 2, 3], [0, 1, UNSAID, 2], ("x", "y")),
        (("ground", "x", "y"), "0", [0, 1, 2, 3], [UNSAID, 0, 1, 2], ("x", "y")),
        (("background", "x", "y"), "0", [0, 1, 2, 3], [UNSAID, 0, 1, 2], ("x", "y")),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "hdf5"])
def test_every_reader_knows_the_value_that_says_nothing(tmp_path, kind, classes, value, stored, labels, names):
    mask = np.repeat(np.array(stored, np.uint8), 4)[None].repeat(8, 0)
    if kind == "hdf5":
        with h5py.File(tmp_path / "d", "w") as file:
            file["images"], file["masks"] = np.zeros((1, *mask.shape, 3), np.uint8), mask[None]
    else:
        write(tmp_path / "d", {"a": mask})
    options = ReadOptions(classes=classes, unlabelled_value=value)
    ((sample,), problems) = read_dataset(kind, tmp_path / "d", options)
    said = [problem.what for problem in problems if problem.where == "--classes"]
    assert [what.split(",")[0] for what in said] == (["ground"] if classes[:1] == ("ground",) else [])
    expected = np.repeat(labels, 4)[None].repeat(8, 0)
    np.testing.assert_array_equal(load_mask(sample, *mask.shape).labels, expected)
    assert sample.classes == names
    (fact,) = inspect([sample])[0]
    assert fact.mask.counts == tuple(np.bincount(expected.ravel(), minlength=256)[: max(2, len(names) + 1)])


def test_objects_have_no_number_where_nothing_is_said(tmp_path):
    mask = np.array([[0, 3], [255, 7]], np.uint8).repeat(8, 0).repeat(8, 1)
    options = ReadOptions(instances=True, unlabelled_value="255")
    ((sample,), _) = read_dataset("folder", write(tmp_path / "d", {"a": mask}), options)
    found = load_mask(sample, *mask.shape)
    np.testing.assert_array_equal(found.labels[::8, ::8], [[0, 1], [UNSAID, 1]])
    np.testing.assert_array_equal(found.instances[::8, ::8], [[0, 3], [0, 7]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unlabelled_value": "void"}, "is no number from 0 on; name what masks have there"),
        ({"unlabelled_value": "void", "classes": ("x",)}, "none of --classes x"),
        ({"unlabelled_value": "x", "classes": ("x",)}, "leaves no class"),
        (
            {"classes": ("background", "x")},
            "so background would be 1; leave it out, as 0 needs no name, or",
        ),
        ({"classes": ("x", "BG"), "unlabelled_value": "255"}, "so BG would be 2; leave it out"),
        ({"classes": ("0", "1")}, "names the values 1, 2, ..., so 0 would be 1"),
        (
            {"classes": ("x", "background"), "unlabelled_value": "0"},
            "the first name is the background's; put background",
        ),
        ({"unlabelled_value": "0"}, "0 is the background of such masks; name the others"),
        ({"unlabelled_value": "0", "instances": True}, "0 is the background of such masks; leave it out"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        ReadOptions(**options).check()


def test_a_mask_with_a_void_names_the_option(tmp_path, textdiff_once):
    write(tmp_path / "data", {"a": sparse("a")})
    said = textdiff_once(tmp_path, "data", "check", "--dataset", "folder", "--data", "data", status=1)
    assert "(values 0, 1, 255)" in said.stdout
    assert "add --unlabelled-value 255" in said.stdout


def test_a_resized_pixel_is_of_the_class_that_covers_most_of_what_is_said_in_it():
    mask = np.random.default_rng(0).choice([0, 1, UNSAID], (64, 64), p=[0.25, 0.25, 0.5]).astype(np.uint8)
    blocks = mask.reshape(16, 4, 16, 4).swapaxes(1, 2).reshape(16, 16, 16)
    ground, front = ((blocks == label).sum(-1) for label in (0, 1))
    expected = np.where(ground + front < 8, UNSAID, front >= ground)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(resize_mask(mask, 16, "area"), expected)
    banded = BandedMask(64, 16, "area")
    for first in (40, 0):
        banded.add(first, mask[first : 64 if first else 40])
    np.testing.assert_array_equal(banded.result(), expected)
    for one in (0, 1):
        alone = resize_mask(np.where(mask == UNSAID, UNSAID, one), 16, "bilinear")
        assert set(np.unique(alone)) == {one, UNSAID}


def test_a_turn_leaves_unsaid_corners_in_a_sparse_mask_only():
    image, draws = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), np.random.default_rng(3)
    for values, corner in ((torch.tensor([0, 1]), {0}), (torch.tensor([1, UNSAID]), {UNSAID})):
        mask = values[torch.arange(1024) % 2].view(1, 32, 32)
        beyond = set()
        for _ in range(12):
            moved = AUGMENTATIONS["scales"](Item(0, [], mask, None, None, image), draws)
            assert set(moved.mask.unique().tolist()) <= {*values.tolist(), *corner}
            beyond |= set(moved.mask[moved.image[:, 0] == 0].tolist())
        assert beyond == corner


# Training


@pytest.mark.parametrize("name", ["method", "logits", *LOSSES])
def test_a_loss_is_that_of_the_pixels_that_are_said(name):
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (1, 8, 8))
    said = torch.rand(1, 8, 8) < 0.3
    loss = LOSSES.get(name, lambda x, y: segmentation_loss(x, y, dice_on="logits" if name == "logits" else "softmax"))
    sparse_loss = loss(logits, labels.where(said, UNSAID))
    alone = loss(logits.movedim(1, -1)[said].T[None, :, :, None], labels[said][None, :, None])
    torch.testing.assert_close(sparse_loss, alone)
    (gradient,) = torch.autograd.grad(sparse_loss, logits)
    assert (gradient.movedim(1, -1)[~said] == 0).all()
    (nothing,) = torch.autograd.grad(loss(logits, torch.full_like(labels, UNSAID)), logits)
    assert (nothing == 0).all()


def test_the_cache_keeps_what_is_said_in_every_view(made):
    cache = FeatureCache.open(made / "cache.zarr")
    assert cache.sparse
    assert cache.fingerprint["unlabelled"] == 255
    for row, entry in enumerate(cache.rows):
        np.testing.assert_array_equal(cache.mask(row), symmetry(sparse(entry.id), entry.view))
        if entry.view == 0:
            np.testing.assert_array_equal(cache.truth(row), sparse(entry.id))


def test_an_image_whose_mask_says_nothing_is_named_and_not_drawn(fitted, made):
    config = json.loads((next((made / "runs").glob("cache-*")) / "config.json").read_text())
    assert config["train_ids"] == ["a", "b"]
    assert f"the mask of 1 image says nothing at {SIZE}x{SIZE} pixels, so it is not drawn: c" in fitted.stderr
    counts = np.sum([np.bincount(sparse(name).ravel(), minlength=256) for name in "ab"], 0)
    said = f"{counts[0] + counts[1]:,} labelled training pixels: {counts[0]:,} background, {counts[1]:,} foreground"
    assert said in fitted.stderr
    assert f"over the {SAID:,} of {SIZE * SIZE:,} pixels" in fitted.stderr


@pytest.mark.parametrize("model", ["textdiff", "pixel-mlp", "trees"])
def test_twenty_pixels_are_enough_to_begin_with(made, textdiff_once, model):
    more = ("--variant", "full") if model != "textdiff" else ()
    options = ("--cache", "cache.zarr", "--model", model, "--label-pixels", "10", "--epochs", "2", "--runs", model)
    width = ("--width", "8") if model == "textdiff" else ()
    said = textdiff_once(made, "fit", *options, *width, *(more or ("--variant", "no-text")))
    assert "20 labelled training pixels" in said.stderr or model == "trees"
    (run,) = (path for path in (made / model).iterdir() if not path.is_symlink())
    losses = [float(line["loss"]) for line in csv.DictReader((run / "log.csv").open())]
    assert losses
    assert np.isfinite(losses).all()


def test_one_class_alone_is_refused_in_one_line(made, textdiff_once):
    said = fit(made, textdiff_once, "--label-pixels", "1", "--labels", "1", status=2)
    (line,) = (line for line in said.stderr.splitlines() if line.startswith("error: "))
    assert "all 1 labelled pixels of the training images are of one class" in line


def test_drawn_pixels_depend_on_seed_and_image_and_fewer_are_some_of_more(made):
    cache = FeatureCache.open(made / "cache.zarr")
    rows = {(entry.id, entry.view): row for row, entry in enumerate(cache.rows)}

    def drawn(amount: float, seed: int = 0, name: str = "a", view: int = 0) -> np.ndarray:
        labelled = Labelled(cache, {"label_pixels": amount, "draw_seed": seed})
        item = Item(rows[name, view], [], torch.from_numpy(cache.mask(rows[name, view])).long()[None], None, None)
        (shown,) = labelled.shown([item])
        labels = shown.mask[0].numpy()
        kept = labels != UNSAID
        np.testing.assert_array_equal(labels[kept], cache.mask(item.row)[kept])
        return kept

    assert drawn(50).sum() == 50
    assert drawn(0.25).sum() == round(0.25 * SAID)
    assert drawn(10_000).sum() == SAID
    np.testing.assert_array_equal(drawn(50), drawn(50))
    assert drawn(200)[drawn(50)].all()
    assert (drawn(50) != drawn(50, seed=1)).any()
    assert (drawn(50) != drawn(50, name="b")).any()
    np.testing.assert_array_equal(drawn(50, view=6), symmetry(drawn(50), 6))


# Scoring


def test_scores_are_over_what_is_said_and_say_so(fitted, made, textdiff_once):
    said = textdiff_once(made, "score")
    run = made / "runs" / next((made / "runs").glob("cache-*")).name
    textdiff_once(made, "predict", "data/images", "--run", str(run), "--out", "predicted")
    records = {line["id"]: line for line in csv.DictReader((run / "scores.csv").open())}
    for name, record in records.items():
        truth, found = sparse(name), np.array(Image.open(made / f"predicted/{name}.png")) > 0
        counts = truth != UNSAID
        both = (found & (truth == 1)).sum()
        assert int(record["said_original"]) == counts.sum()
        assert int(record["pixels_original"]) == SIZE * SIZE
        total = (found & counts).sum() + (truth == 1).sum()
        assert float(record["dice_original"]) == pytest.approx(2 * both / total if total else 1)
        assert (record["aji_original"] == "") == (name == "e")
    summary = json.loads((run / "scores.json").read_text())
    count = SIZE * SIZE + SAID
    assert summary["sparse"] == ["e"]
    assert summary["scores"]["clean"]["said"] == count
    assert f"over {count:,} of {2 * SIZE * SIZE:,} pixels" in " ".join(said.stdout.split())
    assert "pixels %" in said.stdout
    assert f"over {count:,} of" in (run / "report.md").read_text()
    textdiff_once(made, "report")
    assert "nothing said" in (run / "report.html").read_text()


def test_a_table_of_several_runs_says_over_how_many_pixels_its_scores_are(fitted, made, textdiff_once):
    textdiff_once(made, "fit", "--cache", "cache.zarr", "--model", "trees", "--runs", "others")
    runs = [str(next((made / place).glob("cache-*"))) for place in ("runs", "others")]
    said = textdiff_once(made, "compare", *runs, "--json")
    count, total = SIZE * SIZE + SAID, 2 * SIZE * SIZE
    note = f"1 of 2 masks says nothing of some pixels: Dice and IoU are over {count:,} of {total:,} pixels"
    assert [line for line in json.loads(said.stdout)["notes"] if line.startswith(note)]


def test_metrics_of_objects_are_refused_where_no_mask_has_them(fitted, made, textdiff_once):
    said = textdiff_once(made, "score", "--split", "val", "--metrics", "dice,aji", status=2)
    assert "--metrics aji: 1 of 1 image has masks that say nothing in places" in said.stderr


def test_an_image_that_says_nothing_is_next(fitted, made, textdiff_once):
    said = textdiff_once(made, "next", "--json")
    assert [line["id"] for line in json.loads(said.stdout)] == [NOTHING]


def test_data_check_tells_what_each_mask_says(made, textdiff_once):
    said = textdiff_once(made, "data", "check", "--dataset", "folder", "--data", "data", "--unlabelled-value", "255")
    assert f"{NOTHING}.png: says nothing of any pixel" in said.stdout
    as_json = textdiff_once(
        made, "data", "check", "--dataset", "folder", "--data", "data", "--unlabelled-value", "255", "--json"
    )
    own = json.loads(as_json.stdout)["said"]["a"]
    assert own["said"] == SAID == own["background"] + own["foreground"]
    assert own["pixels"] == SIZE * SIZE


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.full((SIZE, SIZE), UNSAID, np.uint8), "says anything, so there is nothing to fit; draw wider strokes"),
        (None, "is there, so there is nothing to fit; draw some, and run `textdiff extract --cache c.zarr --update`"),
    ],
    ids=["silent", "none"],
)
def test_a_fit_without_a_mask_to_learn_from_says_what_to_draw(tmp_path, textdiff_once, mask, said):
    write(tmp_path / "data", {"a": sparse("a"), "e": sparse("e")})
    place = tmp_path / "data/masks/a.png"
    place.unlink() if mask is None else Image.fromarray(mask).save(place)
    textdiff_once(
        tmp_path, "extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", str(SIZE),
        *("--views", "1", "--text-encoder", "none", "--unlabelled-value", "255", "--cache", "c.zarr"),
    )  # fmt: skip
    assert f"no mask of a training image {said}" in textdiff_once(tmp_path, "fit", "--cache", "c.zarr", status=2).stderr
