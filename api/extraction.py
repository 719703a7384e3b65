"""Stage one as a function."""

__all__ = ["extract"]

from collections.abc import Sequence

from textdiff.api.opening import AnyPath
from textdiff.cache import FeatureCache
from textdiff.pipeline.defaults import extract_config
from textdiff.pipeline.extract import extract as run_extract
from textdiff.readers.options import ReadOptions


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
    test_views: int = 1,
    jitter: str | None = None,
    seed: int = 0,
    protocol: str = "clean",
    dtype: str = "float16",
    precision: str = "auto",
    device: str = "auto",
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    update: bool = False,
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
        preset: defaults: ``paper``; ``nano`` for what suits the backbone in the package; ``rgb`` for no network at all.
        data: its directory or file; looked for in ``$TEXTDIFF_DATA``, ``data/`` and ``datasets/``.
        cache: where to store; ``cache/<dataset>.zarr``, named after ``data`` for your own.
        backbone: ``adm-256``, ``nano-he``, ``rgb`` (the image and blurs of it) or a checkpoint file; the preset's by
            default, like the next four.
        text_encoder: ``clinical-biobert``, ``minilm``, ``none``, a hub id or a directory.
        blocks: decoder blocks, numbered as in ``output_blocks``.
        steps: diffusion steps, each in 0..999.
        image_size: height and width in pixels.
        tile: cut images into tiles of so many pixels; by default each is one row.
        overlap: pixels that tiles share; an eighth of ``tile`` by default.
        views: 1, or 8 to cache the symmetries of training images too; the preset's by default. With ``jitter`` a larger
            multiple of 8 as well.
        test_views: 1, or 8 to cache those of validation and test images too: their scores are then of the mean over the
            views.
        jitter: ``he`` or ``cxr``: vary the colours of all views of an image but the first; ``none``
            where the preset does.
        seed: of the shared noise, and of splits that are drawn.
        protocol: ``clean``, or ``paper`` for what the paper's code does.
        dtype: stored precision, ``float16`` or ``float32``.
        precision: of computing, ``auto``, ``float32`` or ``bfloat16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        shard: (i, n): this process does every n-th row from the i-th.
        overwrite: replace a cache that is there.
        update: where the data set has changed since the cache was made, keep the rows that still hold.
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
        The cache, opened; after a dry run the one that is there, or what it would be, without a row.

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
            test_views=test_views,
            jitter=jitter,
            seed=seed,
            protocol=protocol,
            dtype=dtype,
            precision=precision,
            device=device,
            shard=shard,
            overwrite=overwrite,
            update=update,
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
