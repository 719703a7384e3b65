"""Options that say how a data set is read, shared by the commands that read one."""

__all__ = [
    "Classes",
    "Data",
    "H5Group",
    "H5Images",
    "H5Masks",
    "H5Split",
    "H5Texts",
    "Instances",
    "Test",
    "Val",
    "names",
]

from pathlib import Path
from typing import Annotated

import typer

from textdiff.errors import UserError

Data = Annotated[Path | None, typer.Option(help="Its directory or file; else in $TEXTDIFF_DATA, data/, datasets/.")]
Classes = Annotated[
    str | None, typer.Option(help="Masks hold class numbers; names of 1, 2, ..., as in nucleus,stroma.")
]
Instances = Annotated[bool, typer.Option("--instances", help="Masks number their objects (instance label maps).")]
Val = Annotated[float | None, typer.Option(help="Draw this share for validation, as in 0.2; by groups, with --seed.")]
Test = Annotated[float | None, typer.Option(help="Draw this share for the test.")]
H5Images = Annotated[str, typer.Option(help="HDF5: name of the images.")]
H5Masks = Annotated[str | None, typer.Option(help="HDF5: name of the masks; `masks` if it is there.")]
H5Texts = Annotated[str | None, typer.Option(help="HDF5: name of the texts; `texts` if it is there.")]
H5Split = Annotated[str | None, typer.Option(help="HDF5: name of the splits; `split` if it is there.")]
H5Group = Annotated[str | None, typer.Option(help="HDF5: name of the groups; `group` if it is there.")]


def names(option: str, value: str | None) -> tuple[str, ...]:
    """Names with commas between; none without a value.

    Raises:
        UserError: an empty list.
    """
    if value is None:
        return ()
    found = tuple(part.strip() for part in value.split(","))
    if found == ("",):
        raise UserError(f"{option}: give names with commas between, as in nucleus,stroma")
    return found
