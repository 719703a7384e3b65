"""The command line: parses, calls one function, prints. Heavy imports wait until a command needs them."""

__all__ = ["app", "main"]

import json
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from textdiff import __version__, console
from textdiff.errors import UserError
from textdiff.pipeline.presets import PRESETS

RUNS = Path("runs")
STOPPED = 130

# Typer carries its own copy of Click or uses the installed one, by version: this is the base class in either.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Label-efficient segmentation of medical images from a frozen diffusion model and text.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="Look into, check and convert a feature cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory; the latest one by default.")]


def main() -> None:
    """Entry point of ``textdiff``: status 0, 2 for a user's mistake, 130 when stopped, 1 for a defect of ours."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = app(args=arguments, prog_name="textdiff", standalone_mode=False)
    except UserError as error:
        status = _fail(str(error), debug)
    except UsageError as error:
        status = _fail(f"{_describe(error)} (`textdiff --help` lists commands and options)", debug)
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except SystemExit as stop:  # Typer turns a KeyboardInterrupt into one by itself
        status = stop.code
    except BrokenPipeError:
        # The reader of our output, as in `textdiff score | head`, has seen enough.
        sys.stderr.close()
        status = 0
    if status == STOPPED:
        console.info("\nstopped; finished work is kept. Run the same command again to go on (fit: add --resume)")
    sys.exit(status if isinstance(status, int) else 0)


def _describe(error: BaseException) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    return message.rstrip(".")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _version(value: bool) -> None:
    if value:
        print(f"textdiff {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
def extract(
    dataset: Annotated[str, typer.Option(help=f"Data set: {', '.join(PRESETS)}.")],
    data: Annotated[Path | None, typer.Option(help="Its directory; looked for in $TEXTDIFF_DATA and data/.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where to store; cache/<dataset>.zarr by default.")] = None,
    backbone: Annotated[str | None, typer.Option(help="adm-256, nano-he, or a checkpoint file.")] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="clinical-biobert, minilm, none, a hub id or a directory.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(help="Decoder blocks, as in 6,8,12,16.")] = None,
    steps: Annotated[str | None, typer.Option(help="Diffusion steps, as in 50,150,250.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels.")] = None,
    views: Annotated[int, typer.Option(help="1, or 8: also the symmetries of training images.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the shared noise.")] = 0,
    protocol: Annotated[str, typer.Option(help="clean, or paper: as the paper's code does it.")] = "clean",
    dtype: Annotated[str, typer.Option(help="Stored precision: float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Computing: auto, float32, bfloat16.")] = "auto",
    device: Device = "auto",
    shard: Annotated[str, typer.Option(help="i/n: this process does every n-th row from the i-th.")] = "0/1",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache that is there.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad images instead of stopping.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
) -> None:
    """Stage one: run the frozen UNet once per image and cache its activations. Continues where it was stopped."""
    preset = PRESETS.get(dataset)
    if preset is None:
        raise UserError(f"--dataset {dataset}: unknown; use one of {', '.join(PRESETS)}")
    from textdiff.pipeline.extract import ExtractConfig
    from textdiff.pipeline.extract import extract as run_extract
    from textdiff.pipeline.locations import find_data

    config = ExtractConfig(
        dataset=dataset,
        data=data or find_data(dataset),
        cache=cache or Path("cache") / f"{dataset}.zarr",
        backbone=backbone or preset.backbone,
        text_encoder=text_encoder or preset.text_encoder,
        blocks=_integers("--blocks", blocks) if blocks else preset.blocks,
        steps=_integers("--steps", steps) if steps else preset.steps,
        image_size=image_size or preset.image_size,
        views=views,
        seed=seed,
        protocol=protocol,
        dtype=dtype,
        precision=precision,
        device=device,
        shard=_shard(shard),
        overwrite=overwrite,
        skip_bad=skip_bad,
        dry_run=dry_run,
    )
    result = run_extract(config)
    if not result.pending():
        console.info(f"next: textdiff fit --cache {result.path}")


@app.command()
def fit(
    cache: Annotated[Path | None, typer.Option(help="The feature cache to fit on.")] = None,
    labels: Annotated[int | None, typer.Option(help="Number of training images to draw; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw, the weights, the order.")] = 0,
    variant: Annotated[str, typer.Option(help="full, no-text, concat, shuffled-text, constant-text.")] = "full",
    protocol: Annotated[str, typer.Option(help="clean, or paper: the loss and epochs of the paper's code.")] = "clean",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Of Adam; divided by ten from --decay-epoch on.")] = 1e-4,
    decay_epoch: Annotated[int, typer.Option(help="See --learning-rate.")] = 60,
    batch_size: Annotated[int, typer.Option(help="Images per optimiser step.")] = 1,
    width: Annotated[int | None, typer.Option(help="Channels of the attention block.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop early after so many epochs without gain.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are made.")] = RUNS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped fit, with its own options.")] = False,
    run: Annotated[Path | None, typer.Option(help="With --resume: which run; the latest by default.")] = None,
) -> None:
    """Stage two: train the cross-attention and the pixel classifier from a cache."""
    from textdiff.pipeline.fit import FitConfig
    from textdiff.pipeline.fit import fit as run_fit
    from textdiff.pipeline.fit import resume as run_resume
    from textdiff.pipeline.runs import find_run

    if resume:
        path = run_resume(find_run(run, runs), device if device != "auto" else None)
    elif cache is None:
        raise UserError("--cache is missing: name the cache that `textdiff extract` made, or --resume a stopped fit")
    else:
        path = run_fit(
            FitConfig(
                cache=cache,
                labels=labels,
                seed=seed,
                variant=variant,
                protocol=protocol,
                epochs=epochs,
                learning_rate=learning_rate,
                decay_epoch=decay_epoch,
                batch_size=batch_size,
                width=width,
                patience=patience,
                precision=precision,
                device=device,
            ),
            runs,
        )
    print(path)


@app.command()
def score(
    run: RunOption = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    cache: Annotated[Path | None, typer.Option(help="The run's cache, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Dice and IoU with intervals, beside the paper's; per-image scores and overlays into the run directory."""
    from textdiff.pipeline.runs import find_run
    from textdiff.pipeline.score import score as run_score

    result = run_score(find_run(run, runs), split=split, cache_path=cache, device=device)
    print(json.dumps(result.summary, indent=2) if as_json else result.table)
    for file in result.files:
        console.info(f"wrote {file}")


@app.command()
def predict(
    image: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    text: Annotated[str, typer.Option(help="The text that comes with the images.")] = "",
    run: RunOption = None,
    out: Annotated[Path, typer.Option(help="Where the masks are written.")] = Path("predictions"),
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the probability too.")] = False,
    entropy: Annotated[bool, typer.Option("--entropy", help="Write the entropy map too.")] = False,
    backbone: Annotated[str | None, typer.Option(help="The run's backbone, if it was moved.")] = None,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = RUNS,
) -> None:
    """Segment images with a fitted run: mask PNGs at the original size."""
    from textdiff.pipeline.predict import predict_files
    from textdiff.pipeline.runs import find_run

    for path in predict_files(
        find_run(run, runs),
        image,
        text,
        out,
        with_probabilities=probabilities,
        with_entropy=entropy,
        backbone=backbone,
        device=device,
    ):
        print(path)


@app.command()
def pretrain(
    images: Annotated[Path, typer.Option(help="Directory of unlabelled images.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    config: Annotated[str, typer.Option(help="nano, small or adm-256.")] = "nano",
    init: Annotated[Path | None, typer.Option(help="Checkpoint to fine-tune.")] = None,
    modality: Annotated[str, typer.Option(help="he, cxr or none: how colours are varied.")] = "he",
    crop: Annotated[int, typer.Option(help="Side of the training crops in pixels.")] = 128,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="Smallest and largest reduction, as in 0.22 0.5.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    optimiser: Annotated[str, typer.Option(help="adamw or adam.")] = "adamw",
    schedule: Annotated[str, typer.Option(help="constant or cosine.")] = "constant",
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 500,
    ema: Annotated[float, typer.Option(help="Largest decay of the averaged weights.")] = 0.9999,
    loss: Annotated[str, typer.Option(help="hybrid (learned variance) or mse.")] = "hybrid",
    t_max: Annotated[int, typer.Option(help="Train on time steps below this.")] = 1000,
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.")] = 100_000,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which to finish with what there is.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Threads that prepare crops.")] = None,
    eval_every: Annotated[int, typer.Option(help="Steps between held-out losses.")] = 500,
    samples: Annotated[int, typer.Option(help="Pictures on the contact sheet.")] = 8,
    half: Annotated[bool, typer.Option("--half", help="Write float16 weights.")] = False,
    data_licence: Annotated[str, typer.Option(help="Licence of the images, for the metadata.")] = "",
    device: Device = "auto",
) -> None:
    """Train a backbone on your own unlabelled images; extract --backbone takes the result."""
    from textdiff.pipeline.pretrain import pretrain as run_pretrain
    from textdiff.pipeline.pretrain_config import PretrainConfig

    path = run_pretrain(
        PretrainConfig(
            images=str(images),
            out=str(out),
            config=config,
            init=None if init is None else str(init),
            modality=modality,
            crop=crop,
            scale=scale,
            batch=batch,
            lr=lr,
            optimiser=optimiser,
            schedule=schedule,
            warmup=warmup,
            ema=ema,
            loss=loss,
            t_max=t_max,
            steps=steps,
            time_limit=time_limit,
            seed=seed,
            precision=precision,
            workers=workers,
            eval_every=eval_every,
            samples=samples,
            half=half,
            data_licence=data_licence,
            device=device,
        )
    )
    print(path)


@app.command()
def doctor(
    cache_dir: Annotated[Path, typer.Option("--cache-dir", help="Where caches will be stored.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Check this machine: PASS, WARN or FAIL per line, with the fix."""
    from textdiff.pipeline.doctor import diagnose

    checks = diagnose(cache_dir)
    if as_json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        for check in checks:
            print(check)
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(1)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="adm-256, clinical-biobert or monuseg.")],
    to: Annotated[Path | None, typer.Option(help="Where to store it; the usual place by default.")] = None,
    url: Annotated[str | None, typer.Option(help="Another place to fetch it from.")] = None,
) -> None:
    """Fetch weights or a data set ahead of time: resumed, verified, atomic."""
    from textdiff.pipeline.fetch import fetch

    print(fetch(name, to, url))


@cache_app.command("info")
def cache_info(path: Annotated[Path, typer.Argument(help="The cache.")], as_json: AsJson = False) -> None:
    """What a cache holds and how it was made."""
    from textdiff.cache import FeatureCache, format_info

    info: dict[str, Any] = FeatureCache.open(path).info()
    print(json.dumps(info, indent=2) if as_json else format_info(info))


@cache_app.command("export")
def cache_export(
    path: Annotated[Path, typer.Argument(help="The cache.")],
    out: Annotated[Path, typer.Argument(help="The HDF5 file to write.")],
    upsampled: Annotated[bool, typer.Option("--upsampled", help="Activations at the image's size.")] = False,
    compress: Annotated[bool, typer.Option("--compress", help="Compress with gzip.")] = False,
) -> None:
    """Write a cache as one HDF5 file, for ilastik, MATLAB and others."""
    from textdiff.cache import FeatureCache, export_hdf5

    export_hdf5(FeatureCache.open(path), out, native=not upsampled, compress=compress)
    print(out)


@cache_app.command("import")
def cache_import(
    path: Annotated[Path, typer.Argument(help="An HDF5 file that `cache export` wrote.")],
    out: Annotated[Path, typer.Argument(help="The cache to make.")],
) -> None:
    """Make a cache from an exported HDF5 file."""
    from textdiff.cache import import_hdf5

    import_hdf5(path, out)
    print(out)


@cache_app.command("verify")
def cache_verify(
    path: Annotated[Path, typer.Argument(help="The cache.")],
    drop: Annotated[bool, typer.Option("--drop", help="Forget bad rows, so that extract makes them again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute every checksum and name each bad row. Status 1 if there is one."""
    from textdiff.cache import verify_cache

    faults = verify_cache(path, drop=drop)
    if as_json:
        print(json.dumps([fault._asdict() for fault in faults], indent=2))
    else:
        for fault in faults:
            print(fault)
    if faults:
        raise typer.Exit(1)


def _integers(option: str, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise UserError(f"{option} {value}: give whole numbers with commas between, as in 6,8,12,16") from None


def _shard(value: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in value.split("/"))
    except ValueError:
        raise UserError(f"--shard {value}: give i/n, as in 0/4 for the first of four processes") from None
    return index, count


if __name__ == "__main__":
    main()
