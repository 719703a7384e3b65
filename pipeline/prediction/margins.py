"""How wide the margins of tiles are, in which the pixels are nothing but the others' surroundings."""

__all__ = ["margin_of"]

import math

from textdiff.errors import UserError
from textdiff.models.backbones.load import backbone_kind
from textdiff.models.networks.models import get_model
from textdiff.pipeline.runs import Run

_MOST_MORE = 3
"""How many times as many tiles along a side a margin may cost that nobody asked for."""


def margin_of(run: Run, asked: int | None) -> int:
    """The margin of the tiles that a run predicts by, in pixels of the tiles; 0 for a run without tiles.

    By default as far as the run sees, so that tiles meet without a seam: they say what one piece would. That is known
    where the backbone states its ``reach`` and the network looks at single pixels. Where it is not known, or where the
    tiles are too small for that, there is none.

    Args:
        run: a finished run, be it combined; all its runs have the same tiles.
        asked: what is asked for; None for the default.

    Raises:
        UserError: the margin that is asked for is too wide for the tiles, or the run has none.
    """
    made = run.config["fingerprint"]
    if "tile" not in made:
        if asked:
            raise UserError(f"--margin {asked}: {run.path} sees an image as a whole, and needs none; leave it out")
        return 0
    tile, overlap = made["tile"], made["overlap"]
    most = (tile - 2 * overlap) // 2
    if asked is None:
        wide = 0
        for member in run.members if run.combined else [run]:
            if (reach := _reach(member)) is None:
                return 0
            wide = max(wide, reach)
        affordable = _MOST_MORE * (tile - overlap - 2 * wide) >= tile - overlap
        return wide if wide <= most and affordable else 0
    if asked > max(most, 0):
        raise UserError(
            f"--margin {asked}: tiles of {tile} pixels that share {overlap} have room for {most}; take that or less"
        )
    return asked


def _reach(run: Run) -> int | None:
    """How many pixels of a tile away what a run says of a pixel can come from; None where that is not known."""
    if not get_model(run.config["model"]).pixelwise:
        return None
    made = run.config["fingerprint"]
    reach = backbone_kind(run.config["about"]["backbone"]).reach
    if reach is None:
        return None
    pixels: float = made["tile"] / made["image_size"]
    enlarge: int = made.get("enlarge", 1)
    # Where pixels are resized, each is of its neighbours too, on the way in and on the way out.
    resized = 0 if pixels == enlarge == 1 else 2 * max(1.0, pixels)
    return math.ceil(reach / enlarge * pixels + resized)
