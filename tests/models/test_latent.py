"""Latent diffusion models, against diffusers itself, and through the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.load import load_backbone, resolve_backbone

CPU = torch.device("cpu")
WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}
slow = pytest.mark.slow  # diffusers alone takes seconds to load


def make_pipeline(**other: object):
    """Stable Diffusion with a few channels and random weights: an autoencoder of 1/4, three levels of the UNet."""
    import diffusers as d
    import transformers as hf

    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
    unet = d.UNet2DConditionModel(
        block_out_channels=(8, 16, 24), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
        norm_num_groups=4, sample_size=8, **{"in_channels": 4, **blocks, **other},
    )  # fmt: skip
    vae = d.AutoencoderKL(
        block_out_channels=(4, 4, 8), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=2, latent_channels=4, scaling_factor=0.2,
    )  # fmt: skip
    text = hf.CLIPTextModel(
        hf.CLIPTextConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=4,
            max_position_embeddings=7, bos_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip
    tokenizer = hf.CLIPTokenizer(vocab=dict(WORDS), merges=[], model_max_length=7)
    schedule = d.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return d.StableDiffusionPipeline(vae, text, tokenizer, unet, schedule, None, None, requires_safety_checker=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of such a pipeline, as diffusers saves it, and the pipeline."""
    pipeline = make_pipeline()
    folder = tmp_path_factory.mktemp("sd") / "tiny"
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    return folder, pipeline


@slow
@pytest.mark.parametrize(("size", "seen"), [(48, 48), (50, 64)])
def test_levels_are_the_up_blocks_of_diffusers(saved, size, seen):
    folder, pipeline = saved
    backbone = load_backbone(resolve_backbone(f"sd:{folder}"), size, CPU, seed=3)
    image, other = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, size, size), dtype=np.uint8))
    images, steps = torch.stack([image, image, other]), torch.tensor([50, 999, 50])
    levels = backbone.levels(size)
    found = backbone.features(images, steps, [""] * 3, levels)
    assert {level: grid.shape[1:] for level, grid in found.items()} == levels
    assert [shape[0] for shape in levels.values()] == [3, 24, 16, 8]
    assert torch.equal(found[0], images / 127.5 - 1)

    prompt = pipeline.encode_prompt("", CPU, 1, do_classifier_free_guidance=False)[0]
    made = []
    hooks = [block.register_forward_hook(lambda *given: made.append(given[-1])) for block in pipeline.unet.up_blocks]
    noise = torch.randn(1, 4, seen // 4, seen // 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        x = F.interpolate(images / 127.5 - 1, (seen, seen), mode="bilinear")
        z = 0.2 * pipeline.vae.encode(x).latent_dist.mode()
        z = torch.cat(
            [pipeline.scheduler.add_noise(one[None], noise, t[None]) for one, t in zip(z, steps, strict=True)]
        )
        pipeline.unet(z, steps, prompt.expand(3, -1, -1))
    for hook in hooks:
        hook.remove()
    for level, expected in enumerate(made, 1):
        assert expected.std() > 0.01
        torch.testing.assert_close(found[level], expected, rtol=0, atol=2e-5)


@slow
def test_extract_fit_and_score_go_through_it(tmp_path, make_lvit, saved, textdiff_once):
    make_lvit(n_train=3, n_val=0, n_test=2)
    command = ["extract", "--dataset", "monuseg", "--data", "data", "--image-size", "48", "--text-encoder", "none"]
    command += ["--backbone", f"sd:{saved[0]}", "--steps", "50,250", "--device", "cpu"]
    said = textdiff_once(tmp_path, *command).stderr
    assert "its licence is creativeml-openrail-m" in said
    cache = FeatureCache.open(tmp_path / "cache/monuseg.zarr")
    assert (cache.steps, [*cache.blocks]) == ((50, 250), [0, 1, 2, 3])
    assert cache.fingerprint["noise_seed"] == 0
    fit = ["fit", "--cache", "cache/monuseg.zarr", "--variant", "no-text", "--epochs", "15", "--device", "cpu"]
    textdiff_once(tmp_path, *fit, "--batch-size", "1")
    textdiff_once(tmp_path, "score")
    assert textdiff.open_run(tmp_path / "runs/latest").scores()["scores"]["clean"]["dice"]["mean"] > 0.7
    refused = textdiff_once(tmp_path, *command, "--steps", "1000", status=2).stderr
    assert "--steps" in refused


@slow
@pytest.mark.parametrize(
    ("other", "words"),
    [({"in_channels": 9}, ("inpainting", "SDXL")), ({"num_class_embeds": 5}, ("more than an image",))],
)
def test_a_pipeline_that_needs_more_is_refused_in_one_line(tmp_path, other, words):
    pipeline = make_pipeline(**other)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(UserError) as refused:
        load_backbone(resolve_backbone(f"sd:{tmp_path}"), 48, CPU)
    for word in (f"sd:{tmp_path}", *words):
        assert word in str(refused.value)


@slow
def test_a_damaged_part_is_refused_in_one_line(tmp_path):
    make_pipeline().save_pretrained(tmp_path)
    weights = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="vae cannot be loaded") as refused:
        load_backbone(resolve_backbone(f"sd:{tmp_path}"), 48, CPU)
    assert "\n" not in str(refused.value)


PARTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")


def write_names(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["config.json"], ("no model_index.json", "--backbone hub:")),
        (["model_index.json"], ("no unet/diffusion_pytorch_model.safetensors",)),
        (
            ["model_index.json", "unet/diffusion_pytorch_model.bin"],
            ("no unet/diffusion_pytorch_model.safetensors, only unet/diffusion_pytorch_model.bin",),
        ),
        (
            ["model_index.json", *(f"{part}.safetensors" for part in PARTS)],
            ("no scheduler/scheduler_config.json", "Stable Diffusion 1 or 2"),
        ),
    ],
)
def test_a_pipeline_that_lacks_files_is_refused_in_one_line(tmp_path, files, words):
    write_names(tmp_path, *files)
    with pytest.raises(UserError) as refused:
        resolve_backbone(f"sd:{tmp_path}")
    assert "\n" not in str(refused.value)
    for word in (f"sd:{tmp_path}", *words):
        assert word in str(refused.value)


def test_without_diffusers_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "textdiff\[diffusion\]"'):
        resolve_backbone(f"sd:{tmp_path}")
