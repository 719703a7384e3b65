"""Pretraining on a tiny network: what it learns, what its file holds, what it refuses."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.checkpoints import load_unet
from textdiff.models.backbones.corruption import Masks, alphas_cumprod
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.models.backbones.unet import UNet, fresh_unet
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.pretrain import pretrain
from textdiff.pipeline.pretraining.config import CONFIGS, command, rate, unet_arguments
from textdiff.tests.pretrain_cases import TINY, assert_same_bits, weights

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert (
        "was pretrained on images of its target, without labels; of the images here it saw 2 test, 1 train"
        in " ".join(said.split())
    )
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
