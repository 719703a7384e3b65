"""The overlay figure is whole, shows the errors in the right colours and takes any text and mask."""

import warnings

import numpy as np
import pytest
from PIL import Image

from textdiff.outputs.colours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, WRONG_CLASS, class_colours
from textdiff.pipeline.evaluation import figures
from textdiff.pipeline.evaluation.figures import Case, overlay_figure


def case(text: str = "The nuclei are dense.", size: tuple[int, int] = (64, 64), **masks: np.ndarray) -> Case:
    image = np.full((*size, 3), 230, np.uint8)
    truth, prediction = np.zeros(size, bool), np.zeros(size, bool)
    truth[16:48, 8:40] = prediction[16:48, 24:56] = True
    return Case("best: a  Dice 50.0, IoU 33.3", text, image, **{"truth": truth, "prediction": prediction, **masks})


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    # A region is drawn with 85% of its colour over the pale image.
    return int((np.abs(pixels - 0.85 * np.array(colour) - 36).max(axis=2) < 8).sum())


def test_figure_has_a_row_per_case_and_leaves_no_part_behind(tmp_path):
    heights = []
    for number in (1, 3):
        overlay_figure(tmp_path / f"{number}.png", [case()] * number)
        pixels = picture(tmp_path / f"{number}.png")
        assert pixels.shape[1] > 1500
        heights.append(pixels.shape[0])
    assert 2.3 < heights[1] / heights[0] < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "3.png"]


def test_errors_have_the_area_and_the_colour_of_their_kind(tmp_path):
    masks = case()
    overlay_figure(tmp_path / "a.png", [masks])
    pixels = picture(tmp_path / "a.png")[200:-140]  # without the legend
    panel = (figures.PANEL * 150) ** 2
    for colour, region in (
        (TRUE_POSITIVE, masks.truth & masks.prediction),
        (FALSE_POSITIVE, ~masks.truth & masks.prediction),
        (FALSE_NEGATIVE, masks.truth & ~masks.prediction),
    ):
        assert count(pixels, colour) / panel == pytest.approx(region.mean(), rel=0.08)


def test_of_several_classes_each_has_its_outline_and_one_taken_for_another_is_an_error(tmp_path):
    first, second = class_colours(2)
    truth = np.zeros((64, 64), np.uint8)
    truth[8:56, 4:20], truth[8:56, 24:40] = 1, 2
    right, confused = case(truth=truth, prediction=truth), case(truth=truth, prediction=np.where(truth == 2, 1, truth))

    def drawn(panels: np.ndarray, column: int, colour: tuple[int, int, int]) -> int:
        step = round((figures.PANEL + figures.GAP) * 150)
        panel = panels[:, 30 + column * step : 30 + column * step + round(figures.PANEL * 150)]
        return int((np.abs(panel - np.array(colour)).max(axis=2) < 60).sum())

    found = {}
    for name, shown in (("right", right), ("confused", confused)):
        overlay_figure(tmp_path / "a.png", [shown], ["tumour", "stroma"])
        pixels = picture(tmp_path / "a.png")[100:-200]
        found[name] = [[drawn(pixels, column, colour) > 300 for colour in (first, second)] for column in (0, 1, 2)]
        wrong = count(pixels, WRONG_CLASS) / (figures.PANEL * 150) ** 2
        assert wrong == pytest.approx((shown.truth != shown.prediction).mean(), rel=0.08)
        assert count(pixels, FALSE_POSITIVE) == count(pixels, FALSE_NEGATIVE) == 0
    assert found["right"] == [[False, False], [True, True], [True, True]]
    assert found["confused"] == [[False, False], [True, True], [True, False]]


def test_the_legend_has_a_place_for_every_class_whatever_its_name(tmp_path):
    names = ["_hidden", "$x_{", "a very long name of a class of cells", *(f"class {k}" for k in range(9))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay_figure(tmp_path / "a.png", [case()], names)
    legend = picture(tmp_path / "a.png")[-200:]
    for colour in class_colours(len(names)):
        assert (np.abs(legend - colour).max(axis=2) < 3).sum() > 400, colour


def test_perfect_prediction_shows_no_errors(tmp_path):
    truth = case().truth
    overlay_figure(tmp_path / "a.png", [case(prediction=truth)])
    pixels = picture(tmp_path / "a.png")[200:-140]
    assert count(pixels, TRUE_POSITIVE) > 0
    assert count(pixels, FALSE_POSITIVE) == count(pixels, FALSE_NEGATIVE) == 0


@pytest.mark.parametrize("fill", [0, 1])
@pytest.mark.parametrize("text", ["", "It costs $5 or $x_{$ and \\frac.", "WORD " * 900], ids=["none", "math", "long"])
def test_any_text_and_any_mask_are_drawn_without_a_warning(tmp_path, fill, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay_figure(tmp_path / "a.png", [case(text, prediction=np.full((64, 64), fill, np.uint8))])
    pixels = picture(tmp_path / "a.png")
    assert pixels.shape[0] < 700
    assert (pixels[:, -20:] == 255).all(), "the text runs over the edge"


def test_panels_keep_the_aspect_of_the_image(tmp_path):
    overlay_figure(tmp_path / "square.png", [case()])
    overlay_figure(tmp_path / "tall.png", [case(size=(128, 64))])
    grown = picture(tmp_path / "tall.png").shape[0] - picture(tmp_path / "square.png").shape[0]
    assert grown == pytest.approx(figures.PANEL * 150, abs=2)


def test_same_cases_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        overlay_figure(tmp_path / name, [case()])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        overlay_figure(tmp_path / "a.png", [case(truth=np.ones((3, 3), bool))])
    assert list(tmp_path.iterdir()) == []


def test_a_crowd_of_specks_is_filled_as_outlines_would_cover_the_image(tmp_path):
    specks = np.random.default_rng(0).random((300, 300)) < 0.25
    overlay_figure(tmp_path / "a.png", [case(size=(300, 300), truth=specks, prediction=specks)])
    pixels = picture(tmp_path / "a.png")
    truth = pixels[300:600, int(figures.PANEL * 150) + 100 :][:, :300]
    # A quarter of it is yellow; outlines and their shade would hide all of the image.
    assert truth[..., 2].mean() == pytest.approx(0.75 * 230 + 0.25 * (0.25 * 230 + 0.75 * 66), rel=0.1)
