"""The UNet against the reference implementation's numbers, and what it promises not to compute."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from textdiff.models.backbones.unet import UNet

ADM_256 = {
    "image_size": 256,
    "in_channels": 3,
    "model_channels": 256,
    "out_channels": 6,
    "num_res_blocks": 2,
    "attention_resolutions": [8, 16, 32],
    "channel_mult": [1, 1, 2, 2, 4, 4],
    "num_heads": 4,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}


@pytest.fixture(scope="module")
def adm_256():
    with torch.device("meta"):
        return UNet(**ADM_256)


@pytest.fixture(scope="module")
def reference(oracles, oracle_fill):
    """A function of an oracle's name: the UNet filled by the rule, its input, its steps, and the oracle."""

    def build(name):
        oracle = np.load(oracles / f"{name}.npz")
        config = json.loads(str(oracle["config"]))
        seed, steps, params = (config.pop(key) for key in ("seed", "steps", "params"))
        with torch.device("meta"):
            unet = UNet(in_channels=3, **config).eval().requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == params
        # One entry at a time: the largest model and a second copy of it would not fit beside each other.
        for key, empty in unet.state_dict().items():
            unet.load_state_dict(oracle_fill({key: empty.shape}, seed), strict=False, assign=True)
        size = (1, 3, config["image_size"], config["image_size"])
        x = torch.from_numpy(np.random.default_rng([seed, 1]).standard_normal(size, dtype=np.float32))
        return unet, x, steps, oracle

    return build


def error(ours, oracle, key):
    """Largest relative difference from the oracle's sampled values and from its mean and deviation."""
    flat = ours.flatten().double().cpu().numpy()
    values, (mean, std) = oracle[f"{key}/values"], oracle[f"{key}/meanstd"]
    sampled = flat[np.linspace(0, flat.size - 1, values.size).astype(np.int64)]
    differences = (np.abs(sampled - values).max() / np.abs(values).max(), abs(flat.mean() - mean) / std)
    return max(*differences, abs(flat.std() / std - 1))


def assert_equals_the_oracle(unet, x, steps, oracle, device, tolerance):
    unet, every = unet.to(device), range(len(unet.output_blocks))
    copies, t = x.expand(len(steps), -1, -1, -1).to(device), torch.tensor(steps, device=device)
    features = unet.features(copies, t, every)
    out = unet(copies, t)
    for i, step in enumerate(steps):
        for block in every:
            assert error(features[block][i], oracle, f"t{step}/block{block:02d}") < tolerance, (step, block)
        assert error(out[i], oracle, f"t{step}/out") < tolerance, step


@pytest.mark.parametrize("name", ["adm_mini_64", "adm_variant_32"])
def test_every_decoder_block_and_the_output_equal_the_reference(reference, name, device):
    assert_equals_the_oracle(*reference(name), device, 5e-4 if device.type == "cuda" else 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_full_size_model_equals_the_reference_on_a_gpu(reference, device):
    assert_equals_the_oracle(*reference("adm_256_uncond"), device, 5e-4)


def memory(name: str) -> int:
    """Bytes of this process, as Linux says under a name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_full_size_model_equals_the_reference_under_six_gigabytes(reference):
    unet, x, steps, oracle = reference("adm_256_uncond")
    # What other tests have left in this process does not count, nor does a peak of theirs.
    others = memory("VmRSS") - sum(p.nbytes for p in unet.parameters())
    Path("/proc/self/clear_refs").write_text("5")
    start = time.monotonic()
    features = unet.features(x.expand(3, -1, -1, -1), torch.tensor(steps), range(18))
    print(f"\nfeatures of 3 noised copies: {time.monotonic() - start:.1f} s")
    for i, step in enumerate(steps):
        for block in range(18):
            assert error(features[block][i], oracle, f"t{step}/block{block:02d}") < 1e-4, (step, block)
    del features
    out = unet(x.expand(3, -1, -1, -1), torch.tensor(steps))
    for i, step in enumerate(steps):
        assert error(out[i], oracle, f"t{step}/out") < 1e-4, step
    peak = memory("VmHWM") - others
    print(f"peak RSS without what was there: {peak / 1e9:.2f} GB")
    assert peak < 6e9


def test_names_and_shapes_are_those_of_openais_checkpoint(adm_256, oracles):
    expected = json.loads((oracles / "adm_256_uncond_state_dict_shapes.json").read_text())
    assert {name: list(entry.shape) for name, entry in adm_256.state_dict().items()} == expected
    assert sum(p.numel() for p in adm_256.parameters()) == 552_814_086


@pytest.mark.parametrize(("blocks", "share"), [((4, 6, 8, 12), 0.56), ((6, 8, 12, 16), 0.90)])
def test_features_cost_no_more_than_the_deepest_block_needs(adm_256, blocks, share):
    x, t = torch.empty(1, 3, 256, 256, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")

    def flops(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    whole = flops(lambda: adm_256(x, t))
    assert whole > 1e12
    assert flops(lambda: adm_256.features(x, t, blocks)) <= share * whole


def test_block_shapes_foretell_the_activations(adm_256):
    x, t = torch.empty(2, 3, 256, 256, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    shapes = adm_256.block_shapes()
    assert list(shapes) == list(range(18))
    with torch.no_grad():
        features = adm_256.features(x, t, shapes)
    assert {block: tuple(h.shape) for block, h in features.items()} == {b: (2, *shape) for b, shape in shapes.items()}
    table = {6: (512, 32, 32), 8: (512, 64, 64), 12: (256, 128, 128), 16: (256, 256, 256), 0: (1024, 8, 8)}
    assert {block: shapes[block] for block in table} == table
    assert adm_256.block_shapes(512)[8] == (512, 128, 128)


TINY = {
    "image_size": 16,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "num_heads": 2,
    "num_head_channels": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return UNet(**TINY)


@pytest.fixture
def tiny_input():
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 16, 16, generator=g), torch.tensor([50, 900])


def test_blocks_beyond_the_deepest_are_not_run(tiny, tiny_input):
    ran = []
    for name, module in tiny.named_children():
        blocks = module if name == "output_blocks" else [module]
        for i, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, what=f"{name}{i}": ran.append(what))
    assert list(tiny.features(*tiny_input, [1, 0])) == [0, 1]
    assert [what for what in ran if what.startswith("out")] == ["output_blocks0", "output_blocks1"]


def test_features_do_not_depend_on_which_blocks_are_asked_for(tiny, tiny_input):
    together = tiny.features(*tiny_input, range(4))
    for block in range(4):
        assert torch.equal(tiny.features(*tiny_input, [block])[block], together[block])


@pytest.mark.parametrize("blocks", [[4], [-1], [], [1, 40]])
def test_unknown_blocks_are_refused_with_the_valid_range(tiny, tiny_input, blocks):
    with pytest.raises(ValueError, match="0 to 3"):
        tiny.features(*tiny_input, blocks)


def test_sizes_that_cannot_be_halved_are_refused(tiny):
    with pytest.raises(ValueError, match="multiples of 2"):
        tiny.features(torch.zeros(1, 3, 17, 16), torch.tensor([0]), [0])


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="heads"):
        UNet(**TINY | {"num_head_channels": 48})


def test_a_fresh_network_predicts_zero(tiny, tiny_input):
    assert not tiny(*tiny_input).any()


@pytest.mark.parametrize(
    "options",
    [{}, {"use_scale_shift_norm": False, "resblock_updown": False, "use_new_attention_order": True}],
    ids=["new", "old"],
)
def test_gradients_reach_every_parameter(tiny_input, options):
    torch.manual_seed(0)
    unet = UNet(**TINY | options)
    for p in unet.parameters():  # the zeros of a fresh network would hide what lies before them
        torch.nn.init.normal_(p, std=0.05)
    unet(*tiny_input).square().mean().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradients_equal_finite_differences(tiny, tiny_input):
    """In-place activations must not corrupt what the backward pass needs."""
    unet = tiny.double()
    x, t = tiny_input[0].double(), tiny_input[1]
    for p in unet.parameters():
        torch.nn.init.normal_(p, std=0.05)
    x.requires_grad_(True)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    unet(x, t).square().sum().backward()
    with torch.no_grad():
        eps = 1e-3
        slope = (unet(x + eps * direction, t).square().sum() - unet(x - eps * direction, t).square().sum()) / (2 * eps)
    # GroupNorm32 computes in float32, which bounds how exact a difference can be.
    assert (x.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-2)


def test_autocast_stays_close_to_float32(reference):
    unet, x, steps, _ = reference("adm_mini_64")
    plain = unet.features(x, torch.tensor(steps[:1]), [6, 12])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = unet.features(x, torch.tensor(steps[:1]), [6, 12])
    for block, h in plain.items():
        assert ((rounded[block].float() - h).norm() / h.norm()).item() < 0.05


def test_config_rebuilds_the_network(tiny):
    again = UNet(**json.loads(json.dumps(tiny.config)))
    assert again.config == tiny.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in tiny.state_dict().items()}
