"""Options that say how a data set is read, whatever its layout."""

__all__ = ["DataSet", "Hdf5Names", "Masks", "Place", "ReadOptions", "Resolution"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from textdiff.errors import UserError
from textdiff.options.option import AnyPath, Exists, Known, Range
from textdiff.options.record import Record
from textdiff.options.shared import Seed

Share = Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class Place(Record):
    """Options."""

    data: Annotated[AnyPath | None, Exists("file or directory", "say where it is with --data")] = None
    """Directory or file of the data set; looked for in $TEXTDIFF_DATA, data/ and datasets/ by default."""


@dataclass(frozen=True)
class DataSet(Place):
    """Options."""

    dataset: Annotated[str, Known("textdiff.readers:READERS", strict=True)]
    """Name of the data set, or folder or hdf5 for your own."""


@dataclass(frozen=True, kw_only=True)
class Hdf5Names(Record):
    """HDF5 files."""

    h5_images: str = "images"
    """Name of the images in the file."""
    h5_masks: str | None = None
    """Name of the masks; masks by default, if it is there."""
    h5_texts: str | None = None
    """Name of the texts; texts by default, if it is there."""
    h5_split: str | None = None
    """Name of the splits; split by default, if it is there."""
    h5_group: str | None = None
    """Name of the groups; group by default, if it is there."""


@dataclass(frozen=True, kw_only=True)
class Resolution(Record):
    """Slides."""

    mpp: Annotated[float | None, Range(above=0)] = None
    """Micrometres per pixel at which slides and other images are looked at; their own by default. Goes with --tile."""
    own_mpp: Annotated[float | None, Range(above=0)] = None
    """Micrometres per pixel that the images have at their finest; what each file says by default."""
    tissue: Annotated[float, Range(least=0, most=1)] = 0.05
    """Share of a tile that must be tissue where --mpp is given, else it is left out (docs/slides.md); 0 takes all."""
    annotated_only: bool = False
    """Leave out tiles without foreground (of a sparse mask: without labels), too, where --mpp is given and a mask."""

    def check(self) -> None:
        """Refuses what means nothing without a resolution."""
        super().check()
        if self.mpp is None and (self.own_mpp is not None or self.annotated_only):
            option = f"--own-mpp {self.own_mpp:g}" if self.own_mpp is not None else "--annotated-only"
            raise UserError(f"{option}: goes with --mpp, as in --mpp 0.5 --tile 256")
        if self.mpp is not None and getattr(self, "tile", 0) is None:
            raise UserError(f"--mpp {self.mpp:g}: goes with --tile, as in --mpp {self.mpp:g} --tile 256")


_ZERO = ("background", "_background_", "bg", "0")
"""What 0 is called by who lists its name with those of the classes."""


@dataclass(frozen=True, kw_only=True)
class Masks(Record):
    """Masks."""

    annotations: Annotated[AnyPath | None, Exists("file or directory", "name what the outlines are in")] = None
    """Outlines by other programs (GeoJSON, COCO, labelme, ImageScope), a file or a directory of files; by default those
    in masks/."""
    classes: Sequence[str] = ()
    """Names of the values 1, 2, ... in masks that are maps of classes, as in nucleus,stroma; 0, the background, has
    none."""
    unlabelled_value: str | None = None
    """Number in masks, or name among --classes, of pixels of which nothing is said, as in 255; none by default. They
    are not trained on and not scored."""
    instances: bool = False
    """Masks number their objects (instance label maps)."""

    def check(self) -> None:
        """Refuses a mask of two kinds."""
        super().check()
        if self.classes and self.instances:
            raise UserError("--classes and --instances: a mask holds class numbers or object numbers; give one of them")
        if len(self.classes) > 254:
            raise UserError(f"--classes: {len(self.classes)} names; at most 254 classes are possible")
        self._check_unlabelled()
        self._check_background()

    def _check_unlabelled(self) -> None:
        value = self.unlabelled_value
        if value is None:
            return
        if value not in self.classes and not (value.isascii() and value.isdigit() and int(value) < 2**32):
            named = f" and none of --classes {','.join(self.classes)}" if self.classes else ""
            raise UserError(f"--unlabelled-value {value}: is no number from 0 on{named}; name what masks have there")
        if self.classes and not self.said()[0]:
            raise UserError(f"--unlabelled-value {value}: leaves no class of --classes {','.join(self.classes)}")
        if not self.classes and int(value) == 0:
            fix = "leave it out" if self.instances else "name the others, the background first: --classes background,x"
            raise UserError(f"--unlabelled-value 0: 0 is the background of such masks; {fix}")

    def _check_background(self) -> None:
        """Refuses a name for 0 among those of 1, 2, ...: every class would be called as the one before it."""
        names, silent = self.said()
        name = next((name for name in names if name.casefold() in _ZERO), None)
        if name is None:
            return
        listed = f"--classes {','.join(self.classes)}"
        if silent == 0:
            raise UserError(f"{listed}: where 0 says nothing the first name is the background's; put {name} there")
        what = f"names the values 1, 2, ..., so {name} would be {self.classes.index(name) + 1}"
        fix = "leave it out, as 0 needs no name, or add --unlabelled-value 0 if 0 says nothing"
        raise UserError(f"{listed}: {what}; {fix}")

    def said(self) -> tuple[tuple[str, ...], int | None]:
        """The names of the classes 1, 2, ... that masks tell apart, and the number in them that says nothing, if any.

        Where 0 says nothing the first of ``classes`` is the background, which needs no name.
        """
        names, value = tuple(self.classes), self.unlabelled_value
        if value is None:
            return names, None
        number = names.index(value) + 1 if value in names else int(value)
        dropped = max(number, 1) - 1
        return names[:dropped] + names[dropped + 1 :], number


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Masks, Resolution, Hdf5Names):
    """Splits."""

    val: Share | None = None
    """Share of the annotated images to draw for validation, by groups and with --seed, as in 0.2; none by default."""
    test: Share | None = None
    """Share of the annotated images to draw for the test; none by default."""
    seed: Seed = 0
    """Seed of the splits that are drawn."""

    def check(self) -> None:
        """Refuses shares that leave nothing to train on."""
        super().check()
        if (self.val or 0) + (self.test or 0) >= 1:
            raise UserError(f"--val {self.val:g} --test {self.test:g}: together they leave nothing to train on")

    @property
    def draws(self) -> bool:
        """Whether splits are to be drawn."""
        return self.val is not None or self.test is not None
