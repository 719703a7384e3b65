"""Pretraining that is killed, stopped or shared between processes has the weights of one that is not."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from textdiff.errors import UserError
from textdiff.models.backbones.unet import UNet
from textdiff.pipeline.pretrain import pretrain
from textdiff.pipeline.pretraining.config import unet_arguments
from textdiff.tests.pretrain_cases import assert_same_bits, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def process(config, **options):
    """``pretrain`` in a process of its own, with one thread as the uninterrupted run has."""
    code = (
        "import json, sys, torch; torch.set_num_threads(1)\n"
        "from textdiff.options.pretrain import Pretrain\n"
        "from textdiff.pipeline.pretrain import pretrain\n"
        "pretrain(Pretrain(**json.loads(sys.argv[1])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(dataclasses.asdict(config), default=str)],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_sigkilled_and_resumed_run_has_the_weights_of_an_uninterrupted_one(config, tmp_path):
    config = dataclasses.replace(config, save_minutes=0.0, steps=10, precision="bfloat16")
    whole = pretrain(dataclasses.replace(config, out=str(tmp_path / "whole.safetensors")))
    killed = process(config)
    resume_file = tmp_path / "run" / "net.resume.pt"
    while killed.poll() is None and not resume_file.exists():
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    at = torch.load(resume_file, weights_only=True)["step"]
    assert 0 < at < 10
    assert not (tmp_path / "run" / "net.safetensors").exists()
    resumed = pretrain(config)
    assert_same_bits(weights(whole), weights(resumed))


def test_sigterm_saves_the_step_under_way_and_stops(config, tmp_path):
    stopped = process(dataclasses.replace(config, steps=1_000_000, save_minutes=100, eval_every=10**6))
    for line in stopped.stderr:
        if line.startswith("pretraining:"):
            break
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=60)
    assert "stopping after this step" in said
    assert "KeyboardInterrupt" in said
    assert torch.load(tmp_path / "run" / "net.resume.pt", weights_only=True)["step"] > 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["net.resume.pt"]


def test_more_steps_continue_a_finished_run_as_if_they_had_been_asked_for_at_once(config, tmp_path):
    whole = pretrain(dataclasses.replace(config, out=str(tmp_path / "whole.safetensors")))
    pretrain(dataclasses.replace(config, steps=4))
    resumed = pretrain(dataclasses.replace(config, workers=1, eval_every=2))
    assert_same_bits(weights(whole), weights(resumed))


def test_masked_pretraining_resumes_to_the_same_bits(config, tmp_path):
    config = dataclasses.replace(config, objective="masked", steps=4, samples=2)
    whole = pretrain(dataclasses.replace(config, out=str(tmp_path / "whole.safetensors"), keep=(7,)))
    half = pretrain(dataclasses.replace(config, steps=2))
    assert_same_bits(weights(tmp_path / "whole-7.safetensors"), weights(half))  # after the eighth crop
    assert_same_bits(weights(whole), weights(pretrain(config)))
    Image.open(tmp_path / "whole.samples.png").load()
    with pytest.raises(UserError, match="other options: objective was masked, is noise; repeat"):
        pretrain(dataclasses.replace(config, objective="noise", steps=5))


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-5}, {"t_max": 400, "seed": 3}])
def test_resuming_with_other_options_is_refused_and_names_them(config, changes):
    pretrain(dataclasses.replace(config, steps=1))
    with pytest.raises(UserError, match="other options") as error:
        pretrain(dataclasses.replace(config, **changes))
    for name in changes:
        assert f"{name} was" in str(error.value)
    assert "batch" not in str(error.value)


def test_an_option_that_was_not_given_is_called_none(config, tmp_path):
    start = pretrain(dataclasses.replace(config, steps=1, out=str(tmp_path / "start.safetensors")))
    pretrain(dataclasses.replace(config, steps=1))
    with pytest.raises(UserError, match=r"init was none, is .*start\.safetensors"):
        pretrain(dataclasses.replace(config, init=str(start), set={}))


def test_resuming_with_other_images_is_refused(config, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{i}.png")
    config = dataclasses.replace(config, data=folder, steps=1)
    pretrain(config)
    (folder / "2.png").unlink()
    with pytest.raises(UserError, match="the images differ"):
        pretrain(config)


def test_finished_weights_are_never_overwritten_by_a_new_run(config, tmp_path):
    pretrain(dataclasses.replace(config, steps=1))
    (tmp_path / "run" / "net.resume.pt").unlink()
    with pytest.raises(UserError, match="exists"):
        pretrain(config)


def test_damaged_resume_file_is_an_error_that_says_so(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "net.resume.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"net.resume.pt: damaged"):
        pretrain(config)


def test_time_limit_finishes_with_a_result_and_counts_anew_when_resumed(config, tmp_path):
    config = dataclasses.replace(config, steps=1_000_000, time_limit=0.3, eval_every=10**6)
    steps = []
    for _ in range(2):
        start = time.monotonic()
        out = pretrain(config)
        assert time.monotonic() - start < 30
        steps.append(torch.load(tmp_path / "run" / "net.resume.pt", weights_only=True)["step"])
        assert out.exists()
    assert 0 < steps[0] < steps[1] < 1_000_000


def test_two_processes_train_the_same_weights_as_one_and_write_once(config, tmp_path):
    config = dataclasses.replace(config, steps=3, warmup=0, learning_rate=1e-3)
    alone = pretrain(dataclasses.replace(config, out=str(tmp_path / "alone.safetensors")))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [process(config, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    said = [one.communicate(timeout=120)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert "wrote" in said[0]
    assert "wrote" not in said[1]
    # The optimiser divides by the gradient's size, so that rounding shows where a gradient is nearly 0.
    apart, moved = 0.0, 0.0
    torch.manual_seed(config.seed)
    start = UNet(**unet_arguments(config)).state_dict()
    ours = weights(config.out)
    for name, tensor in weights(alone).items():
        apart += float((ours[name] - tensor).square().sum())
        moved += float((start[name] - tensor).square().sum())
    assert apart < 1e-4 * moved
