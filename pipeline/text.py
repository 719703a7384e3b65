"""Text to token embeddings: the last hidden state of a frozen language model, for every token."""

__all__ = ["TextEncoder", "count_tokens", "load_text_encoder"]

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textdiff import console
from textdiff.errors import UserError
from textdiff.pipeline.downloads.hub import locate, snapshot, weights_sha256
from textdiff.pipeline.weights import TEXT_ENCODERS

MAX_TOKENS = 512


class TextEncoder:
    """A frozen language model with its tokenizer.

    Attributes:
        name: as it was asked for.
        dim: length D of a token's embedding.
        max_tokens: tokens of a text that are read, special tokens included.
        pad_to: the fixed number of tokens, or ``None`` where every text keeps its own.
        sha256: of the weights file; of several files, of their hashes one after the other.
    """

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        tokenizer: Any,
        dim: int,
        sha256: str,
        max_tokens: int,
        pad_to: int | None,
    ) -> None:
        self.name, self.sha256, self.max_tokens, self.pad_to = name, sha256, max_tokens, pad_to
        self._model, self._tokenizer = model, tokenizer
        self.dim = dim

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
        with _quiet():
            distinct = {text: self._embed(text) for text in dict.fromkeys(texts)}
        longer = sum(cut for _, cut in distinct.values())
        if longer and self.pad_to is None:
            console.warn(
                f"{longer} of {len(distinct)} distinct texts are longer than {self.max_tokens} tokens; "
                "the rest of each is not read"
            )
        length = max((len(tokens) for tokens, _ in distinct.values()), default=0)
        tokens = np.zeros((len(texts), length, self.dim), np.float32)
        mask = np.zeros((len(texts), length), np.bool_)
        for i, text in enumerate(texts):
            found, _ = distinct[text]
            tokens[i, : len(found)], mask[i, : len(found)] = found, True
        return tokens, mask

    @torch.inference_mode()
    def _embed(self, text: str) -> tuple[np.ndarray, bool]:
        """(L, D) float32, and whether the text was cut."""
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_tokens}
        if self.pad_to is not None:
            options["padding"] = "max_length"
        # The model itself never attends padding, in the paper's code neither: there the head does.
        inputs = self._tokenizer(text, return_tensors="pt", **options)
        hidden = self._model(**inputs).last_hidden_state[0]  # (L, D)
        whole = len(self._tokenizer(text)["input_ids"])
        return hidden.float().numpy(), whole > self.max_tokens


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
    limit = _limit(model.config, tokenizer)
    wanted = pad_to if pad_to is not None else max_tokens
    if wanted is not None and not 2 < wanted <= limit:
        raise UserError(f"{name}: {wanted} tokens asked for; it takes between 3 and {limit}")
    return TextEncoder(
        name, model, tokenizer, model.config.hidden_size, sha256, wanted or min(MAX_TOKENS, limit), pad_to
    )


def count_tokens(name: str, texts: Sequence[str]) -> tuple[list[int], int]:
    """How many tokens each text has, special ones included, and how many are read; loads the tokenizer only.

    Args:
        name: an encoder that is in place (``hub.locate``).
        texts: any number.

    Raises:
        UserError: its tokenizer cannot be loaded.
    """
    from transformers import AutoConfig, AutoTokenizer

    directory = locate(name) or snapshot(name)
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            config = AutoConfig.from_pretrained(directory, local_files_only=True)
        except Exception as error:  # a damaged file shows as any of a dozen kinds
            raise UserError(f"{name}: {directory} cannot be loaded as a text encoder") from error
        lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    return lengths, min(MAX_TOKENS, _limit(config, tokenizer))


def _load(name: str, directory: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            model, report = AutoModel.from_pretrained(directory, local_files_only=True, output_loading_info=True)
        except Exception as error:  # a damaged file shows as any of a dozen kinds
            said = " ".join(str(error).split())
            raise UserError(f"{name}: {directory} cannot be loaded as a text encoder ({said})") from error
    # Weights that are not in the file would be drawn at random; only the pooler's are not used.
    if lost := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise UserError(
            f"{name}: {directory} lacks the weights {lost[0]} and {len(lost) - 1} others of its config.json"
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return model.float().eval().requires_grad_(False), tokenizer


def _limit(config: Any, tokenizer: Any) -> int:
    """How many tokens the model has positions for. A tokenizer that does not know says 10^30."""
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    return int(min((limit for limit in limits if limit is not None and 0 < limit < 1e9), default=MAX_TOKENS))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' advice and progress bars off standard error."""
    from transformers.utils import logging as noise

    verbosity, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity(logging.ERROR)
    noise.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()  # type: ignore[no-untyped-call]
