"""What scores say of themselves: classes that images lack, masks that changed, and what may stand beside them."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.pipeline.evaluation.class_scores import class_scores, mean_scores
from textdiff.pipeline.evaluation.published import PUBLISHED, published_for
from textdiff.tables import csv_table, markdown

CLASSES = ("one", "two", "three", "four", "five")
EXTRACT = {"backbone": "rgb", "text_encoder": "none", "image_size": 32, "blocks": (6,), "steps": (0,)}
# Control characters proper are refused where tables are read; these come through.
ESCAPE, REVERSE = "\N{LEFT-TO-RIGHT ISOLATE}[31m", "\N{RIGHT-TO-LEFT OVERRIDE}"
NAMES = (f"esc{ESCAPE}", f"turn{REVERSE}", "=1+1", "|*a*_b_<i>", "-2+3")
TEXT = f"@SUM(A1) {ESCAPE}{REVERSE} </script> | [x](http://y)"


def mask(*present: int) -> np.ndarray:
    found = np.zeros((32, 32), np.uint8)
    for number in present:
        found[5 * number : 5 * number + 4, 4:28] = number
    return found


def write_folder(root: Path, names=NAMES, present=((1, 2), (1, 2, 3), (1, 2, 3), (1, 3), ()), text=TEXT) -> Path:
    """Two training images, then test images, with masks of ``CLASSES``."""
    rows = []
    for index, (name, numbers) in enumerate(zip(names, present, strict=True)):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        truth = mask(*numbers)
        Image.fromarray(np.repeat(40 * truth[..., None] + 20 + index, 3, axis=2)).save(root / f"images/{name}.png")
        Image.fromarray(truth).save(root / f"masks/{name}.png")
        rows.append((name, text, "train" if index < 2 else "test"))
    with (root / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "text", "split"), *rows])
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data set with names and texts that mean harm, one image of it unlabelled, its cache, and a run on it."""
    root = tmp_path_factory.mktemp("scores")
    write_folder(root / "data")
    Image.new("RGB", (32, 32), "gray").save(root / f"data/images/{REVERSE}next.png")
    with (root / "data/texts.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow((f"{REVERSE}next", TEXT, "train"))
    cache = textdiff.extract("folder", data=root / "data", cache=root / "c.zarr", classes=CLASSES, **EXTRACT)
    textdiff.fit(cache, variant="no-text", labels=1, epochs=1, runs=root / "runs")
    return root


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of it to change."""
    shutil.copytree(made / "data", tmp_path / "data")
    shutil.copytree(made / "c.zarr", tmp_path / "c.zarr")
    run = (made / "runs/latest").resolve()
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("scores*", "report*", "overlay*"))
    return tmp_path


def test_classes_that_no_drawn_mask_shows_are_named_before_the_fit(made, tmp_path, capsys):
    textdiff.fit(made / "c.zarr", variant="no-text", epochs=1, runs=tmp_path)
    assert "no training mask has any four, five at 32x32 pixels: the run learns to find none" in capsys.readouterr().err


def test_a_mask_of_background_alone_scores_nothing_where_classes_are_present():
    records = [class_scores(mask(), mask(*range(1, held + 1)), CLASSES, "clean") for held in (3, 3, 0)]
    found = mean_scores(records, "clean", 0)
    assert (found["dice"].mean, found["dice"].n) == (pytest.approx((0.4 + 0.4 + 1) / 3), 3)
    assert (found["dice_present"].mean, found["dice_present"].n, found["present"]) == (0, 2, 2)
    first, fifth = (mean_scores(records, "clean", 0, name) for name in ("one", "five"))
    assert (first["dice"].mean, first["dice_present"].mean, first["present"]) == (pytest.approx(1 / 3), 0, 2)
    assert (fifth["dice"].mean, fifth["dice_present"], fifth["present"]) == (1, None, 0)


def test_table_json_csv_and_report_count_the_images_that_have_a_class(made, textdiff_once):
    run = (made / "runs/latest").resolve()
    said = textdiff_once(made, "score", "--run", str(run)).stdout
    summary = json.loads((run / "scores.json").read_text("utf-8"))
    assert summary["present"] == {"one": 2, "two": 1, "three": 2, "four": 0, "five": 0}
    with (run / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, name in enumerate(CLASSES, start=1):
        own = summary["scores"]["original"]["classes"][name]
        held = [float(row[f"dice_original_{name}"]) for row in rows if int(row[f"area_original_{name}"])]
        assert own["present"] == len(held) == summary["present"][name]
        assert own["dice"]["mean"] == pytest.approx(np.mean([float(row[f"dice_original_{name}"]) for row in rows]))
        assert (own["dice_present"] or {"mean": None})["mean"] == (pytest.approx(np.mean(held)) if held else None)
        assert f"{name} is in {len(held)} of 3 images" in " ".join(said.split())
        areas = {row["id"].lstrip("'"): int(row[f"area_original_{name}"]) for row in rows}
        assert areas == {
            name: 96 * (number in held) for name, held in zip(NAMES[2:], ((1, 2, 3), (1, 3), ()), strict=True)
        }
    assert [row["dice_present_original"] for row in rows if row["id"] == "'-2+3"] == [""]
    assert summary["scores"]["original"]["aji_present"]["n"] == summary["scores"]["original"]["present"] == 2
    textdiff_once(made, "report", "--run", str(run))
    page = (run / "report.html").read_text("utf-8")
    shown = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    beside = [row for row in shown["scores"] if row["name"] == "where present"]
    assert [row["dice"]["n"] for row in beside[:6]] == [2, 2, 1, 2, 0, 0]


def test_the_json_that_is_printed_is_the_file(made, textdiff_once):
    run = (made / "runs/latest").resolve()
    said = textdiff_once(made, "score", "--run", str(run), "--json").stdout
    assert said == (run / "scores.json").read_text("utf-8")
    assert {image["id"] for image in json.loads(said)["images"]} == set(NAMES[2:])


@pytest.mark.parametrize(
    "arguments", [("score",), ("score", "--json"), ("next",), ("cache", "info"), ("data", "check")]
)
def test_no_name_and_no_text_acts_in_a_terminal(made, textdiff_once, arguments):
    end = {
        "cache": (str(made / "c.zarr"),),
        "data": ("--dataset", "folder", "--data", str(made / "data"), "--classes", ",".join(CLASSES)),
    }.get(arguments[0], ("--run", str((made / "runs/latest").resolve())))
    result = textdiff_once(made, *arguments, *end)
    for character in (ESCAPE[0], REVERSE):
        assert character not in result.stdout + result.stderr


def test_no_name_and_no_text_acts_in_a_file(made, textdiff_once):
    run = (made / "runs/latest").resolve()
    textdiff_once(made, "score", "--run", str(run))
    textdiff_once(made, "report", "--run", str(run))
    textdiff_once(made, "next", "--run", str(run))
    textdiff_once(made, "predict", str(made / "data/images"), "--run", str(run), "--out", "out")
    written = [
        *run.glob("*.csv"),
        *run.glob("*.md"),
        *run.glob("*.json"),
        run / "report.html",
        *(made / "out").glob("*.csv"),
    ]
    assert len(written) == 10
    for file in written:
        content = file.read_text("utf-8")
        assert ESCAPE[0] not in content, file
        assert REVERSE not in content, file
        if file.suffix == ".csv":
            cells = [cell for row in csv.reader(content.splitlines()) for cell in row]
            assert not [cell for cell in cells if cell[:1] in ("=", "@") or cell == "-2+3"], file
    report = (run / "report.md").read_text("utf-8")
    assert any(shown in report for shown in (r"esc\\u2066[31m", r"turn\\u202e"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x>", r"\<img src=x\>"),
        ("[x](http://y)", r"[x\](http://y)"),
        ("![x][y]", r"![x\][y]"),
        ("*a* _b_ `c` ~d~ &amp; # $1$", r"\*a\* \_b\_ \`c\` \~d\~ \&amp; \# \$1\$"),
        ("one\n# two", r"one \# two"),
        ("78.67 [75.02, 81.90]", "78.67 [75.02, 81.90]"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, shown):
    assert markdown(text) == shown


@pytest.mark.parametrize("text", ["=1", "+a", "-2+3", "@A1", " =1", "\N{FULLWIDTH EQUALS SIGN}1", "\n=1"])
def test_a_formula_in_a_csv_cell_is_text(text):
    (row,) = csv.DictReader(csv_table([{"a": text, "b": -0.5, "c": "-1.5e-3"}]).splitlines(keepends=True))
    assert row == {"a": f"'{text}", "b": "-0.5", "c": "-1.5e-3"}


def redraw(place: Path, name: str) -> None:
    truth = mask(1, 2)
    truth[:3] = 3
    Image.fromarray(truth).save(place / f"data/masks/{name}.png")
    textdiff.extract("folder", data=place / "data", cache=place / "c.zarr", classes=CLASSES, update=True, **EXTRACT)


@pytest.mark.parametrize("changed", [None, "train", "test"])
def test_masks_that_changed_since_the_fit_or_the_scores_before_are_named(place, textdiff_once, changed):
    command = ("score", "--run", "run", "--cache", "c.zarr")
    assert "warning" not in textdiff_once(place, *command).stderr
    (fitted,) = textdiff.open_run(place / "run").config["train_ids"]
    if changed:
        redraw(place, {"train": fitted, "test": NAMES[2]}[changed])
    result = textdiff_once(place, *command)
    assert "next: textdiff report --run run --cache c.zarr\n" in result.stderr
    summary, report = (place / "run/scores.json").read_text("utf-8"), (place / "run/report.md").read_text("utf-8")
    since_fit = [f"{fitted}: the mask"] if changed == "train" else []
    assert json.loads(summary)["changed_since_fit"] == since_fit
    assert ("has changed since" in result.stderr) == ("has changed since" in report) == bool(since_fit)
    before = "not comparable with the scores before, which were of other images (=1+1: the mask)"
    assert (before in result.stderr) == (changed == "test")
    # What is replaced now was of the same masks.
    assert "not comparable" not in textdiff_once(place, *command).stderr


def facts(root: Path) -> dict[str, list]:
    """The digests of MoNuSeg's real test images, as a cache records them."""
    from textdiff.files import sha256_file

    images = sorted((root / "Test_Folder/img").iterdir())
    return {
        image.stem: [
            sha256_file(image)[:16],
            sha256_file(root / f"Test_Folder/labelcol/{image.stem}.png")[:16],
            None,
            1,
        ]
        for image in images
    }


def test_published_scores_stand_beside_the_published_test_images_only(real_monuseg):
    whole = facts(real_monuseg)
    assert published_for("monuseg", whole) == (PUBLISHED["monuseg"], "")
    first, *others = whole
    for wrong in (
        {name: whole[name] for name in others},
        whole | {"another": whole[first]},
        whole | {first: [whole[first][0], "another mask", None, 1]},
        whole | {first: ["another image", whole[first][1], None, 1]},
    ):
        rows, why_not = published_for("monuseg", wrong)
        assert rows == ()
        assert "left out" in why_not


@pytest.mark.parametrize(
    ("count", "name", "rows"), [(2113, "covid_{}", 8), (2112, "covid_{}", 0), (2113, "mine_{}", 0)]
)
def test_published_scores_of_qata_go_by_number_and_names(count, name, rows):
    found = published_for("qata", {name.format(index): ["a", "b", None, 1] for index in range(count)})
    assert len(found.rows) == rows
    assert bool(found.why_not) == (not rows)


def test_a_data_set_that_only_has_the_name_is_not_compared(make_lvit, tmp_path, textdiff_once):
    cache = textdiff.extract("monuseg", data=make_lvit(), cache=tmp_path / "c.zarr", **EXTRACT)
    run = textdiff.fit(cache, variant="no-text", epochs=1, runs=tmp_path / "runs")
    said = textdiff_once(tmp_path, "score", "--run", str(run.path)).stdout
    assert "78.67" not in said
    assert "The published scores are left out: they are of 14 test images, here are 2" in said


def test_a_split_without_masks_is_told_with_what_to_do_about_it(tmp_path, textdiff_once):
    data = write_folder(tmp_path / "data", names="abcde", text="A text.")
    (data / "texts.csv").write_text((data / "texts.csv").read_text().replace("test", "val", 1))
    hidden = [(data / f"masks/{name}.png").rename(tmp_path / f"{name}.png") for name in "de"]
    cache = textdiff.extract("folder", data=data, cache=tmp_path / "c.zarr", classes=CLASSES, **EXTRACT)
    textdiff.fit(cache, variant="no-text", epochs=1, runs=tmp_path / "runs")
    said = textdiff_once(tmp_path, "score", status=2).stderr
    assert "the test split has no image with a mask, so there is nothing to score; use --split val, or give" in said
    assert "--val 0.2" not in said  # which would be refused, as these splits are given
    textdiff_once(tmp_path, "score", "--split", "val")
    for path in hidden:
        path.rename(data / "masks" / path.name)
    update = said[said.index("`textdiff ") + 1 : said.rindex("`")]
    textdiff_once(tmp_path, *shlex.split(update)[1:])
    textdiff_once(tmp_path, "score")


def test_what_to_do_without_test_images_is_what_the_layout_allows(tmp_path, textdiff_once):
    draw = np.random.default_rng(0)
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["images"] = draw.integers(0, 255, (6, 32, 32, 3), np.uint8)
        file["masks"] = draw.integers(0, 2, (6, 32, 32), np.uint8)
    cache = textdiff.extract("hdf5", data=tmp_path / "lab.h5", cache=tmp_path / "c.zarr", **EXTRACT)
    textdiff.fit(cache, variant="no-text", epochs=1, runs=tmp_path / "runs")
    said = textdiff_once(tmp_path, "score", status=2).stderr
    assert "texts.csv" not in said
    assert "(docs/data.md)" in said
    textdiff_once(tmp_path, *shlex.split(said[said.index("`textdiff ") + 1 : said.rindex("`")])[1:], "--test", "0.2")
    textdiff.fit(cache.path, variant="no-text", epochs=1, runs=tmp_path / "runs")
    textdiff_once(tmp_path, "score")
