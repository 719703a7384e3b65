"""Table 1: every system on the same draws, beside what the paper printed."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from textdiff.cache import FeatureCache, Row
from textdiff.errors import UserError
from textdiff.experiments.compare import check_scored
from textdiff.experiments.experiment import open_experiment, plan_experiment
from textdiff.experiments.results import Result
from textdiff.experiments.table1 import _shortened, table1, table1_plan, table1_table
from textdiff.files import sha256_file, write_json
from textdiff.options.experiments import Table1
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.fit import FitConfig, begin

METRICS = ("dice", "iou", "dice_present", "iou_present", "area")
QUICK = ("--labels", "2", "--draws", "2", "--epochs", "2", "--rival-epochs", "1", "--set", "width=8", "--device", "cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache, textdiff_once) -> SimpleNamespace:
    """The table of five systems, one of them on a second cache of the same images."""
    root = tmp_path_factory.mktemp("table1")
    places = ("--cache", str(cache.path), "--filters", str(cache.path))
    rows = ("--models", "full,unet,unet-fair,pixel-mlp", "--jobs", "1")
    result = textdiff_once(root, "table1", *places, *rows, *QUICK)
    return SimpleNamespace(root=root, path=root / "runs/table1-tiny", result=result, again=("table1", *places, *rows))


def records(path: Path) -> list[dict[str, str]]:
    with (path / "table1.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_system_is_a_row_with_its_costs_and_two_differences(made):
    found = [row for row in records(made.path) if (row["truth"], row["metric"]) == ("clean", "dice")]
    names = list(dict.fromkeys(row["row"] for row in found))
    assert names == ["full", "unet", "unet-fair", "pixel-mlp", "filters + trees"]
    assert {row["against"] for row in found} == {"full", "filters + trees"}
    for row in found:
        assert (int(row["runs"]), int(row["labels"])) == (2, 2)
        assert (row["difference"] == "") == (row["row"] == row["against"])
        assert row["trained"].replace(",", "") == str(parameters(made, row["row"]))
    for line in ("system", "filters + trees", "95% intervals", "trained: parameters that are trained"):
        assert line in made.result.stdout


def parameters(made: SimpleNamespace, row: str) -> int:
    place = made.path.with_name("table1-tiny-filters") if row.startswith("filters") else made.path
    name = f"{row.removeprefix('filters + ')}-d0-s0"
    return json.loads((place / name / "config.json").read_text(encoding="utf-8"))["parameters"]


def test_every_system_sees_the_same_images_of_each_draw(made):
    for draw in (0, 1):
        runs = [*made.path.glob(f"*-d{draw}-s*"), *made.path.with_name("table1-tiny-filters").glob(f"*-d{draw}-s*")]
        drawn = [json.loads((run / "config.json").read_text(encoding="utf-8"))["train_ids"] for run in runs]
        assert len(drawn) == 5
        assert all(ids == drawn[0] for ids in drawn)


def test_it_goes_on_where_it_was_stopped_and_gives_the_same_table(made, textdiff_once):
    before = {name: (made.path / name).read_bytes() for name in ("table1.md", "table1.csv", "table1.tex")}
    (made.path / "unet-d1-s100/images-test.json").unlink()
    textdiff_once(made.root, *made.again, *QUICK, "--table-only")
    assert "INCOMPLETE: 1 of 8 jobs" in (made.path / "table1.md").read_text(encoding="utf-8")
    textdiff_once(made.root, *made.again, *QUICK)
    assert {name: (made.path / name).read_bytes() for name in before} == before
    assert (made.path / "table1.png").stat().st_size > 0


def test_long_recipes_are_cut_only_when_asked_and_the_table_says_so(cache, tmp_path):
    options = Table1(cache.path, labels=2, draws=1, models=["transunet", "unet"], runs=tmp_path)
    epochs = {job.point["method"]: job.config.epochs for job in table1_plan(options, cache, options.models).jobs}
    assert epochs == {"transunet": None, "unet": None}
    cut = Table1(cache.path, labels=2, draws=1, models=["transunet", "unet"], max_steps=40, runs=tmp_path)
    plan = table1_plan(cut, cache, cut.models)
    assert {job.point["method"]: job.config.epochs for job in plan.jobs} == {"transunet": 40, "unet": None}
    outcome = table1_table({"": plan_experiment(tmp_path / "table1-cut", plan, cache, 1)}, "clean")
    assert "CUT SHORT, in steps: transunet 40 of 13,950" in outcome.text


def test_an_epoch_of_a_cache_of_tiles_has_a_step_for_each_batch_of_tiles(tmp_path):
    places = [(f"train {image}", y) for image in range(3) for y in range(20)]
    rows = [
        Row(name, "train", 0, -1, f"{name}.png", "a" * 64, "b" * 64, 640, 32, tile=32, y=32 * y) for name, y in places
    ]
    tiled = SimpleNamespace(rows=rows, done=lambda: [True] * len(rows), path=tmp_path, sparse=False, mask=None)
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
    record = {"schema": 2, "split": "test", "classes": ["foreground"], "views": 1, "ids": list(facts)}
    (job,) = experiment.plan.jobs
    begin(job.config, lambda _: experiment.run(job).path)
    write_json(experiment.scores_file(job), record | {"facts": facts, "scores": scores})
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


def test_rows_scored_on_the_same_images_in_another_order_are_no_pairs():
    images = [{name: [name, name] for name in names} for names in ("ab", "ba")]
    first, second = (Result({}, images=own, runs={(0, 0): {}}) for own in images)
    with pytest.raises(UserError, match="second and first: scored on other images"):
        check_scored([("first", first), ("second", second)])
