"""What a data set's experiments share: which activations, at which steps, from which models."""

__all__ = ["NANO", "PRESETS", "Preset", "get_preset", "usual"]

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from textdiff.errors import choose
from textdiff.readers import READERS


@dataclass(frozen=True)
class Preset:
    """Defaults of one data set. Every field can be overridden on the command line.

    Blocks and steps of ``monuseg`` and ``qata`` are those of the TextDiff paper (Feng, MICCAI 2024, section 3.1).
    """

    dataset: str
    blocks: tuple[int, ...]
    steps: tuple[int, ...] = (50, 150, 250)
    image_size: int = 256
    enlarge: int = 1
    backbone: str = "adm-256"
    text_encoder: str = "clinical-biobert"
    views: int = 1
    jitter: str | None = None


_USUAL = (6, 8, 12, 16)
PRESETS = {
    preset.dataset: preset
    for preset in (
        Preset("monuseg", blocks=(6, 8, 12, 16)),
        Preset("qata", blocks=(4, 6, 8, 12)),
        # Not in the paper; CT slices of the same disease, with the same kind of sentences, as QaTa-COV19's radiographs.
        Preset("mosmed", blocks=(4, 6, 8, 12)),
        # A lab's own data, of which nothing is known.
        Preset("folder", blocks=_USUAL),
        Preset("hdf5", blocks=_USUAL),
        # Synthetic, and made on the spot: nothing has to be downloaded for it.
        Preset("phantom", blocks=(6, 8, 12, 16), image_size=128, backbone="nano-he", text_encoder="minilm"),
    )
}

NANO: dict[str, Any] = {
    "backbone": "nano-he",
    "text_encoder": "minilm",
    "steps": (0, 50, 150, 250),
    "views": 8,
}
"""What a small backbone is best used with, beside the recipe ``fair``; docs/research has the measurements."""
PRESET_KINDS: dict[str, dict[str, Any]] = {
    "paper": {},
    "nano": NANO,
    # The same without a network: what a small backbone has to beat.
    "rgb": NANO | {"backbone": "rgb", "steps": (0,)},
    # What a laboratory has without any network.
    "filters": {"backbone": "filters", "text_encoder": "none", "steps": (0,), "blocks": (0,)},
    # What ImageNet has taught, as it did best on validation images of chest X-rays of 128 pixels.
    "imagenet": {
        "backbone": "efficientnet-lite0",
        "text_encoder": "minilm",
        "steps": (0,),
        "blocks": (3, 4, 5),
        "enlarge": 4,
    },
}
JITTER = {"monuseg": "he"}
"""Whose views a small backbone is to see in varied colours: where that, with ``fair-long``, did better on Val."""


def get_preset(dataset: str, kind: str = "paper") -> Preset:
    """The defaults of a data set: ``paper``; ``nano`` for the backbone in the package; ``imagenet`` for one of a
    package; ``rgb``, ``filters`` for none.

    Raises:
        UserError: there is no such data set or kind of preset.
    """
    known = {name: PRESETS.get(name, Preset(name, blocks=_USUAL)) for name in READERS}
    preset, fitting = choose("--dataset", dataset, known), choose("--preset", kind, PRESET_KINDS)
    jitter = JITTER.get(dataset) if fitting.get("views", 1) > 1 else None
    return replace(preset, **fitting, jitter=jitter)


def usual(option: str) -> str:
    """What the presets say of one option, in words: the value of most data sets first, then the others."""

    def written(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value or "none")

    of_paper = {dataset: written(getattr(get_preset(dataset), option)) for dataset in PRESETS}
    most = Counter(of_paper.values()).most_common(1)[0][0]
    found = {most: [most]}
    for dataset, value in of_paper.items():
        if value != most:
            found.setdefault(value, []).append(dataset)
    for kind in [kind for kind in PRESET_KINDS if kind != "paper"]:
        for dataset in PRESETS:
            value = written(getattr(get_preset(dataset, kind), option))
            of_kind = f"--preset {kind}" + ("" if option in PRESET_KINDS[kind] else f" with {dataset}")
            if value != of_paper[dataset] and of_kind not in found.setdefault(value, []):
                found[value].append(of_kind)
    return "; ".join(value if value == most else f"{value} for {', '.join(where)}" for value, where in found.items())
