"""Runs and experiments of a cache that was updated since: they score as before, or say what has changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.experiment import Plan, plan_experiment
from textdiff.tests.lab_cases import lost_mask, move, new_image, other_image, other_mask, other_text, removed_image


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


def test_compare_scores_fits_anew_where_a_mask_has_changed_and_says_where_their_cache_is_gone(lab, capfd):
    runs = [textdiff.fit(lab.cache, epochs=1, width=width, runs=lab.root / f"runs{width}") for width in (8, 16)]

    def compared() -> list[float]:
        rows = textdiff.compare([run.path for run in runs]).summary["rows"]
        return [row["mean"] for row in rows if (row["truth"], row["metric"]) == ("clean", "dice")]

    def scored() -> list[float]:
        return [textdiff.score(run).summary["scores"]["clean"]["dice"].mean for run in runs]

    before = compared()
    assert before == pytest.approx(scored())
    other_mask(lab)
    lab.extract(update=True)
    assert compared() == pytest.approx(after := scored())
    assert not np.allclose(before, after, atol=0.001)
    # What is no longer there cannot be asked.
    for name in ("s", "t"):
        (lab.data / f"masks/{name}.png").unlink()
    lab.extract(update=True)
    capfd.readouterr()
    assert compared() == pytest.approx(after)
    said = capfd.readouterr().err
    assert "so there is nothing to score (and 1 more): scores of before are taken as they are" in said
    shutil.move(lab.cache, lab.root / "moved.zarr")
    assert compared() == pytest.approx(after)
    said = capfd.readouterr().err
    assert f"the cache of {runs[0].path} is not there (and 1 more): scores of before are taken as they are" in said


def test_compare_leaves_the_scores_of_an_experiment_where_its_runs_are_named_by_themselves(lab, capfd):
    options = {"variants": ["full", "no-text"], "labels": 2, "draws": 1, "seeds": 1, "epochs": 1, "unet": False}
    textdiff.ablate(lab.cache, **options, jobs=1, runs=lab.root / "runs")
    files = [*lab.root.glob("runs/ablate-*/*/images-test.json")]
    before = [file.read_bytes() for file in files]
    other_mask(lab)
    lab.extract(update=True)
    capfd.readouterr()
    textdiff.compare([file.parent for file in files])
    said = "is of an experiment, which was scored before its cache changed (and 1 more): scores of before are taken as"
    assert said in capfd.readouterr().err
    assert [file.read_bytes() for file in files] == before


def test_next_names_the_command_that_keeps_what_there_is(lab, fitted, textdiff_once):
    new_image(lab)
    lab.extract(update=True)
    run, cache = str(fitted), str(lab.cache)
    (beside := lab.root / "beside").mkdir()
    here = lab.cache.relative_to(lab.root)
    # An absolute path, as a run records it too, is told as it is typed from where one stands.
    for directory, given, told in (
        (lab.root, cache, here),
        (beside, cache, f"../{here}"),
        (beside, f"../beside/../{here}", f"../beside/../{here}"),
        (Path(beside.anchor), cache, cache.removeprefix(beside.anchor)),
    ):
        said = textdiff_once(directory, "next", "--run", run, "--cache", given)
        assert "aa" in said.stdout
        assert f"textdiff extract --cache {told} --update && textdiff fit --cache {told}\n" in said.stderr


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
