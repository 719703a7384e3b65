"""A lab's data set that changes, and its cache; neither text encoder nor backbone costs anything."""

import contextlib
import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import textdiff
from textdiff.cache import FeatureCache
from textdiff.models import text
from textdiff.models.backbones.extractor import Extractor
from textdiff.tests.file_tools import files

IDS = {"a": "train", "b": "train", "c": "train", "v": "val", "s": "test", "t": "test"}


class Encoder:
    """Words as tokens; what a real one costs is not what is tested."""

    sha256, max_tokens, dim, pad_to = "0" * 64, 8, 4, None

    def encode(self, texts):
        words = [["<s>", *one.split()] for one in texts]
        tokens = np.zeros((len(texts), max(map(len, words)), self.dim), np.float32)
        mask = np.zeros(tokens.shape[:2], np.bool_)
        for number, some in enumerate(words):
            for place, word in enumerate(some):
                tokens[number, place] = np.frombuffer(hashlib.sha256(word.encode()).digest()[:4], np.uint8)
            mask[number, : len(some)] = True
        return tokens, mask


class Lab:
    """A data set in a folder, and its cache."""

    def __init__(self, root: Path, backbone: Path) -> None:
        self.root, self.data, self.cache, self.backbone = root, root / "data", root / "lab.zarr", backbone
        self.encoder = root / "encoder"
        self.encoder.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (self.encoder / name).touch()

    @property
    def table(self) -> list[dict[str, str]]:
        with (self.data / "texts.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @table.setter
    def table(self, lines: list[dict[str, str]]) -> None:
        with (self.data / "texts.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "text", "split"])
            writer.writeheader()
            writer.writerows(lines)

    def change(self, name: str, **columns: str) -> None:
        self.table = [line | (columns if line["image"] == name else {}) for line in self.table]

    def draw(self, name: str, seed: int = 1) -> None:
        mask = np.random.default_rng([seed, *name.encode()]).random((64, 64)) < 0.3
        Image.fromarray(mask.astype(np.uint8) * 255).save(self.data / f"masks/{name}.png")

    def photograph(self, name: str, seed: int = 0) -> None:
        pixels = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.data / f"images/{name}.png")

    def add(self, name: str, split: str, words: str = "some nuclei") -> None:
        self.photograph(name)
        self.table = [*self.table, {"image": name, "text": words, "split": split}]

    def remove(self, name: str) -> None:
        self.table = [line for line in self.table if line["image"] != name]
        for folder in ("images", "masks"):
            (self.data / folder / f"{name}.png").unlink(missing_ok=True)

    def extract(self, cache: Path | None = None, **options) -> FeatureCache:
        small = {"blocks": (6, 8), "steps": (50, 150), "image_size": 64, "text_encoder": self.encoder, "views": 1}
        return textdiff.extract(
            "folder", data=self.data, cache=cache or self.cache, backbone=self.backbone, **(small | options)
        )

    def scratch(self, **options) -> dict[str, bytes]:
        """What a cache of the data set as it is now holds, made from nothing."""
        return files(self.extract(self.root / "scratch.zarr", overwrite=True, **options).path)


def activations(backbone: Extractor, images: np.ndarray, texts: Sequence[str] = ()) -> dict[int, torch.Tensor]:
    """What depends on the image only; one test has the real ones."""
    (image,) = images
    draw = np.random.default_rng(list(hashlib.sha256(image.tobytes()).digest()))
    shapes = backbone.network.levels(backbone.image_size)
    return {
        block: torch.from_numpy(draw.standard_normal((1, len(backbone.steps), *shapes[block]), dtype=np.float32))
        for block in backbone.blocks
    }


@contextlib.contextmanager
def cheap_extraction() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "load_text_encoder", lambda *_, **__: Encoder())
        patch.setattr(Extractor, "grids", activations)
        patch.setattr(Extractor, "estimate_seconds", lambda _: 0.1)
        patch.setattr(os, "sync", lambda: None)
        yield


def left_beside(lab: Lab) -> list[str]:
    return sorted(path.name for path in lab.root.iterdir() if path.name.startswith("."))


def move(lab: Lab) -> None:
    lab.change("a", split="test")


def new_mask(lab: Lab) -> None:
    lab.draw("b")


def other_mask(lab: Lab) -> None:
    lab.draw("t", seed=2)


def lost_mask(lab: Lab) -> None:
    (lab.data / "masks/a.png").unlink()


def new_image(lab: Lab) -> None:
    lab.add("aa", "train", "an unheard of text with words")


def other_image(lab: Lab) -> None:
    lab.photograph("c", seed=5)


def removed_image(lab: Lab) -> None:
    lab.remove("a")


def other_text(lab: Lab) -> None:
    lab.change("a", text="a longer text than all that were there before")


def renamed(lab: Lab) -> None:
    lab.change("c", image="zz")
    for folder in ("images", "masks"):
        (lab.data / folder / "c.png").rename(lab.data / folder / "zz.png")
