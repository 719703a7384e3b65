"""The Python API: the commands as functions, with the same options and defaults.

    import textdiff

    cache = textdiff.extract("folder", data="slides", backbone="nano-he", text_encoder="none")
    run = textdiff.fit(cache, variant="no-text", epochs=30)
    scores = textdiff.score(run)
    scores.summary["scores"]["clean"]["dice"].mean
    probabilities = textdiff.Predictor(run)(image)  # image (H, W, 3) uint8 or a file -> (classes, H, W) float32

Wherever a run is asked for, a ``Run``, its directory, or ``None`` for the latest one in ``runs`` will do; a cache is a
``FeatureCache`` or its path. What a user can put right is raised as ``textdiff.UserError``, with the text that the
command line would print. Import from ``textdiff``, not from here.
"""

__all__ = [
    "FeatureCache",
    "Predictor",
    "Run",
    "Scores",
    "extract",
    "fit",
    "open_cache",
    "open_run",
    "predict",
    "report",
    "resume",
    "score",
]

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.pipeline import fit as fit_stage
from textdiff.pipeline import predict as prediction
from textdiff.pipeline.defaults import extract_config
from textdiff.pipeline.evaluation.object_scores import DEFAULT as DEFAULT_METRICS
from textdiff.pipeline.evaluation.object_scores import parse_metrics
from textdiff.pipeline.extract import extract as run_extract
from textdiff.pipeline.fit import FitConfig
from textdiff.pipeline.imaging import images
from textdiff.pipeline.prediction.batch import Wanted, predict_all
from textdiff.pipeline.prediction.inputs import gather
from textdiff.pipeline.reporting.report import write_report
from textdiff.pipeline.runs import Run, find_run
from textdiff.pipeline.score import Scores
from textdiff.pipeline.score import score as run_score
from textdiff.readers.options import ReadOptions

AnyPath = str | PathLike[str]


def extract(
    dataset: str,
    *,
    preset: str = "paper",
    data: AnyPath | None = None,
    cache: AnyPath | None = None,
    backbone: AnyPath | None = None,
    text_encoder: AnyPath | None = None,
    blocks: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    image_size: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    views: int | None = None,
    seed: int = 0,
    protocol: str = "clean",
    dtype: str = "float16",
    precision: str = "auto",
    device: str = "auto",
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    skip_bad: bool = False,
    dry_run: bool = False,
    classes: Sequence[str] | None = None,
    instances: bool = False,
    val: float | None = None,
    test: float | None = None,
    h5_images: str = "images",
    h5_masks: str | None = None,
    h5_texts: str | None = None,
    h5_split: str | None = None,
    h5_group: str | None = None,
) -> FeatureCache:
    """Stage one: runs the frozen UNet once per image and caches its activations. Continues where it was stopped.

    Args:
        dataset: ``folder``, ``hdf5``, ``monuseg``, ``qata`` ...; the names in ``textdiff.pipeline.presets``.
        preset: defaults: ``paper``, or ``nano`` for what suits the backbone in the package.
        data: its directory or file; looked for in ``$TEXTDIFF_DATA``, ``data/`` and ``datasets/``.
        cache: where to store; ``cache/<dataset>.zarr``, named after ``data`` for your own.
        backbone: ``adm-256``, ``nano-he`` or a checkpoint file; the preset's by default, like the next four.
        text_encoder: ``clinical-biobert``, ``minilm``, ``none``, a hub id or a directory.
        blocks: decoder blocks, numbered as in ``output_blocks``.
        steps: diffusion steps, each in 0..999.
        image_size: height and width in pixels.
        tile: cut images into tiles of so many pixels; by default each is one row.
        overlap: pixels that tiles share; an eighth of ``tile`` by default.
        views: 1, or 8 to cache the symmetries of training images too; the preset's by default.
        seed: of the shared noise, and of splits that are drawn.
        protocol: ``clean``, or ``paper`` for what the paper's code does.
        dtype: stored precision, ``float16`` or ``float32``.
        precision: of computing, ``auto``, ``float32`` or ``bfloat16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        shard: (i, n): this process does every n-th row from the i-th.
        overwrite: replace a cache that is there.
        skip_bad: leave out bad images instead of stopping.
        dry_run: stop after the plan.
        classes: masks hold class numbers; the names of 1, 2, ...
        instances: masks number their objects.
        val: draw this share of the annotated images for validation, by groups.
        test: draw this share for the test.
        h5_images: name of the images in an HDF5 file.
        h5_masks: of the masks; ``masks`` if it is there, and so on.
        h5_texts: of the texts.
        h5_split: of the splits.
        h5_group: of the groups.

    Returns:
        The cache, opened.

    Raises:
        UserError: bad input; weights that are not there; a cache made otherwise; a disk that cannot hold the rows.
    """
    return run_extract(
        extract_config(
            dataset,
            preset=preset,
            data=data,
            cache=cache,
            backbone=backbone,
            text_encoder=text_encoder,
            blocks=blocks,
            steps=steps,
            image_size=image_size,
            tile=tile,
            overlap=overlap,
            views=views,
            seed=seed,
            protocol=protocol,
            dtype=dtype,
            precision=precision,
            device=device,
            shard=shard,
            overwrite=overwrite,
            skip_bad=skip_bad,
            dry_run=dry_run,
            reading=ReadOptions(
                classes=tuple(classes or ()),
                instances=instances,
                val=val,
                test=test,
                seed=seed,
                h5_images=h5_images,
                h5_masks=h5_masks,
                h5_texts=h5_texts,
                h5_split=h5_split,
                h5_group=h5_group,
            ),
        )
    )


def fit(
    cache: FeatureCache | AnyPath,
    *,
    labels: int | None = None,
    model: str = "textdiff",
    seed: int = 0,
    draw_seed: int | None = None,
    ensemble: int | None = None,
    variant: str = "full",
    protocol: str = "clean",
    recipe: str | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    decay_epoch: int | None = None,
    batch_size: int | None = None,
    select: str | None = None,
    window: int | None = None,
    validate_every: int | None = None,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    patience: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Run:
    """Stage two: trains the cross-attention and the pixel classifier, or a U-Net beside them, from a cache.

    Args:
        cache: what ``extract`` returned, or its path.
        labels: number of training images to draw; all by default.
        model: ``textdiff``, or ``unet``, a plain U-Net on the images, to compare with.
        seed: of the draw, the initial weights and the order.
        draw_seed: of the draw alone; ``seed`` by default.
        ensemble: fit so many, with seeds from ``seed`` on, and use their mean.
        variant: ``full``, ``no-text``, ``concat``, ``shuffled-text`` or ``constant-text``.
        protocol: ``clean``, or ``paper`` for the loss and the epochs of the paper's code.
        recipe: ``reference`` (the paper's), ``light`` (small backbones) or ``unet``; by the cache's backbone.
        epochs: passes over the training images; the recipe's by default, like the next seven.
        learning_rate: of Adam.
        schedule: ``step``, a tenth from ``decay_epoch`` on, or ``cosine``.
        decay_epoch: see ``schedule``.
        batch_size: images per optimiser step.
        select: which weights are kept, ``best`` on validation or ``last``.
        window: side in pixels of the random square of an image that a step is made on; 0 for the whole image.
        validate_every: epochs from one validation to the next.
        width: channels of the attention block; by the backbone's width.
        blocks: of the cache's blocks those to read; all by default.
        steps: of its diffusion steps those to read; all by default.
        patience: stop after so many epochs without a better validation Dice; never by default.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: the directory in which the run's own is made.

    Returns:
        The finished run.

    Raises:
        UserError: bad options, or a cache that cannot be fitted.
        KeyboardInterrupt: stopped; ``resume`` goes on from the last checkpoint.
    """
    config = FitConfig(
        cache=_path(cache),
        labels=labels,
        model=model,
        seed=seed,
        draw_seed=draw_seed,
        ensemble=ensemble,
        variant=variant,
        protocol=protocol,
        recipe=recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        schedule=schedule,
        decay_epoch=decay_epoch,
        batch_size=batch_size,
        select=select,
        window=window,
        validate_every=validate_every,
        width=width,
        blocks=None if blocks is None else tuple(blocks),
        steps=None if steps is None else tuple(steps),
        patience=patience,
        precision=precision,
        device=device,
    )
    return Run(fit_stage.fit(config, Path(runs)))


def resume(run: Run | AnyPath | None = None, *, device: str | None = None, runs: AnyPath = "runs") -> Run:
    """Goes on with a fit that was stopped, with its own options, to the weights it would have had.

    Raises:
        UserError: no such run, it is finished already, or its cache is not as it was.
    """
    return Run(fit_stage.resume(open_run(run, runs=runs), device))


def score(
    run: Run | AnyPath | None = None,
    *,
    split: str = "test",
    metrics: str = ",".join(DEFAULT_METRICS),
    instances: str = "components",
    min_area: int = 0,
    tolerance: float = 2.0,
    text: str | None = None,
    cache: FeatureCache | AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Scores:
    """Dice and IoU of a run with 95% intervals, beside the paper's, which are written into the run's directory too.

    Args:
        run: a finished run.
        split: ``train``, ``val`` or ``test``.
        metrics: names with commas between; docs/metrics.md explains them.
        instances: how objects are found in a prediction, ``components`` or ``watershed``.
        min_area: predicted objects of fewer pixels do not count.
        tolerance: of the surface Dice, in pixels.
        text: every image is given this text instead of its own, or none if it is empty.
        cache: the run's cache, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not finished, its cache is gone or another one, the split has no annotated images, or a
            text is given and the run reads none.
    """
    where = None if cache is None else _path(cache)
    return run_score(
        open_run(run, runs=runs),
        split=split,
        cache_path=where,
        device=device,
        metrics=parse_metrics(metrics),
        instances=instances,
        min_area=min_area,
        tolerance=tolerance,
        text=text,
    )


def report(
    run: Run | AnyPath | None = None,
    *,
    split: str = "test",
    images: int = 40,
    out: AnyPath | None = None,
    cache: FeatureCache | AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> Path:
    """Writes a scored run as one HTML file that needs nothing else, and returns its path.

    Args:
        run: a run that ``score`` has scored on ``split``.
        split: ``train``, ``val`` or ``test``.
        images: how many images are shown at most, from the best to the worst in even steps.
        out: the file to write; ``report.html`` in the run's directory.
        cache: the run's cache, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not scored on that split, or not usable.
    """
    return write_report(
        open_run(run, runs=runs),
        split=split,
        limit=images,
        out=None if out is None else Path(out),
        cache_path=None if cache is None else _path(cache),
        device=device,
    )


def predict(
    image: AnyPath | Sequence[AnyPath] | None = None,
    text: str = "",
    *,
    list_file: AnyPath | None = None,
    dataset: str | None = None,
    data: AnyPath | None = None,
    run: Run | AnyPath | None = None,
    out: AnyPath = "predictions",
    formats: Sequence[str] | None = None,
    instances: str | None = None,
    min_area: int = 0,
    probabilities: bool = False,
    entropy: bool = False,
    disagreement: bool = False,
    overwrite: bool = False,
    backbone: AnyPath | None = None,
    device: str = "auto",
    runs: AnyPath = "runs",
) -> list[Path]:
    """Segments images with a finished run and returns the files it wrote; for arrays see ``Predictor``.

    Args:
        image: files and directories, one or several.
        text: that comes with each of them.
        list_file: a file of paths, or a CSV with columns image and text.
        dataset: segment the images of a data set that have no mask, with their texts.
        data: the directory of ``dataset``.
        run: a finished run.
        out: where the results are written, at the images' own sizes.
        formats: beside PNG: ``geojson``, ``ome-zarr``, ``nifti``, ``roi``.
        instances: ``components`` or ``watershed``; also writes maps of objects.
        min_area: leave out smaller objects, in pixels.
        probabilities: write the foreground's probability too, in 16 bits.
        entropy: write the entropy over its maximum too, in 16 bits.
        disagreement: write the disagreement of an ensemble's members too, in 16 bits.
        overwrite: do images again that are done.
        backbone: the run's backbone, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: an image is missing or unreadable, two would write the same file, or the run is not usable.
    """
    given = [] if image is None else [image] if isinstance(image, str | PathLike) else image
    inputs = gather(
        [Path(path) for path in given],
        text,
        list_file=None if list_file is None else Path(list_file),
        dataset=dataset,
        data=None if data is None else Path(data),
        without=Path(out),
    )
    wanted = Wanted(tuple(formats or ()), instances, min_area, probabilities, entropy, disagreement)
    where = None if backbone is None else str(backbone)
    found = open_run(run, runs=runs)
    return list(predict_all(found, inputs, Path(out), wanted, overwrite=overwrite, backbone=where, device=device))


class Predictor:
    """A finished run with its backbone and text encoder, ready to segment images that are in no cache.

    Args:
        run: a finished run; the latest one by default.
        backbone: the run's backbone, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        runs: where run directories are.

    Raises:
        UserError: the run is not finished; the backbone or the text encoder is missing or is another one.
    """

    def __init__(
        self,
        run: Run | AnyPath | None = None,
        *,
        backbone: AnyPath | None = None,
        device: str = "auto",
        runs: AnyPath = "runs",
    ) -> None:
        self.run = open_run(run, runs=runs)
        self._predict = prediction.Predictor(self.run, device, None if backbone is None else str(backbone))

    @property
    def reads_text(self) -> bool:
        """Whether the run looks at the text at all."""
        return self._predict.reads_text

    def __call__(self, image: NDArray[np.uint8] | AnyPath, text: str = "") -> NDArray[np.float32]:
        """Class probabilities at the image's own size; ``argmax(0)`` is the mask.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, any size; or a file.
            text: the text that comes with it.

        Returns:
            (classes, H, W) float32, summing to one over the classes.

        Raises:
            UserError: the file is missing or unreadable, or the array is not of that kind.
        """
        if isinstance(image, str | PathLike):
            return self._predict(images.read_image(Path(image)), text)
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
            raise UserError(
                f"image: an array {array.shape} of {array.dtype}; give (H, W, 3) RGB or (H, W) grey in uint8, or a file"
            )
        return self._predict(np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array, text)


def open_cache(path: AnyPath) -> FeatureCache:
    """Opens a feature cache for reading.

    Raises:
        UserError: nothing there, no TextDiff cache, or a damaged one.
    """
    return FeatureCache.open(path)


def open_run(run: Run | AnyPath | None = None, *, runs: AnyPath = "runs") -> Run:
    """The run in directory ``run``; the latest one in ``runs`` by default; a ``Run`` is given back as it is.

    Raises:
        UserError: there is none.
    """
    if isinstance(run, Run):
        return run
    return find_run(None if run is None else Path(run), Path(runs))


def _path(cache: FeatureCache | AnyPath) -> Path:
    return cache.path if isinstance(cache, FeatureCache) else Path(cache)
