"""Does a pretrained backbone help? The same head on three kinds of input, and the U-Nets a lab would use, on MoNuSeg.

    python benchmarks/backbones.py --data data/MoNuSeg --out backbones --backbone nano-he

Rows: the backbone; its twin with the weights it was initialised with; the image itself and Gaussian blurs of it, at the
sizes of the backbone's activations; U-Nets trained from scratch, a plain one and one used by each image's own
statistics. All see the same draws of training images and are scored on the same test images; the heads read no text,
so that the features alone are compared, and all their inputs are cached in the same eight views in varied colours.
Prints Markdown with 95% intervals over draws and images, keeps the numbers in results/backbones.json, and goes on where
it was stopped. ``--part i/n`` does every n-th fit, for n processes side by side; without it, the table.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from textdiff import console
from textdiff.commands.options import shard_of
from textdiff.experiments.nested import nested_bootstrap
from textdiff.experiments.setup import RIVALS
from textdiff.files import write_json
from textdiff.pipeline import weights
from textdiff.pipeline.backbones.checkpoints import load_unet, save_unet
from textdiff.pipeline.extract import ExtractConfig, extract
from textdiff.pipeline.fit import FitConfig, fit, resume
from textdiff.pipeline.runs import Run, find_run
from textdiff.pipeline.score import score
from textdiff.pipeline.unet import UNet

RESULTS = Path(__file__).resolve().parent / "results" / "backbones.json"
BLOCKS, STEPS, VIEWS = (6, 8, 12, 16), (0, 50, 150, 250), 8
ROWS = {
    "backbone": "pretrained features",
    "untrained": "features of the untrained twin",
    "rgb": "RGB and Gaussian blurs",
    "unet": "plain U-Net from scratch",
    "unet-own": "the same, used by each image's own statistics",
}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("backbones"))
    parser.add_argument("--backbone", default="nano-he")
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--epochs", type=int, default=200, help="of the heads; the U-Nets keep their recipes'")
    parser.add_argument("--part", type=shard_of, default=(0, 1), metavar="i/n")
    options = parser.parse_args()

    caches = dict(_caches(options.data, options.out, options.backbone))
    jobs = [(row, draw) for draw in range(options.draws) for row in ROWS]
    for row, draw in jobs[options.part[0] :: options.part[1]]:
        _fit(caches[row], options.out / f"{row}-{draw}", row, draw, options)
    runs = {row: [options.out / f"{row}-{draw}" / "latest" for draw in range(options.draws)] for row in ROWS}
    missing = sum(not (run / "scores.csv").is_file() for row in runs.values() for run in row)
    if missing:
        console.info(f"{missing} of {len(jobs)} fits are still missing")
        return
    _table({row: [_dice(run) for run in of_row] for row, of_row in runs.items()}, options)


def _caches(data: Path, out: Path, backbone: str) -> Iterator[tuple[str, Path]]:
    """The caches of the rows, made or completed."""
    out.mkdir(parents=True, exist_ok=True)
    config = ExtractConfig(
        dataset="monuseg",
        data=data,
        cache=out / "cache" / "backbone.zarr",
        backbone=backbone,
        text_encoder="minilm",  # not read here, but then the cache serves other experiments too
        blocks=BLOCKS,
        steps=STEPS,
        views=VIEWS,
        jitter="he",
    )
    twin = out / "untrained.safetensors"
    if not twin.is_file():
        trained = load_unet(weights.resolve_backbone(backbone).path, image_size=256)
        torch.manual_seed(0)
        save_unet(UNet(**trained.config), twin)
    yield "backbone", extract(config).path
    yield "untrained", extract(replace(config, cache=out / "cache" / "untrained.zarr", backbone=str(twin))).path
    yield "rgb", extract(replace(config, cache=out / "cache" / "rgb.zarr", backbone="rgb", steps=(0,))).path
    yield "unet", config.cache
    yield "unet-own", config.cache


def _fit(cache: Path, runs: Path, row: str, draw: int, options: argparse.Namespace) -> None:
    """One fit with its score, unless it is there."""
    run = find_run(None, runs) if (runs / "latest").exists() else None
    if run is None or not run.finished:
        config = FitConfig(cache=cache, labels=options.labels, seed=draw, precision=options.precision)
        if row in RIVALS:
            config = replace(config, model="unet", recipe=row)
        else:
            config = replace(config, recipe="light", variant="no-text", epochs=options.epochs)
        run = Run(fit(config, runs) if run is None else resume(run))
    if not (run.path / "scores.csv").is_file():
        score(run)


def _dice(run: Path) -> dict[str, float]:
    with (run / "scores.csv").open(newline="", encoding="utf-8") as file:
        return {line["id"]: 100 * float(line["dice_clean"]) for line in csv.DictReader(file)}


def _table(scores: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    ids = sorted(scores["unet"][0])
    draws = {row: [np.array([[run[name] for name in ids]]) for run in runs] for row, runs in scores.items()}
    print("| input | test Dice % | each draw | minus plain U-Net | minus the other U-Net |")
    print("| :-- | :-- | :-- | :-- | :-- |")
    record = {}
    for row, name in ROWS.items():
        mean = nested_bootstrap(draws[row])
        each = [float(draw.mean()) for draw in draws[row]]
        record[row] = {"dice": mean._asdict(), "each_draw": each}
        cells = [
            name,
            f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]",
            ", ".join(f"{value:.1f}" for value in each),
        ]
        for other in RIVALS:
            less = nested_bootstrap([a - b for a, b in zip(draws[row], draws[other], strict=True)])
            record[row][f"minus_{other}"] = less._asdict()
            cells.append("" if row == other else f"{less.mean:+.2f} [{less.low:+.2f}, {less.high:+.2f}]")
        print(f"| {' | '.join(cells)} |")
    shared = {"labels": options.labels, "draws": options.draws, "epochs": options.epochs, "images": len(ids)}
    write_json(RESULTS, shared | {"rows": record})
    console.info(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
