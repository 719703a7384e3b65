"""The one place that says which colour a class has, and an error, in figures, the report and other programs' files."""

__all__ = [
    "CONFUSIONS",
    "FALSE_NEGATIVE",
    "FALSE_POSITIVE",
    "TRUE_POSITIVE",
    "UNSAID_VEIL",
    "VEILED",
    "WRONG_CLASS",
    "class_colours",
    "hex_colour",
]

import colorsys

# Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart whatever the colour vision; those first that stand out
# most from the pinks and purples of a stained section.
_PALETTE = ((240, 228, 66), (86, 180, 233), (0, 158, 115), (230, 159, 0), (204, 121, 167), (213, 94, 0), (0, 114, 178))

# Vermilion and blue of the same palette for what is wrong, a pale green for what is right: whatever the colour vision,
# the two errors differ in hue and what is right is the lightest. Of several classes one taken for another is black,
# which nothing else is on a pale image.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = (159, 221, 176), (213, 94, 0), (0, 114, 178)
WRONG_CLASS = (0, 0, 0)
CONFUSIONS = {
    "true positive": TRUE_POSITIVE,
    "false positive": FALSE_POSITIVE,
    "false negative": FALSE_NEGATIVE,
    "wrong class": WRONG_CLASS,
}
"""What a pixel of a picture of errors can be; a wrong class only where there are several."""


UNSAID_VEIL, VEILED = (128, 128, 128), 0.75
"""What lies over pixels of which a mask says nothing, and how much of it: grey, on bright images as on dark ones."""


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """RGB in 0..255 for the classes 1..``count``: the same ones everywhere, all different."""
    # Beyond the palette steps of the golden angle never come close to each other.
    further = [colorsys.hsv_to_rgb(0.13 + 0.618034 * k % 1, 0.7, 0.85) for k in range(max(0, count - len(_PALETTE)))]
    return [*_PALETTE, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in further)][:count]


def hex_colour(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
