"""DDPM-seg's pixel classifiers against the published code's numbers, and how the ten are trained and asked."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.models.networks import pixel_mlp
from textdiff.models.networks.pixel_mlp import PixelMLP, PixelMLPs
from textdiff.models.networks.pixels import Pixels, all_pixels
from textdiff.tests.rival_cases import assert_equals_the_oracle, read_oracle


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_one_has_the_published_ones_output_activations_and_gradients(oracles, oracle_fill, mode, dtype):
    oracle = read_oracle(oracles / "baseline_pixel_mlp.npz", oracle_fill)
    network = oracle.filled(lambda: PixelMLP(oracle.config["features"], oracle.config["classes"]), dtype)
    assert sum(p.numel() for p in network.parameters()) == oracle.config["parameters"] == 594_466
    places = {f"layer{number}": network[number] for number in range(6)}
    assert_equals_the_oracle(oracle, network, mode, places, theirs=lambda name: f"layers.{name}")


def test_many_classes_have_wider_layers_and_weights_begin_as_published():
    wide = PixelMLP(500, 30)
    assert [tuple(layer.weight.shape) for layer in list(wide)[::3]] == [(256, 500), (128, 256), (30, 128)]
    assert [tuple(layer.weight.shape) for layer in list(PixelMLP(500, 29))[::3]] == [(128, 500), (32, 128), (29, 32)]
    assert float(wide[0].weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not any(layer.bias.any() for layer in list(wide)[::3])


def test_weights_of_another_network_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"not DDPM-seg's pixel classifier: .*size mismatch") as refused:
        PixelMLP(5, 2).load_reference({f"module.layers.{k}": v for k, v in PixelMLP(6, 2).state_dict().items()})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_pixel_is_what_bilinear_upsampling_makes_of_it(dtype):
    torch.manual_seed(0)
    size = 48
    levels = [torch.randn(1, channels, side, side).to(dtype) for channels, side in ((3, 6), (2, 16), (1, 48), (2, 1))]
    whole = [F.interpolate(level.float(), (size, size), mode="bilinear") for level in levels]
    expected = torch.cat(whole, 1)[0].flatten(1).t()
    places = torch.randperm(size * size)
    torch.testing.assert_close(Pixels(levels, size)[places], expected[places], rtol=0, atol=2e-6)
    torch.testing.assert_close(all_pixels(levels, size), expected, rtol=0, atol=0)


def ten(classes: int = 3, **options) -> tuple[PixelMLPs, list[torch.Tensor]]:
    """The networks, undecided enough to be of several minds, and levels of two images for them."""
    torch.manual_seed(0)
    networks = PixelMLPs(5, classes, 16, **options).eval()
    for network in networks.networks:
        torch.nn.init.normal_(network[-1].weight)
        torch.nn.init.normal_(network[0].weight)
    return networks, [torch.randn(2, 3, 8, 8), torch.randn(2, 2, 16, 16)]


@torch.no_grad()
def test_the_majority_decides_and_the_scores_are_its_share():
    networks, levels = ten()
    for image in range(2):
        pixels = all_pixels([level[image : image + 1] for level in levels], 16)
        votes = torch.stack([network(pixels).argmax(1) for network in networks.networks])
        expected = np.stack([(votes == label).sum(0).numpy() for label in range(3)])
        assert ((expected.max(0) > 4) & (expected.max(0) < 10)).mean() > 0.2  # else there is nothing to decide
        scores = networks(levels)[image]
        np.testing.assert_allclose(scores.softmax(0).numpy().reshape(3, -1), expected / 10, atol=2e-4)
        assert (scores.argmax(0).numpy().ravel() == expected.argmax(0)).all()


def items(count: int = 2, size: int = 16) -> list[Item]:
    draw = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 5, size, size, generator=draw) for _ in range(count)]
    masks = [torch.randint(2, (1, size, size), generator=draw) for _ in range(count)]
    return [Item(row, [image], mask, None, None) for row, (image, mask) in enumerate(zip(images, masks, strict=True))]


def test_each_network_sees_all_pixels_once_in_an_order_of_its_own():
    networks = PixelMLPs(5, 2, 16, count=3)
    rows = items()
    every = torch.cat([item.features[0][0].flatten(1).t() for item in rows])
    truth = torch.cat([item.mask.flatten() for item in rows])
    assert len({network[0].weight.detach().numpy().tobytes() for network in networks.networks}) == 3
    seen: list[list[int]] = [[], [], []]
    for (pixels,), labels in networks.batches(rows, 60, seed=3, epoch=0):
        assert pixels.shape == (3, 60, 5)
        for number in range(3):
            distances, places = torch.cdist(pixels[number], every).min(1)
            assert distances.max() < 1e-2
            assert (truth[places] == labels[number]).all()
            seen[number] += places.tolist()
    # The last 32 of 512 make no batch.
    assert [len(set(order)) for order in seen] == [480] * 3
    assert len({tuple(order) for order in seen}) == 3
    again = [pixels for (pixels,), _ in networks.batches(rows, 60, seed=3, epoch=0)]
    other = [pixels for (pixels,), _ in networks.batches(rows, 60, seed=3, epoch=1)]
    first = torch.cdist(again[0][0], every).argmin(1).tolist()
    assert first == seen[0][:60]
    assert torch.cdist(other[0][0], every).argmin(1).tolist() != first


def test_a_network_stops_when_from_the_fifth_epoch_on_over_50_batches_bring_no_lower_loss(monkeypatch):
    networks = PixelMLPs(5, 2, 16, count=2).train()
    reads, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self.device) or tolist(self))
    optimizer = torch.optim.Adam(networks.parameters())
    # What the networks' batches are said to cost: that of the second falls on and on.
    costs = {"first": 1.0, "second": 100.0}
    stopped_after, batches = None, 0
    weights: list[torch.Tensor] = []
    for epoch in range(6):
        for (pixels,), labels in networks.batches(items(4), 16, seed=0, epoch=epoch):
            going = networks.going
            costs["second"] -= 0.1
            given = iter([list(costs.values())[number] for number in going])

            def criterion(scores, truth, given=given):
                own = F.cross_entropy(scores, truth)
                return own + (next(given) - own).detach()

            before = [p.detach().clone() for p in networks.networks[0].parameters()]
            loss = networks.loss(networks(pixels), labels, criterion)
            assert float(loss.detach()) == pytest.approx(np.mean([list(costs.values())[number] for number in going]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            batches += epoch >= 4
            moved = any((p != old).any() for p, old in zip(networks.networks[0].parameters(), before, strict=True))
            assert moved == (0 in going)
            if stopped_after is None and networks.going == [1]:
                stopped_after = batches
                weights = [value.clone() for value in networks.networks[0].state_dict().values()]
    assert len(reads) <= 6  # of the hundreds of steps nearly none waits for the device
    assert stopped_after == 1 + 51  # the first batch of the fifth epoch is the lowest, and 51 are not lower
    assert all(torch.equal(*pair) for pair in zip(weights, networks.networks[0].state_dict().values(), strict=True))
    assert not networks.trained
    networks.waited[1] = 51
    assert networks.trained
    assert list(networks.batches(items(), 16, seed=0, epoch=6)) == []


def test_each_network_learns_from_its_own_loss_alone():
    networks = PixelMLPs(5, 2, 16, count=3).train()
    batch = next(iter(networks.batches(items(), 64, seed=0, epoch=0)))
    networks.loss(networks(*batch[0]), batch[1], F.cross_entropy).backward()
    for number, network in enumerate(networks.networks):
        own = PixelMLP(5, 2)
        own.load_state_dict({name: value.detach() for name, value in network.state_dict().items()})
        F.cross_entropy(own.train()(batch[0][0][number]), batch[1][number]).backward()
        for mine, theirs in zip(network.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_fewer_pixels_than_a_batch_are_one_batch():
    ((pixels,), labels), *others = PixelMLPs(5, 2, 16, count=2).batches(items(), 10_000, seed=0, epoch=0)
    assert pixels.shape == (2, 512, 5)
    assert labels.shape == (2, 512)
    assert others == []


def test_a_standardising_one_does_not_see_gain_and_offset():
    networks, levels = ten(standardise=True)
    with torch.no_grad():
        torch.testing.assert_close(networks.logits([3 * level + 2 for level in levels]), networks.logits(levels))
    assert pixel_mlp.MEMBERS == len(networks.networks) == 10
