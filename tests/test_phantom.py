"""The phantom: repeatable, and not to be solved from the image alone."""

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.pipeline.datasets import inspect, read_dataset
from textdiff.pipeline.images import read_image, read_mask
from textdiff.pipeline.phantom import KINDS, SPLITS, draw_tissue, ensure_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return ensure_phantom(tmp_path_factory.mktemp("data") / "phantom")


def test_same_seed_same_tissue_and_kinds_do_not_overlap():
    (first, masks), (again, _), (other, _) = draw_tissue(3), draw_tissue(3), draw_tissue(4)
    assert (first == again).all()
    assert (first != other).any()
    assert not (masks["round"] & masks["elongated"]).any()
    assert all(0.03 < mask.mean() < 0.25 for mask in masks.values())


def test_every_picture_is_there_once_per_sentence_with_another_mask(phantom):
    samples, problems = read_dataset("phantom", phantom)
    assert not [problem for problem in problems if problem.severity == "error"]
    assert len(samples) == len(KINDS) * sum(SPLITS.values())
    pictures: dict[bytes, list] = {}
    for sample in samples:
        pictures.setdefault(read_image(sample.image).tobytes(), []).append(sample)
    for pair in pictures.values():
        assert {sample.text for sample in pair} == {kind.sentence for kind in KINDS.values()}
        assert len({sample.split for sample in pair}) == 1
        left, right = (read_mask(sample.mask) for sample in pair)
        assert not np.any(left & right)
    assert not [problem for problem in inspect(samples)[1] if problem.severity == "error"]


def test_made_once_and_never_over_other_data(phantom, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    ensure_phantom(phantom)
    assert before == {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    (tmp_path / "mine.png").touch()
    with pytest.raises(UserError, match="holds other data"):
        ensure_phantom(tmp_path)
