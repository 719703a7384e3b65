"""Networks of images from the hub, against transformers itself, and through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.hub import Hub
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.tests.hub_server import COMMIT, in_a_process, serving

MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
CPU = torch.device("cpu")
PLAIN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DINO = {key: value for key, value in PLAIN.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
STAGES = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 1, 1, 1]}
SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "image_size": 64}
# The configuration, the tokens before those of patches, the side that 50 pixels become, and the sides of the grids.
KINDS: dict[str, tuple[Callable[[], hf.PreTrainedConfig], int, int, list[int]]] = {
    "dinov2": (lambda: hf.Dinov2Config(**DINO, patch_size=14, image_size=42), 1, 56, [4, 4]),
    "registers": (
        lambda: hf.Dinov2WithRegistersConfig(**DINO, patch_size=14, image_size=42, num_register_tokens=3),
        4,
        56,
        [4, 4],
    ),
    "dinov3": (lambda: hf.DINOv3ViTConfig(**PLAIN, patch_size=16, image_size=64, num_register_tokens=2), 3, 64, [4, 4]),
    "vit": (lambda: hf.ViTConfig(**PLAIN, patch_size=16, image_size=32), 1, 64, [4, 4]),
    "swin": (lambda: hf.SwinConfig(**SWIN, window_size=4), 0, 64, [16, 8, 4, 2]),
    "convnext": (lambda: hf.ConvNextConfig(**STAGES), 0, 64, [16, 8, 4, 2]),
    "convnextv2": (lambda: hf.ConvNextV2Config(**STAGES), 0, 64, [16, 8, 4, 2]),
    "resnet": (lambda: hf.ResNetConfig(**STAGES, embedding_size=8), 0, 64, [16, 8, 4, 2]),
    "clip": (lambda: hf.CLIPVisionConfig(**PLAIN, patch_size=16, image_size=32), 1, 64, [4, 4]),
    "siglip": (lambda: hf.SiglipVisionConfig(**PLAIN, patch_size=14, image_size=42), 0, 56, [4, 4]),
}
SLOW = ("clip", "resnet", "siglip")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], tuple[Path, hf.PreTrainedModel]]:
    """A model of each kind with random weights, as the library saves it, with a card; and itself."""
    made: dict[str, tuple[Path, hf.PreTrainedModel]] = {}

    def save(kind: str) -> tuple[Path, hf.PreTrainedModel]:
        if kind not in made:
            torch.manual_seed(0)
            model = hf.AutoModel.from_config(KINDS[kind][0]()).eval()
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)  # norms and scales that are not 1
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            said = {"image_mean": MEAN, "image_std": DEVIATION, "do_normalize": True}
            (folder / "preprocessor_config.json").write_text(json.dumps(said))
            (folder / "README.md").write_text("---\nlicense: other\nlicense_name: a-lab\n---\nA model.\n")
            made[kind] = folder, model
        return made[kind]

    return save


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    """A directory with a ViT that may be damaged."""
    return Path(shutil.copytree(saved("vit")[0], tmp_path / "a@model"))


def opened(directory: Path, size: int = 50) -> Hub:
    return load_backbone(resolve_backbone(f"hub:{directory}"), size, CPU)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def test_levels_are_the_hidden_states_of_the_library(saved, kind):
    folder, model = saved(kind)
    _, special, side, grids = KINDS[kind]
    backbone = opened(folder)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 50, 50), dtype=np.uint8))
    found = backbone.features(images, torch.zeros(2), ["", ""], backbone.levels(50))
    assert {level: grid.shape[1:] for level, grid in found.items()} == backbone.levels(50)
    assert torch.equal(found[0], images.float() / 127.5 - 1)

    resized = F.interpolate(images / 255, (side, side), mode="bilinear")
    x = (resized - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    several = {} if kind not in ("vit", "clip", "siglip") else {"interpolate_pos_encoding": True}
    if kind == "swin":  # the library's own class for maps of it, before its norms
        maps = hf.SwinBackbone(model.config).eval()
        maps.swin.load_state_dict(model.state_dict())
        with torch.no_grad():
            # Its windows are padded, and its maps are those before patches are merged.
            expected = [*maps(x, output_hidden_states=True).hidden_states[1:]]
    else:
        with torch.no_grad():
            made = model(x, output_hidden_states=True, **several)
        expected = [*made.hidden_states[1:]]
        if special or kind == "siglip":
            norm = getattr(model, "norm", getattr(model, "layernorm", torch.nn.Identity()))
            expected = [*map(norm, expected[:-1]), made.last_hidden_state]
            expected = [state[:, special:].mT.reshape(2, 16, side // 14 if side == 56 else 4, -1) for state in expected]
    assert [state.shape[-1] for state in expected] == grids
    for level, state in enumerate(expected, 1):
        assert state.std() > 0.01
        torch.testing.assert_close(found[level], state, rtol=0, atol=2e-5, msg=f"{kind} {level}")


def test_of_many_layers_alike_four_are_kept_and_all_on_demand(tmp_path, saved, make_lvit, textdiff_once):
    deep = hf.ViTModel(hf.ViTConfig(**PLAIN | {"num_hidden_layers": 6}, patch_size=16, image_size=32))
    deep.save_pretrained(tmp_path / "deep")
    shutil.copy(saved("vit")[0] / "preprocessor_config.json", tmp_path / "deep")
    make_lvit(n_train=1, n_val=0, n_test=0)
    command = ["extract", "--dataset", "monuseg", "--data", "data", "--image-size", "64", "--text-encoder", "none"]
    command += ["--backbone", "hub:deep", "--device", "cpu", "--dry-run", "--blocks", "all", "--enlarge", "2"]
    every = textdiff_once(tmp_path, *command).stderr
    assert "b00 3@64, b01 16@8, b02 16@8" in every
    assert "its licence is unknown" in every
    assert load_backbone(resolve_backbone(f"hub:{tmp_path / 'deep'}"), 64, CPU, enlarge=2).usual(64) == (0, 2, 3, 4, 6)


def test_extract_fit_score_and_predict_go_through_them(tmp_path, make_lvit, copied, textdiff_once):
    make_lvit(n_train=3, n_val=0, n_test=2)
    command = [
        "extract",
        "--dataset",
        "monuseg",
        "--data",
        "data",
        "--backbone",
        "hub:a@model",
        "--text-encoder",
        "none",
    ]
    said = textdiff_once(tmp_path, *command, "--image-size", "50", "--device", "cpu").stderr
    assert "the backbone hub:a@model runs on cpu" in said
    assert "its licence is other (a-lab)" in said
    cache = FeatureCache.open(tmp_path / "cache/monuseg.zarr")
    assert (cache.steps, cache.blocks) == ((0,), {0: (3, 50, 50), 1: (16, 4, 4), 2: (16, 4, 4)})
    assert cache.about["backbone_licence"] == "other (a-lab)"
    # From anywhere the cache alone says where the model is.
    (tmp_path / "elsewhere").mkdir()
    again = textdiff_once(tmp_path / "elsewhere", "extract", "--cache", "../cache/monuseg.zarr", "--device", "cpu")
    assert "complete" in again.stderr
    fit = ["fit", "--cache", "cache/monuseg.zarr", "--variant", "no-text", "--epochs", "15", "--device", "cpu"]
    textdiff_once(tmp_path, *fit, "--batch-size", "1")
    textdiff_once(tmp_path, "score")
    # The pixels beside the hidden states are no measure of the network's width.
    assert json.loads((tmp_path / "runs/latest/config.json").read_text())["head"]["width"] == 16
    assert textdiff.open_run(tmp_path / "runs/latest").scores()["scores"]["clean"]["dice"]["mean"] > 0.7
    textdiff_once(tmp_path, "predict", "data/Test_Folder/img", "--out", "out", "--device", "cpu")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_weights_in_several_files_are_read(tmp_path, saved):
    folder, model = saved("vit")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    images = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    one, several = (opened(path, 32).features(images, torch.zeros(1), [""], [2])[2] for path in (folder, tmp_path))
    assert len(shards) > 2
    assert torch.equal(one, several)
    shards[-1].unlink()
    with pytest.raises(UserError, match=f"{len(shards) - 1} of the {len(shards)} files"):
        opened(tmp_path)


def test_the_digest_is_of_weights_and_normalisation(copied):
    name = f"hub:{copied}"
    before = resolve_backbone(name)
    assert before.name == name
    (copied / "README.md").write_text("another card")
    assert resolve_backbone(name).sha256 == before.sha256
    processor = copied / "preprocessor_config.json"
    processor.write_text(json.dumps({"image_mean": MEAN, "image_std": [0.5] * 3}))
    assert resolve_backbone(name).sha256 != before.sha256


def _without(file: str) -> Callable[[Path], object]:
    return lambda path: (path / file).unlink()


def _cut(path: Path) -> None:
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _config(**other: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **other}))

    return change


def _pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def _bert(path: Path) -> None:
    hf.BertModel(hf.BertConfig(**PLAIN, vocab_size=20)).save_pretrained(path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_without("model.safetensors"), ("no model.safetensors",)),
        (_pickled, ("no model.safetensors, only pytorch_model.bin", "safe_serialization")),
        (_without("config.json"), ("no config.json", "transformers")),
        (_without("preprocessor_config.json"), ("no preprocessor_config.json", "image_mean")),
        (lambda path: (path / "preprocessor_config.json").write_text("{}"), ("image_mean", "KeyError")),
        (_cut, ("cannot be loaded as a network of images",)),
        (_config(model_type="nobody-knows"), ("cannot be loaded", "nobody-knows")),
        (_config(num_hidden_layers=3), ("lacks the weights", "layers.2")),
        (_config(num_channels=1), ("images of 1 channels",)),
        (_bert, ("a bert model, which sees no images", "hub:facebook/dinov2-small")),
        (lambda path: (path / "model_index.json").write_text("{}"), ("pipeline of diffusers", "--backbone sd:")),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(copied, harm, words):
    harm(copied)
    with pytest.raises(UserError) as refused:
        opened(copied)
    said = str(refused.value)
    assert "\n" not in said
    for word in (f"hub:{copied}", *words):
        assert word in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hub:", ("names no model",)),
        ("hub:no/such/place", ("no such directory, and not an id",)),
        ("hub:nobody/nothing", ("not in the hub's cache here", "HF_HUB_OFFLINE is set; unset it", "hub:DIR")),
    ],
)
def test_a_wrong_id_is_refused_in_one_line(monkeypatch, tmp_path, make_lvit, textdiff_once, name, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_lvit(n_train=1, n_val=0, n_test=0)
    command = ("extract", "--dataset", "monuseg", "--data", "data", "--text-encoder", "none", "--backbone", name)
    said = textdiff_once(tmp_path, *command, status=2).stderr
    assert len(said.splitlines()) == 1
    for word in (name, *words):
        assert word in said


def test_a_revision_in_the_cache_of_the_hub_is_used_and_recorded(monkeypatch, tmp_path, saved):
    commit, blobs = COMMIT, tmp_path / "models--lab--vit/blobs"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = blobs.parent / "snapshots" / commit
    shutil.copytree(saved("vit")[0], place)
    weights = place / "model.safetensors"
    digest = resolve_backbone(f"hub:{place}").sha256
    blobs.mkdir()
    stored = blobs / textdiff.files.sha256_file(weights)
    weights.rename(stored)
    weights.symlink_to(stored)
    (blobs.parent / "refs").mkdir()
    (blobs.parent / "refs/main").write_text(commit)
    for name in ("hub:lab/vit", "hub:lab/vit@main", f"hub:lab/vit@{commit}"):
        found = resolve_backbone(name)
        assert (found.name, found.sha256) == (f"hub:lab/vit@{commit}", digest)
    backbone = load_backbone(found, 32, CPU)
    assert (backbone.revision, backbone.licence) == (commit, "other (a-lab)")
    with pytest.raises(UserError, match="not in the hub's cache"):
        resolve_backbone("hub:lab/vit@v2")
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        resolve_backbone("hub:lab/vit")


FIND = """
from textdiff.models.backbones.hub import Hub
for name in {names}:
    try:
        found = Hub.find(name, name.removeprefix("hub:"))
        print(found.name, found.sha256)
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_model_is_downloaded_once_then_works_offline(tmp_path, saved):
    folder = Path(shutil.copytree(saved("vit")[0], tmp_path / "published"))
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")
    names = ["hub:lab/vit", "hub:lab/vit@v2", "hub:lab/vid"]
    with serving("lab/vit", folder) as (url, sent):
        first = in_a_process(tmp_path, FIND.format(names=names), HF_ENDPOINT=url)
    found, no_revision, no_model = first.stdout.splitlines()
    assert found == f"hub:lab/vit@{COMMIT} {resolve_backbone(f'hub:{folder}').sha256}", first.stderr
    assert "lab/vit has no revision v2 on the hub" in no_revision
    assert "hub:lab/vid: no such directory or model on the hub" in no_model
    assert sorted(sent) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]

    names = ["hub:lab/vit", f"hub:lab/vit@{COMMIT}", "hub:lab/vit@v2"]
    second = in_a_process(tmp_path, FIND.format(names=names), HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    *both, absent = second.stdout.splitlines()
    assert both == [found, found], second.stderr
    assert "hub:lab/vit@v2: is not in the hub's cache here" in absent


@pytest.mark.slow
def test_a_gated_model_is_met_with_what_to_do(tmp_path, saved):
    with serving("lab/vit", saved("vit")[0], gated=True) as (url, _):
        said = in_a_process(tmp_path, FIND.format(names=["hub:lab/vit"]), HF_ENDPOINT=url).stdout
    assert "https://huggingface.co/lab/vit" in said
    assert "hf auth login" in said
    assert len(said.splitlines()) == 1
