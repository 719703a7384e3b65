"""Many images, one after the other, to files: goes on where it was stopped, and loses nothing to a bad image."""

__all__ = ["Wanted", "predict", "predict_all"]

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textdiff import console
from textdiff.errors import UserError
from textdiff.files import atomic_path, sha256_file, write_json
from textdiff.options.run import Outputs, Predict
from textdiff.outputs import FORMATS, Segmentation, require, segmentation, write_output
from textdiff.outputs.objects import object_record
from textdiff.outputs.tables import image_record, write_tables
from textdiff.pipeline.evaluation.instances import METHODS, find_instances
from textdiff.pipeline.imaging.formats import BadImageError
from textdiff.pipeline.imaging.rows import is_large
from textdiff.pipeline.predict import Predictor, pictures
from textdiff.pipeline.prediction.inputs import Input, gather
from textdiff.pipeline.prediction.large import segment_large
from textdiff.pipeline.prediction.run_text import missing_text
from textdiff.pipeline.runs import Run
from textdiff.pipeline.sample import Slice
from textdiff.readers.hdf5 import read_slice
from textdiff.readers.load import load_image

_RECORDS = ".records"


@dataclass(frozen=True, kw_only=True)
class Wanted(Outputs):
    """What is written for each image, and into which files.

    A PNG of the mask is among it whatever the formats. Where it is said how objects are told apart, PNG and NIfTI come
    with a second file, ``<name>_objects``, that holds their numbers. Smaller objects than ``min_area`` are background.
    """

    @property
    def maps(self) -> dict[str, bool]:
        """Which maps are asked for, by the end of a file's name."""
        return {"probability": self.probabilities, "entropy": self.entropy, "disagreement": self.disagreement}

    def large_files(self, folder: Path, name: str) -> list[Path]:
        """Every file of an image that is worked through in parts: its mask and maps, without objects."""
        suffixes = ["", *(f"_{kind}" for kind, asked in self.maps.items() if asked)]
        return [folder / f"{name}{suffix}.tif" for suffix in suffixes]

    def files(self, folder: Path, name: str) -> dict[Path, tuple[str, bool]]:
        """Every file of an image and what it is: a format or a map, and whether it holds the numbers of objects."""
        formats = dict.fromkeys(("png", *(self.format or ())))
        files = {folder / f"{name}{FORMATS[kind]}": (kind, False) for kind in formats}
        if self.objects:
            numbered = [kind for kind in formats if kind in ("png", "nifti")]
            files |= {folder / f"{name}_objects{FORMATS[kind]}": (kind, True) for kind in numbered}
        return files | {folder / f"{name}_{kind}.png": (kind, False) for kind, asked in self.maps.items() if asked}

    def pictures(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """The mask and the maps asked for, of probabilities (members, classes, H, W); see ``predict.pictures``."""
        return pictures(members, self.probabilities, self.entropy, self.disagreement)


def predict(options: Predict) -> Iterator[Path]:
    """Segments what the options name, and yields the path of every file written; see ``predict_all``.

    Raises:
        UserError: an image is missing or unreadable, two would write the same file, or the run is not usable.
    """
    return predict_all(
        Run(options.directory()),
        gather(options),
        Path(options.out),
        options.part(Wanted),
        overwrite=options.overwrite,
        backbone=None if options.backbone is None else str(options.backbone),
        device=options.device,
    )


def predict_all(
    run: Run,
    inputs: Sequence[Input],
    folder: Path,
    wanted: Wanted,
    *,
    overwrite: bool = False,
    backbone: str | None = None,
    device: str = "auto",
) -> Iterator[Path]:
    """Segments one image after the other and yields the path of every file written, as soon as it is.

    An image that has all its files from the same run, text and options is passed over. ``predictions.csv``, a line per
    object, and ``images.csv``, a line per image, are written at the end, however it comes, and cover everything in the
    folder. One image is in memory at a time.

    Args:
        run: a finished run.
        inputs: what to segment.
        folder: where to write; made if absent.
        wanted: which files.
        overwrite: do everything anew.
        backbone: another place of the run's backbone.
        device: where to compute.

    Raises:
        UserError: before any work: two images of one name, an unknown or unavailable format, a folder with results of
            another run, a run that is not usable, disagreement asked of a single network. At the end: some images could
            not be read; the others are done.
    """
    _check(inputs, folder, wanted)
    if wanted.disagreement and not run.members:
        raise UserError(
            f"--disagreement: {run.path} is a single network; fit with --ensemble 5, or ask for --entropy instead"
        )
    settings = _settings(run, wanted)
    if not overwrite:
        _check_same(folder, settings)
    left = [one for one in inputs if overwrite or not _is_done(one, folder, wanted)]
    if len(left) < len(inputs):
        console.info(f"{len(inputs) - len(left)} of {len(inputs)} images are done already (--overwrite: do them again)")
    predictor = Predictor(run, device, backbone, wanted.views) if left else None
    _claim(folder, settings)
    bad: dict[str, str] = {}
    try:
        if predictor is not None:
            yield from _predict_left(predictor, run, left, folder, wanted, bad)
    finally:
        write_tables(folder, sorted((folder / _RECORDS / "images").rglob("*.json")), bad)
    yield from (folder / "predictions.csv", folder / "images.csv")
    if bad:
        raise UserError(
            f"{len(bad)} of {len(inputs)} images could not be read (named above and in {folder / 'images.csv'}); the "
            "others are done: mend these and run the same command again"
        )


def _predict_left(
    predictor: Predictor, run: Run, left: Sequence[Input], folder: Path, wanted: Wanted, bad: dict[str, str]
) -> Iterator[Path]:
    without = sum(not one.text for one in left)
    if predictor.reads_text and without:
        console.warn(
            f"{without} of {len(left)} images have no text (--text): the run reads it, so it {missing_text(run)}; "
            f'what that costs: textdiff score --run {run.path} --text ""'
        )
    class_names = tuple(run.config["fingerprint"].get("classes", ("foreground",)))
    with console.Progress(len(left), "predict") as progress:
        for one in left:
            try:
                record, files = _segment(predictor, one, folder, wanted, class_names)
            except UserError as error:
                console.warn(f"passed over: {error}")
                bad[one.name] = str(error)
            else:
                yield from files
                # The last file of an image: once it is there, the others are.
                write_json(_record(folder, one), record)
            progress.advance()
    if predictor.blank:
        unit = "tiles" if "tile" in run.config["fingerprint"] else "images"
        console.info(f"{predictor.blank} of {predictor.seen} {unit} hold nothing and are background (docs/tiles.md)")


def _segment(
    predictor: Predictor, one: Input, folder: Path, wanted: Wanted, class_names: Sequence[str]
) -> tuple[dict[str, Any], Iterable[Path]]:
    """One image's record, and its files, which are written as they are asked for."""
    try:
        large = not isinstance(one.path, Slice) and is_large(one.path)
        record: dict[str, Any] = {"text": one.text, "sha256": _digest(one.path), "large": large}
    except OSError as error:
        raise BadImageError(one.path, f"cannot be read ({error.strerror})", "check its permissions") from error
    if large:
        assert isinstance(one.path, Path)
        record |= {"image": {"image": one.name, "file": str(one.path)}, "objects": []}
        return record, _write_large(predictor, one.path, one, folder, wanted)
    image = load_image(one.path).pixels
    members = predictor.members(image, one.text) if wanted.disagreement else predictor(image, one.text)[None]
    probabilities = members.mean(0)
    labels, likelihood = probabilities.argmax(0), probabilities.max(0)
    objects = find_instances(labels, likelihood, wanted.objects or METHODS[0], wanted.min_area)
    segmented = segmentation(one.name, image, labels, likelihood, objects, class_names)
    record["image"] = image_record(segmented, str(one.path))
    record["objects"] = [object_record(segmented, found) for found in segmented.found]
    return record, _write(segmented, wanted.pictures(members), folder, wanted)


def _write(segmented: Segmentation, maps: dict[str, np.ndarray], folder: Path, wanted: Wanted) -> Iterator[Path]:
    for path, (kind, numbered) in wanted.files(folder, segmented.name).items():
        if kind in FORMATS:
            write_output(kind, path, segmented, numbered=numbered)
        else:
            with atomic_path(path) as partial:
                Image.fromarray(maps[f"_{kind}"]).save(partial)
        yield path


def _write_large(predictor: Predictor, path: Path, one: Input, folder: Path, wanted: Wanted) -> list[Path]:
    console.warn(f"{path}: too large to be held, so its objects are not told apart; its masks are TIFFs")

    def layers(pixels: np.ndarray) -> np.ndarray:
        if not wanted.disagreement:
            return predictor.tile(pixels, one.text)
        return predictor.tile_members(pixels, one.text).reshape(-1, *pixels.shape[:2])

    return segment_large(
        path,
        (folder / one.name).parent,
        predictor.grid,
        layers,
        lambda values: wanted.pictures(values.reshape(-1, predictor.classes, *values.shape[1:])),
    )


def _check(inputs: Sequence[Input], folder: Path, wanted: Wanted) -> None:
    for kind in wanted.format or ():
        require(kind)
    writers: dict[Path, Input] = {}
    for one in inputs:
        for path in (_record(folder, one), *wanted.files(folder, one.name)):
            other = writers.setdefault(path, one)
            if other is not one:
                raise UserError(
                    f"{one.path} and {other.path}: both would write {path.name}; predict them into two --out"
                )


def _settings(run: Run, wanted: Wanted) -> dict[str, Any]:
    """What all images of a folder have in common."""
    limit = run.config["blank_below"]
    return {
        "run": run.path.resolve().name,
        "network": run.digest,
        "objects": wanted.objects or METHODS[0],
        "min_area": wanted.min_area,
        # Results of runs made before there was a limit do not say that they have none.
        **({} if limit is None else {"blank_below": limit}),
        **({} if wanted.views == 1 else {"views": wanted.views}),
    }


def _check_same(folder: Path, settings: dict[str, Any]) -> None:
    there = _read(folder / _RECORDS / "settings.json")
    if there:  # results of before there were views do not say that they have one
        there, settings = {"views": 1} | there, {"views": 1} | settings
    for name in there | settings if there else ():
        if there.get(name) != settings.get(name):
            raise UserError(
                f"{folder}: holds results of other settings ({name} {there.get(name)}, now {settings.get(name)}); "
                "choose another --out, or start anew with --overwrite"
            )


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Makes the folder one for these settings; results of others count no longer."""
    path = folder / _RECORDS / "settings.json"
    if _read(path) != settings:
        shutil.rmtree(folder / _RECORDS, ignore_errors=True)
        write_json(path, settings)


def _digest(source: Path | Slice) -> str:
    return read_slice(source)[1] if isinstance(source, Slice) else sha256_file(source)


def _is_done(one: Input, folder: Path, wanted: Wanted) -> bool:
    record = _read(_record(folder, one))
    try:
        same = bool(record) and record["text"] == one.text and record["sha256"] == _digest(one.path)
    except OSError:
        return False
    files = wanted.large_files if record.get("large") else wanted.files
    return same and all(path.exists() for path in files(folder, one.name))


def _record(folder: Path, one: Input) -> Path:
    return folder / _RECORDS / "images" / f"{one.name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value
