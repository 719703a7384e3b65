"""Every network of ``fit --model`` through the command line: trained, stopped and resumed, scored and used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from textdiff.cache import FeatureCache
from textdiff.files import sha256_file
from textdiff.models.networks.models import MODELS, get_recipe
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.resnet50_unet import ResNet50UNet
from textdiff.models.networks.rivals import ResNet50UNetRival
from textdiff.models.networks.trees import Trees
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.predictions import enlarge, predict_members
from textdiff.pipeline.runs import Run
from textdiff.pipeline.training import trainer
from textdiff.pipeline.training.train import train_many
from textdiff.tests.rival_cases import SMALL
from textdiff.tests.run_cases import assert_masks_are_those_scored, newest, stopped_after
from textdiff.tests.text_cases import make_bert

WAYS = {
    "unet": ("--recipe", "fair", "--width", "4"),
    "text-unet": ("--width", "4", "--places"),
    "resnet50-unet": ("--recipe", "default"),
    "transunet": ("--recipe", "fair", "--select", "best"),
    "swin-unet": ("--recipe", "fair"),
    "lvit": ("--recipe", "fair"),
    "pixel-mlp": ("--batch-size", "1500", "--decay-epoch", "2"),
    "trees": ("--epochs", "1"),
}
WORDS = ["dense", "sparse", "are", "nuclei", "the", "."]


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for rival, sizes in SMALL.items():
            patch.setattr(rival, "sizes", classmethod(lambda cls, cache, sizes=sizes: sizes))
        patch.setattr(Trees.__init__, "__defaults__", (2, 256, 10, None, None))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """Caches of blurred images, with texts, without, and in tiles, and the data that they are of."""
    root = tmp_path_factory.mktemp("made")
    make_bert(root / "bert", WORDS, intermediate=32)
    make_lvit_once(root / "data", n_train=3, n_val=1, n_test=2, size=(72, 96))
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--preset", "rgb", "--blocks", "8,16")
    for name, texts, *cut in (("cache", "bert"), ("textless", "none"), ("tiled", "none", "--tile", "48")):
        to = ("--cache", f"{name}.zarr", "--image-size", "64", "--views", "1", "--text-encoder", texts)
        textdiff_once(root, *extract, *to, *cut)
    return root


@pytest.fixture(scope="module")
def fitted(made, textdiff_once) -> Callable[..., Run]:
    """A run of a network, fitted when it is first asked for."""
    runs: dict[str, Run] = {}

    def fit(model: str) -> Run:
        if model not in runs:
            textdiff_once(made, *command(model), "--runs", f"runs-{model}")
            runs[model] = newest(made / f"runs-{model}")
        return runs[model]

    return fit


def command(model: str) -> tuple[str, ...]:
    return ("fit", "--cache", "cache.zarr", "--model", model, "--epochs", "2", "--device", "cpu", *WAYS[model])


def weights(run: Run) -> bytes:
    return (run.path / "head.safetensors").read_bytes()


def test_these_are_all_networks():
    assert {*WAYS, "textdiff", "tuned"} == set(MODELS)


@pytest.mark.parametrize("model", WAYS)
def test_a_fit_that_is_stopped_and_resumed_has_the_same_weights_to_the_bit(made, fitted, textdiff_once, model):
    whole = fitted(model)
    with stopped_after(1):
        textdiff_once(made, *command(model), "--runs", f"cut-{model}", status=130)
    cut = newest(made / f"cut-{model}")
    assert not cut.finished
    textdiff_once(made, "fit", "--resume", "--run", str(cut.path))
    assert weights(cut) == weights(whole)
    assert [line["loss"] for line in cut.log()] == [line["loss"] for line in whole.log()]


@pytest.mark.parametrize("model", WAYS)
def test_it_is_scored_and_gives_an_image_of_any_size_the_mask_that_score_measured(made, fitted, textdiff_once, model):
    run = fitted(model)
    textdiff_once(made, "score", "--run", str(run.path), "--device", "cpu")
    scores = run.scores()
    assert run.label in (run.path / "report.md").read_text()
    cache = FeatureCache.open(made / "cache.zarr")
    texts = {entry.id: cache.texts[entry.text] for entry in cache.rows if entry.split == "test"}
    lines = (f"{name}.tif,{text}" for name, text in texts.items())
    listed = made / "data/Test_Folder/img/list.csv"
    listed.write_text("\n".join(["image,text", *lines]) + "\n")
    textdiff_once(made, "predict", "--list", str(listed), "--run", str(run.path), "--out", f"out-{model}")
    assert {image["id"] for image in scores["images"]} == texts.keys()
    assert_masks_are_those_scored(run, made / "data", made / f"out-{model}")
    other = made / "other.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)).save(other)
    words = ("--text", "the nuclei are dense") if run.reads.text else ()
    textdiff_once(made, "predict", str(other), *words, "--run", str(run.path), "--out", f"other-{model}")
    assert Image.open(made / f"other-{model}/other.png").size == (41, 50)
    textdiff_once(made, "report", "--run", str(run.path))


def test_the_majority_of_the_pixel_classifiers_decides_and_what_they_disagree_on_is_written(
    made, fitted, textdiff_once
):
    run = fitted("pixel-mlp")
    image = made / "data/Test_Folder/img" / f"{FeatureCache.open(made / 'cache.zarr').rows[-1].id}.tif"
    for out, more in (("plain", ()), ("told", ("--disagreement",))):
        textdiff_once(made, "predict", str(image), "--run", str(run.path), "--out", out, *more)
    read = [np.asarray(Image.open(made / f"{out}/{image.stem}.png")) for out in ("plain", "told")]
    assert np.array_equal(*read)
    network, cache = run.load_network(), run.open_cache()
    (item,) = network.loader(cache, torch.device("cpu")).epoch([len(cache.rows) - 1])
    members = predict_members(network, item, "float32")
    assert len(members) == len(network.networks) > 1
    shares = np.stack([(members.argmax(1) == label).mean(0) for label in range(members.shape[1])])
    assert np.allclose(network.combined(members), shares)
    assert np.array_equal(shares.argmax(0), network(*network.inputs([item]))[0].argmax(0).numpy())
    p = enlarge(members, *read[0].shape).astype(np.float64)
    p /= p.sum(1, keepdims=True)
    divergence = -(p.mean(0) * np.log(p.mean(0))).sum(0) + (p * np.log(p)).sum(1).mean(0)
    told = np.asarray(Image.open(made / f"told/{image.stem}_disagreement.png")) / 65535
    assert np.allclose(told, divergence / np.log(2), atol=1e-4)


def test_dropout_and_skipped_layers_are_the_same_side_by_side_as_alone(made, fitted, tmp_path):
    models = ("transunet", "swin-unet", "lvit")
    runs = []
    for model in models:
        config = fitted(model).config["fit"]
        given = {name: config[name] for name in ("recipe", "variant", "select", "epochs")}
        options = FitConfig(made / "cache.zarr", model=model, device="cpu", **given)
        runs.append(begin(options, lambda _, model=model: tmp_path / model))
    cache = FeatureCache.open(made / "cache.zarr")
    train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"))
    for run, model in zip(runs, models, strict=True):
        own, alone = (load_file(one.path / "head.safetensors") for one in (run, fitted(model)))
        assert {name for name in own if not torch.equal(own[name], alone[name])} == set()


def test_an_ensemble_of_pixel_classifiers_is_the_mean_of_its_members(made, textdiff_once):
    textdiff_once(made, *command("pixel-mlp"), "--ensemble", "2", "--runs", "ensemble")
    run = newest(made / "ensemble")
    assert weights(run.members[0]) != weights(run.members[1])
    textdiff_once(made, "score", "--run", str(run.path), "--device", "cpu")
    assert run.scores()["scores"]["clean"]["dice"]["mean"] > 0.2


def test_a_pixel_classifier_keeps_its_rate_through_all_steps_of_an_epoch(fitted):
    assert [line["lr"] for line in fitted("pixel-mlp").log()] == [1e-3] * 2


@pytest.mark.parametrize("kind", ["right", "other", "none"])
def test_pretrained_weights_are_begun_with_recorded_and_checked(made, textdiff_once, monkeypatch, kind, tmp_path):
    encoder = ResNet50UNet(**SMALL[ResNet50UNetRival] | ({} if kind != "other" else {"width": 16})).encoder
    state = {name: torch.rand(value.shape) for name, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "resnet.pth")
    fit = ("fit", "--cache", "cache.zarr", "--model", "resnet50-unet", "--recipe", "fair", "--epochs", "1")
    begin = () if kind == "none" else ("--pretrained", str(tmp_path / "resnet.pth"))
    result = textdiff_once(made, *fit, *begin, "--runs", str(tmp_path), status=2 if kind == "other" else 0)
    hint = "resnet50-unet begins with random weights; its authors began with pretrained ones"
    assert (hint in result.stderr) == (kind == "none")
    if kind == "other":
        assert "resnet.pth" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["resnet.pth"]
        return
    run = newest(tmp_path)
    digest = sha256_file(tmp_path / "resnet.pth") if kind == "right" else None
    assert run.config["pretrained_sha256"] == digest
    if kind == "none":
        return
    first = initial_network(run).net.encoder.state_dict()
    # The recipe keeps no running averages, so those of the file are left out.
    averages = {name for name in state if "running_" in name or "num_batches" in name}
    assert first.keys() == state.keys() - averages
    assert all(torch.equal(value, state[name]) for name, value in first.items())
    (tmp_path / "resnet.pth").write_bytes(b"another")
    (run.path / "head.safetensors").unlink()
    said = textdiff_once(made, "fit", "--resume", "--run", str(run.path), status=2).stderr
    assert "not the weights that" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("variant", ["shuffled-text", "constant-text", "full"])
def test_lvit_is_given_the_texts_of_its_variant(made, tmp_path, variant):
    options = FitConfig(made / "cache.zarr", model="lvit", variant=variant, recipe="fair", device="cpu")
    run = begin(options, lambda _: tmp_path / "run")
    assert run.label == f"lvit-fair{'' if variant == 'full' else f'-{variant}'}"
    cache = FeatureCache.open(made / "cache.zarr")
    network = initial_network(run)
    fit = trainer.Trainer(run, network, cache, network.loader(cache, torch.device("cpu")), torch.device("cpu"), 3)
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "train"]
    own = [cache.text(row)[0] for row in rows]
    assert not np.array_equal(own[0], own[1])
    given = [network.inputs([item])[1][0].numpy() for item in fit.narrowed(fit.loader.epoch(rows))]
    assert {x.shape for x in given} == {(10, 32)}
    # A text of so few tokens is filled with zeros.
    length = len(own[0])
    assert length < 10
    same = [np.array_equal(x[:length], y) and not x[length:].any() for x, y in zip(given, own, strict=True)]
    # The first and the third are of the same words, the most frequent ones.
    assert same == {"full": [True] * 3, "constant-text": [True, False, True]}.get(variant, same)
    if variant == "shuffled-text":
        assert not all(same)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("lvit", ("--cache", "textless.zarr"), "holds no text embeddings; extract with a text encoder"),
        ("lvit", ("--variant", "no-text"), "LViT has the variants full, shuffled-text, constant-text"),
        ("transunet", ("--variant", "shuffled-text"), "TransUNet reads no text"),
        ("swin-unet", ("--width", "8"), "Swin-Unet has the published widths"),
        ("resnet50-unet", ("--blocks", "8"), "reads images, not activations"),
        ("unet", ("--pretrained", "cache.zarr/zarr.json"), "no weights that a plain U-Net could begin with"),
        ("lvit", ("--pretrained", "cache.zarr/zarr.json"), "no weights that LViT could begin with"),
        ("pixel-mlp", ("--batch-size", "1"), "needs more than one pixel"),
        ("unet", ("--recipe", "quick"), "--recipe quick: must be one of default, fair"),
        ("transunet", ("--recipe", "instance-norm"), "not for --model transunet; use default or fair"),
    ],
)
def test_what_a_network_does_not_have_is_refused_in_one_line(made, textdiff_once, model, options, words):
    cache = () if "--cache" in options else ("--cache", "cache.zarr")
    said = textdiff_once(made, "fit", *cache, "--model", model, *options, status=2).stderr
    assert words in said
    assert len(said.splitlines()) == 1


def test_a_length_in_steps_becomes_epochs_and_the_rate_follows_the_batch(made, tmp_path):
    cases = {
        # (model, options): epochs, rate, validate_every, patience; three images, so that a batch has three at most.
        ("transunet", ()): (13_950, 0.01 * 3 / 24, 500, None),
        ("swin-unet", (("batch_size", 2),)): (6975, 0.05 * 2 / 24, 250, None),
        ("resnet50-unet", (("batch_size", 1),)): (35_134, 5e-4, 352, 7027),
        ("lvit", ()): (2000, 1e-3, 1, 50),
        ("unet", ()): (100, 1e-3, 5, None),
    }
    for number, ((model, options), expected) in enumerate(cases.items()):
        config = FitConfig(made / "cache.zarr", model=model, recipe="default", device="cpu", **dict(options))
        run = begin(config, lambda _, number=number: tmp_path / str(number))
        fit = run.config["fit"]
        found = tuple(fit[name] for name in ("epochs", "learning_rate", "validate_every", "patience"))
        assert found == pytest.approx(expected), model
        assert run.config["head"]["side"] == get_recipe(model, "default").side or model in ("unet", "resnet50-unet")


def test_where_images_are_cut_the_steps_are_those_of_their_tiles(made, tmp_path):
    options = FitConfig(made / "tiled.zarr", model="transunet", recipe="default", device="cpu", batch_size=4)
    fit = begin(options, lambda _: tmp_path / "run").config["fit"]
    cache = FeatureCache.open(made / "tiled.zarr")
    steps = -(-sum(row.split == "train" for row in cache.rows) // 4)
    assert steps > 3
    assert (fit["epochs"], fit["learning_rate"]) == (-(-13_950 // steps), pytest.approx(0.01 * 4 / 24))


def test_the_plain_u_net_of_width_64_has_the_papers_count(made, tmp_path):
    options = FitConfig(made / "cache.zarr", model="unet", width=64, recipe="fair", device="cpu")
    run = begin(options, lambda _: tmp_path / "run")
    assert run.config["parameters"] == 31_037_698
    assert "31,037,698" in PlainUNet.__doc__
