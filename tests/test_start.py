"""``textdiff start``: the commands it prints are those it runs, it goes on where it was, and it asks nobody."""

import json
import runpy
import shlex
import shutil
import socket
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from textdiff.cache import FeatureCache
from textdiff.pipeline.prediction.inputs import from_dataset

HE, GREY = (200, 140, 190), (90, 90, 90)


def draw(folder: Path, count: int, masks: int, colour=HE) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 14 + index, 6:20] = 255
        image = np.where(mask[..., None] > 0, (80, 50, 130), colour) + np.random.default_rng(index).integers(0, 9)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"images/{index}.png")
        if index < masks:
            Image.fromarray(mask).save(folder / f"masks/{index}.png")
    return folder


def commands(stdout: str) -> list[str]:
    return [" ".join(shlex.split(line)[1:3]) for line in stdout.splitlines() if line.startswith("    textdiff ")]


def test_a_folder_is_led_to_its_first_masks_then_to_a_report_and_not_fitted_twice(tmp_path, textdiff_once, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = draw(tmp_path / "slides", 4, 0)

    first = textdiff_once(tmp_path, "start", "slides", "--image-size", "32")
    assert commands(first.stdout) == ["data check", "extract --dataset"]
    assert "texts.csv: is not there: all texts are empty" in first.stderr
    assert "texts: none" in first.stdout
    assert "no training image has a mask is no reason to stop" in first.stderr
    named = [line.strip() for line in first.stderr.splitlines() if line.startswith("    slides/images/")]
    assert len(set(named)) == 4
    assert f"masks/{Path(named[0]).name}" in first.stderr

    for index in range(2):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 14 + index, 6:20] = 1
        Image.fromarray(mask).save(folder / f"masks/{index}.png")
    rows = [f"{index}.png,,{'test' if index == 1 else 'train'}" for index in range(4)]
    (folder / "texts.csv").write_text("\n".join(["image,text,split", *rows]))
    second = textdiff_once(tmp_path, "start", "slides")
    assert commands(second.stdout) == ["data check", "extract --cache", "fit --cache", "score", "report"]
    assert "--dataset folder --data slides --out predictions" in second.stderr
    assert second.stderr.splitlines()[-1].endswith("# Plugins > Annotate (TextDiff), and give it cache/slides.zarr")
    run = (tmp_path / "runs/latest").resolve()
    assert (run / "report.html").is_file()
    # The command that a run tells of is the one to repeat it with.
    assert json.loads((run / "config.json").read_text())["command"][:4] == [
        *("textdiff", "fit", "--cache", "cache/slides.zarr")
    ]

    third = textdiff_once(tmp_path, "start", "slides", "--dry-run")
    assert commands(third.stdout) == ["data check", "extract --cache", "score", "report"]
    (run / "head.safetensors").unlink()
    dry = textdiff_once(tmp_path, "start", "slides", "--dry-run")
    assert commands(dry.stdout) == ["data check", "extract --cache", "fit --resume", "score", "report"]
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere/slides", 1, 0)
    (tmp_path / "elsewhere/slides/texts.csv").write_text("image,text\n0.png,\n")
    other = textdiff_once(tmp_path, "start", "elsewhere/slides", status=2)
    assert "was made of" in other.stderr


def test_a_dry_run_prints_a_script_and_writes_nothing(tmp_path, textdiff_once):
    draw(tmp_path / "my slides", 9, 8)
    before = sorted(tmp_path.rglob("*"))
    lines = textdiff_once(tmp_path, "start", "my slides", "--dry-run").stdout.splitlines()
    assert [line.strip() for line in lines] == [
        "textdiff data check --dataset folder --data 'my slides' --test 0.25",
        "textdiff extract --dataset folder --data 'my slides' --preset nano --text-encoder none --test 0.25 "
        "--cache 'cache/my slides.zarr'",
        "textdiff fit --cache 'cache/my slides.zarr' --variant no-text",
        "textdiff score",
        "textdiff report",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_strokes_in_place_of_masks_are_told_of_and_taken_in_where_the_cache_is_there_already(tmp_path, textdiff_once):
    folder = draw(tmp_path / "slides", 2, 0)
    plain = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "32")
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "slides", *plain)
    before = textdiff_once(tmp_path, "start", "slides", "--dry-run")
    said = ("--unlabelled-value", "255")
    again = ["textdiff start slides", f"textdiff start slides {' '.join(said)}"]
    assert [line.strip() for line in before.stderr.splitlines() if "textdiff start" in line] == again
    (told,) = (line for line in before.stderr.splitlines() if "textdiff extract" in line)
    classes = ("--classes", "nucleus,stroma")
    with_classes = textdiff_once(tmp_path, "start", "slides", *classes, "--dry-run").stderr
    assert f"textdiff start slides {' '.join((*classes, *said))}" in with_classes
    assert textdiff_once(tmp_path, "start", "slides", *said, "--dry-run").stderr.count("textdiff start") == 1
    Image.fromarray(np.uint8([[0, 1], [0, 255]]).repeat(16, 0).repeat(16, 1)).save(folder / "masks/0.png")
    after = textdiff_once(tmp_path, "start", "slides", *said, "--dry-run")
    check, extract, *_ = map(shlex.split, after.stdout.splitlines())
    assert check[-2:] == [*said]
    assert extract == ["textdiff", "extract", "--cache", "cache/slides.zarr", "--update", *said]
    assert shlex.split(told) == extract  # what napari is prepared by is what takes its strokes in
    textdiff_once(tmp_path, *extract[1:])
    again = textdiff_once(tmp_path, "start", "slides", "--dry-run").stdout.splitlines()
    assert shlex.split(again[0]) == check


def test_a_dry_run_refuses_whole_masks_of_which_the_foreground_is_said_to_be_unknown(tmp_path, textdiff_once):
    folder, said = draw(tmp_path / "slides", 7, 7), ("--unlabelled-value", "255", "--dry-run")
    refused = textdiff_once(tmp_path, "start", "slides", *said, status=2)
    assert "--unlabelled-value 255: all 7 masks hold 0 and 255 alone" in refused.stderr
    assert commands(refused.stdout) == ["data check"]
    # Of the masks that are looked at none has a foreground then, but another has.
    Image.fromarray(np.uint8([[0, 1], [0, 255]]).repeat(16, 0).repeat(16, 1)).save(folder / "masks/5.png")
    assert commands(textdiff_once(tmp_path, "start", "slides", *said).stdout)[-1] == "fit --cache"


def test_images_that_are_kept_for_the_test_are_not_named_to_learn_from(tmp_path, textdiff_once):
    folder = draw(tmp_path / "slides", 6, 0)
    splits = ("test", "train", "test", "train", "test", "val")
    (folder / "texts.csv").write_text("image,text,split\n" + "".join(f"{n},,{of}\n" for n, of in enumerate(splits)))
    plain = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "32")
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "slides", *plain)
    said = textdiff_once(tmp_path, "start", "slides", "--dry-run").stderr
    assert {line.strip() for line in said.splitlines() if line.startswith("    slides/images/")} == {
        *("slides/images/1.png", "slides/images/3.png")
    }
    assert "Begin with these 2" in said


def test_trees_on_filters_learn_from_strokes_until_masks_are_whole(tmp_path, textdiff_once):
    """By the measurements of docs/research/2026-11-26-scribbles.md."""
    folder, said = draw(tmp_path / "slides", 4, 4), ("--unlabelled-value", "255")
    (folder / "texts.csv").write_text("image,text,split\n0.png,,train\n1.png,,train\n2.png,,train\n3.png,,test\n")
    whole = {name: np.asarray(Image.open(folder / f"masks/{name}.png")) > 0 for name in "0123"}

    def paint(names: str, share: float) -> None:
        for name in names:
            silent = np.arange(32)[:, None] >= share * 32
            Image.fromarray(np.where(silent, 255, whole[name]).astype(np.uint8)).save(folder / f"masks/{name}.png")

    paint("012", 0.4)
    paint("3", 1)
    plain = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "32", "--cache", "cache/slides.zarr", *said)
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "slides", *plain)
    first = textdiff_once(tmp_path, "start", "slides", *said)
    assert "3 of the 3 masks that were looked at say something of less than half of their pixels" in first.stderr
    run = (tmp_path / "runs/latest").resolve()
    config = json.loads((run / "config.json").read_text())
    assert (config["model"], Path(config["cache"]).name) == ("trees", "slides-filters.zarr")
    assert FeatureCache.open(tmp_path / "cache/slides-filters.zarr").about["backbone"] == "filters"
    lines = [line.strip() for line in first.stdout.splitlines() if line.startswith("    textdiff ")]
    assert lines == [
        f"textdiff data check --dataset folder --data slides {' '.join(said)}",
        f"textdiff extract --dataset folder --data slides --preset filters --image-size 32 {' '.join(said)} "
        "--cache cache/slides-filters.zarr",
        "textdiff fit --cache cache/slides-filters.zarr --model trees",
        *("textdiff score", "textdiff report"),
    ]

    # What is printed gives the same, elsewhere and by itself.
    shutil.copytree(folder, tmp_path / "other/slides")
    for line in lines:
        textdiff_once(tmp_path / "other", *shlex.split(line)[1:])
    scores = [json.loads((path / "runs/latest/scores.json").read_text()) for path in (tmp_path, tmp_path / "other")]
    assert scores[0]["images"] == scores[1]["images"]

    second = textdiff_once(tmp_path, "start", "slides")
    assert commands(second.stdout) == ["data check", "extract --cache", "score", "report"]
    assert "slides-filters.zarr --update" in second.stdout

    paint("01", 1)
    told = textdiff_once(tmp_path, "start", "slides", "--dry-run")
    assert "2 of the 3 masks that were looked at say something of half of their pixels or more" in told.stderr
    assert "trees on filters are fitted no longer: the cache is cache/slides.zarr" in told.stderr
    assert "textdiff fit --cache cache/slides.zarr --variant no-text" in told.stdout


PLAIN = ("--preset", "rgb", "--text-encoder", "none", "--image-size", "32")


def test_strokes_that_come_after_the_cache_of_images_are_scored_as_the_advice_says(tmp_path, textdiff_once):
    folder, said = draw(tmp_path / "slides", 8, 8), ("--unlabelled-value", "255")
    extract = ("extract", "--dataset", "folder", "--data", "slides", *PLAIN)
    textdiff_once(tmp_path, *extract)
    for path in (folder / "masks").iterdir():
        whole = np.asarray(Image.open(path)) > 0
        Image.fromarray(np.where(np.arange(32)[:, None] % 8 < 3, whole, 255).astype(np.uint8)).save(path)
    first = textdiff_once(tmp_path, "start", "slides", *said).stderr
    (advice,) = (line.strip() for line in first.splitlines() if "--test 0.25 &&" in line)
    assert advice.startswith("textdiff extract --cache cache/slides-filters.zarr ")
    told = [textdiff_once(tmp_path, *shlex.split(line)[1:]) for line in advice.split(" && ")]
    assert commands(told[1].stdout)[-2:] == ["score", "report"]
    assert "There is no score" not in told[1].stderr

    # Those images are kept for the test where masks come to be whole, too.
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(path)), 1)).save(path)
    whole = textdiff_once(tmp_path, "start", "slides", *said)
    assert "textdiff extract --cache cache/slides.zarr --update --unlabelled-value 255 --test 0.25" in whole.stdout
    caches = [FeatureCache.open(tmp_path / f"cache/slides{name}.zarr") for name in ("", "-filters")]
    kept = [{row.id for row in cache.rows if row.split == "test"} for cache in caches]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


def test_a_folder_called_as_the_cache_of_strokes_of_another_is_in_the_way_of_strokes_only(tmp_path, textdiff_once):
    for name in ("slides", "slides-filters"):
        draw(tmp_path / name, 2, 2)
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "slides-filters", *PLAIN)
    said = textdiff_once(tmp_path, "start", "slides", "--dry-run").stdout
    assert "--cache cache/slides.zarr" in said
    strokes = np.full((32, 32), 255, np.uint8)
    strokes[:2] = [[0], [1]]
    for name in "01":
        Image.fromarray(strokes).save(tmp_path / f"slides/masks/{name}.png")
    refused = textdiff_once(tmp_path, "start", "slides", "--unlabelled-value", "255", "--dry-run", status=2).stderr
    assert "cache/slides-filters.zarr: was made of" in refused


def test_masks_are_asked_for_of_test_images_where_none_of_them_has_one(tmp_path, textdiff_once):
    folder = draw(tmp_path / "slides", 4, 2)
    (folder / "texts.csv").write_text("image,text,split\n0,,train\n1,,train\n2,,test\n3,,test\n")
    textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "slides", *PLAIN)
    said = textdiff_once(tmp_path, "start", "slides").stderr
    assert "There is no score" in said
    assert {line.strip() for line in said.splitlines() if line.startswith("    slides/images/")} == {
        f"slides/images/{name}.png" for name in "23"
    }


def test_what_is_said_of_masks_suits_the_layout(tmp_path, textdiff_once):
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    textdiff_once(tmp_path, "extract", "--dataset", "hdf5", "--data", "lab.h5", *PLAIN)
    said = textdiff_once(tmp_path, "start", "lab.h5", "--dataset", "hdf5").stderr
    (again,) = (line.strip() for line in said.splitlines() if line.startswith("    textdiff start"))
    assert again == "textdiff start lab.h5 --dataset hdf5"
    assert "where this layout has its masks (docs/data.md)" in said
    assert "PNG" not in said
    assert "napari" not in said  # it finds no place there to save a mask in


def test_networks_to_try_are_not_to_be_scored_where_no_mask_is_kept_for_it(tmp_path, textdiff_once):
    folder = draw(tmp_path / "lab", 3, 2, GREY)
    lines = [
        "0.png,A nodule on the left side.,train",
        "1.png,A nodule on the right side.,train",
        "2.png,A nodule.,test",
    ]
    (folder / "texts.csv").write_text("\n".join(["image,text,split", *lines]) + "\n")
    said = textdiff_once(tmp_path, "start", "lab", "--image-size", "32").stderr.splitlines()
    assert "    textdiff fit --cache cache/lab.zarr --model text-unet --places" in said


@pytest.mark.parametrize(("texts", "told"), [(("left", "right", "lower"), True), (("left", "small", "large"), False)])
def test_a_map_of_places_is_named_where_most_texts_name_one(tmp_path, textdiff_once, texts, told):
    folder = draw(tmp_path / "lab", 4, 4, GREY)
    lines = [f"{index}.png,A nodule on the {word} side.,train" for index, word in enumerate(texts)]
    (folder / "texts.csv").write_text("\n".join(["image,text,split", *lines, "3.png,A nodule.,test"]) + "\n")
    said = textdiff_once(tmp_path, "start", "lab", "--image-size", "32").stderr
    assert ("fit --cache cache/lab.zarr --model text-unet --places && textdiff score" in said) is told


def test_images_whose_outlines_lie_elsewhere_are_said_to_be_segmented_too(tmp_path, textdiff_once):
    draw(tmp_path / "slides", 2, 0)
    (tmp_path / "outlines").mkdir()
    square = {"type": "Polygon", "coordinates": [[[4, 4], [20, 4], [20, 20], [4, 4]]]}
    (tmp_path / "outlines/0.geojson").write_text(json.dumps({"type": "Feature", "geometry": square, "properties": {}}))
    said = textdiff_once(tmp_path, "start", "slides", "--annotations", "outlines", "--dry-run").stderr
    assert "segments all images" in said
    assert len(from_dataset("folder", tmp_path / "slides", "")) == 2


@pytest.mark.parametrize(("own", "mpp"), [(0.25, "0.5"), (0.9, "0.9")])
def test_slides_are_looked_at_in_tiles_no_finer_than_they_are(tmp_path, textdiff_once, own, mpp):
    pytest.importorskip("openslide")
    slides = runpy.run_path(str(Path(__file__).with_name("slide_cases.py")))
    (tmp_path / "lab/images").mkdir(parents=True)
    (tmp_path / "lab/masks").mkdir()
    image, inside = slides["tissue"](120, 160)
    slides["write_svs"](tmp_path / "lab/images/a.svs", [image], mpp=own)
    Image.fromarray(inside).save(tmp_path / "lab/masks/a.tif")
    found = textdiff_once(tmp_path, "start", "lab", "--dry-run")
    check, extract, *_ = map(str.strip, found.stdout.splitlines())
    assert check == f"textdiff data check --dataset folder --data lab --mpp {mpp} --tile 256"
    assert f" --mpp {mpp} --tile 256 --cache cache/lab.zarr" in extract
    assert "napari" not in found.stderr


def test_a_stop_in_a_command_stops_all(tmp_path, textdiff_once, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = draw(tmp_path / "slides", 2, 2)
    (folder / "texts.csv").write_text("image,text,split\n0.png,,train\n1.png,,test\n")
    monkeypatch.setattr("textdiff.pipeline.extract.extract", stop)
    result = textdiff_once(tmp_path, "start", "slides", status=130)
    assert commands(result.stdout) == ["data check", "extract --dataset"]
    assert result.stderr.endswith("Run the same command again to go on\n")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ((), "nowhere: no such file or directory"),
        (("nowhere/",), "has no folder images"),
        (("nowhere/a.png", "nowhere/b.tif"), "mkdir nowhere/images && mv nowhere/*.png nowhere/*.tif nowhere/images/"),
        (("nowhere/Train_Folder/",), "use --dataset monuseg, qata or mosmed"),
        (("nowhere/images/a.png", "nowhere/masks/a.png"), "not sound"),
    ],
)
def test_a_folder_that_is_none_is_told_in_one_line(made, words, tmp_path, textdiff_once):
    for name in made:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"damaged")
    result = textdiff_once(tmp_path, "start", "nowhere", status=2)
    assert sum(line.startswith("error: ") and words in line for line in result.stderr.splitlines()) == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("mode", "words"), [("L", ["--backbone", "nano-cxr"]), ("RGB", [])], ids=["grey", "H&E"])
def test_grey_images_get_the_network_that_has_seen_radiographs(tmp_path, textdiff_once, mode, words):
    for path in draw(tmp_path / "lab", 2, 1).glob("images/*"):
        Image.open(path).convert(mode).save(path)
    printed = textdiff_once(tmp_path, "start", "lab", "--dry-run").stdout
    extract = next(shlex.split(line) for line in printed.splitlines() if line.startswith("    textdiff extract"))
    assert extract[6:8] == ["--preset", "nano"]
    assert [word for word in extract if "backbone" in word or "cxr" in word] == words
