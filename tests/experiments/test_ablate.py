"""``ablate``: its runs are normal ones, and killed, resumed or grown it has them all once."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from textdiff.experiments import job_runner
from textdiff.experiments.experiment import open_experiment
from textdiff.pipeline.fit import fit
from textdiff.tests.experiment_cases import FITS, ablate, ablate_options, assert_equal_runs
from textdiff.tests.run_cases import one_line


def test_ablate_makes_normal_runs_of_every_method_on_the_same_draws(ablated, textdiff_once):
    experiment = open_experiment(ablated)
    assert [job.name for job in experiment.plan.jobs] == [
        f"{method}-d{draw}-s{100 * draw + seed}"
        for seed in (0, 1)
        for draw in (0, 1)
        for method in ("full", "shuffled-text")
    ]
    configs = {job.name: experiment.run(job).config for job in experiment.plan.jobs}
    for draw in (0, 1):
        ids = [config["train_ids"] for name, config in configs.items() if f"-d{draw}-" in name]
        assert ids[0] == ids[1] == ids[2] == ids[3]
    assert configs["full-d0-s0"]["train_ids"] != configs["full-d1-s100"]["train_ids"]
    assert configs["full-d0-s0"]["fit"]["width"] == 8
    textdiff_once(ablated.parent.parent, "score", "--run", str(ablated / "full-d0-s0"))
    with (ablated / "full-d0-s0/scores.csv").open() as file:
        scored = [float(row["dice_paper"]) for row in csv.DictReader(file)]
    ours = json.loads((ablated / "full-d0-s0/images-test.json").read_text())["scores"]["dice_paper"]
    assert ours == pytest.approx(scored, abs=1e-6)


def test_done_jobs_are_not_done_again(ablated, cache, textdiff_once):
    before = {file: file.stat().st_mtime_ns for file in ablated.glob("*-d*/*")}
    table = (ablated / "ablate.md").read_bytes()
    result = textdiff_once(ablated.parent.parent, "ablate", "--cache", str(cache.path), *ablate_options())
    assert "all 8 jobs are done" in result.stderr
    assert before == {file: file.stat().st_mtime_ns for file in ablated.glob("*-d*/*")}
    assert (ablated / "ablate.md").read_bytes() == table


def test_a_u_net_that_is_named_is_still_one_row(cache, tmp_path, textdiff_once):
    options = ("--variants", "unet-fair", "--labels", "2", "--draws", "1", "--seeds", "1", "--rival-epochs", "1")
    textdiff_once(tmp_path, "ablate", "--cache", str(cache.path), *options, "--jobs", "1", "--device", "cpu")
    jobs = open_experiment(tmp_path / "runs/ablate-tiny").plan.jobs
    assert [job.name for job in jobs] == ["unet-fair-d0-s0", "unet-d0-s0"]


def test_rows_are_called_by_what_was_fitted_also_where_all_fits_share_the_option(cache, tmp_path, textdiff_once):
    shared = [*ablate_options("full,no-text"), "--set", "places=true"]
    path = ablate(tmp_path, cache, shared, textdiff_once)
    assert json.loads((path / "full-d0-s0/config.json").read_text())["fit"]["places"]
    assert {row["method"] for row in json.loads((path / "ablate.json").read_text())["rows"]} == {
        "full-places",
        "no-text",
    }
    for suffix in (".md", ".tex", ".csv"):
        text = (path / f"ablate{suffix}").read_text()
        assert "full-places" in text
        assert not re.search(r"\bfull(?!-places)\b", text)
    # The list of jobs is as older versions wrote it, and goes on; what was called by the shorter name is found by it.
    jobs = {job["point"]["method"] for job in json.loads((path / "experiment.json").read_text())["jobs"]}
    assert jobs == {"full", "no-text"}
    place = f"ablate-{cache.path.stem}"
    for name in ("full", "full-places"):
        said = textdiff_once(tmp_path, "compare", str(path), "--against", f"{name}@{place}")
        assert f"Dice against full-places@{place}" in said.stdout


def test_scores_of_an_earlier_version_are_made_anew_by_the_same_command(ablated, cache, tmp_path, textdiff_once):
    place = shutil.copytree(ablated, tmp_path / "runs/ablate-tiny")
    scored = {file: file.read_bytes() for file in place.glob("*-d*/images-test.json")}
    fitted = {file: file.stat().st_mtime_ns for file in place.glob("*-d*/head.safetensors")}
    for file in list(scored)[:7]:
        record = {name: value for name, value in json.loads(file.read_text()).items() if name != "groups"}
        file.write_text(json.dumps(record | {"schema": 2}, indent=2))
    refused = one_line(textdiff_once(tmp_path, "compare", str(place), status=2).stderr)
    assert "7 of 8 runs were scored by an earlier version of TextDiff; repeat its command, textdiff ablate" in refused
    options = ["--cache", str(cache.path), *ablate_options()]
    only = textdiff_once(tmp_path, "ablate", *options, "--table-only").stdout
    assert "INCOMPLETE: 7 of 8 jobs are missing; the same command does them." in only
    said = textdiff_once(tmp_path, "ablate", *options, "--jobs", "1")
    assert "INCOMPLETE" not in said.stdout
    assert {file: file.read_bytes() for file in scored} == scored
    assert {file: file.stat().st_mtime_ns for file in fitted} == fitted


def test_other_options_are_refused_with_what_differs(ablated, cache, textdiff_once):
    changed = ["--draws", "3", "--epochs", "5"]
    result = textdiff_once(
        ablated.parent.parent, "ablate", "--cache", str(cache.path), *ablate_options(), *changed, status=2
    )
    assert "draws: 2 before, now 3" in result.stderr
    assert "epochs: 2 before, now 5" in result.stderr
    assert "--name" in result.stderr


def test_an_experiment_grows_and_keeps_what_it_has(ablated, cache, tmp_path, textdiff_once):
    place = shutil.copytree(ablated, tmp_path / "runs/ablate-tiny")
    before = {file: file.read_bytes() for file in place.glob("*-d*/*")}
    options = [*ablate_options("full,no-text,shuffled-text"), "--jobs", "1"]
    more = ["--draws", "3", "--seeds", "1"]
    # Fewer seeds than before: their runs would be left out of the table without a word.
    refused = textdiff_once(tmp_path, "ablate", "--cache", str(cache.path), *options, *more, status=2)
    assert "seeds: 2 before, now 1" in refused.stderr
    more[3] = "2"
    only = textdiff_once(tmp_path, "ablate", "--cache", str(cache.path), *options, *more, "--table-only", status=2)
    assert "draws: 2 before, now 3" in only.stderr
    result = textdiff_once(tmp_path, "ablate", "--cache", str(cache.path), *options, *more)
    assert "10 jobs more than the 8 it had" in result.stderr
    assert {file: file.read_bytes() for file in before} == before
    assert len(list(place.glob("*-d*/images-test.json"))) == 18
    # A fit that came later is the one that it would have been beside the others.
    (late,) = (job for job in open_experiment(place).plan.jobs if job.name == "no-text-d1-s101")
    assert_equal_runs(fit(late.config, tmp_path / "alone"), place / late.name)


def test_killed_half_way_and_run_again_it_gives_the_same_table(ablated, cache, tmp_path, textdiff_once):
    command = ["ablate", "--cache", str(cache.path), *ablate_options(), "--jobs", "2"]
    # Each of the two processes gets half of the threads: one, as the experiment it is compared with had. More would
    # need twice as many cores: PyTorch takes no more threads than those from the environment.
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "textdiff.cli", *command], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    place = tmp_path / "runs/ablate-tiny"
    deadline = time.monotonic() + 300
    while not list(place.glob("*/images-test.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its processes end with it, or they would go on beside the next ones.
    while left := [path for path in Path("/proc").glob("[0-9]*") if place.name in _command(path, tmp_path)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    done = {file: file.stat().st_mtime_ns for file in place.glob("*/head.safetensors")}
    assert 0 < len(list(place.glob("*/images-test.json"))) < 8
    assert open_experiment(place).threads == open_experiment(ablated).threads == 1
    textdiff_once(tmp_path, *command[:-2], "--jobs", "1")
    assert {file: file.stat().st_mtime_ns for file in done} == done
    for job in open_experiment(ablated).plan.jobs:
        assert_equal_runs(ablated / job.name, place / job.name)
    for name in ("ablate.md", "ablate.csv", "ablate.tex", "ablate.json"):
        assert (place / name).read_text() == (ablated / name).read_text()


def _command(process: Path, directory: Path) -> str:
    """The arguments of a process that works in ``directory``; empty for others."""
    try:
        return (process / "cmdline").read_text() if (process / "cwd").resolve() == directory.resolve() else ""
    except OSError:
        return ""


def test_a_failed_job_is_named_and_the_others_are_done(cache, tmp_path, monkeypatch, textdiff_once):
    real = job_runner.initial_network

    def broken(run):
        network = real(run)
        if "no-text" in run.path.name:
            with torch.no_grad():
                network.conv1.weight.fill_(float("nan"))
        return network

    monkeypatch.setattr(job_runner, "initial_network", broken)
    options = ["--labels", "2", "--draws", "1", "--seeds", "1", "--variants", "full,no-text", "--no-unet", *FITS]
    result = textdiff_once(tmp_path, "ablate", "--cache", str(cache.path), *options, "--jobs", "1", status=2)
    assert "no-text-d0-s0: the loss is nan" in result.stderr
    assert "INCOMPLETE: 1 of 2 jobs is missing; the same command does it" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ablate", "--variants", "ful"], "names (did you mean full?)"),
        (["ablate", "--labels", "9"], "--labels 9: the cache has 5"),
        (["ablate", "--against", "concat", "--variants", "full"], "--against concat: not among the rows"),
        (["ablate", "--set", "widht=8"], "--set widht: is no option that may be set (did you mean width?)"),
        (
            ["ablate", "--set", "unlabelled=mean-teacher"],
            "--unlabelled mean-teacher: takes a network that reads images",
        ),
        (["ablate", "--truth", "mine"], "--truth mine: must be one of clean"),
        (["ablate", "--draws", "0"], "--draws 0: must be at least 1"),
        (["ablate", "--split", "dev"], "--split dev: must be one of train"),
        (["ablate", "--table-only"], "no experiment.json"),
        (["curve", "--labels", "5,2"], "ascending"),
        (["sweep", "--blocks", "7"], "--blocks 7: name some of those"),
    ],
)
def test_bad_options_are_one_clear_line(cache, tmp_path, textdiff_once, options, message):
    result = textdiff_once(tmp_path, *options, "--cache", str(cache.path), "--device", "cpu", status=2)
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == 1
