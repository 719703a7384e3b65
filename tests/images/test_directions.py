"""Texts that turn with their pictures: what becomes of the words for directions, and of those that are none."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from textdiff.errors import UserError
from textdiff.images.directions import Directions, read_directions
from textdiff.images.images import SYMMETRIES, symmetry

WORDS = read_directions()
CORNERS = {(0, 0): "upper left", (0, 2): "upper right", (2, 0): "lower left", (2, 2): "lower right"}
SIDES = {(0, 1): "top", (2, 1): "bottom", (1, 0): "left", (1, 2): "right"}


@pytest.mark.parametrize("view", range(8))
@pytest.mark.parametrize("places", [CORNERS, SIDES], ids=["corners", "sides"])
def test_the_words_say_where_a_bright_spot_is_in_the_turned_picture(places, view):
    for place, words in places.items():
        picture = np.zeros((3, 3), np.uint8)
        picture[place] = 255
        (seen,) = zip(*np.nonzero(symmetry(picture, view)), strict=True)
        assert WORDS.turned(f"A spot at the {words}.", view) == f"A spot at the {places[seen]}."


def test_the_picture_of_the_page_shows_the_spot_where_its_sentences_say(tmp_path):
    program = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/turned_texts_figure.py"))
    panels = program["draw_figure"]().axes
    for view, panel in enumerate(panels):
        of_lung, of_picture = panel.get_title().replace("“", "").replace("”", "").split("\n")
        assert [of_lung, of_picture] == [WORDS.turned(sentence, view) for sentence in program["SENTENCES"]]
        seen = (
            np.argwhere(np.asarray(panel.get_images()[0].get_array()) == program["SPOT"]).mean(0) * 3 // program["SIZE"]
        )
        assert of_picture == f"At the {CORNERS[seen[0], seen[1]]}."
    assert len(panels) == SYMMETRIES
    program["main"](str(tmp_path / "views.png"))
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("view", range(8))
def test_the_side_of_a_patient_is_seen_mirrored(view):
    """In a radiograph the patient's left lung is at the right; a lung that is above or below has no side."""
    for place, words in {(1, 2): "left", (1, 0): "right"}.items():
        picture = np.zeros((3, 3), np.uint8)
        picture[place] = 255
        (seen,) = zip(*np.nonzero(symmetry(picture, view)), strict=True)
        now = {(1, 2): "left", (1, 0): "right", (0, 1): "upper", (2, 1): "lower"}[seen]
        assert WORDS.turned(f"all {words} lung", view) == f"all {now} lung"


@pytest.mark.parametrize(
    ("text", "quarter", "mirrored"),
    [
        ("In the left half; cells at the left.", "In the lower half; cells at the bottom.",
         "In the right half; cells at the right."),
        ("the top-left corner", "the bottom-left corner", "the top-right corner"),
        ("UPPER LEFT and Upper right", "LOWER LEFT and Upper left", "UPPER RIGHT and Upper left"),
        ("a left nodule", "a lower nodule", "a right nodule"),
        ("a lower nodule", "a right nodule", "a lower nodule"),
        ("a right nodule", "an upper nodule", "a left nodule"),
        ("left and right lungs", "upper and lower lungs", "right and left lungs"),
        ("middle lower left lung", "middle left upper lung", "middle lower right lung"),
        ("to the left of the gland", "below the gland", "to the right of the gland"),
        ("horizontally elongated", "vertically elongated", "horizontally elongated"),
        ("on the left-hand side", "on the lower side", "on the right-hand side"),
    ],
)  # fmt: skip
def test_sentences_stay_sentences(text, quarter, mirrored):
    assert [WORDS.turned(text, view) for view in (0, 1, 4)] == [text, quarter, mirrored]


@pytest.mark.parametrize(
    "text",
    ["right after staining", "of lower grade", "nothing is left", "left ventricle", "bright cells", "uppercase", ""],
)
def test_words_that_tell_no_direction_stay(text):
    assert all(WORDS.turned(text, view) == text for view in range(SYMMETRIES))


def test_a_table_of_ones_own_comes_first_and_adds_to_the_other(tmp_path):
    table = tmp_path / "words.toml"
    table.write_text('directions = [["links", "rechts", "oben", "unten"]]\nkeep = ["rechts der Isar"]\n')
    own = read_directions(table)
    assert own.turned("Oben links, left", 1) == "Unten links, bottom"
    assert all(own.turned("rechts der Isar", view) == "rechts der Isar" for view in range(SYMMETRIES))
    assert Directions.of(own.record()) == own


def test_denials_of_another_language_are_read_by_its_own_words(tmp_path):
    table = tmp_path / "words.toml"
    table.write_text(
        'directions = [["links", "rechts", "oben", "unten"]]\npatient = ["Lunge"]\ndenied = ["kein", "ohne", "frei"]\n'
        'absent = ["kein"]\nlacking = ["ohne"]\nfindings = ["Verschattung"]\ncontrast = ["aber"]\n'
    )
    own = read_directions(table)
    (left,) = WORDS.places("left")
    for told in ("Verschattung links, kein Erguss rechts", "Verschattung links ohne Erguss rechts"):
        assert own.places(told) == [left]
    assert own.places("Rechts frei, aber links Verschattung") == [left]
    assert not own.places("Links ohne Erguss") + own.places("Links: kein Erguss")


@pytest.mark.parametrize("said", ["direction = []", 'directions = [["links"]]', 'keep = "links"', "nonsense"])
def test_a_table_that_is_none_is_refused(tmp_path, said):
    (tmp_path / "words.toml").write_text(said)
    with pytest.raises(UserError, match=r"words.toml: no table of direction words .* write TOML, as in"):
        read_directions(tmp_path / "words.toml")


@pytest.mark.parametrize("view", range(SYMMETRIES))
@pytest.mark.parametrize("corner", CORNERS)
def test_the_map_of_a_corner_is_bright_where_the_corner_is_in_the_turned_picture(corner, view):
    picture = np.zeros((3, 3), np.uint8)
    picture[corner] = 1
    seen = np.argwhere(symmetry(picture, view))[0]
    found = WORDS.place_map(f"A spot at the {CORNERS[corner]}.", 30, view)
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert (y // 10, x // 10) == tuple(seen)
    assert found.mean() == pytest.approx(1 / 4, abs=0.01)


L, R, UP, MID, LOW = "left", "right", "upper", "middle", "lower"
ALL = {L: (UP, MID, LOW), R: (UP, MID, LOW)}


@pytest.mark.parametrize(
    ("text", "lit"),
    [
        # The thirds from top to bottom that are lit in each half of the picture; a patient's left is at the right.
        ("Two infected areas, all left lung and all right lung.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("One infected area, upper middle right lung.", {L: (UP, MID)}),
        ("middle lower left lung and upper right lung", {R: (MID, LOW), L: (UP,)}),
        ("upper and lower left lung", {R: (UP, LOW)}),
        ("lower and middle left lung", {R: (MID, LOW)}),
        ("left and right upper lobes", {L: (UP,), R: (UP,)}),
        ("Consolidation of the right middle lobe.", {L: (MID,)}),
        ("The left lung is clear; infected right lung.", {L: (UP, MID, LOW)}),
        ("Opacity of the left lower lobe, no pleural effusion on the right.", {R: (LOW,)}),
        ("Left lower lobe opacity, and there is no effusion, right lung clear.", {R: (LOW,)}),
        ("The right lung is clear, but the left upper lobe is not, while the left lower lobe is dense.", {R: (LOW,)}),
        ("Upper, middle and lower left lung are clear.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("Left lung, right lung clear.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("The left lung shows no opacity.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("Shadowing in the left mid zone; heart size is normal.", {R: (MID,)}),
        ("Dense at the left base of the crypt.", {L: (UP, MID, LOW)}),
        ("Opacity in the upper third of the left lung.", {R: (UP,)}),
        ("Opacity in the lower part of both lungs.", {L: (LOW,), R: (LOW,)}),
        ("Dense upper and middle thirds of the lungs.", {L: (UP, MID), R: (UP, MID)}),
        ("Opacity in the left part of both lungs.", {R: (UP, MID, LOW)}),
        ("Opacity in the right side of her chest.", {L: (UP, MID, LOW)}),
        ("Opacity in the left lower part of the thorax.", {R: (LOW,)}),
        ("Dense in the left part of the picture of the lungs.", {L: (UP, MID, LOW)}),
        ("Upper zone opacities in both the right and the left lung.", {L: (UP,), R: (UP,)}),
        ("No effusion on the left.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("A cell to the left of the gland, in the middle.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("Nuclei are spread evenly.", {L: (UP, MID, LOW), R: (UP, MID, LOW)}),
        ("Cells in the right half.", {R: (UP, MID, LOW)}),
        ("", ALL),
        # What is told before a denial counts where it tells of a finding; else it says where there is none.
        ("Left lower lobe opacity without effusion in the right lung.", {R: (LOW,)}),
        ("Pneumonia of the left lung and no opacity of the right lung.", {R: (UP, MID, LOW)}),
        ("Right lung: clear. Left lung: opacity.", {R: (UP, MID, LOW)}),
        ("The left lung, however, is clear.", ALL),
        ("The right lung, while hyperinflated, shows no consolidation.", ALL),
        ("In the left lung, no consolidation.", ALL),
        ("The left lung is well expanded without consolidation.", ALL),
        ("Lungs without consolidation in the left lower lobe.", ALL),
        ("No consolidation, effusion or pneumothorax in the left lung.", ALL),
        ("Absence of opacity in the left lung.", ALL),
        ("Consolidation with no effusion in the left lung.", ALL),
        ("A drain in the left chest.", {R: (UP, MID, LOW)}),
    ],
)  # fmt: skip
def test_the_map_is_lit_where_the_text_says(text, lit):
    found = WORDS.place_map(text, 60)
    at = {UP: 10, MID: 30, LOW: 50}
    seen = {
        side: tuple(third for third, row in at.items() if found[row, column] > 0.9)
        for side, column in ((L, 10), (R, 50))
    }
    assert {side: thirds for side, thirds in seen.items() if thirds} == lit
    assert ((found < 0.1) | (found > 0.9))[list(at.values())][:, [10, 50]].all()


def test_the_picture_of_the_page_shows_the_places_that_its_sentences_name(tmp_path):
    program = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/places_figure.py"))
    lit = []
    for panel in program["draw_figure"]().axes:
        shown = np.asarray(panel.get_images()[0].get_array())
        # A ninth of the height and a quarter of the width stand for a part of the picture.
        parts = shown[program["SIZE"] // 9 * np.arange(1, 9, 2)[:, None], program["SIZE"] // 4 * np.array([1, 3])]
        lit.append(["".join("#" if bright > 0.9 else "." for bright in row) for row in parts])
    assert lit == [["#.", "..", ".#", ".#"], ["#.", "#.", "..", ".."], ["#.", "#.", "#.", "#."]]
    program["main"](str(tmp_path / "places.png"))
    assert (tmp_path / "places.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "bright"),
    [
        ("lower part of both lungs", 1 / 3),
        ("lower half of both lungs", 1 / 2),
        ("lower part of the picture", 1 / 2),
        ("upper half of the right lung", 1 / 4),
        ("upper third of the left half of the chest", 1 / 6),
        ("lower left half of the chest", 1 / 4),
    ],
)
def test_the_lower_part_of_organs_is_a_third_and_half_of_them_a_half(text, bright):
    assert WORDS.place_map(text, 60).mean() == pytest.approx(bright, abs=0.01)


@pytest.mark.parametrize("view", range(SYMMETRIES))
@pytest.mark.parametrize("text", ["left half of both lungs", "lower half of the chest", "right half of the picture"])
def test_the_turned_words_of_a_half_name_what_becomes_of_it_in_the_picture(text, view):
    np.testing.assert_array_equal(WORDS.place_map(WORDS.turned(text, view), 60), WORDS.place_map(text, 60, view))


@pytest.mark.parametrize(
    ("together", "each"),
    [
        ("left lung and right lung", ("left lung", "right lung")),
        ("upper, middle and lower left lung", ("upper left lung", "middle left lung", "lower left lung")),
        ("upper left and lower right", ("upper left", "lower right")),
        ("right middle and lower lobes", ("right middle lobe", "right lower lobe")),
        ("left upper, middle and lower lobes", ("left upper lobe", "left middle lobe", "left lower lobe")),
        ("lower left and right lung", ("lower left lung", "lower right lung")),
        ("upper left and right lower lobes", ("upper left lobe", "right lower lobe")),
        ("lower left lung and right lung", ("lower left lung", "right lung")),
    ],
)
def test_the_map_of_places_named_together_is_the_maximum_of_theirs(together, each):
    maps = [WORDS.place_map(text, 60) for text in each]
    np.testing.assert_array_equal(WORDS.place_map(together, 60), np.max(maps, axis=0))
