"""Published scores to stand beside ours, as data."""

__all__ = ["LVIT", "PUBLISHED", "TEXTDIFF", "Published"]

from typing import NamedTuple

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


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "monuseg": (
        Published("TextDiff", 5, 78.67, 64.98, TEXTDIFF),
        Published("TextDiff, no text", 5, 77.73, 63.70, TEXTDIFF),
        Published("TextDiff, no cross-attention", 5, 76.34, 61.89, TEXTDIFF),
        Published("U-Net", 5, 73.92, 58.98, TEXTDIFF),
        Published("LViT-T", 24, 80.36, 67.31, LVIT),
    ),
    "qata": (
        Published("TextDiff", 150, 71.41, 59.03, TEXTDIFF),
        Published("TextDiff, no text", 150, 68.90, 56.94, TEXTDIFF),
        Published("TextDiff, no cross-attention", 150, 70.71, 57.81, TEXTDIFF),
        Published("U-Net", 150, 46.08, 34.16, TEXTDIFF),
    ),
}
