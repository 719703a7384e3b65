"""Pretraining end to end on a tiny network: resuming, refusing, finishing, sharing between processes."""

import csv
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
from safetensors import safe_open

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet, read_checkpoint
from textdiff.models.backbones.corruption import Masks
from textdiff.models.backbones.diffusion import alphas_cumprod
from textdiff.models.backbones.fresh import fresh_unet
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.backbones.unet import UNet
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.pretrain import pretrain
from textdiff.pipeline.pretraining.config import CONFIGS, command, rate, unet_arguments

TINY = {
    "image_size": 16,
    "model_channels": 32,
    "channel_mult": [1, 1],
    "num_res_blocks": 1,
    "attention_resolutions": [2],
}


@pytest.fixture(autouse=True)
def one_thread():
    """As the processes started here have; and threads only get in each other's way at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Flat coloured discs on coloured grounds: easy to learn, different everywhere."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for i in range(12):
        picture = np.empty((48, 48, 3), np.uint8)
        picture[:] = rng.integers(150, 250, 3)
        for _ in range(5):
            cy, cx, r = rng.integers((0, 0, 4), (48, 48, 10)).tolist()
            picture[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.integers(20, 150, 3)
        Image.fromarray(picture).save(root / f"{i:02d}.png")
    return root


@pytest.fixture
def config(images, tmp_path):
    return Pretrain(
        data=images,
        out=tmp_path / "run" / "net.safetensors",
        set=TINY,
        crop=16,
        batch_size=4,
        steps=6,
        warmup=2,
        eval_every=3,
        samples=0,
        device="cpu",
        precision="float32",
        workers=2,
    )


def weights(path):
    return read_checkpoint(path)[0]


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


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
    with pytest.raises(UserError, match=r"loss was None, is hybrid; objective was masked, is noise"):
        pretrain(dataclasses.replace(config, objective="noise", steps=5))


def test_a_backbone_sees_images_as_its_checkpoint_says_it_was_trained(config, tmp_path, textdiff_once, images):
    """No noise and one step where patches were masked; and a cache tells that its images were trained on."""
    target = tmp_path / "target/images"
    for folder in ("images", "masks"):
        (tmp_path / "target" / folder).mkdir(parents=True)
    for number, name in enumerate(sorted(images.iterdir())[:4]):
        picture = np.asarray(Image.open(name))[:, ::-1]
        Image.fromarray(np.ascontiguousarray(picture)).save(target / f"{number}.png")
        Image.fromarray((picture[..., 0] > 150).astype(np.uint8) * 255).save(tmp_path / f"target/masks/{number}.png")
    (tmp_path / "target/texts.csv").write_text(
        "image,text,split\n" + "".join(f"{number}.png,,{'test' if number < 3 else 'train'}\n" for number in range(4))
    )
    seen = tmp_path / "seen"
    seen.mkdir()
    for number in (0, 1, 3):
        (seen / f"{number}.png").write_bytes((target / f"{number}.png").read_bytes())
    made = pretrain(dataclasses.replace(config, objective="masked", steps=2, target=str(seen)))
    command = ("extract", "--dataset", "folder", "--data", "target", "--text-encoder", "none", "--image-size", "32")
    said = textdiff_once(tmp_path, *command, "--backbone", str(made), "--blocks", "3", "--cache", "m.zarr").stderr
    assert "pretrained on images of its target, without labels; of these: 2 test, 1 train" in " ".join(said.split())
    cache = FeatureCache.open(tmp_path / "m.zarr")
    assert cache.steps == (50,)
    assert cache.fingerprint["unet"]["objective"] == "masked"
    assert cache.about["pretraining"] == {
        "objective": "masked",
        "crops": 8,
        "data": images.name,
        "target": {"directory": "seen", "images": 3, "seen_here": {"test": 2, "train": 1}},
    }
    image = torch.from_numpy(cache.image(0)).permute(2, 0, 1)[None] / 127.5 - 1
    t = torch.tensor([50])
    masked = Masks().apply(image, t, Masks().shared(32, 0))
    assert 0 < masked.ne(image).float().mean() < 0.1
    expected = load_unet(made).features(masked, t, [3])[3]
    np.testing.assert_allclose(cache.features(0, 3), expected, atol=2e-3)
    untrained = load_backbone(resolve_backbone(f"untrained:{made}"), 32, torch.device("cpu"))
    assert isinstance(untrained.corruption, Masks)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-5}, {"t_max": 400, "seed": 3}])
def test_resuming_with_other_options_is_refused_and_names_them(config, changes):
    pretrain(dataclasses.replace(config, steps=1))
    with pytest.raises(UserError, match="other options") as error:
        pretrain(dataclasses.replace(config, **changes))
    for name in changes:
        assert f"{name} was" in str(error.value)
    assert "batch" not in str(error.value)


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


def test_result_holds_averaged_weights_and_everything_about_the_run(config, tmp_path):
    config = dataclasses.replace(config, data_licence="CC0, by nobody", half=True, samples=2)
    out = pretrain(config)
    with safe_open(out, framework="pt") as f:
        metadata = f.metadata()
    facts = json.loads(metadata["textdiff.pretrain"])
    assert metadata["licence"] == facts["data"]["licence"] == "CC0, by nobody"
    assert facts["data"]["images"] == 12
    assert (facts["steps"], facts["samples"]) == (6, 24)
    assert set(facts["held_out_losses"]) == {"held_out_t50", "held_out_t150", "held_out_t250"}
    assert facts["options"]["batch_size"] == 4
    assert facts["torch"] == torch.__version__
    assert str(tmp_path) not in json.dumps(metadata)
    with (tmp_path / "run" / "net.log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    average = torch.load(tmp_path / "run" / "net.resume.pt", weights_only=True)["ema"]
    state = weights(out)
    assert_same_bits(state, {name: tensor.half() for name, tensor in average.items()})
    unet = load_unet(out)
    assert unet(torch.zeros(1, 3, 16, 16), torch.tensor([5])).shape == (1, 6, 16, 16)
    for name in ("net.curve.png", "net.samples.png"):
        Image.open(tmp_path / "run" / name).load()


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


def test_network_learns_from_neighbouring_pixels_to_denoise_held_out_images(config, images, tmp_path):
    config = dataclasses.replace(
        config, steps=80, eval_every=80, learning_rate=3e-3, ema=0.97, batch_size=8, modality="none"
    )
    pretrain(dataclasses.replace(config, t_max=400))
    with (tmp_path / "run" / "net.log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(images.iterdir())]) / 127.5 - 1
    for t in (50, 250):
        # The least error of a denoiser that looks at one pixel at a time, if it is linear (Wiener's).
        kept = alphas_cumprod()[t]
        alone = kept * pixels.var() / (kept * pixels.var() + 1 - kept)
        assert float(last[f"held_out_t{t}"]) < 0.5 * alone


def test_coarse_levels_learn_as_fast_as_fine_ones(config):
    # The first steps only reach the layers behind those that begin at zero.
    config = dataclasses.replace(config, set={}, crop=32, scale=(1.0, 1.0), steps=6, warmup=0, ema=0.0)
    before = fresh_unet(unet_arguments(config), config.seed).state_dict()
    after = weights(pretrain(config))
    moved = {name: (after[name] - w).abs() / config.learning_rate for name, w in before.items() if w.dim() == 4}
    assert len(moved) > 100
    # At the middle, which is one pixel here, most of a kernel sees padding.
    assert {name: steps for name, steps in moved.items() if not 0.5 < steps[steps > 0].median() < 6} == {}


def test_fresh_weights_keep_variances_and_leave_the_branches_silent():
    arguments = CONFIGS["nano"] | {"out_channels": 6}
    state = torch.random.get_rng_state()
    drawn = fresh_unet(arguments, 3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same_bits(fresh_unet(arguments, 3).state_dict(), drawn)
    silent = {name for name, weight in UNet(**arguments).state_dict().items() if not weight.any()}
    for name, weight in drawn.items():
        if weight.dim() < 2:
            continue
        assert weight.any() == (name not in silent)
        if name not in silent and weight.numel() > 4000:
            assert float(weight.square().mean()) == pytest.approx(1 / weight[0].numel(), rel=0.1)


def test_average_without_decay_is_the_last_weights(config, tmp_path):
    pretrain(dataclasses.replace(config, ema=0.0, steps=2))
    state = torch.load(tmp_path / "run" / "net.resume.pt", weights_only=True)
    assert_same_bits(state["ema"], state["unet"])


def test_short_runs_average_over_few_steps(config, tmp_path):
    pretrain(dataclasses.replace(config, ema=0.9999, steps=1))
    state = torch.load(tmp_path / "run" / "net.resume.pt", weights_only=True)
    start = fresh_unet(unet_arguments(config), config.seed).state_dict()
    for name, first in start.items():
        expected = 2 / 11 * first + 9 / 11 * state["unet"][name]
        torch.testing.assert_close(state["ema"][name], expected, atol=1e-6, rtol=1e-5)


def test_fine_tuning_starts_from_the_checkpoint_and_leaves_it_alone(config, tmp_path):
    first = pretrain(config)
    before = first.read_bytes()
    tuned = dataclasses.replace(
        config, init=str(first), set={}, learning_rate=1e-12, steps=1, out=str(tmp_path / "tuned.safetensors")
    )
    pretrain(tuned)
    assert first.read_bytes() == before
    state = weights(tmp_path / "tuned.safetensors")
    for name, tensor in weights(first).items():
        torch.testing.assert_close(state[name], tensor, atol=1e-7, rtol=0)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "huge"}, "--config huge: must be one of nano, small, adm-256"),
        ({"crop": 15}, "--crop 15: this network needs a multiple of 2"),
        ({"scale": (0.5, 2.0)}, "--scale 0.5,2"),
        ({"t_max": 0}, "--t-max 0"),
        ({"objective": "masked", "crop": 8}, "--crop 8: --objective masked needs a multiple of 8, 16 at least"),
        ({"objective": "masked", "loss": "mse"}, "--loss mse: is of --objective noise"),
        ({"target": "nowhere"}, "--target nowhere: no such directory of images"),
        ({"eval_every": 0}, "--eval-every 0"),
        ({"out": "net.pt"}, "ends in .safetensors"),
        ({"set": {"depth": 3}}, "no such option of the UNet"),
        ({"set": {**TINY, "model_channels": 31}}, "no network has these options"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"ema": 1.0}, "--ema 1.0"),
    ],
)
def test_options_without_sense_are_refused(config, changes, message):
    with pytest.raises(UserError, match=message):
        pretrain(dataclasses.replace(config, **changes))


def test_diverging_training_is_an_error_and_keeps_what_was_there(config, monkeypatch):
    from textdiff.pipeline.pretraining import objective

    monkeypatch.setattr(objective, "training_loss", lambda out, *_: out.sum(dim=(1, 2, 3)) * float("nan"))
    with pytest.raises(UserError, match="diverged: the loss at step 0 is nan"):
        pretrain(config)


def test_plain_loss_trains_a_network_without_variance(config):
    out = pretrain(dataclasses.replace(config, loss="mse", steps=2))
    assert load_unet(out).config["out_channels"] == 3


@pytest.mark.parametrize(("name", "parameters"), [("nano", 8_675_526), ("small", 34_615_686), ("adm-256", 552_814_086)])
def test_named_networks_are_the_adm_256_at_several_widths(name, parameters):
    with torch.device("meta"):
        unet = UNet(**unet_arguments(Pretrain(".", "x.safetensors", config=name)))
        real = UNet(**{**CONFIGS["adm-256"], "out_channels": 6})
    assert sum(p.numel() for p in unet.parameters()) == parameters
    assert {b: shape[1:] for b, shape in unet.block_shapes().items()} == {
        b: shape[1:] for b, shape in real.block_shapes().items()
    }


def test_learning_rate_warms_up_then_stays_or_falls_to_zero():
    config = Pretrain(".", "x.safetensors", learning_rate=1.0, warmup=10, steps=110)
    assert [rate(config, step) for step in (0, 4, 9, 10, 109)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    falling = dataclasses.replace(config, schedule="cosine")
    assert [rate(falling, step) for step in (9, 10, 60, 110)] == pytest.approx([1, 1, 0.5, 0], abs=1e-9)


def test_recorded_command_names_what_differs_from_the_defaults_without_paths(tmp_path):
    (tmp_path / "he").mkdir()
    config = Pretrain(tmp_path / "he", "/tmp/a.safetensors", set={"model_channels": 48}, scale=(0.25, 0.5), half=True)
    assert command(config) == (
        "textdiff pretrain --data he --out a.safetensors --set model_channels=48 --half --scale 0.25,0.5"
    )
