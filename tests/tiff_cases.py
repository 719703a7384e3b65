"""TIFFs of small pictures, and such as say other things than they hold."""

import io

import numpy as np
import tifffile

DRAW = np.random.default_rng(5)
H, W = 70, 50
RGB = DRAW.integers(0, 256, (H, W, 3), dtype=np.uint8)


def written(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 else "minisblack")
    tifffile.imwrite(out, pixels, metadata=options.pop("metadata", None), **options)
    return out.getvalue()


def with_tag(data: bytes, code: int, value: object) -> bytes:
    out = io.BytesIO(data)
    with tifffile.TiffFile(out, mode="r+") as tiff:
        tiff.pages.first.tags[code].overwrite(value)
        return out.getvalue()
