"""What wraps the networks of others: the sizes, the scale and the statistics that their authors gave them."""

from types import SimpleNamespace

import pytest
import torch

from textdiff.models.networks.recipes import FAIR
from textdiff.models.networks.rivals import LViTRival, ResNet50UNetRival, TransUNetRival
from textdiff.tests.rival_cases import SMALL


def test_images_of_another_side_are_resized_for_the_network_and_scores_back():
    seen = []
    network = TransUNetRival(SMALL[TransUNetRival] | {"image_size": 224}, 2, 224).eval()
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)

    def scores(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.stack([-x[:, 0], x[:, 0]], 1)

    network.scores = scores
    found = network(image)
    assert (seen[0].shape, found.shape) == ((1, 3, 224, 224), (1, 2, 96, 96))
    resized = torch.nn.functional.interpolate(image / 255, (224, 224), mode="bilinear")
    torch.testing.assert_close(seen[0], resized, atol=1e-5, rtol=0)
    # There and back a smooth image is itself.
    ramp = torch.linspace(0, 255, 96).round().to(torch.uint8).expand(1, 3, 96, 96)
    torch.testing.assert_close(network(ramp)[:, 1], ramp[:, 0] / 255, atol=0.01, rtol=0)


def test_a_single_image_of_the_smallest_size_can_be_normalised():
    side = ResNet50UNetRival.side(SimpleNamespace(image_size=32), FAIR)
    network = ResNet50UNetRival(SMALL[ResNet50UNetRival], 2, side)
    assert network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(("rival", "darkest"), [(TransUNetRival, 0.0), (LViTRival, 0.0), (ResNet50UNetRival, -1.0)])
def test_a_single_score_is_the_logit_of_the_foreground_and_black_is_as_the_authors_have_it(rival, darkest):
    seen = []
    network = rival(SMALL[rival] | ({"image_size": 32} if rival.takes_size else {}), 2, 32)

    def scores(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x[:, :1]

    network.scores = scores
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    image[0, :, 0, 0], image[0, :, 0, 1] = 0, 255
    found = network(image)
    assert (float(seen[0].min()), float(seen[0].max())) == (darkest, 1)
    torch.testing.assert_close(found.softmax(1)[:, 1], torch.sigmoid(seen[0][:, 0]))


def test_own_statistics_are_batch_normalisation_in_training_to_the_bit_and_each_images_own_afterwards():
    x, text = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8), torch.randn(3, 10, 32)
    for rival in (ResNet50UNetRival, TransUNetRival, LViTRival):
        made = {}
        for norm in ("batch", "own"):
            torch.manual_seed(0)
            net = SMALL[rival] | ({"image_size": 64} if rival.takes_size else {})
            made[norm] = rival(net | ({} if rival is ResNet50UNetRival else {"dropout": 0}), 2, 64, norm=norm)
        plain, own = made["batch"].state_dict(), made["own"].state_dict()
        running = {name for name in plain if name.split(".")[-1].startswith(("running_", "num_batches"))}
        assert running
        assert own.keys() == plain.keys() - running
        inputs = (x, text) if rival is LViTRival else (x,)
        trained = [network.train()(*inputs) for network in made.values()]
        assert torch.equal(*trained)
        for scores in trained:
            scores.square().mean().backward()
        weights = dict(made["batch"].named_parameters())
        assert all(torch.equal(p.grad, weights[name].grad) for name, p in made["own"].named_parameters())
        with torch.inference_mode():
            together = made["own"].eval()(*inputs)
            for i in range(3):
                alone = made["batch"].train()(*(value[i : i + 1] for value in inputs))
                torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-4)
