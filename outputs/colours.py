"""The one place that says which colour a class has, in figures, in the report and in the files for other programs."""

__all__ = ["class_colours", "hex_colour"]

import colorsys

# Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart whatever the colour vision; those first that stand out
# most from the pinks and purples of a stained section. Vermilion and blue come last: where errors are shown they mean
# too much and missed.
_PALETTE = ((240, 228, 66), (86, 180, 233), (0, 158, 115), (230, 159, 0), (204, 121, 167), (213, 94, 0), (0, 114, 178))
_ALONE = (213, 94, 0)


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """RGB in 0..255 for the classes 1..``count``: the same ones everywhere, all different.

    One class alone has to stand out from the tissue only, and is vermilion.
    """
    if count == 1:
        return [_ALONE]
    # Beyond the palette steps of the golden angle never come close to each other.
    further = [colorsys.hsv_to_rgb(0.13 + 0.618034 * k % 1, 0.7, 0.85) for k in range(max(0, count - len(_PALETTE)))]
    return [*_PALETTE, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in further)][:count]


def hex_colour(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
