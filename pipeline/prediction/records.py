"""What a folder of results remembers: the settings that all of them share, and what was made of each image."""

__all__ = ["Records"]

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textdiff import console
from textdiff.cache.fingerprint import digest_of
from textdiff.errors import UserError
from textdiff.files import sha256_file, write_json
from textdiff.images.slide_files import slide_digest
from textdiff.metrics.instances import METHODS
from textdiff.outputs.object_tables import OBJECTS, write_tables
from textdiff.pipeline.evaluation.calibration import Calibration
from textdiff.pipeline.prediction.inputs import RECORDS, Input
from textdiff.pipeline.prediction.output_files import OutputFiles
from textdiff.pipeline.prediction.summaries import doubts, write_summaries
from textdiff.pipeline.runs import Run
from textdiff.readers.hdf5 import read_slice
from textdiff.readers.names import visible_name
from textdiff.readers.sample import Slice

_SOURCE = ("text", "sha256")
"""What the files of an image are made of, beside the settings."""


class Records:
    """The records below ``.records`` in a folder of results.

    A record has the image's ``text``, its ``sha256``, its lines of the tables (``image``, ``objects``), whether it is
    ``large`` (its objects are then lines of JSON in a file of their own), what its ``files`` held when they were
    written, and why some are not there (``refused``, both by their names). It is written after the image's files.
    Before the first of them comes one without lines, so that the files of a stopped command can be told from others'.
    """

    def __init__(self, folder: Path, run: Run, outputs: OutputFiles, calibration: Calibration) -> None:
        self._folder, self._outputs = folder, outputs
        self._settings = {
            "run": run.path.resolve().name,
            "network": run.digest,
            "objects": outputs.objects or METHODS[0],
            "min_area": outputs.min_area,
            "blank_below": run.config["blank_below"],
            "views": outputs.views,
            "own_mpp": outputs.own_mpp,
            "margin": outputs.margin,
            "tissue": outputs.tissue,
            "temperature": calibration.temperature,
            "limit": calibration.limit,
        }

    def check(self) -> None:
        """Checks that results of before are of the same settings.

        Raises:
            UserError: they are not.
        """
        there = _read(self._folder / RECORDS / "settings.json")
        for name in there | self._settings if there else ():
            if there.get(name) != self._settings.get(name):
                raise UserError(
                    f"{self._folder}: holds results of other settings ({name} {there.get(name)}, now "
                    f"{self._settings.get(name)}); choose another --out, or start anew with --overwrite"
                )

    def check_places(self, inputs: Sequence[Input], overwrite: bool) -> None:
        """Checks that no two images are written to one place and none is written over, nor files that are no results.

        Raises:
            UserError: two would be, an image would be, or the folder has such files and no results yet.
        """
        writers: dict[Path, Input] = {}
        for one in inputs:
            for path in (*self._outputs.files(self._folder, one.name), self.path(one)):
                other = writers.setdefault(path, one)
                if other is not one and other.path == one.path:
                    raise UserError(f"{one.path}: is named twice; name it once")
                if other is not one:
                    raise UserError(
                        f"{one.path} and {other.path}: both would write {path.name}; rename one, or predict them into "
                        "two --out"
                    )
        sources = {os.path.realpath(one.path) for one in inputs if isinstance(one.path, Path)}
        ours = overwrite or (self._folder / RECORDS).is_dir()
        kinds = (self._outputs.files, self._outputs.large_files)
        results = [path for one in inputs for kind in kinds for path in kind(self._folder, one.name)]
        tables = () if ours else ("predictions.csv", "images.csv", "groups.csv", "summary.csv")
        for path in (*results, *(self._folder / name for name in tables)):
            if os.path.realpath(path) in sources:
                raise UserError(
                    f"{path}: is an image to be segmented, and its mask would replace it; choose another --out"
                )
            # A name that is too long for a file is told when that image's turn comes.
            if not ours and os.path.isfile(path):  # noqa: PTH113
                raise UserError(
                    f"{path}: is there already and no result of `textdiff predict`; choose another --out, or replace "
                    "it with --overwrite"
                )

    def claim(self, replaced: Iterable[Input] = ()) -> None:
        """Makes the folder one for these settings; results of others count no longer.

        Args:
            replaced: images whose files may be replaced whoever wrote them, also by a command that goes on with this.
        """
        path = self._folder / RECORDS / "settings.json"
        if _read(path) != self._settings:
            shutil.rmtree(self._folder / RECORDS, ignore_errors=True)
            write_json(path, self._settings)
        for one in replaced:
            if self.foreign(one):
                self.begin(one)

    def path(self, one: Input) -> Path:
        """Where the record of an image is."""
        return self._folder / RECORDS / "images" / f"{one.name}.json"

    def objects_path(self, one: Input) -> Path:
        """Where the objects of an image are that is too large to be held, a line of JSON each."""
        return self.path(one).with_suffix(OBJECTS)

    def log_path(self, one: Input) -> Path:
        """Where what the network said of the tiles of such an image is until the image is done."""
        return self.path(one).with_suffix(".tiles")

    def begin(self, one: Input) -> None:
        """Marks an image whose files are about to be written."""
        record = _read(self.path(one))
        write_json(self.path(one), {name: record[name] for name in (*_SOURCE, "files") if name in record})

    def write(self, one: Input, record: Mapping[str, Any]) -> None:
        """Marks an image as done: its files are there."""
        before = _read(self.path(one))
        same = all(before.get(name) == record[name] for name in _SOURCE)
        written = {path.name: _content(path) for path in self._files(one, record) if path.exists()}
        write_json(self.path(one), {**record, "files": (before.get("files", {}) if same else {}) | written})

    def foreign(self, one: Input) -> Path | None:
        """The first file in the place of a result that is not what was written there; None where there is none."""
        record = _read(self.path(one))
        # A name that is too long for a file is told when that image's turn comes.
        known, exists = {"image", "files"} <= record.keys(), os.path.exists
        if exists(self.path(one)) and not known:  # begun, damaged, or of an older version, which kept no contents
            return None
        written = record.get("files", {})
        large = () if record else self._outputs.large_files(self._folder, one.name)
        there = (path for path in (*self._files(one, record), *large) if exists(path))
        return next((path for path in there if written.get(path.name) != _content(path)), None)

    def regroup(self, one: Input) -> None:
        """Has an image that is done counted with the group that it is in now."""
        record = _read(self.path(one))
        if record["image"].get("group", "") != one.group:
            write_json(self.path(one), record | {"image": record["image"] | {"group": one.group}})

    def refused(self, one: Input) -> list[str]:
        """Why files of an image that is done could not be written."""
        return list(_read(self.path(one)).get("refused", {}).values())

    def is_done(self, one: Input) -> bool:
        """Whether all files of an image are there, but for those that its formats cannot hold, from the same text."""
        record = _read(self.path(one))
        try:
            same = "image" in record and record["text"] == one.text and record["sha256"] == _digest(one.path)
        except (OSError, UserError):  # what is wrong with it is said when its turn comes
            return False
        return same and all(path.exists() or path.name in record["refused"] for path in self._files(one, record))

    def write_tables(self, errors: Mapping[str, str], asked: Iterable[Input]) -> list[Path]:
        """Writes the tables over everything in the folder, and the images that failed; returns their paths.

        Says what is to be known of them: that they are also of images that were not ``asked`` for, and so on.
        """
        lines = write_tables(self._folder, sorted((self._folder / RECORDS / "images").rglob("*.json")), errors)
        for what in doubts(lines, {one.name for one in asked}):
            console.warn(f"{self._folder}: {what}")
        tables = [self._folder / "predictions.csv", self._folder / "images.csv"]
        return tables + write_summaries(self._folder, lines)

    def _files(self, one: Input, record: Mapping[str, Any]) -> Iterable[Path]:
        files = self._outputs.large_files if record.get("large") else self._outputs.files
        return files(self._folder, one.name)


def _content(path: Path) -> str:
    """What tells a result from any other file; of a directory the names and sizes of what is in it.

    Not of hidden files, which file managers leave in a directory that somebody looks at.
    """
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if visible_name(file.name) and file.is_file())
    return digest_of([[file.relative_to(path).as_posix(), file.stat().st_size] for file in files])


def _digest(source: Path | Slice) -> str:
    return read_slice(source)[1] if isinstance(source, Slice) else slide_digest(source)


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # A damaged record is none: the image is done again.
    except (FileNotFoundError, ValueError):
        return {}
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return {}
    return value
