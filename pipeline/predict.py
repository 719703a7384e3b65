"""Many images, one after the other, to files: goes on where it was stopped, and loses nothing to a bad image."""

__all__ = ["predict"]

import errno
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textdiff import console
from textdiff.errors import UserError
from textdiff.files import atomic_path
from textdiff.images.bands import large_size, open_image_bands
from textdiff.images.formats import BadImageError
from textdiff.images.pixel_size import PixelSize, file_pixel_size
from textdiff.images.scaled import Scaled
from textdiff.images.slide import SAME_SIZE
from textdiff.images.slide_files import is_slide, open_view, slide_digest
from textdiff.images.stains import haematoxylin, kind_of
from textdiff.metrics.calibration import Agreement
from textdiff.metrics.instances import METHODS, find_instances
from textdiff.models.networks.models import get_model
from textdiff.options.run import Predict
from textdiff.outputs import FORMATS, Segmentation, refusal, segmentation, write_output
from textdiff.outputs.object_tables import image_record
from textdiff.outputs.objects import object_record, significant
from textdiff.outputs.overlay import write_overlay
from textdiff.pipeline.evaluation.calibration import LOW_DICE, Calibration
from textdiff.pipeline.prediction.blank import HOLDS_NOTHING
from textdiff.pipeline.prediction.in_parts import Streaming, segment_streamed
from textdiff.pipeline.prediction.inputs import Input, gather
from textdiff.pipeline.prediction.output_files import OVERLAY, OutputFiles
from textdiff.pipeline.prediction.predictor import Predictor, margin_of, open_predictor
from textdiff.pipeline.prediction.preprocessing import missing_text
from textdiff.pipeline.prediction.records import Records
from textdiff.pipeline.predictions import enlarge
from textdiff.pipeline.runs import Run
from textdiff.readers.datasets import Remarks, remarks
from textdiff.readers.decoding import load_image
from textdiff.readers.sample import Slice


def predict(options: Predict) -> Iterator[Path]:
    """Segments what the options name, one image after the other, and yields the path of every file when it is written.

    An image that has all its files from the same run, text and options is passed over. So is, with a warning, one in
    the place of whose files there are others. ``predictions.csv``, a line per object, ``images.csv``, a line per image,
    and their summaries are written at the end, however it comes, and cover everything in the folder. One image is in
    memory at a time.

    Raises:
        UserError: before any work: an image is missing, two are of one name, wrong options, a folder with results of
            another run, or with files of others where results go, a run that is not usable. At the end: some images
            could not be segmented, or do not fit a format; the others are done.
    """
    run, inputs, folder = Run(options.directory()), gather(options), Path(options.out)
    outputs, overwrite = options.part(OutputFiles, margin=margin_of(run, options.margin)), options.overwrite
    outputs.check_run(bool(run.members) or get_model(run.config["model"]).votes)
    calibration = Calibration.load(run).at(outputs.temperature)
    records = Records(folder, run, outputs, calibration)
    records.check_places(inputs, overwrite)
    if not overwrite:
        records.check()
    done: list[Input] = []
    left: list[Input] = []
    bad: dict[str, str] = {}
    for one in inputs:
        if not overwrite and (there := records.foreign(one)):
            bad[one.name] = f"{there}: is not as `textdiff predict` wrote it, and stays; move it to have it made again"
            console.warn(f"passed over: {bad[one.name]}")
        else:
            (done if not overwrite and records.is_done(one) else left).append(one)
    if done:
        are = console.some(len(done), len(inputs), "image", "is", "are")
        console.info(f"{are} done already (--overwrite: do {console.form(len(done), 'it', 'them')} again)")
    if left and calibration.missing:
        console.info(f"probabilities have no temperature: {calibration.missing}")
    backbone = None if options.backbone is None else str(options.backbone)
    predictor = open_predictor(run, options.device, backbone, outputs.views, outputs.margin) if left else None
    records.claim(left if overwrite else ())
    for one in done:
        records.regroup(one)
    for reason in [reason for one in done for reason in records.refused(one)]:
        console.warn(f"not written: {reason}")
    try:
        if predictor is not None:
            yield from _Batch(predictor, run, folder, outputs, records, calibration).predict(left, bad)
    finally:
        tables = records.write_tables(bad, inputs)
    yield from tables
    unfit = sum(bool(records.refused(one)) for one in inputs if one.name not in bad)
    if bad or unfit:
        parts = [f"{len(bad)} of {console.counted(len(inputs), 'image')} could not be segmented"] if bad else []
        parts += (
            [f"{console.some(unfit, len(inputs), 'image', 'does', 'do')} not fit a format that was asked for"]
            if unfit
            else []
        )
        raise UserError(
            f"{', and '.join(parts)} (named above and in {folder / 'images.csv'}); everything else is done"
            + (": mend these and run the same command again" if bad else "")
        )


@dataclass
class _Batch:
    """What the images of a batch have in common."""

    predictor: Predictor
    run: Run
    folder: Path
    outputs: OutputFiles
    records: Records
    calibration: Calibration
    remarks: Remarks = field(default_factory=Remarks)

    def predict(self, left: Sequence[Input], bad: dict[str, str]) -> Iterator[Path]:
        """Segments ``left`` and yields the files; what is wrong with an image goes into ``bad`` by its name."""
        predictor = self.predictor
        without = sum(not one.text for one in left)
        if predictor.reads_text and without:
            console.warn(
                f"{console.some(without, len(left), 'image', 'has', 'have')} no text (--text): {missing_text(self.run)}"
            )
        try:
            with console.Progress(len(left), "predict") as progress:
                for one in left:
                    if reason := (yield from self._one(one)):
                        console.warn(f"passed over: {reason}")
                        bad[one.name] = reason
                    progress.advance()
        finally:
            self.remarks.close()
        # Whole images that hold nothing are named, and not counted again.
        if predictor.blank and "tile" in self.run.config["fingerprint"]:
            hold = console.some(predictor.blank, predictor.seen, "tile", "holds", "hold")
            are = console.form(predictor.blank, "is", "are")
            console.info(f"{hold} nothing and {are} background (docs/tiles.md)")

    def _one(self, one: Input) -> Generator[Path, None, str]:
        """Yields the files of one image; returns why it failed, or nothing."""
        ended = False
        try:
            reason = yield from self._files_of(one)
            ended = not reason
            return reason
        except OSError as error:
            ended = error.errno in (errno.ENOSPC, errno.EDQUOT)  # what is kept of its tiles takes the room
            raise
        finally:
            self.predictor.end(ended)

    def _files_of(self, one: Input) -> Generator[Path, None, str]:
        try:
            source = self._source(one)
            record = yield from (self._in_memory(one) if source is None else self._in_parts(one, source))
            if refused := record["refused"]:
                record["image"]["error"] = "; ".join(refused.values())
            # The last file of an image: once it is there, the others are.
            self.records.write(one, {"text": one.text} | record)
        except UserError as error:
            return str(error) if str(one.path) in str(error) else f"{one.path}: {error}"
        except MemoryError:
            return f"{one.path}: needs more memory than there is; cut regions out of it"
        except OSError as error:
            # A name that was short enough for the image may be too long for its results. A full disk is another thing.
            if error.errno == errno.ENAMETOOLONG:
                return f"{one.path}: its name is too long for the files that are made of it; shorten it"
            if error.filename != str(one.path):
                raise
            return str(BadImageError(one.path, f"cannot be read ({error.strerror})", "check its permissions"))
        return ""

    def _source(self, one: Input) -> Path | Scaled | None:
        """What an image is read from that is worked through in parts: a slide, or too large; None for all others.

        Raises:
            UserError: the run looks at a resolution, and the image has none.
        """
        path, mpp, given = one.path, self.predictor.mpp, self.outputs.own_mpp
        if isinstance(path, Slice):
            if mpp is not None:
                raise UserError(f"{path}: says no size of a pixel, and the run looks at {mpp:g} µm; save it as a TIFF")
            return None
        if is_slide(path):
            return Scaled(path, mpp, given)
        if large_size(path) is None:
            return None
        return path if mpp is None else Scaled(path, mpp, given)

    def _members(self, one: Input, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the run's members say of an image at its own size, though they look at the run's resolution."""
        seen, predictor = image, self.predictor
        if predictor.mpp is not None and isinstance(one.path, Path):
            with open_view(Scaled(one.path, predictor.mpp, self.outputs.own_mpp)) as view:
                seen = view.region(0, 0, view.height, view.width)
        members = predictor.members(seen, one.text, each=self.outputs.disagreement)
        return members if seen.shape == image.shape else enlarge(members, *image.shape[:2])

    def _in_memory(self, one: Input) -> Generator[Path, None, dict[str, Any]]:
        """Segments an image and yields its files; returns its record."""
        image, sha256, notes = load_image(one.path)
        outputs, predictor = self.outputs, self.predictor
        probabilities, members = predictor.apart(self._members(one, image))
        told = self.calibration.tempered(probabilities)
        labels, likelihood = probabilities.argmax(0), probabilities.max(0)
        # What is found does not depend on the temperature; what is told of it does.
        objects = find_instances(labels, likelihood, outputs.objects or METHODS[0], outputs.min_area)
        size, more = self._pixel_size(one)
        stain = None if kind_of(image) == "grey" else haematoxylin
        segmented = segmentation(one.name, image, labels, told.max(0), objects, self.run.classes, size, stain)
        levels = (int(image.min()), int(image.max()))
        line = self._line(
            one, image.shape[:2], size, notes + more, self._expected(image, told, labels), levels
        ) | image_record(segmented)
        self.records.begin(one)
        refused = yield from self._write(segmented, outputs.pictures(told, members))
        found = [object_record(segmented, one) for one in segmented.found]
        return {"sha256": sha256, "image": line, "objects": found, "refused": refused}

    def _expected(self, image: NDArray[np.uint8], told: NDArray[np.float32], labels: NDArray[Any]) -> float:
        """The Dice to be expected of the image just predicted, (H, W, 3), of which ``told`` is told at its own size.

        What the network sees as a whole is judged at the network's size, by which the limit was chosen, and at which
        ``score`` counts its hits: enlarged probabilities have softer edges, and would let one expect less.
        """
        if self.predictor.grid(*image.shape[:2]) is not None:
            return Agreement.of(told, labels).dice
        own, _ = self.predictor.apart(self.predictor.native)
        return Agreement.of(self.calibration.tempered(own), own.argmax(0)).dice

    def _write(self, segmented: Segmentation, maps: dict[str, np.ndarray]) -> Generator[Path, None, dict[str, str]]:
        """Yields the files of an image; returns why others could not be written, by their names."""
        refused: dict[str, str] = {}
        for path, (kind, numbered) in self.outputs.files(self.folder, segmented.name).items():
            if kind in FORMATS:
                if reason := refusal(kind, segmented, numbered):
                    console.warn(f"not written: {reason}")
                    refused[path.name] = reason
                    continue
                write_output(kind, path, segmented, numbered=numbered)
            elif kind == OVERLAY:
                write_overlay(path, segmented)
            else:
                with atomic_path(path) as partial:
                    Image.fromarray(maps[f"_{kind}"]).save(partial)
            yield path
        return refused

    def _in_parts(self, one: Input, source: Path | Scaled) -> Generator[Path, None, dict[str, Any]]:
        """Segments an image that is too large to be held, and yields its files; returns its record."""
        path, predictor, outputs = one.path, self.predictor, self.outputs
        assert isinstance(path, Path)
        refused = outputs.too_large_for(one.name)
        for reason in refused.values():
            console.warn(f"not written: {reason}")
        if outputs.objects not in (None, METHODS[0]):
            console.warn(f"{path}: is too large for --objects {outputs.objects}, so its objects are {METHODS[0]}")
        with open_image_bands(source) as image:
            view = image.view
            shape = (image.height, image.width) if view is None else (view.slide.height, view.slide.width)
            size, more = self._pixel_size(one) if view is None else (view.slide.pixel_size, [])
            # Whether an alpha channel is opaque is not known before all of it is read.
            notes = [*image.notes, *(["alpha (dropped; colours kept)"] if image.alpha else [])]
        sha256 = slide_digest(path)
        self.records.begin(one)
        predictor.start(self.records.log_path(one), one.name)

        def maps(block: NDArray[np.float32]) -> dict[str, NDArray[np.uint16]]:
            if not any(outputs.maps.values()):
                return {}
            together, members = predictor.apart(block)
            return outputs.pictures(self.calibration.tempered(together), members)

        written, found = segment_streamed(
            source,
            self.folder / one.name,
            self.records.objects_path(one),
            Streaming(
                name=one.name,
                class_names=tuple(self.run.classes),
                grid=predictor.grid,
                predict=lambda tile: predictor.tile(tile, one.text, each=outputs.disagreement),
                together=lambda block: predictor.apart(block)[0],
                told=self.calibration.tempered,
                pictures=maps,
                formats=outputs.streams,
                pixel_size=size,
                min_area=outputs.min_area,
                tissue=outputs.tissue,
            ),
        )
        yield from written
        expected = found.pop("expected_dice")
        line = self._line(one, shape, size, notes + more + found.pop("notes"), expected) | found
        return {"sha256": sha256, "large": True, "image": line, "objects": [], "refused": refused}

    def _pixel_size(self, one: Input) -> tuple[PixelSize | None, list[str]]:
        """The size of the image's pixels, and a note where its file says another one."""
        stated = file_pixel_size(one.path) if isinstance(one.path, Path) else None
        if self.outputs.own_mpp is None:
            return stated, []
        given = (self.outputs.own_mpp, self.outputs.own_mpp)
        if stated is None or np.allclose(stated, given, rtol=SAME_SIZE, atol=0):
            return given, []
        return given, [
            f"says {stated[0]:.4g} x {stated[1]:.4g} µm per pixel itself (--own-mpp {self.outputs.own_mpp:g} counts)"
        ]

    def _line(
        self,
        one: Input,
        shape: tuple[int, ...],
        size: PixelSize | None,
        notes: Sequence[str],
        expected: float | None,
        levels: tuple[int, int] = (0, 255),
    ) -> dict[str, Any]:
        """What is known of the image just predicted, for ``images.csv``; says what is odd about it."""
        height, width = shape
        found = remarks(height, width, levels, notes, tiled=self.predictor.grid(height, width) is not None)
        distance = self.predictor.distance
        if self.predictor.nothing:
            expected = None
            found.append((HOLDS_NOTHING, "check its window, or the range of its numbers"))
        if what := self.predictor.unlike:
            found.append((what, "look at its mask before it is used"))
        flagged = self.calibration.flags(expected)
        if flagged and expected is not None:
            why = f"{100 * expected:.1f} is expected; the limit is {100 * self.calibration.limit:.1f}"
            what = f"likely has a Dice below {100 * LOW_DICE:.0f} ({why})"
            found.append((what, "look at its mask before it is used"))
        for remark in found:
            self.remarks.say(one.path, *remark)
        line: dict[str, Any] = {"image": one.name, "file": str(one.path), "group": one.group, "text": one.text}
        line |= {"width": width, "height": height, "notes": "; ".join(what for what, _ in found)}
        if size is not None:
            line |= {"pixel_width_um": significant(size[0]), "pixel_height_um": significant(size[1])}
        line |= {"expected_dice": None if expected is None else round(expected, 4), "flagged": flagged}
        return line if distance is None else line | {"distance": round(distance, 2)}
