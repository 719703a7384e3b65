"""Colours varied as they vary between laboratories and machines."""

__all__ = ["MODALITIES", "jitter", "jitter_view"]

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb_from_hed

MODALITIES = ("he", "cxr")

# Optical density of each 8-bit level; level 0 counts as a half, since its logarithm has no end.
_DENSITY = -np.log(np.maximum(np.arange(256), 0.5) / 255).astype(np.float32)


def jitter(image: NDArray[np.uint8], modality: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Varies the colours of an image (H, W, 3) uint8 as they vary between laboratories.

    H&E: the optical density, unmixed into haematoxylin, eosin and residue (Ruifrok & Johnston 2001, the matrix of
    scikit-image), is scaled per stain by 0.75 to 1.33 (the residue by 0.9 to 1.1) and shifted by up to 0.03, after
    Tellez et al. (2019, https://arxiv.org/abs/1902.06543). Chest X-rays: contrast 0.8 to 1.25, brightness up to 0.1 of
    the range.
    """
    if modality == "he":
        gain = np.exp(rng.uniform(-1, 1, 3) * np.log([4 / 3, 4 / 3, 1.1]))
        mix = (hed_from_rgb @ np.diag(gain) @ rgb_from_hed).astype(np.float32)
        density = np.einsum("hwc,cd->hwd", _DENSITY[image], mix) + rng.uniform(-0.03, 0.03, 3).astype(np.float32)
        return np.asarray(np.rint(255 * np.exp(-np.maximum(density, 0))), np.uint8)
    if modality == "cxr":
        contrast, shift = np.exp(rng.uniform(-1, 1) * np.log(1.25)), rng.uniform(-25.5, 25.5)
        levels = np.clip(np.rint((np.arange(256) - 127.5) * contrast + 127.5 + shift), 0, 255).astype(np.uint8)
        return np.asarray(levels[image])
    return image


def jitter_view(
    image: NDArray[np.uint8], modality: str | None, view: int, image_sha256: str, seed: int
) -> NDArray[np.uint8]:
    """A cached view of a training image in colours of its own: :func:`jitter` with a draw that belongs to the view.

    All tiles of an image are varied alike in one view, as another laboratory would have stained the whole of it.

    Args:
        image: (H, W, 3) uint8.
        modality: one of ``MODALITIES``, or None to leave all colours as they are.
        view: number of the view; 0 is the image itself and keeps its colours.
        image_sha256: of the image's file, so that the draw goes with the image and not with its name or place.
        seed: of the cache.
    """
    if modality is None or view == 0:
        return image
    return jitter(image, modality, np.random.default_rng([seed, int(image_sha256[:16], 16), view]))
