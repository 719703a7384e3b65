"""What the user may say about a data set, whatever its layout."""

__all__ = ["ReadOptions"]

from dataclasses import dataclass

from textdiff.errors import UserError


@dataclass(frozen=True)
class ReadOptions:
    """How a data set is to be read.

    Raises:
        UserError: values that cannot be, or contradict each other.
    """

    classes: tuple[str, ...] = ()
    """Names of the values 1, 2, ... in masks that are maps of classes."""
    instances: bool = False
    """Whether masks number their objects."""
    val: float | None = None
    """Share of the annotated images to draw for validation, where the data set has no splits of its own."""
    test: float | None = None
    """The same for the test."""
    seed: int = 0
    """Of that draw."""
    h5_images: str = "images"
    h5_masks: str | None = None
    """None: ``masks`` if it is there. So for the next three."""
    h5_texts: str | None = None
    h5_split: str | None = None
    h5_group: str | None = None

    def __post_init__(self) -> None:
        if self.classes and self.instances:
            raise UserError("--classes and --instances: a mask holds class numbers or object numbers; give one of them")
        if any(not name for name in self.classes) or len(set(self.classes)) < len(self.classes):
            raise UserError(f"--classes {','.join(self.classes)}: give different names, as in nucleus,stroma")
        if len(self.classes) > 254:
            raise UserError(f"--classes: {len(self.classes)} names; at most 254 classes are possible")
        for option, share in (("--val", self.val), ("--test", self.test)):
            if share is not None and not 0 < share < 1:
                raise UserError(f"{option} {share:g}: must be a share between 0 and 1, as in 0.2")
        if (self.val or 0) + (self.test or 0) >= 1:
            raise UserError(f"--val {self.val:g} --test {self.test:g}: together they leave nothing to train on")

    @property
    def draws(self) -> bool:
        """Whether splits are to be drawn."""
        return self.val is not None or self.test is not None
