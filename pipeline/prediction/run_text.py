"""Texts that are in no cache, for a finished run: embedded as those of its cache were; and what a missing one does."""

__all__ = ["RunText", "missing_text"]

import torch

from textdiff.errors import UserError
from textdiff.models import text
from textdiff.models.networks.models import get_model
from textdiff.pipeline.runs import Run


def missing_text(run: Run) -> str:
    """What a run that reads text does with an image that has none, in one line; docs/texts.md says more."""
    config = run.config
    does = "averages" if config["fit"]["variant"] == "concat" else "attends to"
    tokens = "special tokens and the padding" if config["fingerprint"]["pad_to"] else "special tokens"
    known = (
        " instead of the one sentence that it was fitted with" if config["fit"]["variant"] == "constant-text" else ""
    )
    return (
        f"the run reads it, so it is given the empty string and {does} its {tokens} alone{known}; "
        f'what that costs: textdiff score --run {run.path} --text ""'
    )


class RunText:
    """The text encoder of a run, in place and checked. Each distinct text is embedded once.

    Args:
        run: a finished run.
        device: where the embeddings go; the encoder itself stays on the CPU, as when the cache was made.

    Raises:
        UserError: the run reads no text, or its text encoder is missing or is another one.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        about, made = run.config["about"], run.config["fingerprint"]
        if not run.reads.text:
            variant = run.config["fit"]["variant"]
            model = f"of the variant {variant}" if variant != "full" else get_model(run.config["model"]).title
            cached = "" if made["text_encoder_sha256"] else ", and its cache was made with --text-encoder none"
            raise UserError(f"--text: {run.path} is {model} and reads no text{cached}; leave --text out")
        self._encoder = text.load_text_encoder(about["text_encoder"], pad_to=made["pad_to"])
        if self._encoder.sha256 != made["text_encoder_sha256"]:
            raise UserError(f"{about['text_encoder']}: not the text encoder that {run.path} was fitted with")
        self._device = device
        self._embedded: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, description: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token embeddings (1, L, D) float32 and their mask (1, L) bool, true at every token that is read."""
        if description not in self._embedded:
            tokens, mask = self._encoder.encode([description])
            self._embedded[description] = (
                torch.from_numpy(tokens).to(self._device),
                torch.from_numpy(mask).to(self._device),
            )
        return self._embedded[description]
