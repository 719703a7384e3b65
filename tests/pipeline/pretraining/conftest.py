"""The pretraining of a tiny network, which tests run with options of their own."""

import numpy as np
import pytest
from PIL import Image

from textdiff.options.pretrain import Pretrain
from textdiff.tests.pretrain_cases import TINY


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Flat coloured discs on coloured grounds: easy to learn, different everywhere."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for i in range(12):
        picture = np.empty((48, 48, 3), np.uint8)
        picture[:] = rng.integers(150, 250, 3)
        for _ in range(5):
            cy, cx, r = rng.integers((0, 0, 4), (48, 48, 10)).tolist()
            picture[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.integers(20, 150, 3)
        Image.fromarray(picture).save(root / f"{i:02d}.png")
    return root


@pytest.fixture
def config(images, tmp_path):
    return Pretrain(
        data=images,
        out=tmp_path / "run" / "net.safetensors",
        set=TINY,
        crop=16,
        batch_size=4,
        steps=6,
        warmup=2,
        eval_every=3,
        samples=0,
        device="cpu",
        precision="float32",
        workers=2,
    )
