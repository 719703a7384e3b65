"""A lab's data set and its cache, which tests change copies of."""

import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from textdiff.models.backbones.extractor import Extractor
from textdiff.tests.lab_cases import IDS, Lab, activations, cheap_extraction


@pytest.fixture(scope="session")
def first(tmp_path_factory, tiny_backbone) -> Lab:
    """Six images, ``b`` without a mask, and their cache; no test changes them."""
    lab = Lab(tmp_path_factory.mktemp("first"), tiny_backbone)
    for folder in ("images", "masks"):
        (lab.data / folder).mkdir(parents=True)
    lab.table = []
    for number, (name, split) in enumerate(IDS.items()):
        lab.add(name, split, f"{'many' if number % 2 else 'few'} nuclei")
        if name != "b":
            lab.draw(name)
    with cheap_extraction():
        lab.extract()
    return lab


@pytest.fixture(scope="module")
def cheap() -> Iterator[None]:
    with cheap_extraction():
        yield


@pytest.fixture
def lab(first, cheap, tmp_path) -> Lab:
    """A copy of ``first``."""
    shutil.copytree(first.data, tmp_path / "data")
    shutil.copytree(first.cache, tmp_path / "lab.zarr")
    return Lab(tmp_path, first.backbone)


@pytest.fixture
def forwards(monkeypatch) -> list[bytes]:
    """The images that went through the backbone."""
    seen = []

    def forward(backbone: Extractor, images: np.ndarray, texts: Sequence[str]) -> dict[int, torch.Tensor]:
        seen.append(images.tobytes())
        return activations(backbone, images)

    monkeypatch.setattr(Extractor, "grids", forward)
    return seen


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers in this process, of two threads each."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address
