"""What is known of each data set: where it usually is, and which activations, steps and models suit it."""

__all__ = ["NANO", "PRESETS", "PRESET_KINDS", "Preset", "find_data", "get_preset", "name_of_data", "usual"]

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from textdiff.errors import UserError, choose
from textdiff.options.option import imported
from textdiff.readers import READERS


@dataclass(frozen=True)
class Preset:
    """Facts and defaults of one data set. Every default can be overridden on the command line.

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
    """Colours to vary where there are several views."""
    directory: str = ""
    """The usual name of its directory, where that is not its own name."""
    own: str = ""
    """What a lab gives as its own data, which has no usual place; empty for a data set that has one."""
    synthetic: str = ""
    """``module:function`` that makes it in a directory, unless it is there; empty for one that was photographed."""
    mask_place: str = ""
    """``module:function`` that says where a mask belongs that is yet to come; empty where there is no such place."""


_USUAL = (6, 8, 12, 16)
PRESETS = {
    preset.dataset: preset
    for preset in (
        # In varied colours a small backbone, with ``fair-long``, did better on Val.
        Preset("monuseg", blocks=(6, 8, 12, 16), jitter="he", directory="MoNuSeg"),
        Preset("qata", blocks=(4, 6, 8, 12), directory="QaTa-COV19"),
        # Not in the paper; CT slices of the same disease, with the same kind of sentences, as QaTa-COV19's radiographs.
        Preset("mosmed", blocks=(4, 6, 8, 12), directory="MosMedDataPlus"),
        # A lab's own data, of which nothing is known.
        Preset("folder", blocks=_USUAL, own="directory", mask_place="textdiff.readers.folder:mask_place"),
        Preset("hdf5", blocks=_USUAL, own="HDF5 file"),
        # Nothing has to be downloaded for it.
        Preset(
            "phantom",
            blocks=(6, 8, 12, 16),
            image_size=128,
            backbone="nano-he",
            text_encoder="minilm",
            synthetic="textdiff.readers.phantom:ensure_phantom",
        ),
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


def get_preset(dataset: str, kind: str = "paper") -> Preset:
    """The defaults of a data set: ``paper``; ``nano`` for the backbone in the package; ``imagenet`` for one of a
    package; ``rgb``, ``filters`` for none.

    Raises:
        UserError: there is no such data set or kind of preset.
    """
    known = {name: PRESETS.get(name, Preset(name, blocks=_USUAL)) for name in READERS}
    preset, fitting = choose("--dataset", dataset, known), choose("--preset", kind, PRESET_KINDS)
    found = replace(preset, **fitting)
    return found if found.views > 1 else replace(found, jitter=None)


def find_data(dataset: str) -> Path:
    """The directory of a data set: under ``$TEXTDIFF_DATA``, ``data/`` or ``datasets/``, by its usual name.

    A synthetic one is made in ``data/`` if it is not there yet.

    Raises:
        UserError: it is in none of them.
    """
    known = get_preset(dataset)
    if known.synthetic:
        made: Path = imported(known.synthetic)(Path("data") / dataset)
        return made
    if known.own:
        raise UserError(f"--data: missing; --dataset {dataset} needs the place of your {known.own}")
    folder = known.directory or dataset
    roots = [Path(os.environ["TEXTDIFF_DATA"])] if os.environ.get("TEXTDIFF_DATA") else []
    places = [root / folder for root in (*roots, Path("data"), Path("datasets"))]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"--data: no {folder} directory in {looked}; give its place with --data, or set TEXTDIFF_DATA")


def name_of_data(about: Mapping[str, Any]) -> str:
    """What tables and reports call a data set: a lab's own by its directory or file, any other by its layout.

    One of its own that is called as a layout has both names: published scores are beside that of the layout only.

    Args:
        about: what a cache says of itself.
    """
    layout = str(about.get("dataset", "data"))
    own = layout in PRESETS and PRESETS[layout].own
    place = PurePath(str(about.get("options", {}).get("data", ""))) if own else PurePath()
    name = place.stem if place.suffix in (".h5", ".hdf5") else place.name
    if name in ("", ".."):
        return layout
    return f"{name} ({layout})" if name in READERS else name


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
