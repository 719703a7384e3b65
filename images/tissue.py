"""Where on a slide there is tissue, and which tiles show some.

The rule is Otsu's threshold (IEEE Transactions on Systems, Man, and Cybernetics 9, 1979, https://doi.org/10.1109/
TSMC.1979.4310076) on the saturation of a small picture of the slide, smoothed by a median: glass is grey, stain is not.
CLAM (https://doi.org/10.1038/s41551-020-00682-w) and others find tissue so; from CLAM are the median's side, and the
saturation below which nothing is tissue.
"""

__all__ = ["OVERVIEW_MPP", "tissue_mask", "tissue_places", "tissue_shares"]

import numpy as np
from numpy.typing import NDArray

from textdiff.images.slide import SlideView
from textdiff.images.tiles import Grid

OVERVIEW_MPP = 8.0
"""Micrometres per pixel of the picture that is looked at."""
LONGEST = 4096
"""Most pixels a side of it, however large the slide is."""
MEDIAN = 7
LEAST, MOST = 8, 20
"""Bounds of the threshold, of 255. Without the lower one Otsu would divide the grain of an empty slide in two; without
the upper one it would divide the pale tissue from the dark, where there is no glass between them."""
BLACK = 26
"""The brightest channel below which a pixel is no tissue: the margin of a scan, whose saturation means nothing."""


def tissue_mask(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels (H, W) of a picture (H, W, 3) of a slide, of about ``OVERVIEW_MPP``, are tissue."""
    from scipy.ndimage import median_filter
    from skimage.filters import threshold_otsu

    most = picture.max(2).astype(np.float32)
    saturation = np.round(255 * (most - picture.min(2)) / np.maximum(most, 1)).astype(np.uint8)
    saturation[most < BLACK] = 0
    saturation = median_filter(saturation, MEDIAN, mode="nearest")
    return np.asarray(saturation > np.clip(threshold_otsu(saturation), LEAST, MOST))


def tissue_shares(grid: Grid, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much of each tile of ``grid.places`` is tissue, 0..1, by a mask (h, w) of the grid's whole image."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0, dtype=np.int64).cumsum(1)

    def ends(starts: tuple[int, ...], length: int, old: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Of a pixel of the mask that a tile holds in part the whole is looked at: better a tile too many.
        first = np.floor(np.array(starts) * length / old).astype(np.int64)
        last = np.ceil(np.minimum(np.array(starts) + grid.size, old) * length / old).astype(np.int64)
        return np.minimum(first, length - 1), np.clip(last, 1, length)

    (top, bottom), (left, right) = (
        ends(grid.tops, mask.shape[0], grid.height),
        ends(grid.lefts, mask.shape[1], grid.width),
    )
    rows = sums[bottom] - sums[top]
    counts = rows[:, right] - rows[:, left]
    shares: NDArray[np.float64] = (counts / ((bottom - top)[:, None] * (right - left))).ravel()
    return shares


def tissue_places(view: SlideView, grid: Grid, least: float) -> tuple[list[tuple[int, int]], float | None]:
    """The places of a slide's tiles of which at least the share ``least`` is tissue, and the tissue's area.

    The area is in square millimetres; None where the size of a pixel is not known. With 0 all tiles count.
    """
    mask = tissue_mask(view.slide.overview(LONGEST, OVERVIEW_MPP))
    shares = tissue_shares(grid, mask)
    places = [place for place, share in zip(grid.places, shares, strict=True) if share >= least]
    size = view.pixel_size
    area = None if size is None else float(mask.mean() * view.height * view.width * size[0] * size[1] / 1e6)
    return places, area
