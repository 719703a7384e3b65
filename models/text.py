"""Text to token embeddings: the last hidden state of a frozen language model, for every token."""

__all__ = ["TextEncoder", "count_tokens", "load_text_encoder"]

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from textdiff import console
from textdiff.errors import UserError, explain
from textdiff.models.downloads.hub import locate, missing_vocabulary, snapshot, weights_sha256
from textdiff.models.pretrained import architecture, load_model, loading, quiet
from textdiff.models.weights import TEXT_ENCODERS

MAX_TOKENS = 512
_KIND = "a text encoder"


class TextEncoder:
    """A frozen language model with its tokenizer.

    Attributes:
        name: as it was asked for.
        dim: length D of a token's embedding.
        max_tokens: tokens of a text that are read, special tokens included.
        pad_to: the fixed number of tokens, or ``None`` where every text keeps its own.
        sha256: of the weights file; of several files, of their hashes one after the other.

    Raises:
        UserError: the model gives no embedding of each token.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, sha256: str, max_tokens: int, pad_to: int | None = None
    ) -> None:
        self.name, self.sha256, self.max_tokens, self.pad_to = name, sha256, max_tokens, pad_to
        self._model, self._tokenizer = model, tokenizer
        self._takes = inspect.signature(model.forward).parameters.keys()
        with quiet():
            self.dim: int = self._embed("").tokens.shape[1]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds every token of every text, each distinct text once.

        A text goes through the model by itself, so its embedding does not depend on the texts around it.

        Args:
            texts: n texts; an empty one has the special tokens only.

        Returns:
            (n, L, D) float32 embeddings, zero beyond a text's end, and (n, L) bool, true where there is a token. L is
            the length of the longest text, or ``pad_to``: then the embeddings of the padding are kept and the mask is
            true everywhere, as in the paper's code.
        """
        with quiet():
            distinct = {text: self._embed(text) for text in dict.fromkeys(texts)}
        longer = sum(embedded.cut for embedded in distinct.values())
        if longer and self.pad_to is None:
            console.warn(
                f"{longer} of {len(distinct)} distinct texts are longer than {self.max_tokens} tokens; "
                "the rest of each is not read"
            )
        if foreign := sum(embedded.foreign for embedded in distinct.values()):
            console.warn(
                f"{self.name} knows no word of {foreign} of {len(distinct)} distinct texts, so it tells them apart by "
                "their lengths at most; use a text encoder for their language"
            )
        length = max((len(embedded.tokens) for embedded in distinct.values()), default=0)
        tokens = np.zeros((len(texts), length, self.dim), np.float32)
        mask = np.zeros((len(texts), length), np.bool_)
        for i, text in enumerate(texts):
            found = distinct[text].tokens
            tokens[i, : len(found)], mask[i, : len(found)] = found, True
        return tokens, mask

    def places(self, text: str, words: str) -> list[int]:
        """Which tokens of a text are pieces of ``words``, wherever they stand in it as whole words, in any case.

        Raises:
            UserError: the tokenizer does not tell where its tokens come from.
        """
        options = {"truncation": True, "max_length": self.max_tokens}
        if not self._tokenizer.is_fast:
            raise UserError(f"{self.name}: its tokenizer does not tell which word a token is of; use another encoder")
        spans = self._tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, words.split())) + r"(?!\w)"
        found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
        # Special tokens have an empty span.
        return [i for i, (a, b) in enumerate(spans) if any(a < end and start < b and a < b for start, end in found)]

    @torch.inference_mode()
    def _embed(self, text: str) -> "_Embedded":
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_tokens}
        if self.pad_to is not None:
            options["padding"] = "max_length"
        # The model itself never attends padding, in the paper's code neither: there the head does.
        inputs = self._tokenizer(text, return_tensors="pt", **options)
        whole = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not inputs["input_ids"].numel():
            inputs = {"input_ids": torch.tensor([[self._stand_in()]])}
        known = getattr(self._model.get_input_embeddings(), "num_embeddings", None)
        if known is not None and (largest := int(inputs["input_ids"].max())) >= known:
            raise UserError(
                f"{self.name}: its tokenizer gives token {largest}, and its model has {known}, so they are not of one "
                "model; give a directory with both of one"
            )
        try:
            hidden = self._model(**self._taken(inputs)).last_hidden_state[0]  # (L, D)
        except Exception as error:
            if explain(error):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.name}: a {self._model.config.model_type} model, which gives no embedding of each token "
                f"({said[:200]}); give a text encoder"
            ) from error
        special = len(self._tokenizer("")["input_ids"])
        foreign = bool(whole) and set(whole) == {self._tokenizer.unk_token_id}
        return _Embedded(hidden.float().numpy(), len(whole) + special > self.max_tokens, foreign)

    def _taken(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model takes of what the tokenizer gives."""
        # All zero they are what BERT's kind assumes without them, and GPT-2 would take them for words.
        types = inputs.get("token_type_ids")
        left_out = {"token_type_ids"} if types is not None and not types.any() else set()
        return {name: value for name, value in inputs.items() if name in self._takes - left_out}

    def _stand_in(self) -> int:
        """The token of an empty text, where the tokenizer adds none to mark beginning or end."""
        tokenizer = self._tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
            if token is not None:
                return int(token)
        raise UserError(f"{self.name}: its tokenizer has no token for an empty text; give another text encoder")


class _Embedded(NamedTuple):
    """A text's embedding."""

    tokens: np.ndarray
    """(L, D) float32."""
    cut: bool
    """Whether the text was longer."""
    foreign: bool
    """Whether none of its words is known."""


def load_text_encoder(name: str, max_tokens: int | None = None, pad_to: int | None = None) -> TextEncoder:
    """The text encoder called ``name``, on the CPU in float32.

    Args:
        name: ``clinical-biobert`` (https://arxiv.org/abs/1904.03323), ``minilm`` (https://arxiv.org/abs/2002.10957,
            works offline), the directory of a model, or the id of one on the Hugging Face hub.
        max_tokens: at most so many tokens of a text are read; by default 512, or fewer if the model takes fewer.
        pad_to: every text is cut or padded to exactly so many tokens, and the padding counts as text.

    Raises:
        UserError: no such encoder; it cannot be downloaded; a damaged or unsuitable model; more tokens than it takes.
    """
    directory = locate(name) or snapshot(name)
    sha256 = weights_sha256(directory)
    known = TEXT_ENCODERS.get(name)
    if known and known.sha256 not in (None, sha256):
        raise UserError(f"{name}: {directory} is damaged (its sha256 is {sha256}); reinstall {known.file}")
    model, tokenizer = _load(name, directory)
    limit = _limit(model, tokenizer)
    wanted = pad_to if pad_to is not None else max_tokens
    if wanted is not None and not 2 < wanted <= limit:
        raise UserError(f"{name}: {wanted} tokens asked for; it takes between 3 and {limit}")
    if pad_to is not None and tokenizer.pad_token is None:
        raise UserError(
            f"{name}: its tokenizer has no padding token, which --protocol paper needs; use --protocol clean, or "
            "another text encoder"
        )
    return TextEncoder(name, model, tokenizer, sha256, wanted or min(MAX_TOKENS, limit), pad_to)


def count_tokens(name: str, texts: Sequence[str]) -> tuple[list[int], int]:
    """How many tokens each text has, special ones included, and how many are read; loads no weights.

    Args:
        name: an encoder that is in place (``hub.locate``).
        texts: any number.

    Raises:
        UserError: its tokenizer cannot be loaded.
    """
    directory = locate(name) or snapshot(name)
    with quiet():
        tokenizer = _tokenizer(name, directory)
        model = _tower(name, architecture(name, directory, _KIND))
        lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    return lengths, min(MAX_TOKENS, _limit(model, tokenizer))


def _load(name: str, directory: Path) -> tuple[Any, Any]:
    with quiet():
        tokenizer = _tokenizer(name, directory)
        return load_model(name, directory, _KIND, _tower), tokenizer


def _tokenizer(name: str, directory: Path) -> Any:
    from transformers import AutoTokenizer

    with loading(name, directory, _KIND):
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    # Without its files the library makes one that knows no word, and says nothing.
    if tokenizer.is_fast and (lost := missing_vocabulary(directory)):
        raise UserError(f"{name}: there is no {lost}, so no tokenizer; copy it to {directory} from where the model is")
    return tokenizer


def _tower(name: str, model: Any) -> Any:
    """The part of a model that reads text."""
    if hasattr(model.config, "text_config"):
        if (tower := getattr(model, "text_model", None)) is None:
            raise UserError(
                f"{name}: a {model.config.model_type} model, and no text encoder; give the text encoder it is made of"
            )
        return tower
    return model.get_encoder() if hasattr(model, "encoder") and hasattr(model, "decoder") else model


def _limit(model: Any, tokenizer: Any) -> int:
    """How many tokens the model has positions for. A tokenizer that does not know says 10^30."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        own = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) and ("position" in own or own == "wpe"):
            # RoBERTa's kind numbers positions from the one after the padding's.
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    return int(min((limit for limit in limits if limit is not None and 0 < limit < 1e9), default=MAX_TOKENS))
