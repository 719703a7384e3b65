"""Table 1: every system on the same draws, beside what the paper printed."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache, Row
from textdiff.errors import UserError
from textdiff.experiments.experiment import open_experiment, plan_experiment
from textdiff.experiments.job_runner import JobRunner
from textdiff.experiments.pairs import check_scored
from textdiff.experiments.results import Result
from textdiff.experiments.table1 import _shortened, row_titles, table1, table1_plan, table1_table
from textdiff.files import sha256_file, write_json
from textdiff.options.experiments import Table1
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.fit import FitConfig, begin
from textdiff.pipeline.predictions import FittedNetwork, mean_of_rows
from textdiff.pipeline.runs import Run
from textdiff.tests.run_cases import one_line

MEAN = "full+unet-fair+filters"
METRICS = ("dice", "iou", "dice_present", "iou_present", "area")
QUICK = ("--labels", "2", "--draws", "2", "--epochs", "2", "--rival-epochs", "1", "--set", "width=8", "--device", "cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache, textdiff_once) -> SimpleNamespace:
    """The table of five systems, one of them on a second cache of the same images, and of the mean of three."""
    root = tmp_path_factory.mktemp("table1")
    places = ("--cache", str(cache.path), "--filters", str(cache.path))
    rows = ("--models", f"full,unet,unet-fair,pixel-mlp,{MEAN}", "--jobs", "1")
    result = textdiff_once(root, "table1", *places, *rows, *QUICK)
    return SimpleNamespace(root=root, path=root / "runs/table1-tiny", result=result, again=("table1", *places, *rows))


def records(path: Path) -> list[dict[str, str]]:
    with (path / "table1.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.gpu
def test_on_a_gpu_networks_are_fitted_beside_each_other_and_scored(cache, textdiff_once, tmp_path):
    rows = ("full", "no-text", "unet", "text-unet", "full+unet")
    models = ("--models", ",".join(rows), "--jobs", "1", *QUICK, "--device", "cuda", "--draws", "1")
    textdiff_once(tmp_path, "table1", "--cache", str(cache.path), *models)
    found = [row for row in records(tmp_path / "runs/table1-tiny") if row["metric"] == "dice"]
    assert {row["row"] for row in found} == set(rows)


def test_every_system_is_a_row_with_its_costs_and_two_differences(made):
    found = [row for row in records(made.path) if (row["truth"], row["metric"]) == ("clean", "dice")]
    names = list(dict.fromkeys(row["row"] for row in found))
    assert names == ["full", "unet", "unet-fair", "pixel-mlp", MEAN, "filters"]
    assert {row["against"] for row in found} == {"full", "filters"}
    for row in found:
        assert (int(row["runs"]), int(row["labels"])) == (2, 2)
        assert (row["difference"] == "") == (row["row"] == row["against"])
        fits = [fit_of(made, one, 0) for one in row["row"].split("+")]
        assert int(row["trained"].replace(",", "")) == sum(fit.config["parameters"] for fit in fits)
    for line in ("system", "filters: boosted trees on image filters", "95% intervals", "trained: parameters"):
        assert line in made.result.stdout


def fit_of(made: SimpleNamespace, row: str, draw: int) -> Run:
    """The fit of a row that is no mean."""
    place, name = (made.path.with_name("table1-tiny-filters"), "trees") if row == "filters" else (made.path, row)
    return Run(place / f"{name}-d{draw}-s{100 * draw}")


def test_every_system_sees_the_same_images_of_each_draw(made):
    for draw in (0, 1):
        runs = [*made.path.glob(f"*-d{draw}-s*"), *made.path.with_name("table1-tiny-filters").glob(f"*-d{draw}-s*")]
        drawn = [json.loads((run / "config.json").read_text(encoding="utf-8"))["train_ids"] for run in runs]
        assert len(drawn) == 6
        assert all(ids == drawn[0] for ids in drawn)


def test_it_goes_on_where_it_was_stopped_and_gives_the_same_table(made, textdiff_once):
    before = {name: (made.path / name).read_bytes() for name in ("table1.md", "table1.csv", "table1.tex")}
    (made.path / "unet-d1-s100/images-test.json").unlink()
    textdiff_once(made.root, *made.again, *QUICK, "--table-only")
    assert "INCOMPLETE: 1 of 10 jobs" in (made.path / "table1.md").read_text(encoding="utf-8")
    textdiff_once(made.root, *made.again, *QUICK)
    assert {name: (made.path / name).read_bytes() for name in before} == before
    assert (made.path / "table1.png").stat().st_size > 0


def test_a_mean_is_of_the_probabilities_of_its_rows_at_the_same_draw(made, cache):
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "test"]
    for draw in (0, 1):
        fits = [FittedNetwork(fit_of(made, row, draw), "cpu") for row in MEAN.split("+")]
        each = [dict(fitted.of_rows(cache, rows)) for fitted in fits]
        found = [np.mean([of_fit[row][0] for of_fit in each], axis=0).argmax(0) == 1 for row in rows]
        true = [cache.mask(row) == 1 for row in rows]
        dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(found, true, strict=True)]
        scored = json.loads((made.path / f"{MEAN}-d{draw}-s{100 * draw}/images-test.json").read_text(encoding="utf-8"))
        np.testing.assert_allclose(scored["scores"]["dice_clean"], dice, atol=1e-9)


def test_a_mean_costs_the_seconds_of_its_fits(made):
    seconds = [[fit_of(made, row, draw).log() for row in MEAN.split("+")] for draw in (0, 1)]
    total = np.median([sum(line["seconds"] for log in logs for line in log) for logs in seconds])
    assert {row["seconds"] for row in records(made.path) if row["row"] == MEAN} == {f"{total:.0f}"}


def test_a_finished_table_gets_a_mean_without_another_fit_even_after_a_kill(made, tmp_path, textdiff_once):
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*/*/*")}
    half = tmp_path / "runs/table1-tiny/full+unet-d0-s0.partial/members/7"
    half.mkdir(parents=True)
    models = f"full,unet,unet-fair,pixel-mlp,{MEAN},full+unet"
    more = [models if word.startswith("full,") else word for word in made.again]
    assert "2 of 12 jobs are to do, by " in textdiff_once(tmp_path, *more, *QUICK).stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert not half.exists()
    run = Run(tmp_path / "runs/table1-tiny/full+unet-d0-s0")
    assert (run.label, len(run.members)) == ("full + unet", 2)
    places = ("runs/table1-tiny", "runs/table1-tiny-filters", "--variants", f"{MEAN},trees")
    table = textdiff_once(tmp_path, "compare", *places, "--against", f"{MEAN}@table1-tiny").stdout
    assert re.search(rf"table1-tiny +{re.escape(MEAN)} +2 +2", table)


def test_a_mean_of_a_row_that_could_not_be_fitted_says_which_and_leaves_nothing(made, tmp_path):
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    experiment = open_experiment(tmp_path / "runs/table1-tiny")
    (job,) = (job for job in experiment.plan.jobs if job.name == f"{MEAN}-d0-s0")
    for run in (experiment.run(job).path, experiment.path.with_name("table1-tiny-filters") / "trees-d0-s0"):
        shutil.rmtree(run)
    (line,) = JobRunner(experiment).do([job])
    assert f"{MEAN}-d0-s0: has no mean, as trees-d0-s0 could not be fitted; " in line
    assert not list(experiment.path.glob(f"{MEAN}-d0-s0*"))


def test_a_mean_of_a_run_that_was_fitted_anew_is_made_again(made, tmp_path):
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    table = tmp_path / "runs/table1-tiny"
    for name in ("config.json", "head.safetensors", "log.csv"):
        shutil.copyfile(table / "full-d1-s100" / name, table / "full-d0-s0" / name)
    experiment = open_experiment(table)
    (job,) = experiment.missing()
    assert job.name == f"{MEAN}-d0-s0"
    before = Run(table / job.name).config["runs"]
    assert JobRunner(experiment).do([job]) == []
    now = Run(table / job.name).config["runs"]
    assert [one["digest"] for one in now] == [
        Run(table / "full-d1-s100").digest,
        *(one["digest"] for one in before[1:]),
    ]
    assert experiment.missing() == []


def test_what_one_of_two_caches_refuses_makes_neither_grow(made, tmp_path, textdiff_once):
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    before = {file: file.read_bytes() for file in tmp_path.rglob("experiment.json")}
    fewer = [word if not word.startswith("full,") else "full,unet" for word in (*made.again, *QUICK)]
    fewer[fewer.index("--draws") + 1] = "3"
    assert "begun with other options" in one_line(textdiff_once(tmp_path, *fewer, status=2).stderr)
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("full,full+unet", "full+unet: is a mean of rows, and unet is none; name it, too: unet,full+unet"),
        ("full,unet,full+unet+filters", "--models full+unet+filters: filters is the row of the cache --filters; give"),
        ("full,unet,full+unett", "names (did you mean unet"),
        ("full,full+full", "--models full+full: names one twice"),
    ],
)
def test_a_mean_of_what_is_no_row_is_refused_before_anything_is_fitted(cache, tmp_path, textdiff_once, models, words):
    stderr = textdiff_once(tmp_path, "table1", "--cache", str(cache.path), "--models", models, status=2).stderr
    assert words in one_line(stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "meant"), [("lvti", "lvit"), ("gloria", "resnet50-unet"), ("nothing-like-it", "")])
def test_of_many_rows_the_nearest_are_named_and_the_page_that_has_all(cache, tmp_path, textdiff_once, name, meant):
    run = textdiff_once(tmp_path, "table1", "--cache", str(cache.path), "--models", name, status=2)
    said = one_line(run.stderr)
    assert re.findall(r"did you mean ([\w-]+)", said) == [meant] * bool(meant)
    place, anchor = re.search(r"(docs/\S+)#(\S+) lists them all", said).groups()
    _, title, section = (Path(__file__).parents[2] / place).read_text(encoding="utf-8").partition("## Rows of tables\n")
    assert anchor == title[3:].strip().lower().replace(" ", "-")
    assert set(re.findall(r"`([\w-]+)`", section)) >= row_titles().keys()


def test_long_recipes_are_cut_only_when_asked_and_the_table_says_so(cache, tmp_path):
    rows = ["full", "transunet", "lvit", "unet", "unet-fair", "pixel-mlp"]
    options = Table1(cache.path, labels=3, draws=1, models=rows, runs=tmp_path)
    plan = table1_plan(options, cache, rows)
    assert {job.config.epochs for job in plan.jobs} == {None}
    text = table1_table({"": plan_experiment(tmp_path / "table1-whole", plan, cache, 1)}, "clean").text
    assert "transunet makes 13,950 steps: as many as the authors made, on thousands of images." in text
    assert "CUT" not in text
    # Three images in batches of two are two steps: a hundred epochs of the U-Net are 200 steps, LViT's 2,000 are 4,000.
    plan = table1_plan(replace(options, max_steps=200), cache, rows)
    epochs = {job.point["method"]: job.config.epochs for job in plan.jobs}
    assert epochs == dict.fromkeys(rows) | {"transunet": 200, "lvit": 100}
    outcome = table1_table({"": plan_experiment(tmp_path / "table1-cut", plan, cache, 1)}, "clean")
    assert "CUT SHORT: transunet 200 of 13,950 steps, lvit 100 of 2,000 epochs; without" in outcome.text
    assert "as many as" not in outcome.text
    # The length that is given for all of them is no shortening.
    plan = table1_plan(replace(options, max_steps=20, rival_epochs=30), cache, rows)
    assert {job.config.epochs for job in plan.jobs} == {None, 30}
    text = table1_table({"": plan_experiment(tmp_path / "table1-given", plan, cache, 1)}, "clean").text
    assert "Other networks make 30 epochs (--rival-epochs), however many their recipes have." in text
    assert "CUT" not in text


def test_what_an_earlier_version_cut_otherwise_cannot_grow_and_the_cause_is_named(cache, tmp_path, textdiff_once):
    options = Table1(cache.path, labels=3, draws=1, models=["full", "unet", "unet-fair"], max_steps=20, runs=tmp_path)
    plan = table1_plan(options, cache, options.models)
    jobs = [replace(job, fit=job.fit | {"epochs": None}) for job in plan.jobs]  # it cut what counts steps alone
    plan_experiment(tmp_path / "table1-tiny", replace(plan, jobs=jobs), cache, 1)
    words = ("--labels", "3", "--models", "full,unet,unet-fair", "--max-steps", "20", "--runs", str(tmp_path))
    more = ("table1", "--cache", str(cache.path), *words, "--draws")
    said = one_line(textdiff_once(tmp_path, *more, "2", status=2).stderr)
    assert "cannot grow: an earlier TextDiff began it, and its --max-steps did not cut unet, unet-fair, as" in said
    # As it was it goes on, and what else differs is named as ever.
    assert "INCOMPLETE: 3 of 3 jobs" in textdiff_once(tmp_path, *more, "1", "--table-only").stdout
    assert "max-steps: 20 before, now 30" in textdiff_once(tmp_path, *more, "2", "--max-steps", "30", status=2).stderr


def test_an_epoch_of_a_cache_of_tiles_has_a_step_for_each_batch_of_tiles(tmp_path):
    places = [(f"train {image}", y) for image in range(3) for y in range(20)]
    rows = [
        Row(name, "train", 0, -1, f"{name}.png", "a" * 64, "b" * 64, 640, 32, tile=32, y=32 * y) for name, y in places
    ]
    tiled = SimpleNamespace(rows=rows, done=lambda: [True] * len(rows), path=tmp_path, sparse=False, mask=None)
    tiled.check_done = lambda rows, what: None
    config = FitConfig(cache=tiled.path, model="resnet50-unet", recipe="default", labels=2, draw_seed=0)
    assert _shortened(config, tiled, 40).epochs == 8  # 40 tiles in batches of 8: five steps


def test_the_printed_table_stands_beside_rows_of_the_same_images(cache, tmp_path, real_monuseg):
    options = Table1(cache.path, labels=5, draws=1, models=["full"], runs=tmp_path)
    experiment = plan_experiment(tmp_path / "table1-real", table1_plan(options, cache, options.models), cache, 1)
    folder = real_monuseg / "Test_Folder"
    facts = {
        image.stem: [sha256_file(file)[:16] for file in (image, folder / f"labelcol/{image.stem}.png")] + [None, 1]
        for image in sorted(folder.glob("img/*"))
    }
    scores = {f"{metric}_{truth}": [0.5] * len(facts) for metric in METRICS for truth in TRUTHS}
    record = {"schema": 3, "split": "test", "classes": ["foreground"], "views": 1, "ids": list(facts)}
    (job,) = experiment.plan.jobs
    begin(job.config, lambda _: experiment.run(job).path)
    write_json(experiment.scores_file(job), record | {"groups": [""] * len(facts), "facts": facts, "scores": scores})
    file = experiment.path / "experiment.json"
    write_json(file, json.loads(file.read_text(encoding="utf-8")) | {"dataset": "monuseg"})
    text = table1_table({"": open_experiment(experiment.path)}, "clean").text
    for words in ("published: TransUNet", "73.54", "93.19M", "105,322,146", "GLoRIA is a ResNet-50 U-Net"):
        assert words in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda rows: [replace(row, image_sha256="0" * 64) if row.id == "test 2" else row for row in rows],
            "as test 2",
        ),
        (lambda rows: [row for row in rows if row.id != "train 4"], "its train images and masks .* as train 4"),
        (lambda rows: rows[::-1], "in another order"),
    ],
)
def test_filters_of_other_images_are_refused_before_anything_is_fitted(cache, tmp_path, change, words):
    made = {"fingerprint": cache.fingerprint, "blocks": cache.blocks, "steps": cache.steps, "texts": cache.texts}
    other = FeatureCache.create(tmp_path / "f.zarr", rows=change(cache.rows), image_size=cache.image_size, **made)
    with pytest.raises(UserError, match=words):
        table1(Table1(cache.path, filters=other.path, runs=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_mean_with_filters_of_another_size_is_refused_before_anything_is_fitted(cache, tmp_path):
    made = {"fingerprint": cache.fingerprint, "blocks": cache.blocks, "steps": cache.steps, "texts": cache.texts}
    other = FeatureCache.create(tmp_path / "f.zarr", rows=cache.rows, image_size=64, **made)
    options = Table1(cache.path, filters=other.path, models=["full", "full+filters"], runs=tmp_path / "runs")
    with pytest.raises(UserError, match="differ in the image size, 32 and 64, so they have no mean"):
        table1(options)
    assert not options.runs.exists()


@pytest.mark.slow
def test_a_mean_of_rows_is_over_all_views_of_an_image_as_its_rows_are(tmp_path, textdiff_once):
    rng = np.random.default_rng(4)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    lines = ["image,text,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        mask = np.hypot(*np.mgrid[-9 - number : 23 - number, -12 + number : 20 + number]) < 9
        picture = np.where(mask, 110, 140)[..., None] + rng.normal(0, 30, (32, 32, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / f"data/images/{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"data/masks/{number}.png")
        lines.append(f"{number},,{split}")
    (tmp_path / "data/texts.csv").write_text("\n".join(lines))
    same = ("extract", "--dataset", "folder", "--data", "data", "--image-size", "32", "--views", "1")
    for preset in ("rgb", "filters"):
        wanted = ("--preset", preset, "--test-views", "8", "--text-encoder", "none", "--cache", f"{preset}.zarr")
        textdiff_once(tmp_path, *same, *wanted)
    places = ("--cache", "rgb.zarr", "--filters", "filters.zarr")
    rows = ("--models", "no-text,no-text+filters", "--labels", "2", "--epochs", "2", "--set", "width=8")
    assert "mean over 8 views" in textdiff_once(tmp_path, "table1", *places, *rows, "--jobs", "1").stdout
    each = []
    for run in ("table1-rgb/no-text-d0-s0", "table1-rgb-filters/trees-d0-s0"):
        fit = Run(tmp_path / "runs" / run)
        cache = fit.open_cache(tmp_path / Path(fit.config["cache"]).name)
        shown = [row for row, entry in enumerate(cache.rows) if entry.split == "test"]
        ((_, mean),) = mean_of_rows(cache, FittedNetwork(fit, "cpu").of_rows(cache, shown))
        each.append(mean)
    found, true = np.mean(each, axis=0).argmax(0) == 1, cache.mask(shown[0]) == 1
    file = tmp_path / "runs/table1-rgb/no-text+filters-d0-s0/images-test.json"
    dice = 2 * (found & true).sum() / (found.sum() + true.sum())
    assert json.loads(file.read_text(encoding="utf-8"))["scores"]["dice_clean"] == [pytest.approx(dice, abs=1e-9)]
    assert 0 < dice < 1


def test_rows_scored_on_the_same_images_in_another_order_are_no_pairs():
    images = [{name: [name, name] for name in names} for names in ("ab", "ba")]
    first, second = (Result({}, images=own, runs={(0, 0): {}}) for own in images)
    with pytest.raises(UserError, match="second and first: scored on other images"):
        check_scored([("first", first), ("second", second)])
