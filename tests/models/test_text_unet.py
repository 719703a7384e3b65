"""The U-Net that reads the text: what it starts as, what it reads, and with which views."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from textdiff.cache import FeatureCache
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.text_unet import TextUNet
from textdiff.pipeline.fit import FitConfig, begin, initial_network
from textdiff.pipeline.training.trainer import Trainer
from textdiff.tests.text_cases import make_bert

SIZES = {"width": 4, "norm": "own"}


def made(**options) -> TextUNet:
    torch.manual_seed(0)
    return TextUNet(6, **SIZES | options)


@pytest.fixture
def batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    text = torch.randn(2, 5, 6, generator=generator)
    return images, text, torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def stepped(network: TextUNet, batch: tuple[torch.Tensor, ...], steps: int = 2) -> TextUNet:
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[:, :, 16:] = 1
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(*batch), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("variant", ["full", "no-text"])
def test_before_the_first_step_it_is_the_unet_of_the_same_seed_to_the_bit(batch, variant):
    network = made(variant=variant).eval()
    torch.manual_seed(0)
    plain = PlainUNet(**SIZES).eval()
    with torch.inference_mode():
        assert torch.equal(network(*batch[: 3 if variant == "full" else 1]), plain(batch[0]))
    if variant == "no-text":
        assert network.state_dict().keys() == plain.state_dict().keys()


def test_what_reading_costs_in_parameters():
    counts = [sum(p.numel() for p in network.parameters()) for network in (TextUNet(768), PlainUNet())]
    reading = 0
    for channels in (256, 512):
        attention = 2 * 256 * channels + channels + 2 * 768 * 256  # queries, output with its bias, keys, values
        reading += attention + 4 * channels + 14 * channels  # two layer norms, and the places
    assert counts[0] - counts[1] == reading


def test_after_a_step_it_reads_the_sentence_and_nothing_of_its_padding(batch):
    network = stepped(made(), batch)
    images, text, mask = batch
    other = text.clone()
    other[:, 1] += 1
    padded = text.clone()
    padded[1, 3:] = 9
    with torch.inference_mode():
        scores = network(*batch)
        assert not torch.allclose(network(images, other, mask), scores, atol=1e-4)
        assert torch.equal(network(images, padded, mask), scores)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_pixels_that_look_alike_ask_the_text_differently_by_their_places():
    network = made().eval()
    flat = torch.full((1, 3, 128, 128), 90, dtype=torch.uint8)
    text, mask = torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    with torch.inference_mode():
        shares = network.attention(flat, text, mask)
        assert shares.shape == (1, 5, 16, 16)
        assert torch.allclose(shares.sum(1), torch.ones(1, 16, 16))
        assert (shares[0, :, 8, 6] - shares[0, :, 8, 9]).abs().max() > 1e-3
        network.read["3"].place.weight.zero_()
        blind = network.attention(flat, text, mask)[0, :, 8]
    torch.testing.assert_close(blind[:, 6], blind[:, 9], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, make_lvit_once, textdiff_once) -> FeatureCache:
    """Eight views with texts that turn: "left" is "lower" after a quarter turn."""
    root = tmp_path_factory.mktemp("views")
    words = ("left", "right", "upper", "lower", "half", "the")
    make_bert(root / "bert", words, hidden=6, intermediate=8)
    make_lvit_once(root / "data", n_train=2, n_val=0, n_test=1, size=32, text="the left half")
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--preset", "rgb", "--blocks", "8")
    to = ("--cache", "cache.zarr", "--image-size", "32", "--views", "8", "--text-encoder", "bert")
    textdiff_once(root, *extract, *to)
    return FeatureCache.open(root / "cache.zarr")


def test_it_is_trained_on_each_view_with_the_text_that_is_true_of_it(cache, tmp_path):
    options = FitConfig(cache.path, model="text-unet", width=4, device="cpu")
    run = begin(options, lambda _: tmp_path / "run")
    network = initial_network(run)
    loader = network.loader(cache, torch.device("cpu"))
    fit = Trainer(run, network, cache, loader, torch.device("cpu"), 2)
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "train"]
    assert network.cached_views
    assert len({cache.texts[cache.rows[row].text] for row in rows}) == 4
    for item in network.augment(fit.narrowed(loader.epoch(rows)), seed=0, epoch=0):
        images, text, mask = network.inputs([item])
        own = cache.text(item.row)
        assert np.array_equal(images[0].permute(1, 2, 0).numpy(), cache.image(item.row))
        assert np.array_equal(item.mask[0].numpy(), cache.mask(item.row))
        assert np.array_equal(text[0].numpy()[mask[0].numpy()], own[0])
