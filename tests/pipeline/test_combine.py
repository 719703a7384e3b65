"""Combined runs: the mean of unlike ones, over caches whose rows are in other places; weights; what is refused."""

import csv
import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.pipeline.combine import convex_grid
from textdiff.pipeline.predictions import predict_members
from textdiff.pipeline.runs import Run, write_config
from textdiff.pipeline.training.image_digests import image_digests
from textdiff.tests.run_cases import one_line

SPLITS = ("train", "train", "val", "val", "test", "test", "train")
EXTRACT = ("extract", "--dataset", "folder", "--views", "1", "--text-encoder", "none")


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> Path:
    """A head on pixels, trees on filters, in whose cache an image comes first, and a U-Net; and runs that don't fit."""
    root = tmp_path_factory.mktemp("combine")
    data = root / "sets/data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    for number in range(len(SPLITS)):
        mask = (y - 14 - 5 * number) ** 2 + (x - 46 + 4 * number) ** 2 < 150
        noise = np.random.default_rng(number).normal(0, 90, (64, 64, 3))
        picture = np.where(mask[..., None], 100, 150) + noise
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(data / f"images/c{number}.png")
        if number < 6:
            Image.fromarray(mask.astype(np.uint8) * 255).save(data / f"masks/c{number}.png")
    for name, change in {
        "more": lambda lines: ["a0,,train", *lines],
        "leak": lambda lines: [line.translate({ord("0"): "4", ord("4"): "0"}) for line in lines],
        "fewer": lambda lines: [line for line in lines if not line.startswith("c5,")],
        "unseen": lambda lines: [line.replace(",val", ",train") for line in lines],
        "classes": list,
        "masked": list,
    }.items():
        shutil.copytree(data, root / "sets" / name)
        lines = change([f"c{number},,{split}" for number, split in enumerate(SPLITS)])
        (root / "sets" / name / "texts.csv").write_text("\n".join(["image,text,split", *lines]) + "\n")
    shutil.copyfile(data / "images/c6.png", root / "sets/more/images/a0.png")
    (data / "texts.csv").write_text((root / "sets/masked/texts.csv").read_text())
    (root / "sets/fewer/images/c5.png").unlink()
    (root / "sets/fewer/masks/c5.png").unlink()
    Image.fromarray(np.uint8(255) * (y > 40)).save(root / "sets/masked/masks/c5.png")
    for file in (root / "sets/classes/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) // 255 * 2).save(file)
    for name, folder, *more in (
        ("rgb", "data", "--preset", "rgb", "--image-size", "64"),
        ("filters", "more", "--preset", "filters", "--image-size", "64"),
        ("small", "data", "--preset", "rgb", "--image-size", "32"),
        ("viewed", "data", "--preset", "rgb", "--image-size", "64", "--test-views", "8"),
        *((name, name, "--preset", "rgb", "--image-size", "64") for name in ("leak", "fewer", "unseen")),
        ("masked", "masked", "--preset", "rgb", "--image-size", "64"),
        ("classes", "classes", "--preset", "rgb", "--image-size", "64", "--classes", "disc,ring"),
    ):
        textdiff_once(root, *EXTRACT, "--data", f"sets/{folder}", "--cache", f"{name}.zarr", *more)
    for name, cache, *more in (
        ("head", "rgb", "--variant", "no-text", "--recipe", "fair", "--epochs", "4"),
        ("trees", "filters", "--model", "trees"),
        ("unet", "rgb", "--model", "unet", "--width", "8", "--epochs", "1"),
    ):
        textdiff_once(root, "fit", "--cache", f"{cache}.zarr", "--runs", "fits", *more)
        shutil.move(root / "fits" / (root / "fits/latest").readlink(), root / name)
    for name in ("small", "viewed", "leak", "fewer", "unseen", "classes", "masked"):
        pretend(root, name)
    return root


def pretend(root: Path, name: str) -> None:
    """A run on the cache of that name, with weights that nobody will ask for."""
    cache, run = FeatureCache.open(root / f"{name}.zarr"), Run(root / name)
    ids = {split: [e.id for e in cache.rows if e.split == split and e.has_mask] for split in ("train", "val")}
    run.path.mkdir()
    write_config(
        run,
        Run(root / "head").config
        | {"cache": str(cache.path), "fingerprint": cache.fingerprint, "fingerprint_hash": cache.fingerprint_hash}
        | {"train_ids": ids["train"], "val_ids": ids["val"]}
        | {"images": image_digests(cache, [*ids["train"], *ids["val"]], dict.fromkeys(range(len(cache.rows)), 0))},
    )
    shutil.copyfile(root / "head/head.safetensors", run.path / "head.safetensors")


def combined(made: Path, *names: str, **options: str) -> Run:
    return textdiff.combine([made / name for name in names], runs=made / "runs", **options)


def probabilities(run: Run, split: str) -> dict[str, np.ndarray]:
    """By id what one run says, (classes, S, S), without what this file is about."""
    network, cache = run.load_network(), run.open_cache()
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == split and entry.has_mask]
    items = network.loader(cache, torch.device("cpu")).epoch(rows)
    return {cache.rows[i.row].id: network.combined(predict_members(network, i, "float32")) for i in items}


def masks(run: Run) -> dict[str, np.ndarray]:
    cache = run.open_cache()
    return {entry.id: cache.mask(row) > 0 for row, entry in enumerate(cache.rows) if entry.has_mask}


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def test_an_image_is_in_another_row_of_each_cache(made):
    ids = [[entry.id for entry in FeatureCache.open(made / f"{name}.zarr").rows] for name in ("rgb", "filters")]
    assert ids[1] == ["a0", *ids[0]]


def test_scores_are_those_of_the_mean_probability_of_unlike_runs(made, textdiff_once):
    textdiff_once(made, "combine", "head", "trees", "unet", "--runs", "by-hand")
    result = textdiff_once(made, "score", "--runs", "by-hand")
    assert "no-text + trees +" in result.stdout
    run = Run(made / "by-hand" / (made / "by-hand/latest").readlink())
    each = [probabilities(Run(made / name), "test") for name in ("head", "trees", "unet")]
    true = masks(Run(made / "head"))
    scores = {row["id"]: row for row in csv.DictReader((run.path / "scores.csv").open())}
    assert scores.keys() == each[0].keys() == each[1].keys()
    for name, row in scores.items():
        mean = np.mean([of_run[name] for of_run in each], axis=0)
        assert float(row["dice_clean"]) == pytest.approx(dice(mean.argmax(0) == 1, true[name]), abs=1e-9)
    assert "mean of 3 runs, equally weighed: 33.3 % no-text (head)" in (run.path / "report.md").read_text()


def test_predictions_are_the_mean_of_single_ones_and_members_may_disagree(made, textdiff_once):
    run, image = combined(made, "head", "trees"), made / "sets/data/images/c4.png"
    single = [textdiff.Predictor(made / name)(image) for name in ("head", "trees")]
    mean = np.mean(single, axis=0)
    assert np.allclose(textdiff.Predictor(run)(image), mean, atol=1e-6)
    out = ("--out", "masks", "--probabilities", "--disagreement", "--temperature", "1")
    textdiff_once(made, "predict", str(image), "--run", str(run.path), *out)
    read = {end: np.asarray(Image.open(made / f"masks/c4{end}.png")) for end in ("", "_probability", "_disagreement")}
    assert (read[""] == 255 * mean.argmax(0)).all()
    assert np.abs(read["_probability"] / 65535 - mean[1]).max() < 1e-4
    apart = np.abs(single[0][1] - single[1][1])
    assert read["_disagreement"][apart > 0.5].mean() > 4 * read["_disagreement"][apart < 0.1].mean()


def test_weights_have_the_best_dice_on_validation_images_and_are_recorded(made):
    run = combined(made, "head", "trees", weights="validation")
    each, true = [probabilities(Run(made / name), "val") for name in ("head", "trees")], masks(Run(made / "head"))

    def mean_dice(weights: tuple[float, ...]) -> float:
        found = {name: weights[0] * each[0][name] + weights[1] * each[1][name] for name in each[0]}
        return np.mean([dice(mean.argmax(0) == 1, true[name]) for name, mean in found.items()])

    best = max(mean_dice((k / 10, 1 - k / 10)) for k in range(11))
    weighed = run.config["weighed"]
    assert weighed["dice"] == pytest.approx(best, abs=1e-6) == pytest.approx(mean_dice(run.weights), abs=1e-6)
    assert weighed["dice_equal"] == pytest.approx(mean_dice((0.5, 0.5)), abs=1e-6)
    assert weighed["dice"] > weighed["dice_equal"]
    assert weighed["ids"] == ["c2", "c3"]
    again = combined(made, "head", "trees", weights="validation")
    assert (again.config["runs"], again.config["weighed"]) == (run.config["runs"], weighed)
    scores = textdiff.score(run, metrics=("dice",)).summary
    mean = {
        name: run.weights[0] * found + run.weights[1] * probabilities(Run(made / "trees"), "test")[name]
        for name, found in probabilities(Run(made / "head"), "test").items()
    }
    expected = np.mean([dice(found.argmax(0) == 1, true[name]) for name, found in mean.items()])
    assert scores["scores"]["clean"]["dice"].mean == pytest.approx(expected, abs=1e-6)


def test_a_run_of_weight_0_is_in_no_name_and_is_told_by_the_report(made, textdiff_once):
    run = combined(made, "head", "trees", "unet")
    weighed = [one | {"weight": weight} for one, weight in zip(run.config["runs"], (1, 0, 0), strict=True)]
    write_config(run, run.config | {"runs": weighed, "weighed": {"images": 2}})
    (run.path / "calibration.json").unlink()
    textdiff_once(made, "score", "--run", str(run.path))
    page = (run.path / "report.md").read_text()
    how = "mean of 3 runs, weighed by the Dice of 2 validation images, which gave 0 to trees (trees) and to unet (unet)"
    assert f"{how}: 100 % no-text (head)\n" in page
    assert "\n| no-text (" in page
    textdiff_once(made, "score", "--run", "head")
    table = textdiff_once(made, "compare", str(run.path), "head").stdout
    assert "no-text-weights=1/0/0 " in table
    # The options that tell it from others are not those of a run that does not count.
    weighed = [one | {"weight": weight} for one, weight in zip(weighed, (0, 0, 1), strict=True)]
    write_config(run, run.config | {"runs": weighed})
    (run.path / "images-test.json").unlink()
    table = textdiff_once(made, "compare", str(run.path), "unet").stdout
    assert "unet-weights=0/0/1 " in table


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_grid_has_every_weight_in_even_steps_equal_ones_first(count):
    grid = convex_grid(count)
    assert grid[0] == (1 / count,) * count
    assert len(grid) == len(set(grid)) <= 501
    assert np.allclose(np.sum(grid, axis=1), 1)
    assert np.all(np.diff([np.var(point) for point in grid]) > -1e-12)
    if count == 3:
        whole = {point for point in product(range(11), repeat=3) if sum(point) == 10}
        assert {tuple(round(10 * share) for share in point) for point in grid[1:]} == whole


def test_report_next_panel_and_compare_take_it_and_it_needs_its_runs_no_longer(made, tmp_path, textdiff_once):
    for name in ("head", "trees"):
        shutil.copytree(made / name, tmp_path / name)
    run = textdiff.combine([tmp_path / "head", tmp_path / "trees"], runs=tmp_path / "runs").path
    for name in ("head", "trees"):
        shutil.rmtree(tmp_path / name)
    textdiff_once(made, "score", "--run", str(run))
    textdiff_once(made, "report", "--run", str(run))
    assert "The mean of 2 runs, equally weighed." in (run / "report.html").read_text()
    textdiff_once(made, "next", "--run", str(run))
    (line,) = csv.DictReader((run / "next.csv").open())
    assert line["id"] == "c6"
    assert float(line["disagreement"]) > 0
    textdiff_once(made, "panel", str(run), "unet", "--images", "1", "--out", str(tmp_path / "panel.png"))
    table = textdiff_once(made, "compare", str(run), "unet").stdout
    mean = json.loads((run / "scores.json").read_text())["scores"]["clean"]["dice"]["mean"]
    assert f"{100 * mean:.2f}" in table


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (("head", "small"), (), "64 and 32, so they have no mean; make both caches with the same --image-size"),
        (("head", "viewed"), (), "1 and 8, so they have no mean; make both caches with the same --test-views"),
        (("head", "classes"), (), "so they have no mean; make both caches with the same --classes, and fit again"),
        (("head", "fewer"), (), "differ in test images, 2 and 1, of which only one has c5"),
        (("head", "masked"), (), "c5 has another mask, so they have no mean; make both caches of the same test images"),
        (("head", "leak"), (), "is a test image now"),
        (("leak", "head"), (), "is a test image now"),
        (("head", "unseen"), (), "is a train image now"),
        (("unseen", "unseen/"), (), "is named twice"),
        (("unseen", "unseen-copy"), ("--weights", "validation"), "no annotated validation image"),
        (("head",), (), "is one run"),
        (("head", "done"), (), "is combined of runs itself (head, trees)"),
        (("head", "begun"), (), "not finished"),
    ],
)
def test_runs_that_have_no_mean_are_refused_in_one_line_and_leave_nothing(
    made, tmp_path, textdiff_once, names, options, words
):
    for name, source in (("unseen-copy", "unseen"), ("begun", "trees")):
        if name in names:
            shutil.copytree(made / source, tmp_path / name)
    if "done" in names:
        combined(made, "head", "trees").path.rename(tmp_path / "done")
    (tmp_path / "begun/head.safetensors").unlink(missing_ok=True)
    places = [str((made if (made / name).exists() else tmp_path) / name) for name in names]
    result = textdiff_once(made, "combine", *places, *options, "--runs", str(tmp_path / "none"), status=2)
    assert words in one_line(result.stderr)
    assert not list((tmp_path / "none").glob("*"))


def test_later_changes_are_refused_in_one_line(made, tmp_path, textdiff_once):
    run = combined(made, "head", "trees")
    (run.path / "members/1/head.safetensors").write_bytes((made / "small/head.safetensors").read_bytes())
    result = textdiff_once(made, "score", "--run", str(run.path), status=2)
    assert "not as it was when" in one_line(result.stderr)
    run = combined(made, "head", "trees")
    result = textdiff_once(made, "score", "--run", str(run.path), "--text", "", status=2)
    assert "--text" in one_line(result.stderr)
    with pytest.raises(textdiff.UserError, match="no single network"):
        run.load_network()
    shutil.move(made / "filters.zarr", tmp_path / "moved.zarr")
    try:
        result = textdiff_once(made, "score", "--run", str(run.path), status=2)
    finally:
        shutil.move(tmp_path / "moved.zarr", made / "filters.zarr")
    assert "filters.zarr" in one_line(result.stderr)
