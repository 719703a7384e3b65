"""Text encoders of other kinds than BERT: each read rightly, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from textdiff.errors import UserError
from textdiff.models.text import count_tokens, load_text_encoder

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
V = len(VOCABULARY)
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SMALL | {"image_size": 32, "patch_size": 16}
TEXT = SMALL | {"vocab_size": V, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SEQ2SEQ = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
SEQ2SEQ |= {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": V}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": V}
SHORT = "a b c"
LONG = " ".join(LETTERS * 30)


def clip() -> hf.PreTrainedModel:
    return hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16))


def two_towers() -> hf.PreTrainedModel:
    towers = hf.ViTConfig(**VISION), hf.BertConfig(**SMALL, vocab_size=V, max_position_embeddings=40)
    return hf.VisionTextDualEncoderModel(hf.VisionTextDualEncoderConfig.from_vision_text_configs(*towers))


def roberta(pad: int, kind: str = "Roberta") -> Callable[[], hf.PreTrainedModel]:
    config = getattr(hf, f"{kind}Config")
    return lambda: getattr(hf, f"{kind}Model")(
        config(**SMALL, vocab_size=V, max_position_embeddings=66, pad_token_id=pad)
    )


# The model, the part of it that reads text, and how many tokens that reads.
KINDS: dict[str, tuple[Callable[[], hf.PreTrainedModel], Callable, int]] = {
    "CLIP": (clip, lambda model: model.text_model, 77),
    "SigLIP": (
        lambda: hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=VISION)),
        lambda model: model.text_model,
        64,
    ),
    "two towers": (two_towers, lambda model: model.text_model, 40),
    "CLIP's text model": (lambda: hf.CLIPTextModel(hf.CLIPTextConfig(**TEXT)), lambda model: model, 77),
    # Positions begin after the padding's number.
    "RoBERTa": (roberta(0), lambda model: model, 65),
    "RoBERTa, padding 1": (roberta(1), lambda model: model, 64),
    "XLM-R": (roberta(1, "XLMRoberta"), lambda model: model, 64),
    "MPNet": (roberta(1, "MPNet"), lambda model: model, 64),
    "DistilBERT": (
        lambda: hf.DistilBertModel(
            hf.DistilBertConfig(dim=32, hidden_dim=32, n_layers=1, n_heads=2, vocab_size=V, max_position_embeddings=66)
        ),
        lambda model: model,
        66,
    ),
    "DeBERTa": (
        lambda: hf.DebertaV2Model(
            hf.DebertaV2Config(
                **SMALL, vocab_size=V, relative_attention=True, position_biased_input=False, pos_att_type=["c2p", "p2c"]
            )
        ),
        lambda model: model,
        512,
    ),
    "T5": (lambda: hf.T5Model(hf.T5Config(**T5)), lambda model: model.encoder, 512),
    "T5's encoder": (lambda: hf.T5EncoderModel(hf.T5Config(**T5)), lambda model: model.encoder, 512),
    "BART": (
        lambda: hf.BartModel(hf.BartConfig(**SEQ2SEQ, max_position_embeddings=66)),
        lambda model: model.encoder,
        66,
    ),
    "OPT": (
        lambda: hf.OPTModel(
            hf.OPTConfig(
                hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=V,
                max_position_embeddings=66, word_embed_proj_dim=32,
            )
        ),
        lambda model: model,
        66,
    ),
    "GPT-2": (
        lambda: hf.GPT2Model(
            hf.GPT2Config(
                n_embd=32, n_layer=1, n_head=2, n_positions=66, vocab_size=V, bos_token_id=3, eos_token_id=3
            )
        ),
        lambda model: model,
        66,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY))
    return file


def saved(model: hf.PreTrainedModel, vocabulary: Path, place: Path) -> Path:
    model.save_pretrained(place)
    hf.BertTokenizerFast(vocab=str(vocabulary)).save_pretrained(place)
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_by_the_part_of_it_that_reads_text_as_far_as_it_can(kind, vocabulary, tmp_path):
    make, part, limit = KINDS[kind]
    torch.manual_seed(0)
    model = make().eval()
    folder = saved(model, vocabulary, tmp_path / "model")
    encoder = load_text_encoder(str(folder))
    tokens, mask = encoder.encode([SHORT, LONG])
    assert mask.sum(1).tolist() == [5, limit]
    assert (encoder.max_tokens, count_tokens(str(folder), [SHORT])) == (limit, ([5], limit))
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        expected = part(model)(input_ids=ids).last_hidden_state[0].numpy()
    assert encoder.dim == expected.shape[1]
    np.testing.assert_allclose(tokens[0, :5], expected, atol=1e-5)


@pytest.fixture
def bert(vocabulary, tmp_path) -> Path:
    return saved(hf.BertModel(hf.BertConfig(**SMALL, vocab_size=V)), vocabulary, tmp_path / "bert")


@pytest.mark.parametrize("below", ["", "0_Transformer"])
def test_sentence_transformers_say_where_their_text_model_is(bert, tmp_path, below):
    place = tmp_path / "sentences"
    shutil.copytree(bert, place / below)
    parts = [{"path": below, "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling"}]
    (place / "modules.json").write_text(json.dumps(parts))
    expected, _ = load_text_encoder(str(bert)).encode([SHORT])
    assert np.array_equal(load_text_encoder(str(place)).encode([SHORT])[0], expected)


@pytest.fixture
def gpt2(tmp_path) -> Path:
    """A GPT-2 whose tokenizer, as the real one, marks neither beginning nor end and has no padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {sign: number for number, sign in enumerate([*alphabet, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    end = "<|endoftext|>"
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end).save_pretrained(tmp_path / "g")
    config = hf.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=66, vocab_size=257, bos_token_id=256)
    hf.GPT2Model(config).save_pretrained(tmp_path / "g")
    return tmp_path / "g"


def test_an_empty_text_has_a_token_even_where_the_tokenizer_gives_it_none(gpt2):
    tokens, mask = load_text_encoder(str(gpt2)).encode(["", "abc"])
    assert mask.sum(1).tolist() == [1, 3]
    assert np.isfinite(tokens).all()


def test_padding_that_the_tokenizer_has_not_is_refused(gpt2):
    with pytest.raises(UserError, match="no padding token, which --protocol paper needs; use --protocol clean"):
        load_text_encoder(str(gpt2), pad_to=10)


def without(*names: str) -> Callable[[Path], None]:
    return lambda place: [(place / name).unlink() for name in names]


def configured(**changes: object) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | changes))

    return change


def only_a_vocabulary(place: Path) -> None:
    (place / "tokenizer.json").unlink()
    (place / "vocab.json").write_text(json.dumps({sign: number for number, sign in enumerate(VOCABULARY)}))


def open_clip(place: Path) -> None:
    (place / "config.json").rename(place / "open_clip_config.json")


def of_another_model(place: Path) -> None:
    hf.BertModel(hf.BertConfig(**SMALL, vocab_size=7)).save_pretrained(place)


WRONG = {
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "there is no tokenizer.json"),
    "no vocabulary": (without("tokenizer.json"), "there is no tokenizer.json"),
    "half a vocabulary": (only_a_vocabulary, "merges"),
    "open_clip": (open_clip, "open_clip model, which Transformers does not read"),
    "a tokenizer of another model": (of_another_model, "its tokenizer gives token 7, and its model has 7"),
    "ten million layers": (configured(num_hidden_layers=10**7), "many times as large as the weights"),
    "a width beyond memory": (configured(hidden_size=10**7), "many times as large as the weights"),
    "positions beyond memory": (configured(max_position_embeddings=10**12), "many times as large as the weights"),
    "an impossible width": (configured(hidden_size=-32), "cannot be loaded"),
    "no number": (configured(hidden_size="32"), "cannot be loaded"),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_text_encoder_is_refused_in_one_line(bert, damage, message):
    damage(bert)
    with pytest.raises(UserError, match=message) as caught:
        load_text_encoder(str(bert)).encode([SHORT])
    assert "\n" not in str(caught.value)
    assert str(bert) in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: hf.ViTModel(hf.ViTConfig(**VISION)), "a vit model, which gives no embedding of each token"),
        (
            lambda: hf.LlavaModel(
                hf.LlavaConfig(
                    text_config=hf.LlamaConfig(**SMALL, vocab_size=V), vision_config=hf.CLIPVisionConfig(**VISION)
                )
            ),
            "a llava model, and no text encoder",
        ),
    ],
)
def test_models_that_are_no_text_encoders_are_called_so(model, message, vocabulary, tmp_path):
    with pytest.raises(UserError, match=message):
        load_text_encoder(str(saved(model(), vocabulary, tmp_path / "other")))


def test_texts_without_a_known_word_are_counted(bert, capsys):
    load_text_encoder(str(bert)).encode(["a b", "", "細胞 核", "Ж"])
    assert "knows no word of 2 of 4 distinct texts" in capsys.readouterr().err
