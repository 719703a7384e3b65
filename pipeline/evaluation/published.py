"""Published scores to stand beside ours, as data, and the test images that they are of."""

__all__ = ["ARTEFACTS", "LVIT", "PUBLISHED", "TEXTDIFF", "Comparison", "Published", "published_for"]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

TEXTDIFF = "Feng, MICCAI 2024, https://arxiv.org/abs/2407.05323"
LVIT = "Li et al., IEEE TMI 2023, https://arxiv.org/abs/2206.14718"


class Published(NamedTuple):
    """One row of a paper's table: means over the test split. The papers give no intervals."""

    method: str
    labels: int
    """Number of annotated training images."""
    dice: float
    """Mean Dice in percent."""
    iou: float
    """Mean IoU in percent."""
    source: str
    printed: str = ""
    """The number of parameters as the paper prints it."""


class Comparison(NamedTuple):
    """What may stand beside the scores of some images."""

    rows: tuple[Published, ...]
    why_not: str
    """Why there are no rows although papers have scores of the data set; empty otherwise."""


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "monuseg": (
        Published("TextDiff", 5, 78.67, 64.98, TEXTDIFF),
        Published("TextDiff, no text", 5, 77.73, 63.70, TEXTDIFF),
        Published("TextDiff, no cross-attention", 5, 76.34, 61.89, TEXTDIFF),
        Published("U-Net", 5, 73.92, 58.98, TEXTDIFF, "31.04M"),
        Published("TransUNet", 5, 73.54, 58.79, TEXTDIFF, "93.19M"),
        Published("Swin-Unet", 5, 64.36, 48.74, TEXTDIFF, "27.17M"),
        Published("GLoRIA", 5, 66.38, 49.83, TEXTDIFF, "32.52M"),
        Published("LViT", 5, 57.95, 44.13, TEXTDIFF, "29.72M"),
        Published("LViT-T", 24, 80.36, 67.31, LVIT),
    ),
    "qata": (
        Published("TextDiff", 150, 71.41, 59.03, TEXTDIFF),
        Published("TextDiff, no text", 150, 68.90, 56.94, TEXTDIFF),
        Published("TextDiff, no cross-attention", 150, 70.71, 57.81, TEXTDIFF),
        Published("U-Net", 150, 46.08, 34.16, TEXTDIFF, "31.04M"),
        Published("TransUNet", 150, 70.78, 59.50, TEXTDIFF, "93.19M"),
        Published("Swin-Unet", 150, 65.19, 51.87, TEXTDIFF, "27.17M"),
        Published("GLoRIA", 150, 71.05, 59.74, TEXTDIFF, "32.52M"),
        Published("LViT", 150, 66.43, 51.71, TEXTDIFF, "29.72M"),
    ),
}

ARTEFACTS = (
    "93.19M for TransUNet and 29.72M for LViT are what a counting tool prints that passes over some layers: they have "
    "105,322,146 parameters, and 39,933,345 of which 29,908,033 are used.",
    "GLoRIA is a ResNet-50 U-Net there, the row resnet50-unet here: it reads no text, neither in training nor after.",
)
"""What to know of the published rows of the paper's table 1."""

# By name the beginning of the SHA-256 of the image's file and of the mask's, as the authors of LViT distribute them.
_MONUSEG_TEST = {
    "TCGA-2Z-A9J9-01A-01-TS1": ("6f840831ec7a253f", "f626a275a3062f1f"),
    "TCGA-44-2665-01B-06-BS6": ("ccee75b157976a00", "53ca32bc046661b2"),
    "TCGA-69-7764-01A-01-TS1": ("a7597618d0371795", "e768b510deeb4111"),
    "TCGA-A6-6782-01A-01-BS1": ("fa25bd8974cbd8c6", "7e2466dd12cc2933"),
    "TCGA-AC-A2FO-01A-01-TS1": ("78e04aef83cb36d0", "77b5219cfd7e2d29"),
    "TCGA-AO-A0J2-01A-01-BSA": ("cb674ebeef747e09", "6c3818916ee7d5fd"),
    "TCGA-CU-A0YN-01A-02-BSB": ("ad3e7ada1f6c5020", "af31c85de2b2338c"),
    "TCGA-EJ-A46H-01A-03-TSC": ("160abd191a91a13a", "3aa039e4119699e5"),
    "TCGA-FG-A4MU-01B-01-TS1": ("dc6e9f5708791950", "ddd6f26f0331f83f"),
    "TCGA-GL-6846-01A-01-BS1": ("e39c83138708921d", "535f69d3f8a7a9c7"),
    "TCGA-HC-7209-01A-01-TS1": ("b4853ff681af7d0c", "b4f6755daba8b17c"),
    "TCGA-HT-8564-01Z-00-DX1": ("2a4a24f52889519a", "5b3263c048932120"),
    "TCGA-IZ-8196-01A-01-BS1": ("25192feade6c6e1b", "4edf02643f753c64"),
    "TCGA-ZF-A9R5-01A-01-TS1": ("966b04a86252191f", "fdbc008864211282"),
}
# Of QaTa-COV19 no digests are at hand: it is known by how many test images it has, and by how they are called.
_QATA_NAME = re.compile(r"covid_\d+|sub-S\d+_ses-E\d+_.*")
_Images = Mapping[str, Sequence[Any]]


def _not_monuseg(images: _Images) -> int:
    return sum(tuple(facts[:2]) != _MONUSEG_TEST.get(name) for name, facts in images.items())


def _not_qata(images: _Images) -> int:
    strange = sum(not _QATA_NAME.fullmatch(name) for name in images)
    # Some of its images come from other collections, with other names.
    return strange if strange > len(images) / 2 else 0


_TEST: dict[str, tuple[int, Callable[[_Images], int]]] = {
    "monuseg": (len(_MONUSEG_TEST), _not_monuseg),
    "qata": (2113, _not_qata),
}
"""How many test images the scores are of, and what counts those among some images that are none of them."""


def published_for(dataset: str, images: _Images, sparse: int = 0) -> Comparison:
    """The published scores of a data set, if these images are the test images that they are of.

    Args:
        dataset: its name.
        images: by id the digests of the image and of its mask, and more, as ``image_digests`` gives them.
        sparse: how many of their masks say nothing in places.
    """
    if dataset not in PUBLISHED:
        return Comparison((), "")
    if sparse:
        why = f"they are of full masks, and {sparse} of {len(images)} masks here say nothing of some pixels"
        return Comparison((), f"The published scores are left out: {why}.")
    expected, count_others = _TEST[dataset]
    strange = count_others(images)
    if not strange and len(images) == expected:
        return Comparison(PUBLISHED[dataset], "")
    other = f", and {strange} of these are other images or have other masks" if strange else ""
    return Comparison(
        (),
        f"The published scores are left out: they are of {expected} test images, here are {len(images)}{other}.",
    )
