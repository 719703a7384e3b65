"""The cast to the stored type: numpy's bits, to the last one, and the same refusals in whatever way values come."""

import numpy as np
import pytest

from textdiff.cache import CacheError
from textdiff.cache.cast import _PIECE, Cast, cast_pieces

with np.errstate(over="ignore", invalid="ignore"):
    HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    FINITE = HALVES[np.isfinite(HALVES)].astype(np.float32)
    # Every half, the middle between it and the next, and the floats on both sides of each.
    MIDDLES = ((FINITE[:-1].astype(np.float64) + FINITE[1:]) / 2).astype(np.float32)
    AROUND = np.concatenate([FINITE, MIDDLES])
    AROUND = np.concatenate([AROUND, np.nextafter(AROUND, np.float32(np.inf)), np.nextafter(AROUND, -np.float32(9e9))])
AROUND = AROUND[np.abs(AROUND) < 65520]
TINY = np.ldexp(np.float32(1), -np.arange(149, dtype=np.int32))  # down to float32's own subnormals


def stored(grid: np.ndarray | Cast, dtype: str = "float16") -> np.ndarray:
    return np.concatenate([piece.copy() for piece in cast_pieces(grid, 0, dtype, "block 3")])


def readonly(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flags.writeable = False
    return values


SOURCES = {
    "float32": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "not contiguous": lambda x: np.stack([x, x], -1)[..., 0],
    "big-endian": lambda x: x.astype(">f4"),
    "not writable": readonly,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_bits_are_those_of_numpys_cast(source, dtype):
    values = np.concatenate([AROUND, TINY, -TINY])[None]
    assert values.size > 2 * _PIECE
    expected = values[0].astype(np.dtype(dtype).newbyteorder("<"))
    assert stored(source(values), dtype).tobytes() == expected.tobytes()


def test_halves_stay_as_they_are():
    values = FINITE.astype(np.float16)[None]
    assert stored(values).tobytes() == values.tobytes()


def cast(values: np.ndarray) -> Cast:
    with np.errstate(over="ignore"):
        return Cast(values.astype(np.float16), np.array([[values.min(), values.max()]], np.float32))


WAYS = {"float32": lambda x: x, "float64": lambda x: x.astype(np.float64), "cast before": cast}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinity"),
        (np.inf, "NaN or infinity"),
        (65520, "6.55e[+]04 is too large for float16"),
        (1e9, "1e[+]09 is"),
    ],
)
def test_what_is_not_finite_is_refused_wherever_it_stands(way, sign, value, words):
    values = np.full((1, 2 * _PIECE + 3), -1, np.float32)
    values[0, -1] = sign * value
    with pytest.raises(CacheError, match=f"block 3: .*{words}"):
        stored(way(values))
    values[0, -1] = sign * 65519
    assert stored(way(values))[-1] == sign * np.float16(65504)
