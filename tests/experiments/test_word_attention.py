"""``panel --words``: where a run's attention goes to a word, by hand from the definition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from textdiff.cache import FeatureCache
from textdiff.experiments import panel
from textdiff.experiments.panel import WordAttention
from textdiff.experiments.panel_figure import attended
from textdiff.models.text import load_text_encoder
from textdiff.pipeline.runs import Run
from textdiff.tests.text_cases import make_bert

WORDS = ("the", "nu", "##clei", "are", "dense", "sparse", ".", "left")
FITS = {"full": ("--positions", "--places"), "none": ("--variant", "no-text")}
FITS |= {"shuffled": ("--variant", "shuffled-text"), "concat": ("--variant", "concat")}
FITS |= {"two": ("--ensemble", "2"), "whole": ("--model", "text-unet")}


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, textdiff_once) -> Path:
    """A cache whose text encoder cuts "nuclei" into two pieces."""
    root = tmp_path_factory.mktemp("words")
    make_bert(root / "bert", WORDS, hidden=8, intermediate=8)
    make_lvit_once(root / "data", n_train=3, n_val=0, n_test=3, size=32, text="The nuclei are {}.")
    extract = (
        "extract",
        "--dataset",
        "monuseg",
        "--data",
        "data",
        "--preset",
        "rgb",
        "--blocks",
        "8,16",
        "--views",
        "1",
    )
    textdiff_once(root, *extract, "--image-size", "32", "--text-encoder", str(root / "bert"), "--cache", "cache.zarr")
    return root


@pytest.fixture(scope="module")
def fitted(made, textdiff_once):
    """A run of one of ``FITS``, fitted when it is first asked for."""
    runs: dict[str, Run] = {}

    def fit(name: str) -> Run:
        if name not in runs:
            width = ("--width", "8") if name in ("full", "two") else ("--width", "4")
            command = ("fit", "--cache", "cache.zarr", "--epochs", "1", "--device", "cpu", *width, *FITS[name])
            textdiff_once(made, *command, "--runs", f"runs-{name}")
            runs[name] = Run(made / f"runs-{name}" / (made / f"runs-{name}/latest").readlink())
        return runs[name]

    return fit


@pytest.mark.parametrize(
    ("words", "places"),
    [("nuclei", [2, 3]), ("NUCLEI are", [2, 3, 4]), ("the", [1]), ("nu", []), ("left", []), ("dense", [5, 7])],
)
def test_a_word_has_the_tokens_that_are_its_pieces_wherever_it_stands(made, words, places):
    assert load_text_encoder(str(made / "bert")).places("The nuclei are dense. Dense", words) == places


def by_hand(attention, x: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(heads, N, L), from pixels (N, width) and tokens (L, D): equation 1 of Vaswani et al."""
    weight, bias = (a.detach().numpy() for a in (attention.norm_in.weight, attention.norm_in.bias))
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + attention.norm_in.eps) * weight + bias
    q, k = normal @ attention.query.weight.detach().numpy().T, tokens @ attention.key.weight.detach().numpy().T
    q, k = (a.reshape(len(a), attention.heads, -1).transpose(1, 0, 2) for a in (q, k))
    e = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]))
    return e / e.sum(2, keepdims=True)


def test_a_words_map_is_the_mean_over_both_attentions_and_their_heads_on_the_finest_level(made, fitted):
    run, cache = fitted("full"), FeatureCache.open(made / "cache.zarr")
    row = len(cache.rows) - 1
    ((mapped, whole),) = WordAttention(run, cache, [row], ["nuclei", "the nuclei are"], "cpu").of([row])
    network = run.load_network()
    (item,) = network.loader(cache, torch.device("cpu")).epoch([row])
    tokens = cache.text(row)[0].astype(np.float32)
    level = network.prepare(*network.inputs([item]))[0][-1]
    assert level.shape[2:] == mapped.shape == (32, 32)
    with torch.no_grad():
        x = network.down[network.routes[-1]](level.flatten(2).mT.float())
        later = network.block.attention1(x, torch.from_numpy(tokens)[None])
    shares = [by_hand(network.block.attention1, x[0].numpy(), tokens)]
    shares += [by_hand(network.block.attention2, later[0].numpy(), tokens)]
    expected = np.concatenate(shares).mean(0).T.reshape(-1, 32, 32)  # (L, h, w)
    assert np.allclose(expected.sum(0), 1)
    assert np.allclose(mapped, expected[2:4].sum(0), atol=1e-5)
    assert np.allclose(whole, expected[1:5].sum(0), atol=1e-5)


@pytest.mark.parametrize("name", ["two", "whole"])
def test_ensembles_and_other_networks_that_attend_have_maps(made, fitted, name):
    run, cache = fitted(name), FeatureCache.open(made / "cache.zarr")
    ((mapped,),) = WordAttention(run, cache, [4], ["nuclei"], "cpu").of([4])
    network = run.load_network()
    (item,) = network.loader(cache, torch.device("cpu")).epoch([4])
    each = [member.attention(*network.inputs([item]))[0, 2:4].sum(0).detach().numpy() for member in network.members]
    assert np.allclose(mapped, np.mean(each, axis=0), atol=1e-6)


def test_panel_shows_each_image_the_maps_of_its_own_words(made, fitted, textdiff_once, monkeypatch):
    run, drawn = fitted("full"), []
    draw = panel.panel_figure
    monkeypatch.setattr(panel, "panel_figure", lambda path, rows: (drawn.extend(rows), draw(path, rows)))
    command = ("panel", str(run.path), "--device", "cpu", "--images", "3", "--out", "words.png")
    textdiff_once(made, *command, "--words", "dense,nuclei")
    assert (made / "words.png").stat().st_size > 10_000
    assert len({row.text for row in drawn}) == 2
    for row in drawn:
        (first, dense), (second, nuclei) = row.words
        assert (first, second) == ("dense", "nuclei")
        assert (dense is None) == ("dense" not in row.text)
        assert nuclei is not None
    command = ("panel", str(run.path), "--device", "cpu", "--images", "1", "--out", "words.png")
    said = textdiff_once(made, *command, "--words", "dense,sparse,nuclei").stderr
    assert [f"--words {word}: in none of the texts of the images shown" in said for word in ("dense", "sparse")] == [
        word not in drawn[-1].text for word in ("dense", "sparse")
    ]


def test_a_map_is_drawn_brightest_where_the_attention_is_largest():
    shares = np.full((4, 4), 0.1, np.float32)
    shares[1, 2] = 0.12
    image, truth = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    image[:16] = 255  # which is not to be seen
    picture = attended(image, truth, shares)
    row, column = divmod(int(picture.astype(int).sum(2).argmax()), 32)
    assert (row // 8, column // 8) == (1, 2)
    assert len(np.unique(picture[:, :4].reshape(-1, 3), axis=0)) == 1
    truth[20:28, 20:28] = 1
    lined = (attended(image, truth, shares) == 255).all(2)
    assert lined.sum() == 4 * 7
    assert lined[20, 20:28].all()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("full", "left", "--words left: in none of the texts of the 3 images"),
        ("none", "nuclei", "is no-text and reads no text; name a run first that attends"),
        ("concat", "nuclei", "is concat, which attends to no words"),
        ("shuffled", "nuclei", "was given texts of other images"),
    ],
)
def test_what_has_no_map_is_refused_before_anything_is_predicted(
    made, fitted, textdiff_once, monkeypatch, name, words, message
):
    monkeypatch.delattr(panel, "_predict")
    command = ("panel", str(fitted(name).path), "--device", "cpu", "--words", words, "--out", "none.png")
    said = textdiff_once(made, *command, status=2).stderr
    assert message in said
    assert not (made / "none.png").exists()
