"""``compare``: several experiments in one table, paired by draw and seed, or refused."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.experiments.experiment import open_experiment
from textdiff.pipeline.runs import Run, write_config
from textdiff.tests import experiment_cases as cases
from textdiff.tests.run_cases import one_line


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, textdiff_once) -> Path:
    """``full`` of ``ablated`` once more, with one seed, on a cache of its own; no test changes it."""
    root = tmp_path_factory.mktemp("elsewhere")
    options = [*cases.ablate_options("full"), "--seeds", "1"]
    return cases.ablate(root, cases.make_cache(root / "other.zarr"), options, textdiff_once)


def test_compare_pairs_runs_of_the_same_draw_and_seed_across_caches(ablated, elsewhere, tmp_path, textdiff_once):
    against = ["--against", "full@ablate-tiny", "--against", "shuffled-text@ablate-tiny"]
    result = textdiff_once(tmp_path, "compare", str(ablated), str(elsewhere), *against, "--out", "tables/both.v1")
    with (tmp_path / "tables/both.v1.csv").open(newline="") as file:
        found = {
            (line["experiment"], line["method"], line["against"], line["truth"], line["metric"]): line
            for line in csv.DictReader(file)
        }
    # The same weights on the same activations: nothing but pairs that are none could make a difference.
    again = found["ablate-other", "full", "full@ablate-tiny", "clean", "dice"]
    assert (float(again["difference"]), again["verdict"], again["runs"]) == (0, "no difference seen", "2")
    # Within one experiment it says what the experiment's own table says.
    with (ablated / "ablate.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if line["method"] == "shuffled-text":
                key = "ablate-tiny", "shuffled-text", "full@ablate-tiny", line["truth"], line["metric"]
                assert {name: found[key][name] for name in line} == line
    assert found["ablate-tiny", "full", "full@ablate-tiny", "clean", "dice"]["difference"] == ""
    # What a frozen backbone costs stands beside what it brings.
    nbytes = open_experiment(elsewhere).open_cache().row_nbytes
    assert again["row_bytes"] == str(nbytes)
    assert f"{nbytes / 1e6:.3g}  {again['seconds']}" in re.sub("  +", "  ", result.stdout)
    assert "ablate-other  full" in result.stdout
    assert "over the draws and seeds that both rows have" in result.stdout
    files = {path.name.removeprefix("both.v1") for path in (tmp_path / "tables").iterdir()}
    assert files == {".md", ".tex", ".csv", ".json", ".png", ".pdf"}
    textdiff_once(tmp_path, "compare", str(ablated), str(elsewhere), *against, "--out", "tables/both.v1")
    printed = textdiff_once(tmp_path, "compare", str(ablated), str(elsewhere), "--variants", "full", "--json").stdout
    rows = json.loads(printed)["rows"]
    assert {(row["experiment"], row["method"], row["against"]) for row in rows} == {
        (place, "full", "full@ablate-tiny") for place in ("ablate-tiny", "ablate-other")
    }


def test_compare_takes_single_fits_and_pairs_them_with_those_of_an_experiment(ablated, cache, tmp_path, textdiff_once):
    fits = [*cases.FITS, "--labels", "2"]
    fits[fits.index("--set") : fits.index("--set") + 2] = ["--width", "8"]
    runs = []
    for draw in (0, 1):
        seeds = ("--draw-seed", str(draw), "--seed", str(100 * draw), "--runs", f"runs{draw}")
        textdiff_once(tmp_path, "fit", "--cache", str(cache.path), *fits, *seeds)
        runs += [str(path) for path in (tmp_path / f"runs{draw}").iterdir() if path.name != "latest"]
    printed = textdiff_once(tmp_path, "compare", str(ablated), *runs, "--variants", "full", "--json").stdout
    rows = {row["experiment"]: row for row in json.loads(printed)["rows"] if row["metric"] == "dice"}
    # Threads may differ from the experiment's, and with them the last digits; pairs of other images would be far off.
    assert (rows["fit-tiny"]["runs"], rows["fit-tiny"]["verdict"]) == (2, "no difference seen")
    assert abs(rows["fit-tiny"]["difference"]) < 0.01


def test_single_fits_that_differ_in_an_option_are_rows_of_their_own_and_the_same_fit_twice_is_refused(
    cache, tmp_path, textdiff_once
):
    fit = ("fit", "--cache", str(cache.path), "--labels", "2", "--variant", "no-text", "--device", "cpu")
    runs = {}
    for name, options in {
        "fair": ("--recipe", "fair", "--epochs", "2"),
        "4": ("--width", "4", "--recipe", "default", "--epochs", "1"),
        "8": ("--width", "8", "--recipe", "default", "--epochs", "1"),
        "more": ("--width", "8", "--recipe", "default", "--epochs", "1", "--draw-seed", "1", "--seed", "100"),
        "again": ("--width", "8", "--recipe", "default", "--epochs", "1"),
    }.items():
        runs[name] = textdiff_once(tmp_path, *fit, *options, "--runs", f"runs-{name}").stdout.strip()
    again = runs.pop("again")
    printed = textdiff_once(tmp_path, "compare", *runs.values(), "--json").stdout
    rows = [row for row in json.loads(printed)["rows"] if (row["truth"], row["metric"]) == ("clean", "dice")]
    assert {row["method"]: row["runs"] for row in rows} == {
        "no-text-recipe=fair-width=none": 1,
        "no-text-recipe=default-width=4": 1,
        "no-text-recipe=default-width=8": 2,
    }
    scores = {
        name: json.loads((tmp_path / run / "images-test.json").read_text())["scores"] for name, run in runs.items()
    }
    means = {name: float(np.mean(found["dice_clean"])) for name, found in scores.items()}
    assert [row["mean"] for row in rows] == pytest.approx(
        [means["fair"], means["4"], (means["8"] + means["more"]) / 2], abs=1e-12
    )
    against = ("--against", "no-text-recipe=default-width=4@fit-tiny", "--json")
    printed = textdiff_once(tmp_path, "compare", *runs.values(), *against).stdout
    found = {
        row["method"]: row["difference"]
        for row in json.loads(printed)["rows"]
        if (row["truth"], row["metric"]) == ("clean", "dice")
    }
    assert found["no-text-recipe=default-width=8"] == pytest.approx(means["8"] - means["4"], abs=1e-12)
    refused = one_line(textdiff_once(tmp_path, "compare", runs["8"], again, runs["4"], status=2).stderr)
    assert "the same fit as" in refused
    assert Path(again).name in refused


def test_compare_says_where_the_cache_of_an_experiment_has_changed_since(ablated, elsewhere, tmp_path, textdiff_once):
    place = shutil.copytree(ablated, tmp_path / "ablate-then")
    file = place / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"table_hash": "0" * 64}))
    printed = textdiff_once(tmp_path, "compare", str(place), str(elsewhere), "--json").stdout
    said = [note for note in json.loads(printed)["notes"] if "have changed since it was begun" in note]
    assert [note.split(":")[0] for note in said] == ["ablate-then"]


def test_compare_takes_differences_within_each_of_several_data_sets(ablated, elsewhere, tmp_path, textdiff_once):
    place = shutil.copytree(ablated, tmp_path / "ablate-qata")
    file = place / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dataset": "qata"}))
    printed = textdiff_once(tmp_path, "compare", str(ablated), str(place), "--json").stdout
    rows = {
        (row["dataset"], row["method"]): row["difference"]
        for row in json.loads(printed)["rows"]
        if (row["truth"], row["metric"]) == ("clean", "dice")
    }
    assert list(rows) == [(name, row) for name in ("made-up", "qata") for row in ("full", "shuffled-text")]
    assert rows["made-up", "full"] is rows["qata", "full"] is None
    assert rows["made-up", "shuffled-text"] == rows["qata", "shuffled-text"] is not None
    assert "data set" in textdiff_once(tmp_path, "compare", str(ablated), str(place)).stdout


def test_two_folders_of_ones_own_are_two_data_sets_and_have_the_folders_names(tmp_path, textdiff_once):
    for size, name in enumerate(("monuseg", "livers.v2"), start=4):
        for folder in ("images/train", "images/test", "masks"):
            (tmp_path / name / folder).mkdir(parents=True)
        for image, split in (("a", "train"), ("b", "test")):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[size:20, 4:20] = 255
            Image.fromarray(pixels).save(tmp_path / name / "masks" / f"{image}.png")
            Image.fromarray(pixels // 2 + size).save(tmp_path / name / "images" / split / f"{image}.png")
        textdiff_once(
            tmp_path,
            *("extract", "--dataset", "folder", "--data", name, "--cache", f"{name}.zarr", "--preset", "rgb"),
            *("--text-encoder", "none", "--image-size", "32"),
        )
        fit = ("fit", "--cache", f"{name}.zarr", "--variant", "no-text", "--epochs", "1", "--runs", f"runs-{name}")
        textdiff_once(tmp_path, *fit)
    runs = [
        next(path for path in (tmp_path / f"runs-{name}").iterdir() if path.name != "latest")
        for name in ("monuseg", "livers.v2")
    ]
    shown = textdiff_once(tmp_path, "compare", *map(str, runs)).stdout
    # The folder that is called as a layout is not taken for it.
    named = [line.split("  ")[0] for line in shown.splitlines() if " no-text " in line]
    assert named == ["monuseg (folder)", "livers.v2"]
    few = ("--labels", "1", "--draws", "1", "--seeds", "1", "--epochs", "1", "--no-unet", "--variants", "no-text")
    assert "published" not in textdiff_once(tmp_path, "ablate", "--cache", "monuseg.zarr", *few).stdout
    # The same images in another folder, of which the training image has strokes in place of its mask.
    shutil.copytree(tmp_path / "livers.v2", tmp_path / "strokes")
    whole = np.asarray(Image.open(tmp_path / "strokes/masks/a.png"))
    painted = np.where(np.arange(32)[:, None] < 12, whole, 128).astype(np.uint8)
    Image.fromarray(painted).save(tmp_path / "strokes/masks/a.png")
    data = ("--dataset", "folder", "--data", "strokes", "--unlabelled-value", "128", "--cache", "strokes.zarr")
    textdiff_once(tmp_path, "extract", *data, "--preset", "rgb", "--text-encoder", "none", "--image-size", "32")
    fit = ("fit", "--cache", "strokes.zarr", "--variant", "no-text", "--epochs", "1", "--runs", "runs-strokes")
    strokes = textdiff_once(tmp_path, *fit).stdout.strip()
    rows = json.loads(textdiff_once(tmp_path, "compare", str(runs[1]), strokes, "--json").stdout)["rows"]
    assert {row["dataset"] for row in rows} == {"livers.v2"}
    assert any(row["experiment"] == "fit-strokes-1" and row["difference"] is not None for row in rows)
    textdiff_once(tmp_path, "score", "--run", str(runs[1]))
    assert "* data set livers.v2, backbone rgb" in (runs[1] / "report.md").read_text()


def test_folders_that_are_called_alike_are_told_apart_by_their_caches(ablated, cache, tmp_path, textdiff_once):
    """The scored images of a copy are made others; all of them, and then all but one."""
    place = shutil.copytree(ablated, tmp_path / "ablate-other")
    file = place / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cache": str(tmp_path / "other.zarr")}))
    for changed, status in ((4, 0), (3, 2)):
        for path in place.glob("*/images-test.json"):
            own = json.loads((ablated / path.relative_to(place)).read_text())
            for name in sorted(own["ids"])[:changed]:
                own["facts"][name][0] = f"another {name}"
            path.write_text(json.dumps(own))
        result = textdiff_once(tmp_path, "compare", str(ablated), str(place), "--json", status=status)
        if status:
            assert "make both caches of the same data set, with the same splits" in result.stderr
            continue
        rows = [row for row in json.loads(result.stdout)["rows"] if (row["truth"], row["metric"]) == ("clean", "dice")]
        names = [f"made-up ({os.path.relpath(cache.path, tmp_path)})", "made-up (other.zarr)"]
        assert [row["dataset"] for row in rows] == [names[0], names[0], names[1], names[1]]
        # The differences are within each.
        assert [row["difference"] is None for row in rows] == [True, False, True, False]


def test_rows_of_one_experiment_are_compared_with_each_other(ablated, textdiff_once):
    """As ``ablate`` does with the full method; here against whichever row is asked for."""
    printed = textdiff_once(ablated, "compare", str(ablated), "--against", "shuffled-text@ablate-tiny", "--json").stdout
    there = json.loads((ablated / "ablate.json").read_text())["rows"]
    (own,) = (row["difference"] for row in json.loads(printed)["rows"] if _dice(row, "full"))
    (known,) = (row["difference"] for row in there if _dice(row, "shuffled-text"))
    assert own == pytest.approx(-known)


def _dice(row: dict, method: str) -> bool:
    return (row["method"], row["truth"], row["metric"]) == (method, "clean", "dice")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{here}", "--variants", "full"], "compare: full@ablate-tiny is the only row; name another experiment"),
        (["{here}", "{here}"], "name no directory twice"),
        (["{here}", "nowhere"], "nowhere: no such directory of an experiment"),
        (["{here}", "{there}", "--against", "full"], "--against full: not among the rows, which are full@ablate-tiny"),
        (["{here}", "{there}", "--variants", "concat"], "--variants concat: no row"),
        (["{here}", "{there}", "--truth", "mine"], "--truth mine: must be one of clean"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(ablated, elsewhere, tmp_path, textdiff_once, options, message):
    given = [option.format(here=ablated, there=elsewhere) for option in options]
    assert message in textdiff_once(tmp_path, "compare", *given, status=2).stderr


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        ("experiment.json", "kind", "sweep", "made by sweep; compare takes ablate, curve, table1"),
        ("experiment.json", "split", "val", "of another split, val and test"),
        ("full-d1-s100/config.json", "train_ids", ["train 0", "train 4"], "draw 1 of 2 is of other images"),
    ],
)
def test_runs_that_are_no_pairs_are_refused(ablated, elsewhere, tmp_path, textdiff_once, file, name, value, message):
    place = shutil.copytree(elsewhere, tmp_path / "ablate-other")
    for path in place.glob(file):
        if path.name == "config.json":
            write_config(Run(path.parent), Run(path.parent).config | {name: value})
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert message in textdiff_once(tmp_path, "compare", str(ablated), str(place), status=2).stderr


def test_a_comparison_says_which_predictions_are_means_over_views(ablated, elsewhere, tmp_path, textdiff_once):
    place = shutil.copytree(elsewhere, tmp_path / "ablate-other")
    for path in place.glob("*/images-test.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"views": 8}))
    said = textdiff_once(tmp_path, "compare", str(ablated), str(place)).stdout
    assert "ablate-other: Each prediction is the mean over 8 views." in said
    assert "ablate-tiny: Each" not in said


def test_a_difference_is_over_patients_where_one_of_the_two_knows_them(ablated, tmp_path, textdiff_once):
    known = shutil.copytree(ablated, tmp_path / "ablate-known")
    for path in known.glob("*/images-test.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"groups": [*"ppqq"]}))
    against = [word for place in ("known", "tiny") for word in ("--against", f"full@ablate-{place}")]
    said = textdiff_once(tmp_path, "compare", str(ablated), str(known), *against, "--out", "both").stdout
    assert "Not all rows know alike whose the images are (their group)" in said
    found = {
        (row["experiment"], row["against"]): (row["difference_low"], row["difference_high"])
        for row in json.loads((tmp_path / "both.json").read_text())["rows"]
        if (row["method"], row["truth"], row["metric"]) == ("shuffled-text", "clean", "dice")
    }
    by_images = found.pop(("ablate-tiny", "full@ablate-tiny"))
    assert len(found) == 3
    assert len(set(found.values())) == 1
    assert by_images not in found.values()


@pytest.mark.parametrize(
    ("file", "entry", "message"),
    [
        ("full-d0-s0/config.json", "images", "draw 0 of 2 is of other images or masks"),
        ("*/images-test.json", "facts", "scored on other images or masks, so that they are no pairs; make both caches"),
    ],
)
def test_masks_that_changed_between_the_experiments_are_told_by_their_digests(
    ablated, elsewhere, tmp_path, textdiff_once, file, entry, message
):
    place = shutil.copytree(elsewhere, tmp_path / "ablate-other")
    for path in place.glob(file):
        record = json.loads(path.read_text())
        record[entry] = {name: [facts[0], "another mask", *facts[2:]] for name, facts in record[entry].items()}
        if path.name == "config.json":
            write_config(Run(path.parent), {name: value for name, value in record.items() if name != "sha256"})
        else:
            path.write_text(json.dumps(record))
    assert message in textdiff_once(tmp_path, "compare", str(ablated), str(place), status=2).stderr
