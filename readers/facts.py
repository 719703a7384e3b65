"""What looking at an image or a mask shows, whether it is read whole or in parts."""

__all__ = ["ImageFacts", "MaskFacts"]

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFacts:
    """What an image is like."""

    height: int
    width: int
    sha256: str
    """The SHA-256 of the file's bytes, or of the stored array."""
    content: str
    """A digest of the decoded pixels: the same picture in another format has the same."""
    levels: tuple[int, int]
    """The darkest and the brightest level of the 8-bit image."""
    notes: list[str]
    """What a user should know about it, one phrase each."""
    in_parts: bool = False
    """Whether it is too large to be decoded as a whole."""

    @staticmethod
    def content_of(digest: str, height: int, width: int) -> str:
        """``content``, from the digest of the pixels row by row."""
        return f"{digest} {width}x{height}"


@dataclass(frozen=True)
class MaskFacts:
    """What a mask is like."""

    height: int
    width: int
    sha256: str
    notes: list[str]
    counts: tuple[int, ...]
    """Pixels of the background and of each class; they add up to the mask's."""
    objects: int = 0
    """The largest object number, of a mask that numbers its objects."""
    single: bool = False
    """Whether a mask that should number its objects has no other number than 255."""
    value: str = ""
    """How a mask of two classes stores its foreground; see ``PlainMask.value``."""
    threshold: float = 0.0
    """Stored values above it are foreground, in a mask of two classes that is read in parts."""
