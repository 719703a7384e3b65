"""Which preset suits some images on this machine, and what speaks for it."""

__all__ = ["PresetChoice", "choose_preset"]

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textdiff.errors import UserError
from textdiff.images.scaled import Scaled
from textdiff.images.stains import Kind, kind_of
from textdiff.models.device import choose_device, describe_device
from textdiff.models.downloads.hub import locate
from textdiff.models.weights import MissingWeightsError, resolve_weights
from textdiff.readers.decoding import load_image
from textdiff.readers.sample import Sample

_LOOKED_AT = 5
"""Images whose colours are looked at."""
_TITLES: dict[Kind, str] = {
    "grey": "grey, as radiographs are",
    "H&E": "like H&E",
    "colour": "coloured, but not as H&E",
}


class PresetChoice(NamedTuple):
    """A preset with a text encoder, all of it on this machine already."""

    preset: str
    encoder: str
    """``none`` where no image has a text, or no encoder is in place."""
    why: list[str]
    """Sentences that say so."""


def choose_preset(samples: Sequence[Sample]) -> PresetChoice:
    """The preset for these images on this machine, and what speaks for it."""
    kind, texts = _kind(samples), sum(bool(sample.text) for sample in samples)
    masks, device = sum(sample.mask is not None for sample in samples), choose_device("auto")
    try:
        paper = bool(resolve_weights("adm-256", download=False))
    except MissingWeightsError:
        paper = False
    preset = "paper" if paper and device.type != "cpu" else "nano"
    wanted = ("clinical-biobert", "minilm") if preset == "paper" else ("minilm", "clinical-biobert")
    encoder = next((name for name in wanted if texts and locate(name)), "none")

    many = "There is 1 image" if len(samples) == 1 else f"There are {len(samples)} images"
    why = [f"{many}, {masks or 'none'} with a mask and {texts or 'none'} with a text."]
    if kind:
        why[0] += f" They look {_TITLES[kind]}."
    here = "here" if paper else "not here, and nothing is downloaded unless you ask with `textdiff download adm-256`"
    gpu = "This machine has no GPU" if device.type == "cpu" else f"This machine computes on {describe_device(device)}"
    why.append(f"{gpu}. The paper's weights, adm-256, are {here}.")
    if preset == "paper":
        why.append("So the preset is paper: its network is here, and a GPU to run it on.")
    else:
        reason = "it ships with the package" if not paper else "without a GPU the paper's network takes too long"
        why.append(f"So the preset is nano, whose small network needs no download: {reason}.")
        if kind == "H&E":
            why.append("It was trained on H&E. Blurred pixels do as well on nuclei: compare with --preset rgb.")
        elif kind:
            better = ", and did better on chest X-rays than filters all the same" if kind == "grey" else ""
            own = "`textdiff pretrain` makes one from your own images"
            why.append(f"It has only ever seen H&E{better}; {own}.")
    if not texts:
        why.append("No text encoder is used, because no image has a text.")
    elif encoder == "none":
        why.append('No text encoder is here, so texts are not read; pip install "textdiff[minilm]" brings one.')
    else:
        why.append(f"Texts are read by {encoder}, which is here.")
    return PresetChoice(preset, encoder, why)


def _kind(samples: Sequence[Sample]) -> Kind | None:
    """What most of a few images look like; slides are not looked at, and what cannot be read, the check names."""
    found: Counter[Kind] = Counter()
    for index in np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).round().astype(int):
        image = samples[index].image
        if isinstance(image, Scaled):
            continue
        try:
            found[kind_of(load_image(image).pixels)] += 1
        except UserError:
            continue
    return found.most_common(1)[0][0] if found else None
