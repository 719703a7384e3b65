"""Experiments: tables of made-up scores, and real ones on a tiny cache that are killed, resumed and counted."""

import csv
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from textdiff.cache import FeatureCache, Loader
from textdiff.errors import UserError
from textdiff.experiments import draws_figure, job_runner, sweep
from textdiff.experiments.ablate import ablation_table
from textdiff.experiments.experiment import Plan, make_job, open_experiment, plan_experiment
from textdiff.experiments.panel import choose
from textdiff.experiments.result_tables import Table
from textdiff.experiments.results import Result, gather
from textdiff.pipeline.fit import FitConfig, begin, fit, initial_network
from textdiff.pipeline.runs import Run, write_config
from textdiff.pipeline.training import trainer
from textdiff.pipeline.training.same_weights import trained_alike
from textdiff.pipeline.training.train import train_many
from textdiff.tables import latex

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "experiment_cases.py")))
FITS = ("--epochs", "2", "--learning-rate", "1e-3", "--batch-size", "2", "--set", "width=8", "--device", "cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FeatureCache:
    """No test changes it."""
    return cases.make_cache(tmp_path_factory.mktemp("cache") / "tiny.zarr")


@pytest.fixture
def fake(tmp_path, cache):
    return cases.fake_experiment(tmp_path / "ablate-fake", cache)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory, cache, textdiff_once) -> Path:
    """An experiment of two variants, two draws, two seeds, in one process of one thread."""
    root = tmp_path_factory.mktemp("ablated")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    textdiff_once(root, "ablate", "--cache", str(cache.path), *ablate_options(), "--jobs", "1")
    torch.set_num_threads(threads)
    return root / "runs/ablate-tiny"


def ablate_options(variants: str = "full,shuffled-text") -> list[str]:
    return ["--labels", "2", "--draws", "2", "--seeds", "2", "--variants", variants, "--no-unet", *FITS]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "head.safetensors")


def assert_equal_runs(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# Tables


def test_table_shows_paired_differences_and_says_where_none_was_seen(fake):
    outcome = ablation_table(fake, "clean", "full")
    lines = outcome.text.splitlines()
    without, noise = (next(line for line in lines if line.startswith(name)) for name in ("no-text", "a_b&c"))
    assert "−5.00 [−5.00, −5.00]" in without
    assert without.rstrip().endswith("lower")
    assert noise.rstrip().endswith("no difference seen")
    assert "3 draws are few" in outcome.text
    assert "INCOMPLETE" not in outcome.text


def test_csv_and_json_hold_the_numbers_of_the_table(fake):
    outcome = ablation_table(fake, "clean", "full")
    rows = list(csv.DictReader((fake.path / "ablate.csv").open()))
    assert len(rows) == 3 * 3 * 4  # methods, truths, metrics
    row = next(r for r in rows if (r["method"], r["truth"], r["metric"]) == ("no-text", "paper", "iou"))
    assert float(row["difference"]) == pytest.approx(-0.05)
    assert row["verdict"] == "lower"
    saved = json.loads((fake.path / "ablate.json").read_text())
    assert saved == outcome.summary
    means = [
        np.mean(json.loads((fake.path / f"full-d{draw}-s{seed}/images-test.json").read_text())["scores"]["dice_clean"])
        for draw in range(3)
        for seed in range(2)
    ]
    assert saved["rows"][0]["mean"] == pytest.approx(np.mean(means))


def test_the_figure_has_a_dot_for_each_draw_at_its_mean(fake, monkeypatch):
    drawn = []
    save = draws_figure.save_figure
    monkeypatch.setattr(draws_figure, "save_figure", lambda figure, stem: drawn.append(figure) or save(figure, stem))
    (fake.path / "no-text-d0-s0/images-test.json").unlink()
    for file in fake.path.glob("a_b&c-*/images-test.json"):
        file.unlink()
    files = ablation_table(fake, "paper", "full").files
    assert {"ablate.png", "ablate.pdf"} <= {path.name for path in files if path.stat().st_size}
    (ax,) = drawn[0].axes
    dots = [points.get_offsets()[:, 1] for points in ax.collections if hasattr(points, "get_sizes")]
    result = {result.point["method"]: result for result in gather(fake)}
    for number, method in enumerate(("full", "no-text")):
        by_draw = [
            100 * np.mean([result[method].runs[key]["dice_paper"] for key in result[method].runs if key[0] == draw])
            for draw in range(3)
        ]
        np.testing.assert_allclose(dots[number], by_draw)
    assert len(dots[2]) == 0
    assert [label.get_text() for label in ax.get_xticklabels()] == ["full", "no-text", "a_b&c"]


def test_table_of_what_has_finished_says_how_many_are_missing(fake):
    for name in ("full-d2-s0", "full-d2-s1", "no-text-d0-s0"):
        (fake.path / name / "images-test.json").unlink()
    outcome = ablation_table(fake, "clean", "full")
    assert "INCOMPLETE: 3 of 18 jobs are missing" in outcome.text
    assert sorted(outcome.summary["missing"]) == ["full-d2-s0", "full-d2-s1", "no-text-d0-s0"]
    # Pairs only: the draw that full lacks takes no part in the difference.
    assert "−5.00 [−5.00, −5.00]" in outcome.text
    assert "4 of 6" in outcome.text


def test_a_row_without_any_run_is_empty(fake):
    for file in fake.path.glob("a_b&c-*/images-test.json"):
        file.unlink()
    line = next(line for line in ablation_table(fake, "clean", "full").text.splitlines() if line.startswith("a_b&c"))
    assert line.split() == ["a_b&c", "2", "0", "of", "6"]


@pytest.mark.parametrize("other", [{"ids": list("fedcba")}, {"facts": {name: list("abcd") for name in "abcdef"}}])
def test_scores_of_other_images_or_masks_are_refused(fake, other):
    file = fake.path / "full-d1-s0/images-test.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | other))
    with pytest.raises(UserError, match="not scored on the images and masks of the other runs"):
        ablation_table(fake, "clean", "full")


def test_images_without_any_foreground_are_counted_and_have_a_mean_beside_them(fake):
    for file in fake.path.glob("*/images-test.json"):
        record = json.loads(file.read_text())
        scores = {name: [1.0, 1.0, *values[2:]] for name, values in record["scores"].items()}
        scores |= {name: [0, 0, 9, 9, 9, 9] for name in scores if name.startswith("area")}
        scores |= {name: [None, None, *scores[name][2:]] for name in scores if "present" in name}
        file.write_text(json.dumps(record | {"scores": scores}))
    outcome = ablation_table(fake, "clean", "full")
    rows = {row["metric"]: row for row in outcome.summary["rows"] if (row["method"], row["truth"]) == ("full", "clean")}
    assert (rows["dice"]["images"], rows["dice_present"]["images"]) == (6, 4)
    assert rows["dice"]["mean"] == pytest.approx((2 + 4 * rows["dice_present"]["mean"]) / 6)
    assert "Dice % where present" in outcome.text
    assert "foreground is in 4 of 6 images" in outcome.text


def test_latex_escapes_what_means_something_to_it(fake):
    assert latex("a_b & 5% of $1 #2 {x} ~^\\ −1") == (
        r"a\_b \& 5\% of \$1 \#2 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} $-$1"
    )
    ablation_table(fake, "clean", "full")
    lines = (fake.path / "ablate.tex").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith(r"a\_b\&c"))
    assert row.count(" & ") == 6
    assert row.endswith(r"\\")


def test_markdown_keeps_a_bar_within_its_cell():
    table = Table(("name", "value"), [("a|b", "1")], ["a note"])
    assert table.markdown().splitlines() == ["| name | value |", "| :-- | :-- |", "| a\\|b | 1 |", "", "* a note"]


# Fits side by side


@pytest.mark.parametrize("resident", ["auto", "never"])
def test_side_by_side_each_fit_is_the_one_it_is_alone(cache, tmp_path, resident):
    base = FitConfig(cache=cache.path, labels=3, epochs=2, learning_rate=1e-3, width=8, seed=5, draw_seed=1)
    configs = {
        "full": base,
        "shuffled": replace(base, variant="shuffled-text"),
        "concat": replace(base, variant="concat", batch_size=2),
        "one level": replace(base, blocks=(8,), steps=(150,)),
        "short": replace(base, variant="no-text", epochs=1),
    }
    runs = [begin(config, lambda _, name=name: tmp_path / name) for name, config in configs.items()]
    loader = Loader(cache, "cpu", resident=resident)
    train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"), loader)
    for name, config in configs.items():
        alone = fit(config, tmp_path / f"alone {name}")
        assert_equal_runs(alone, tmp_path / name)
        logs = [[line.split(",")[:4] for line in (p / "log.csv").open()] for p in (alone, tmp_path / name)]
        assert logs[0] == logs[1]


def test_side_by_side_reads_a_row_once_for_all(cache, tmp_path, monkeypatch):
    read, stored = [], FeatureCache.stored
    monkeypatch.setattr(FeatureCache, "stored", lambda self, row, *a: read.append(row) or stored(self, row, *a))
    base = FitConfig(cache=cache.path, epochs=2, width=8, validate_every=1)
    runs = [
        begin(replace(base, variant=name), lambda _, name=name: tmp_path / name)
        for name in ("full", "no-text", "concat")
    ]
    pairs = [(run, initial_network(run)) for run in runs]
    read.clear()  # of the training images before the first step, each run by itself
    train_many(pairs, cache, torch.device("cpu"), Loader(cache, "cpu", resident="never"))
    assert len(read) == 2 * 6 * len(cases.BLOCKS)  # epochs, images: as many as one fit alone


def test_networks_that_see_other_images_cannot_be_side_by_side(cache, tmp_path):
    runs = [
        begin(FitConfig(cache=cache.path, seed=seed, width=8), lambda _, seed=seed: tmp_path / str(seed))
        for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match="the same seed"):
        train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"))


def test_one_that_diverges_does_not_stop_the_others(cache, tmp_path):
    base = FitConfig(cache=cache.path, labels=2, epochs=3, width=8)
    runs = [begin(base, lambda _: tmp_path / "good"), begin(base, lambda _: tmp_path / "bad")]
    pairs = [(run, initial_network(run)) for run in runs]
    with torch.no_grad():
        pairs[1][1].conv1.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"bad: the loss is nan in epoch 1"):
        train_many(pairs, cache, torch.device("cpu"))
    assert runs[0].finished
    assert not runs[1].finished


def test_stopped_side_by_side_they_resume_to_the_same_weights(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", float("inf"))
    base = FitConfig(cache=cache.path, labels=3, epochs=4, learning_rate=1e-3, width=8)
    names = ("full", "constant-text")

    def trained(root: Path, stop: int | None) -> None:
        runs = [Run(root / name) for name in names]
        for run in runs:
            if not run.path.exists():
                begin(replace(base, variant=run.path.name), lambda _, run=run: run.path)
        close, closed = trainer.Trainer.close_epoch, []

        def closing(self, seconds):
            close(self, seconds)
            closed.append(self)
            if len(closed) == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "close_epoch", closing)
            train_many([(run, initial_network(run)) for run in runs], cache, torch.device("cpu"))

    trained(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", 5)  # one of the two has closed its third epoch, the other has not
    trained(tmp_path / "cut", None)
    for name in names:
        assert_equal_runs(tmp_path / "whole" / name, tmp_path / "cut" / name)


# Commands


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


def test_a_worker_in_the_background_ends_with_its_parent_in_the_middle_of_a_group(cache, tmp_path):
    threads = (os.cpu_count() or 1) + 1
    job = make_job("long", {}, "long", FitConfig(cache.path, labels=2, epochs=100_000, width=8, device="cpu"))
    experiment = plan_experiment(tmp_path / "long", Plan("ablate", {}, "test", [job]), cache, threads)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does, and the worker inherits it
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "textdiff.experiments.pool_worker", str(experiment.path), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        process.stdin.write(b"long\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not (experiment.run(job).path / "log.csv").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.communicate(timeout=60)  # closes standard input, as the parent's end does
        assert process.returncode == 130
        # Also where the experiment was begun with more threads than there are cores here.
        assert f"{threads} threads" in experiment.run(job).config["device"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("becomes", ["raise RuntimeError('unexpected pos 64 vs 0')", "return 0", "return 2", "pass"])
@pytest.mark.parametrize("way", ["its parent ends", "a signal"])
def test_a_worker_asked_to_stop_says_so_whatever_becomes_of_the_interruption(way, becomes):
    code = f"""
import time
from textdiff.experiments import pool_worker
from textdiff.pipeline import worker_process
worker_process.GRACE = 0.2
def serve(commands, busy):
    print(commands.get(), flush=True)
    try: time.sleep(60)
    except BaseException: {becomes}
    time.sleep(60 if {way == "its parent ends"} else 0)
pool_worker._serve = serve
pool_worker.main()"""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    process.stdin.write("group\n")
    process.stdin.flush()
    assert process.stdout.readline() == "group\n"
    if way == "a signal":
        process.terminate()
        assert process.wait(timeout=60) == 130
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said


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
    assert "INCOMPLETE: 1 of 2 jobs are missing" in result.stdout


def test_sweep_reads_each_block_once_for_all_heads(cache, tmp_path, monkeypatch, textdiff_once):
    read, stored = [], FeatureCache.stored

    def counted(self, row, block, *more):
        read.append((row, block))
        return stored(self, row, block, *more)

    monkeypatch.setattr(FeatureCache, "stored", counted)
    options = ["--labels", "5", "--seeds", "2", *FITS, "--jobs", "1"]
    result = textdiff_once(tmp_path, "sweep", "--cache", str(cache.path), *options)
    once = [(row, block) for row in range(len(cache.rows)) for block in cases.BLOCKS]
    # Training images are read for what they look like too, a step of a block once for all heads.
    again = Counter(read) - Counter(once)
    assert set(read) == set(once)
    assert {cache.rows[row].split for row, _ in again} <= {"train"}
    assert max(again.values(), default=0) <= len(cases.STEPS)
    place = tmp_path / "runs/sweep-tiny"
    assert len(list(place.glob("*/head.safetensors"))) == 2 * 2 * 2 * 2  # blocks, steps, text or not, seeds
    config = Run(place / "b08-t150-no-text-d0-s0").config
    assert (config["fit"]["blocks"], config["fit"]["steps"], config["head"]["dims"]) == ([8], [150], [4])
    assert len([line for line in result.stdout.splitlines() if line.startswith(("6 ", "8 "))]) == 4
    with Image.open(place / "sweep.png") as picture:
        assert picture.width > 500


@pytest.mark.slow
def test_sweep_together_says_what_fewer_blocks_and_steps_cost(cache, tmp_path, textdiff_once):
    options = ["--labels", "5", "--steps", "50,150", "--together", *FITS, "--jobs", "1"]
    printed = textdiff_once(tmp_path, "sweep", "--cache", str(cache.path), *options).stdout
    summary = json.loads((tmp_path / "runs/sweep-tiny/sweep.json").read_text())
    rows = [row for row in summary["rows"] if (row["truth"], row["metric"]) == ("clean", "dice") and row["text"]]
    found = {(row["block"], row["step"]): row for row in rows}
    assert set(found) == {(block, step) for block in (*cases.BLOCKS, None) for step in (50, 150, None)}
    nbytes = {key: row["row_bytes"] for key, row in found.items()}
    assert nbytes[8, None] == nbytes[8, 50] + nbytes[8, 150]
    assert nbytes[None, None] == sum(nbytes[block, None] for block in cases.BLOCKS)
    # The images are the same, so the mean of the differences is the difference of the means.
    cost = 100 * (found[8, 150]["mean"] - found[None, None]["mean"])
    (line,) = [line for line in printed.splitlines() if line.split()[:2] == ["8", "150"]]
    assert f"{cost:+.2f} [".replace("-", "−") in line
    assert summary["notes"][0] in printed
    assert summary["notes"][0].startswith(("Fewest bytes", "Every selection"))


@pytest.mark.parametrize(
    ("costs", "named"),
    [
        ({(6, 50): -0.2, (6, None): -0.1, (8, 50): 0.0, (None, 50): 0.1}, "--blocks 8 --steps 50, 2 of 9 MB"),
        ({(6, 50): 0.0, (8, 50): 0.1}, "--blocks 6 --steps 50, 1 of 9 MB"),
        ({(6, 50): -0.2, (None, 50): 0.0}, "extract --steps 50, 4 of 9 MB"),
        ({(6, 50): -0.2, (8, 50): -0.3}, "Every selection"),
    ],
)
def test_sweep_names_the_fewest_bytes_that_were_not_seen_to_lose(costs, named):
    def result(block, step, cost):
        nbytes = {(6, 50): 1, (8, 50): 2, (6, None): 3, (None, 50): 4, (None, None): 9}[block, step] * 10**6
        point = {"block": block, "step": step, "text": True, "row_bytes": nbytes}
        images = 0.5 + cost + np.array([0.01, -0.01, 0.02, 0.0]) * (block is not None)
        return Result(point, 1, runs={(0, 0): {"dice_clean": images}})

    whole = result(None, None, 0.0)
    line = sweep._fewest([whole, *(result(*key, cost) for key, cost in costs.items())], {True: whole}, "dice_clean")
    assert named in line[0]


def test_curve_has_one_draw_where_all_images_are_drawn(cache, tmp_path, textdiff_once):
    options = ["--labels", "2,5", "--draws", "2", "--variants", "no-text", *FITS, "--jobs", "1"]
    result = textdiff_once(tmp_path, "curve", "--cache", str(cache.path), *options)
    names = sorted(path.name for path in (tmp_path / "runs/curve-tiny").iterdir() if path.is_dir())
    assert names == ["no-text-n2-d0-s0", "no-text-n2-d1-s100", "no-text-n5-d0-s0"]
    assert (tmp_path / "runs/curve-tiny/curve.pdf").read_bytes().startswith(b"%PDF")
    assert "no-text" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ablate", "--variants", "ful"], "--variants ful: must be one of full"),
        (["ablate", "--labels", "9"], "--labels 9: the cache has 5"),
        (["ablate", "--against", "concat", "--variants", "full"], "--against concat: not among the rows"),
        (["ablate", "--set", "widht=8"], "--set widht: is no option that may be set (did you mean width?)"),
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


def test_the_same_weights_used_in_two_ways_are_trained_once(cache, tmp_path, textdiff_once):
    options = ["--labels", "2", "--draws", "1", "--seeds", "1", "--no-unet", "--rival-epochs", "2", "--jobs", "1"]
    command = ["ablate", "--cache", str(cache.path), *options, "--set", "width=8", "--device", "cpu"]
    textdiff_once(tmp_path, *command, "--variants", "unet")
    result = textdiff_once(tmp_path, *command, "--variants", "unet,unet-fair,unet-instance-norm")
    assert "unet-fair-d0-s0: trained like unet-d0-s0, so it has its weights" in result.stderr
    place = tmp_path / "runs/ablate-tiny"
    jobs = {job.name: job for job in open_experiment(place).plan.jobs}
    own = Run(place / "unet-fair-d0-s0")
    assert own.config["weights_of"] == "unet-d0-s0"
    assert own.label == "unet-fair"
    assert "weights_of" not in Run(place / "unet-instance-norm-d0-s0").config
    assert_equal_runs(fit(jobs[own.path.name].config, tmp_path / "alone"), own.path)
    assert [line.keys() for line in own.log()] == [{"epoch", "lr", "loss", "seconds"}] * 2
    scores = {json.loads((place / name / "images-test.json").read_text())["scores"]["dice_clean"][0] for name in jobs}
    assert len(scores) == 3


@pytest.mark.parametrize(
    "changed", [{"select": "best"}, {"epochs": 4}, {"seed": 1, "draw_seed": 0}, {"recipe": "instance-norm"}]
)
def test_runs_that_are_trained_otherwise_do_not_share_weights(cache, tmp_path, changed):
    config = FitConfig(cache=cache.path, model="unet", labels=2, epochs=3, recipe="fair", device="cpu")
    plain = begin(replace(config, recipe="default"), lambda _: tmp_path / "plain")
    assert trained_alike(begin(config, lambda _: tmp_path / "own"), [plain]) is plain
    assert trained_alike(begin(replace(config, **changed), lambda _: tmp_path / "other"), [plain]) is None
    if "select" in changed:
        both = begin(replace(config, recipe="default", **changed), lambda _: tmp_path / "plain-best")
        assert trained_alike(Run(tmp_path / "other"), [both]) is None


# Several experiments in one table


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, textdiff_once) -> Path:
    """``full`` of ``ablated`` once more, with one seed, on a cache of its own; no test changes it."""
    root = tmp_path_factory.mktemp("elsewhere")
    other = cases.make_cache(root / "other.zarr")
    options = [*ablate_options("full"), "--seeds", "1", "--jobs", "1"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    textdiff_once(root, "ablate", "--cache", str(other.path), *options)
    torch.set_num_threads(threads)
    return root / "runs/ablate-other"


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
    assert f"{nbytes / 1e6:.1f}  {again['seconds']}" in re.sub("  +", "  ", result.stdout)
    assert "ablate-other  full" in result.stdout
    assert "over the draws and seeds that both rows have" in result.stdout
    files = {path.name.removeprefix("both.v1") for path in (tmp_path / "tables").iterdir()}
    assert files == {".md", ".tex", ".csv", ".json", ".png", ".pdf"}
    printed = textdiff_once(tmp_path, "compare", str(ablated), str(elsewhere), "--variants", "full", "--json").stdout
    rows = json.loads(printed)["rows"]
    assert {(row["experiment"], row["method"], row["against"]) for row in rows} == {
        (place, "full", "full@ablate-tiny") for place in ("ablate-tiny", "ablate-other")
    }


def test_compare_takes_single_fits_and_pairs_them_with_those_of_an_experiment(ablated, cache, tmp_path, textdiff_once):
    fits = [*FITS, "--labels", "2"]
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{here}"], "name at least two directories"),
        (["{here}", "{here}"], "none twice"),
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


@pytest.mark.parametrize(
    ("file", "entry", "message"),
    [
        ("full-d0-s0/config.json", "images", "draw 0 of 2 is of other images or masks"),
        ("*/images-test.json", "facts", "scored on other images or masks; not to be compared"),
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


# The panel


def test_images_are_chosen_by_rank_or_by_disagreement():
    scores = np.array([[0.5, 0.9, 0.1, 0.7, 0.3], [0.5, 0.2, 0.1, 0.6, 0.9]])
    assert [choice.image for choice in choose(scores, "extremes", 3)] == [1, 0, 2]
    assert [choice.reason.split()[0] for choice in choose(scores, "extremes", 3)] == ["best", "median", "worst"]
    assert [choice.image for choice in choose(scores, "disagreement", 2)] == [1, 4]
    assert sorted(choice.image for choice in choose(scores, "extremes", 6)) == list(range(5))
    assert [choice.reason.split()[0] for choice in choose(scores[:, :2], "extremes", 3)] == ["best", "worst"]
    assert [choice.image for choice in choose(scores[:, :1], "extremes", 3)] == [0]


@pytest.fixture(scope="module")
def unet(cache, tmp_path_factory) -> Path:
    config = FitConfig(cache=cache.path, model="unet", width=8, labels=2, epochs=1, device="cpu")
    return fit(config, tmp_path_factory.mktemp("unet"))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_panel_draws_heads_and_the_unet_together(ablated, unet, tmp_path, textdiff_once, suffix):
    runs = [str(ablated / name) for name in ("full-d0-s0", "shuffled-text-d0-s0")] + [str(unet)]
    textdiff_once(tmp_path, "panel", *runs, "--out", f"panel{suffix}", "--images", "2")
    first = (tmp_path / f"panel{suffix}").read_bytes()
    textdiff_once(tmp_path, "panel", *runs, "--out", f"panel{suffix}", "--images", "2")
    assert (tmp_path / f"panel{suffix}").read_bytes() == first
