"""Probabilities to trust: the temperature of a run, what is told at it, and the flags, against sums of their own."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.pipeline.predictions import FittedNetwork, cached_predictions
from textdiff.tests.run_cases import copied, one_line

FLAG = "likely has a Dice below 70"


@pytest.fixture
def run(small_runs, tmp_path) -> textdiff.Run:
    """A run of one network, with its scores."""
    return textdiff.Run(copied(small_runs, tmp_path, "done"))


def kept(run) -> dict:
    return json.loads((run.path / "calibration.json").read_text())


def predicted(run, split) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (classes, n) and truth (n,) of all pixels of the one image of a split."""
    cache = run.open_cache()
    (row,) = (row for row, entry in enumerate(cache.rows) if entry.split == split)
    ((_, found),) = cached_predictions(FittedNetwork(run, "cpu"), cache, [row], "test")
    return found[0].reshape(2, -1).astype(np.float64), cache.mask(row).ravel()


def at(p: np.ndarray, temperature: float) -> np.ndarray:
    powers = p ** (1 / temperature)
    return powers / powers.sum(0)


def error(p: np.ndarray, truth: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, bin by bin."""
    confidence, right = p.max(0), p.argmax(0) == truth
    bins = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    return sum(abs(right[own].sum() - confidence[own].sum()) for own in bins) / len(truth)


def test_the_temperature_has_the_least_loss_on_validation_images_and_an_ensemble_has_its_own(small_runs, run):
    members = [textdiff.Run(path) for path in (small_runs / "mean").iterdir() if not path.is_symlink()]
    for one in (run, *members):
        found, (p, truth) = kept(one), predicted(one, "val")
        loss = {
            t: -np.log(at(p, t)[truth, np.arange(p.shape[1])]).mean()
            for t in found["temperature"] * np.array([0.98, 1, 1.02])
        }
        assert min(loss, key=loss.get) == found["temperature"]
        assert found["images"] == 1
        assert found["error"] == pytest.approx(error(p, truth), abs=1e-5)
        assert found["error_tempered"] == pytest.approx(error(at(p, found["temperature"]), truth), abs=1e-5)
    assert not [path for one in members for path in one.path.glob("members/*/calibration.json")]


def test_scores_have_the_error_before_and_after_the_flags_and_the_same_dice_as_without(
    small_runs, run, tmp_path, textdiff_once
):
    before = run.scores()
    found, (p, truth) = before["trust"], predicted(run, "test")
    errors = [one["error"] for one in found["reliability"]]
    assert errors == pytest.approx([error(p, truth), error(at(p, found["temperature"]), truth)], abs=1e-5)
    (image,) = before["images"]
    told, mask = at(p, found["temperature"])[1], p[1] > p[0]
    expected = 2 * told[mask].sum() / (told.sum() + mask.sum()) if mask.any() else np.prod(1 - told)
    assert image["expected_dice"] == pytest.approx(expected, abs=1e-5)
    assert image["flagged"] == (expected < 0.7)
    flag = found["flag"]
    assert (flag["limit"], flag["chosen"]) == (0.7, False)
    low = image["dice_clean"] < 0.7
    assert (flag["images_low"], flag["images_not_low"]) == (int(low), int(not low))
    assert (flag["hits"], flag["false_alarms"]) == (int(low and image["flagged"]), int(not low and image["flagged"]))
    report = " ".join((run.path / "report.md").read_text().split())
    assert f"{100 * errors[0]:.2f} %, and {100 * errors[1]:.2f} % at the temperature" in report
    assert f"{int(image['flagged'])} of the 1 whose Dice is {'' if low else 'not '}below 70." in report

    (run.path / "calibration.json").unlink()
    result = textdiff_once(small_runs, "score", "--run", str(run.path))
    after = run.scores()
    none = "none was looked for, as experiments do not; run `textdiff fit --resume --run"
    assert f"There is no temperature: {none}" in " ".join(result.stdout.split())
    command = ("predict", "data/images/c3.png", "--run", str(run.path), "--out", str(tmp_path / "out"))
    assert f"probabilities have no temperature: {none}" in textdiff_once(small_runs, *command).stderr
    assert [one["name"] for one in after["trust"]["reliability"]] == ["as predicted"]
    assert after["scores"] == before["scores"]
    ours = ("expected_dice", "flagged")
    assert [{k: v for k, v in one.items() if k not in ours} for one in after["images"]] == [
        {k: v for k, v in one.items() if k not in ours} for one in before["images"]
    ]


def test_an_image_has_the_expected_dice_in_predict_that_it_has_in_score_whatever_its_size(
    small_runs, run, tmp_path, textdiff_once
):
    (scored,) = run.scores()["images"]
    picture = np.asarray(Image.open(small_runs / f"data/images/{scored['id']}.png"))
    for times in (1, 3):  # what the network sees is the same
        Image.fromarray(picture.repeat(times, 0).repeat(times, 1)).save(tmp_path / f"{times}.png")
    command = ("predict", str(tmp_path / "1.png"), str(tmp_path / "3.png"), "--text", scored["text"])
    textdiff_once(small_runs, *command, "--run", str(run.path), "--out", str(tmp_path / "out"))
    with (tmp_path / "out/images.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["expected_dice"]) for line in lines] == pytest.approx([scored["expected_dice"]] * 2, abs=6e-5)
    assert [line["flagged"] == "True" for line in lines] == [scored["flagged"]] * 2


def test_an_image_that_no_network_saw_has_no_expected_dice_and_is_flagged_by_score_and_predict(
    small_runs, run, tmp_path, textdiff_once
):
    shutil.copytree(small_runs / "data", tmp_path / "data")
    for kind in ("images", "masks"):
        Image.new("L", (64, 64)).save(tmp_path / f"data/{kind}/c3.png")
    textdiff_once(tmp_path, "score", "--run", str(run.path), "--data", "data")
    scores = run.scores()
    (image,) = scores["images"]
    assert (image["dice_clean"], image["expected_dice"], image["flagged"]) == (1, None, True)
    assert scores["trust"]["flag"]["false_alarms"] == 1
    textdiff_once(tmp_path, "predict", "data/images/c3.png", "--run", str(run.path), "--out", "out")
    (line,) = csv.DictReader((tmp_path / "out/images.csv").read_text().splitlines())
    assert (line["expected_dice"], line["flagged"]) == ("", "True")


def test_what_is_told_has_the_temperature_and_masks_do_not_depend_on_it(small_runs, run, tmp_path, textdiff_once):
    temperature = kept(run)["temperature"]
    maps, masks, lines = {}, {}, {}
    for name, more in (("own", ()), ("one", ("--temperature", "1")), ("hot", ("--temperature", "9"))):
        out = tmp_path / name
        result = textdiff_once(
            small_runs,
            "predict",
            "data/images/c3.png",
            "--run",
            str(run.path),
            "--probabilities",
            *more,
            "--out",
            str(out),
        )
        masks[name] = (out / "c3.png").read_bytes()
        maps[name] = np.asarray(Image.open(out / "c3_probability.png")) / 65535
        with (out / "images.csv").open(newline="") as file:
            (lines[name],) = csv.DictReader(file)
        assert (FLAG in result.stderr) == (FLAG in lines[name]["notes"]) == (lines[name]["flagged"] == "True")
        assert (lines[name]["flagged"] == "True") == (float(lines[name]["expected_dice"]) < 0.7)
    assert masks["own"] == masks["one"] == masks["hot"]
    assert lines["own"]["objects"] == lines["one"]["objects"]
    for name, told in (("own", temperature), ("hot", 9)):
        both = np.stack([1 - maps["one"], maps["one"]]).reshape(2, -1)
        assert maps[name].ravel() == pytest.approx(at(both, told)[1], abs=2e-4)
    assert lines["hot"]["flagged"] == "True"
    raw = textdiff.Predictor(run)(small_runs / "data/images/c3.png")
    assert raw[1] == pytest.approx(maps["one"], abs=1e-5)
    assert textdiff.Predictor(run).trusted(raw)[1] == pytest.approx(maps["own"], abs=1e-5)
    # Results of two temperatures are not mixed.
    result = textdiff_once(
        *(small_runs, "predict", "data/images/c3.png", "--run", str(run.path), "--temperature", "2"),
        *("--out", str(tmp_path / "own")),
        status=2,
    )
    assert "temperature" in one_line(result.stderr)


def test_a_combined_run_has_a_temperature_of_its_own(small_runs, tmp_path, textdiff_once):
    paths = [copied(small_runs, tmp_path, name) for name in ("done", "short")]
    textdiff_once(small_runs, "combine", *map(str, paths), "--runs", str(tmp_path / "made"))
    run = textdiff.Run((tmp_path / "made/latest").resolve())
    (p, truth), (other, _) = (predicted(textdiff.Run(path), "val") for path in paths)
    p = (p + other) / 2
    temperature = kept(run)["temperature"]
    loss = {t: -np.log(at(p, t)[truth, np.arange(p.shape[1])]).mean() for t in temperature * np.array([0.98, 1, 1.02])}
    assert min(loss, key=loss.get) == temperature
    found = kept(run)
    shutil.copyfile(paths[0] / "calibration.json", run.path / "calibration.json")
    result = textdiff_once(small_runs, "score", "--run", str(run.path), status=2)
    assert "calibration.json: damaged, or of another run; remove it" in one_line(result.stderr)
    (run.path / "calibration.json").unlink()
    textdiff_once(small_runs, "fit", "--resume", "--run", str(run.path))
    assert kept(run) == found


def test_resume_finds_what_is_missing_without_touching_the_weights(small_runs, run, textdiff_once):
    weights, found = (run.path / "head.safetensors").read_bytes(), kept(run)
    file = run.path / "calibration.json"
    for damage in ("{", json.dumps(found | {"temperature": 2}), "[]"):
        file.write_text(damage)
        result = textdiff_once(small_runs, "predict", "data/images/c3.png", "--run", str(run.path), status=2)
        assert "calibration.json: damaged, or of another run; remove it" in one_line(result.stderr)
    file.unlink()
    textdiff_once(small_runs, "fit", "--resume", "--run", str(run.path))
    assert kept(run) == found
    assert (run.path / "head.safetensors").read_bytes() == weights
    assert "finished already" in one_line(
        textdiff_once(small_runs, "fit", "--resume", "--run", str(run.path), status=2).stderr
    )


def test_without_validation_images_there_is_no_temperature_and_without_foreground_a_warning(
    small_runs, tmp_path, textdiff_once
):
    shutil.copytree(small_runs / "data", tmp_path / "data")
    for number in range(2):
        Image.new("L", (64, 64)).save(tmp_path / f"data/masks/c{number}.png")
    table = tmp_path / "data/texts.csv"
    table.write_text(table.read_text().replace(",val", ",test"))
    textdiff_once(
        *(tmp_path, "extract", "--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "64"),
        *("--views", "1", "--text-encoder", "none", "--cache", "c.zarr"),
    )
    result = textdiff_once(tmp_path, "fit", "--cache", "c.zarr", "--variant", "no-text", "--epochs", "1")
    assert "no validation images, so there is no temperature" in result.stderr
    assert result.stderr.count("no training mask has any foreground") == 1
    run = textdiff.Run((tmp_path / "runs/latest").resolve())
    assert not (run.path / "calibration.json").exists()
    result = textdiff_once(tmp_path, "score")
    assert "There is no temperature: the run has no validation images" in " ".join(result.stdout.split())
    assert run.scores()["trust"]["temperature"] is None
