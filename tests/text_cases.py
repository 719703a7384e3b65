"""A BERT with random weights: a text encoder that knows a few words and costs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_bert(
    folder: Path, words: Sequence[str], hidden: int = 32, intermediate: int = 64, layers: int = 1, **more: Any
) -> torch.nn.Module:
    """Writes a directory of the hub's kind: config.json, vocab.txt and weights; returns the network."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    vocabulary = [*SPECIAL, *words]
    model = BertModel(BertConfig(vocab_size=len(vocabulary), num_attention_heads=2, **sizes, **more)).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return model
