"""The report of a run on two classes: their scores, measurements and colours, also in a browser."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.console import printable
from textdiff.outputs.colours import class_colours
from textdiff.tests.report_cases import NASTY, PIXELS, Parsed, decode, shown_page


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory, tiny_backbone) -> textdiff.Run:
    """A run on squares of two classes, one of which has a name that is hard to show."""
    root = tmp_path_factory.mktemp("classes")
    (root / "data/images").mkdir(parents=True)
    (root / "data/masks").mkdir()
    random, lines = np.random.default_rng(0), ["image,text,split,group"]
    for index, split in enumerate(["train", "train", "val", "test", "test"]):
        mask = np.zeros((64, 64), np.uint8)
        mask[4 + 4 * index : 24 + 4 * index, 6:26], mask[20:44, 32 + index : 56] = 1, 2
        noise = random.integers(0, 60, (64, 64, 3))
        pixels = np.array([[230, 220, 230], [90, 60, 140], [96, 60, 140]])[mask] - noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"data/images/{index}.png")
        Image.fromarray(mask).save(root / f"data/masks/{index}.png")
        lines.append(f"{index},Text {index}.,{split},patient {index}")
    (root / "data/texts.csv").write_text("\n".join(lines))
    cache = textdiff.extract(
        "folder",
        data=root / "data",
        cache=root / "c.zarr",
        backbone=tiny_backbone,
        text_encoder="none",
        image_size=64,
        blocks=(4, 8),
        classes=("nucleus", NASTY),
    )
    run = textdiff.fit(cache, variant="no-text", recipe="default", epochs=8, learning_rate=3e-3, runs=root / "runs")
    textdiff.score(run)
    return run


@pytest.fixture(scope="module")
def two_classes_page(two_classes) -> Path:
    return textdiff.report(two_classes)


def test_classes_keep_their_numbers_scores_and_colours(two_classes, two_classes_page):
    data, summary = Parsed(two_classes_page.read_text("utf-8")).data(), two_classes.scores()
    names = ("nucleus", NASTY)
    assert [(one["name"], tuple(one["colour"])) for one in data["classes"]] == list(
        zip(names, class_colours(2), strict=True)
    )
    for row in data["scores"]:
        found = [truth for truth in summary["scores"].values() if truth["iou"] == row["iou"]]
        found += [truth["classes"][row["name"]] for truth in summary["scores"].values() if "class" in row]
        assert any(one["dice"] == row["dice"] for one in found), row
    assert [row.get("class") for row in data["scores"]] == [None, 1, 2] * 3
    for image in summary["images"]:
        truth, prediction = (decode(data["pictures"][image["id"]][layer]) for layer in ("truth", "prediction"))
        for number, name in enumerate(names, start=1):
            true, predicted = truth == number, prediction == number
            dice = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
            assert dice == pytest.approx(image[f"dice_clean_{name}"])


def test_measurements_are_those_of_the_annotated_squares(two_classes, tmp_path):
    measured = Parsed(textdiff.report(two_classes, own_mpp=0.5, out=tmp_path / "a.html").read_text("utf-8")).data()[
        "measured"
    ]
    side = 64 * 0.5 / 1000
    for number, image in zip((3, 4), measured["images"], strict=True):
        sides = ((20, 20), (24, 24 - number))
        area = sum(height * width for height, width in sides)
        # The second moment of a row of n pixels is (n² - 1) / 12.
        moments = [sorted((n * n - 1) / 12 for n in pair) for pair in sides]
        expected = {
            "objects": 2,
            "share": area / 64**2,
            "objects_per_mm2": 2 / side**2,
            "mean_area_um2": area / 2 * 0.25,
            "mean_solidity": 1,
            "mean_eccentricity": np.mean([np.sqrt(1 - short / long) for short, long in moments]),
        }
        assert image["id"] == str(number)
        assert {name: image["annotated"][name] for name in expected} == pytest.approx(expected, rel=1e-4)
        assert image["annotated"]["mean_haematoxylin"] > 0.05
    means = {line["name"]: line["annotated"] for line in measured["means"]}
    assert means["objects"] == {"measurement": "objects", "mean": 2, "low": 2, "high": 2, "n": 2, "over": "groups"}
    plain = Parsed(textdiff.report(two_classes, out=tmp_path / "b.html").read_text("utf-8")).data()["measured"]
    assert not {"objects_per_mm2", "mean_area_um2"} & plain["titles"].keys()


def test_browser_draws_each_class_in_its_colour_and_names_it(two_classes_page, tmp_path):
    with shown_page(two_classes_page, tmp_path) as view:
        legend = "[...document.querySelectorAll('#legend span')].map(e => e.textContent)"
        assert view.evaluate(legend) == ["nucleus", printable(NASTY)]
        view.evaluate("left.value = 'truth', right.value = 'errors', left.dispatchEvent(new Event('change'))")
        view.wait("document.querySelector('#legend').textContent.endsWith('wrong class')")
        shown = view.evaluate("document.querySelector('#stage').dataset.shown")
        pictures = Parsed(two_classes_page.read_text("utf-8")).data()["pictures"][shown]
        truth, prediction = (decode(pictures[layer]).repeat(2, 0).repeat(2, 1) for layer in ("truth", "prediction"))
        over, under = (
            np.array(view.evaluate(PIXELS.format(name)), float).reshape(128, 128, 4)[..., :3]
            for name in ("over", "under")
        )
        for number, colour in enumerate(class_colours(2), start=1):
            # The outline is in the full colour, and no other class has any of it.
            outlined = np.abs(over - colour).max(axis=2) < 1
            assert (outlined & (truth == number)).sum() > 100
            assert not (outlined & (truth != number)).any()
        confused = (truth > 0) & (prediction > 0) & (truth != prediction)
        assert confused.any()
        assert ((under.max(axis=2) < 60) == confused).all()
        assert view.evaluate("[...document.querySelectorAll('#scores .part')].map(e => e.textContent)")[:2] == [
            "nucleus",
            printable(NASTY),
        ]
        assert "Dice, nucleus" in view.evaluate("document.querySelector('#table thead').textContent")
        for width in (1280, 390):
            view.resize(width, 844, mobile=width < 500)
            assert view.evaluate("document.documentElement.scrollWidth") <= width
        assert view.evaluate("window.broken") is None
