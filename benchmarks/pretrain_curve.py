"""What pretraining is worth: the Dice of heads on five labels against the crops that the backbone has seen.

    python benchmarks/pretrain_curve.py pack --shared DIR               # once, here: the images as they are used
    python benchmarks/pretrain_curve.py run --out curve.json            # on a CUDA device, in ten minutes
    python benchmarks/pretrain_curve.py run --device cpu --miniature    # every line of it, small: what the tests run
    python benchmarks/pretrain_curve.py join PIECES --out net.safetensors

On H&E with MoNuSeg as the target and on chest X-rays with their lesions, for both objectives of ``pretrain``, against
three lines: the untrained network, blurred pixels (``rgb``), ``filters``. No image of a target is pretrained on.

Each part has a budget, and what would begin after --seconds is left out and named; the file of results is written
after every measurement. The weights of the best network on validation images are written in pieces of less than 16 MB
beside it, as soon as it is known: at 64 channels these are 69 MB. Heads are scored on validation images, and with
``--splits val test`` on test images too, which choose nothing. Processes that have --work in common may share the
parts (--only) and the backbones (--share).

On a lent machine ``pack`` is to write where it travels from, and benchmarks/gpu.py says which wheels go along:

    python benchmarks/pretrain_curve.py pack --shared ../shared/data --pack .curve; echo /.curve/ >> .git/info/exclude

Then one ``run`` with ``carry: [".whl", ".curve"]``, ``timeout_s: 595`` and ``command: "BENCHMARK=pretrain_curve bash
benchmarks/gpu.sh run"``.
"""

import argparse
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textdiff.benchmarks.curve_pack import NAMES, miniature_pack, write_pack
from textdiff.benchmarks.gpu import measure
from textdiff.cache import FeatureCache
from textdiff.experiments.evaluate import evaluate
from textdiff.files import atomic_path, write_json
from textdiff.models.backbones.checkpoints import pretraining_of
from textdiff.models.device import describe_device
from textdiff.options.extract import Extract
from textdiff.options.fit import FitConfig
from textdiff.options.pretrain import Pretrain
from textdiff.pipeline.extract import extract
from textdiff.pipeline.fit import fit
from textdiff.pipeline.pretrain import pretrain
from textdiff.pipeline.runs import Run

HERE = Path(__file__).resolve().parent
OBJECTIVES = ("masked", "noise")
CROPS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
PIECE = 15 << 20
# Sides of the targets' images in pixels, at which they are as much reduced as the crops are.
SIZES = {"he": 256, "cxr": 128}
MINIATURE = {"image_size": 16, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_resolutions": [2]}
Steps = dict[str, Callable[[], Any]]


class Curve:
    """All measurements, each a function without arguments."""

    def __init__(self, options: argparse.Namespace, pack: Path, work: Path) -> None:
        self.small, self.device, self.splits = options.miniature, options.device, options.splits
        self.share, self.shares = options.share
        self.pack, self.work, self.pieces = pack, work, options.out.parent
        self.draws, self.epochs = (1, 1) if self.small else (options.draws, options.epochs)
        self.sizes = dict.fromkeys(SIZES, 32) if self.small else SIZES
        self.seconds = options.train_seconds
        self.network = {"model_channels": 32} | MINIATURE if self.small else {"model_channels": options.channels}
        self.network |= {"num_head_channels": self.network["model_channels"]}
        self.crops = (4,) if self.small else CROPS
        self.objectives = OBJECTIVES[:1] if self.small else OBJECTIVES
        self.lines = ("rgb",) if self.small else ("filters", "rgb")
        self.found: dict[str, Any] = {}
        self.best: tuple[float, Path] | None = None

    def parts(self) -> dict[str, tuple[float, Callable[[], Steps]]]:
        """By the name of a part the seconds it may take, and its measurements."""
        parts: dict[str, tuple[float, Callable[[], Steps]]] = {"device": (10, lambda: {"facts": self.facts})}
        names = sorted(path.name for path in self.pack.iterdir())
        for name in names:
            for objective in self.objectives:
                training = {"crops/s": partial(self.pretrained, name, objective)}
                parts[f"pretrain {name}, {objective}"] = 2 * self.seconds, lambda training=training: training
        for name in names:
            parts[f"heads {name}"] = 300, partial(self.evaluations, name)
        return parts | {"weights": (60, lambda: {"pieces of the best": self.write_pieces})}

    def facts(self) -> dict[str, Any]:
        """What this machine is, and what is measured."""
        of = {"draws": self.draws, "epochs": self.epochs, "pixels": self.sizes, "splits": self.splits}
        return {"device": describe_device(torch.device(self.device)), "torch": torch.__version__, **of}

    def pretrained(self, name: str, objective: str) -> dict[str, Any]:
        """Pretrains, keeping the weights after so many crops each."""
        small = {"crop": 16, "batch_size": 4, "steps": 1, "workers": 1, "warmup": 1, "modality": "none"}
        usual = {
            "crop": 128,
            "batch_size": 64,
            "steps": 1_000_000,
            "time_limit": self.seconds,
            "warmup": 100,
            "ema": 0.999,
            "modality": name,
            "scale": (0.5, 1.0),  # of the pack, whose images are reduced already
            "t_max": 400 if objective == "noise" else 1000,
            "compile": False,  # which takes as long as is trained here
            "channels_last": False,
        }
        out = pretrain(
            Pretrain(
                data=self.pack / name / "unlabelled",
                out=self.work / f"{name}-{objective}.safetensors",
                objective=objective,
                set=self.network,
                keep=self.crops,
                device=self.device,
                samples=0,
                half=True,
                save_minutes=60,
                **(small if self.small else usual),
            )
        )
        told = pretraining_of(out)
        lost = {row["samples"]: {k: v for k, v in row.items() if k.startswith("held_out")} for row in told["log"]}
        rate = told["samples"] / told["seconds"]
        return {"crops": told["samples"], "crops/s": rate, "waited": told["waited_share"], "held out": lost}

    def evaluations(self, name: str) -> Steps:
        """Every backbone of a data set: the ends of the curves, the lines, then what is between and may be left out."""
        ends = [self.work / f"{name}-{objective}.safetensors" for objective in self.objectives]
        there = [path for path in ends if path.exists()]
        kept = {
            (objective, crops): path
            for crops in reversed(self.crops)
            for objective in self.objectives
            if (path := self.work / f"{name}-{objective}-{crops}.safetensors").exists()
        }
        backbones = {path.stem.removeprefix(f"{name}-") + ", all": str(path) for path in there}
        backbones |= {line: line for line in self.lines}
        backbones |= {f"untrained as {path.stem.removeprefix(f'{name}-')}": f"untrained:{path}" for path in there}
        backbones |= {f"{objective}, {crops}": str(path) for (objective, crops), path in kept.items()}
        own = list(backbones.items())[self.share :: self.shares]
        return {label: partial(self.dice, name, label, backbone) for label, backbone in own}

    def dice(self, name: str, label: str, backbone: str) -> dict[str, Any]:
        """Heads without text on five labels, by split the Dice in percent: the mean, and each draw's."""
        cache = self.work / f"{name} {label}.zarr".replace(", ", "-").replace(" ", "-")
        preset = backbone if backbone in ("rgb", "filters") else "nano"
        extract(
            Extract(
                dataset="folder",
                data=self.pack / name / "target",
                cache=cache,
                preset=preset,
                backbone=backbone,
                blocks="all" if self.small and preset == "nano" else None,
                steps=(0,) if self.small else None,
                text_encoder="none",
                image_size=self.sizes[name],
                views=1,
                device=self.device,
            )
        )
        runs = []
        for draw in range(self.draws):
            config = FitConfig(
                cache=cache,
                variant="no-text",
                labels=2 if self.small else 5,
                epochs=self.epochs,
                seed=100 * draw,
                draw_seed=draw,
                device=self.device,
            )
            runs.append(Run(fit(config, self.work / "runs")))
        images: dict[str, list[list[float]]] = {}
        for split in self.splits:
            evaluate(runs, FeatureCache.open(cache), torch.device(self.device), split)
            read = [json.loads((run.path / f"images-{split}.json").read_text())["scores"] for run in runs]
            images[split] = [scores["dice_original"] for scores in read]
        shutil.rmtree(cache)
        told = pretraining_of(backbone)
        dice = {split: 100 * float(np.mean(draws)) for split, draws in images.items()}
        if told and (self.best is None or dice[self.splits[0]] > self.best[0]):
            self.best = dice[self.splits[0]], Path(backbone)
        return {"crops": told.get("samples", 0), "dice": dice, "images": images}

    def write_pieces(self) -> dict[str, Any]:
        """The weights with the highest Dice, in pieces."""
        assert self.best is not None
        dice, path = self.best
        packed = _packed(path.read_bytes())
        for number, start in enumerate(range(0, len(packed), PIECE)):
            with atomic_path(self.pieces / f"{path.stem}.piece{number}") as partial_file:
                partial_file.write_bytes(packed[start : start + PIECE])
        return {"weights": path.name, "dice": dice, "bytes": len(packed)}


def _share(text: str) -> tuple[int, int]:
    number, count = map(int, text.split("/"))
    if not 0 <= number < count:
        raise ValueError(text)
    return number, count


def _packed(data: bytes) -> bytes:
    """Bytes with the exponents of float16 side by side, which zlib makes a sixth smaller."""
    even, odd = data[::2], data[1::2]
    return len(even).to_bytes(8, "little") + zlib.compress(even + odd, 6)


def _unpacked(packed: bytes) -> bytes:
    """What ``_packed`` was given."""
    half, both = int.from_bytes(packed[:8], "little"), zlib.decompress(packed[8:])
    data = bytearray(len(both))
    data[::2], data[1::2] = both[:half], both[half:]
    return bytes(data)


def table(found: Mapping[str, Any]) -> str:
    """The Dice of all that was measured, a line each, by the crops seen."""
    lines = [
        f"{part.removeprefix('heads '):10} {label:24} {value['crops']:>9,} "
        + " ".join(f"{dice:6.2f}" for dice in value["dice"].values())
        for part, values in found.items()
        if part.startswith("heads ")
        for label, value in sorted(values.items(), key=lambda pair: (pair[1]["crops"], pair[0]))
    ]
    return "\n".join([f"{'data':10} {'backbone':24} {'crops':>9} {'Dice':>6}", *lines])


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints, and writes the JSON file and the pieces; exits with status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "run", "join"))
    parser.add_argument("pieces", nargs="*", type=Path, help="the pieces to join, in their order")
    parser.add_argument("--shared", type=Path, help="directory of the data sets, to pack")
    parser.add_argument("--pack", type=Path, default=Path(".curve"), help="directory of the packed images")
    parser.add_argument("--out", type=Path, default=HERE / "results/pretrain_curve.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true", help="everything small, to try the program")
    parser.add_argument("--seconds", type=float, default=560, help="after which nothing more is begun")
    parser.add_argument("--train-seconds", type=float, default=75, help="of pretraining and compiling, four times")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of the heads")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("val", "test"),
        default=["val"],
        help="to score; the first chooses the weights written",
    )
    parser.add_argument(
        "--share", type=_share, default=(0, 1), metavar="I/N", help="every Nth backbone from the Ith on"
    )
    parser.add_argument("--work", type=Path, help="directory of weights and caches; a temporary one by default")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="parts to measure; all by default")
    options = parser.parse_args(arguments)
    if options.what == "pack":
        print(json.dumps(write_pack(options.shared, options.pack)))
        return {}
    if options.what == "join":
        options.out.write_bytes(_unpacked(b"".join(path.read_bytes() for path in options.pieces)))
        return {}
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pack = miniature_pack(work / "pack") if options.miniature else options.pack
        if not any((pack / name).is_dir() for name in NAMES):
            parser.error(f"--pack {pack}: holds no packed images; make them with `pretrain_curve.py pack --shared DIR`")
        curve = Curve(options, pack, work)
        results = measure(curve, options.seconds, options.only, partial(write_json, options.out))
    print(table(curve.found))
    print(f"left out: {', '.join(results['left out']) or 'nothing'}")
    print(f"failed: {', '.join(results['failed']) or 'nothing'}")
    return results


if __name__ == "__main__":
    sys.exit(1 if main().get("failed") else 0)
