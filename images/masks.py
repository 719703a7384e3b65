"""Masks of two classes: which of the stored pixels are foreground, or why that cannot be told."""

__all__ = ["PlainMask", "binary_mask", "check_single", "decode_mask", "foreground", "inverted_note"]

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from textdiff.errors import few
from textdiff.images.formats import BadImageError, Stored, alpha_note, is_shape, open_stored, read_bytes
from textdiff.images.levels import FEW, Levels, foreground_level

_WHITE = "255"
_SHOWN = 4
_NUMBER_THEM = "store 0 and 255, or number the classes 1, 2, ... in one channel and name them with --classes"


class PlainMask(NamedTuple):
    """A mask of two classes."""

    labels: NDArray[np.uint8]
    """(H, W), 1 for foreground."""
    value: str
    """How the foreground is stored: a number, 255 for the white of any type, a colour; "" if that is not known."""
    notes: list[str]
    """What a user should know about the file, one phrase each."""


def decode_mask(path: str | os.PathLike[str], data: bytes | None = None) -> PlainMask:
    """Reads a mask of two classes: 0 and another number, black and another colour, a palette, or a JPEG with its noise.

    Foreground is what exceeds half of its value; values in between are edges, smoothed or blurred.

    * A palette is read by index and by colour, which must not contradict each other.
    * Colours are seen on black through their alpha. Where the colour is one and alpha is not, alpha has the shape;
      where alpha is 0 everywhere, that is no shape at all.
    * Where white is stored as 0, what is shown white is foreground; in a file of ImageJ what is stored as 255, since it
      stores objects so whether its look-up table is inverted or not, and in one of 1 bit by tifffile what is stored
      as 1, since it writes any boolean array so.

    Args:
        path: of the file; names it in errors.
        data: the file's bytes, if they have been read already.

    Raises:
        BadImageError: as ``open_stored``, and for masks of several classes or objects, which would become one.
    """
    stored = open_stored(path, read_bytes(path) if data is None else data)
    check_single(path, stored.unread)
    if any("scaled" in note for note in stored.notes):
        raise BadImageError(path, "stores its mask as 16-bit colours", "export one channel of 8 bits")
    if stored.palette is not None:
        return _by_palette(path, stored, stored.palette)
    if not stored.inverted:
        return _through_alpha(path, stored.shown(), stored)
    mask = _through_alpha(path, stored.pixels if stored.writer else stored.shown(), stored)
    return mask._replace(notes=[*mask.notes, inverted_note(stored.writer)])


def binary_mask(
    path: str | os.PathLike[str], pixels: NDArray[Any], lossy: bool = False
) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H, W), (H, W, 1) or (H, W, 3) as a mask, by the rules of ``decode_mask``.

    Args:
        path: of the file; names it in errors.
        pixels: as they are stored.
        lossy: they come from a JPEG.

    Returns:
        (H, W) uint8 in {0, 1}, and ``PlainMask.value``.

    Raises:
        BadImageError: more than two classes, no background, or values that no mask has.
    """
    if pixels.ndim == 3 and np.any(pixels != pixels[..., :1]):
        pixels, colours = _along_one_colour(path, pixels, lossy)
        try:
            mask, value = binary_mask(path, pixels, lossy)
        except BadImageError as error:
            raise _several(path, "colours", colours, _NUMBER_THEM) from error
        return mask, colours[0] if value and colours and not lossy else value
    pixels = pixels if pixels.ndim == 2 else pixels[..., 0]
    values, codes = _coded(path, pixels)
    top, value = foreground(path, values, Levels.of(codes, len(values), lossy), pixels.dtype, lossy)
    return (pixels > top / 2).astype(np.uint8), value


def foreground(
    path: str | os.PathLike[str], values: NDArray[Any], levels: Levels, dtype: np.dtype[Any], lossy: bool
) -> tuple[float, str]:
    """The number of the foreground, and ``PlainMask.value``.

    Args:
        path: of the file; names it in errors.
        values: ascending, what each code of ``levels`` stands for.
        levels: of the mask.
        dtype: of the stored pixels.
        lossy: they come from a JPEG.

    Raises:
        BadImageError: more than two classes, or no background.
    """
    there = np.flatnonzero(levels.count)
    white = np.iinfo(dtype).max if dtype.kind in "iu" else 1
    noise = dtype.kind not in "iu" or values[there[-1]] in range(256) or values[there[-1]] == white
    top = foreground_level(values, levels, lossy=lossy, noise=noise)
    if top is None:
        # Among noise and edges the values of classes are those that fill regions.
        most = there[np.argsort(-levels.flat[there], kind="stable")]
        shown = there if len(there) <= FEW else np.sort(most[:_SHOWN])
        raise _several(path, "values", [_number(value) for value in values[shown]], _advice(values[there]))
    if not levels.count[values > top / 2].any():
        return top, ""
    if len(there) <= FEW and not lossy:
        # Edges that are all there is of a mask say nothing of the value of whole regions.
        known = len(there) <= 2 or levels.flat[values == top].any()
        return top, "" if not known else _WHITE if top in (white, 255) else _number(top)
    if any(abs(top - w) <= w / 16 for w in (white, 255)):
        return top, _WHITE
    return top, _number(top) if not lossy and levels.flat[values == top].any() else ""


def check_single(path: str | os.PathLike[str], unread: str) -> None:
    """Refuses a mask in a file that holds several, of which one would be taken for all.

    Args:
        path: of the file; names it in errors.
        unread: as of ``Stored``.
    """
    if unread:
        raise BadImageError(path, f"has {unread}, and not a single mask", "save one mask, of one page and one channel")


def inverted_note(writer: str) -> str:
    """What is said of a mask whose white is 0, by ``Stored.writer``."""
    number = 255 if writer == "ImageJ" else 1
    taken = f"stored as {number} and shown black, as {writer} does," if writer else "shown white"
    return f"stores white as 0: what is {taken} is taken for foreground"


def _coded(path: str | os.PathLike[str], pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values that the pixels may have, ascending, and the pixels as their places there, uint8 or uint16."""
    if (pixels.dtype.kind == "f" and not np.isfinite(pixels).all()) or pixels.min() < 0:
        raise BadImageError(path, "has values that are negative or not finite", "store the mask with 0 and 255")
    if pixels.dtype in (bool, np.uint8, np.uint16):
        return np.arange(2 ** (8 * pixels.dtype.itemsize) if pixels.dtype != bool else 2), pixels
    largest = pixels.max()
    if pixels.dtype.kind == "f":
        unit = max(float(largest), 1e-300) / 65535
        return np.arange(65536) * unit, np.rint(pixels.astype(np.float64) / unit).astype(np.uint16)
    if largest < 65536:
        return np.arange(65536), pixels.astype(np.uint16)
    values, codes = np.unique(pixels, return_inverse=True)
    if len(values) > 65536:
        raise _several(path, "values", [str(value) for value in values[: _SHOWN + 1]], _advice(values))
    return values, codes.reshape(pixels.shape).astype(np.uint16)


def _along_one_colour(
    path: str | os.PathLike[str], pixels: NDArray[Any], lossy: bool
) -> tuple[NDArray[np.uint8], list[str]]:
    """The share (H, W) of the most common bright colour in each pixel (H, W, 3), in the levels of that colour.

    Returns:
        The share, and the names of the most common colours, first of that one.

    Raises:
        BadImageError: a colour that is not on the way from black to that one.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise BadImageError(path, f"is {pixels.dtype} in {pixels.shape[2]} channels", "store one channel, 0 and 255")
    light = pixels.max(axis=2)
    # A JPEG blurs hues over several pixels.
    inside = ndimage.minimum_filter(light, 5, mode="nearest") > light.max() / 2 if lossy else np.ones(light.shape, bool)
    if not inside.any():
        return light, []
    codes = (pixels.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(axis=2, dtype=np.uint32)
    found, counts = np.unique(codes[inside], return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.float64)
    bright = colours.max(axis=1)
    best = int(np.argmax(np.where(bright > bright.max() / 2, counts, 0)))
    share = colours @ colours[best] / (colours[best] @ colours[best])
    distance = np.abs(colours - share[:, None] * colours[best]).max(axis=1)
    strange = distance > (64 if lossy else 1.5 if len(found) <= FEW else 24)
    names = [f"#{code:06x}" for code in [found[best], *found[np.argsort(-counts, kind="stable")]]]
    names = list(dict.fromkeys(names))[: _SHOWN + 1]
    table = np.zeros(1 << 24, np.uint8)
    if strange.any():
        table[found] = strange
        if not lossy or ndimage.minimum_filter(table[codes] & inside, 3, mode="nearest").any():
            raise _several(path, "colours", names, _NUMBER_THEM)
    if lossy:
        return light, names
    table[found] = np.rint(np.clip(share * bright[best], 0, 255))
    return table[codes], names


def _through_alpha(path: str | os.PathLike[str], pixels: NDArray[Any], stored: Stored) -> PlainMask:
    """The mask in pixels (H, W) or (H, W, C) that are seen on black through their alpha, if they have one."""
    alpha, notes = stored.alpha, stored.notes
    if alpha is not None and is_shape(alpha, pixels):
        shape = binary_mask(path, alpha)
        return PlainMask(*shape, [*notes, "has one colour, and its shape in the alpha channel: that is read"])
    if alpha is None or alpha.min() == alpha.max():
        said = [] if alpha is None else [alpha_note(alpha.min(), alpha.max())]
        return PlainMask(*binary_mask(path, pixels, stored.lossy), [*notes, *said])
    opacity = alpha / alpha.max()
    seen = np.rint(pixels * (opacity if pixels.ndim == 2 else opacity[..., None])).astype(pixels.dtype)
    mask, value = binary_mask(path, seen)
    if np.any(binary_mask(path, pixels)[0][alpha == 0]):
        raise BadImageError(path, "has one shape in its colours and another in its alpha", "save it without alpha")
    return PlainMask(mask, value, [*notes, "alpha that is not opaque (seen on black)"])


def _by_palette(path: str | os.PathLike[str], stored: Stored, palette: NDArray[np.uint8]) -> PlainMask:
    """The mask in a file whose indices are numbers to one program, and places of colours to another."""
    used = np.unique(stored.pixels)
    by_index = by_colour = wrong = None
    try:
        by_index = PlainMask(*binary_mask(path, stored.pixels), stored.notes)
    except BadImageError as error:
        wrong = error
    # Of indices that look alike the colour does not tell which is which.
    if len(np.unique(palette[used], axis=0)) == len(used):
        try:
            by_colour = _through_alpha(path, stored.shown(), stored)
        except BadImageError as error:
            wrong = wrong or error
    if by_index and by_colour and np.any(by_index.labels != by_colour.labels):
        raise BadImageError(
            path,
            "has a palette that contradicts its numbers: one shows as background what the other has as foreground",
            "save it as grey, with 0 for the background",
        )
    if by_colour:
        return by_colour
    if by_index:
        note = "has a palette without black: what has the index 0 is background"
        value = by_index.value and f"index {by_index.value}"
        return by_index._replace(value=value, notes=[*by_index.notes, note])
    assert wrong is not None
    raise wrong


def _several(path: str | os.PathLike[str], what: str, shown: Sequence[str], fix: str) -> BadImageError:
    return BadImageError(path, f"is not a mask of two classes ({what} {few(shown, _SHOWN)})", fix)


def _advice(values: NDArray[Any]) -> str:
    """What fits a mask with these values, ascending."""
    if values[0] > 0 and len(values) == 2:
        return "store 0 for the background"
    if values.dtype.kind == "f" and np.any(values != np.floor(values)):
        return "cut probabilities at a threshold, and store 0 and 255"
    below = values[values < 255]
    if below[-1] < 64 and len(values) - len(below) == 1 and values[-1] == 255:
        return (
            "if 255 says that nothing is known there, a void border or what was not annotated, add --unlabelled-value "
            "255, and name the other values with --classes if there are several"
        )
    if values[-1] < 64:
        return f"store 0 and 255, or say what 1..{_number(values[-1])} are with --instances or --classes"
    if len(values) > 32:
        return "store 0 and 255, or use --instances if every object has its number"
    if len(values) == 3:
        return f"{_NUMBER_THEM}; if one of them says that nothing is known there, name it with --unlabelled-value"
    return _NUMBER_THEM


def _number(value: Any) -> str:
    return str(int(value)) if value == int(value) else f"{value:.4g}"
