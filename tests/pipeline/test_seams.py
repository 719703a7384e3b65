"""Tiles of a run that sees a known number of pixels say by default what one piece would."""

import numpy as np
import torch
from PIL import Image

from textdiff.images.images import read_image
from textdiff.models.backbones.load import load_backbone, resolve_backbone
from textdiff.tests.run_cases import newest

SIZE, TILE = 176, 128


def test_tiles_of_filters_meet_without_a_seam_by_default(tmp_path, make_lvit, textdiff_once):
    make_lvit(n_train=1, n_val=0, n_test=1, size=SIZE)
    extract = ("extract", "--dataset", "monuseg", "--data", "data", "--preset", "filters", "--text-encoder", "none")
    tiles = ("--tile", str(TILE), "--image-size", str(TILE), "--views", "1", "--cache", "c.zarr")
    textdiff_once(tmp_path, *extract, *tiles)
    textdiff_once(tmp_path, "fit", "--cache", "c.zarr", "--model", "trees", "--label-pixels", "200")
    run, image = newest(tmp_path / "runs"), tmp_path / "squares.png"
    squares = np.random.default_rng(0).integers(0, 256, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    Image.fromarray(squares.repeat(8, 0).repeat(8, 1)).save(image)
    pixels = torch.from_numpy(np.array(read_image(image))).permute(2, 0, 1)[None]
    filters = load_backbone(resolve_backbone("filters"), SIZE, torch.device("cpu"))
    levels = filters.features(pixels, torch.tensor([0]), [""], [0])[0].half()
    trees = run.load_network()
    trees.config["image_size"] = SIZE
    expected = trees([levels])[0].softmax(0)[1].numpy()
    off, masks = [], []
    for out, more in (("out", ()), ("none", ("--margin", "0"))):
        textdiff_once(tmp_path, "predict", str(image), "--out", out, "--probabilities", "--device", "cpu", *more)
        found, mask = (
            np.asarray(Image.open(tmp_path / out / f"{image.stem}{end}.png")) for end in ("_probability", "")
        )
        off.append(np.abs(found / 65535 - expected).max())
        masks.append(mask > 0)
    assert 0 < masks[0].mean() < 1
    np.testing.assert_array_equal(masks[0], expected > 0.5)
    assert off[0] < 1e-4
    assert off[1] > 1e-2
