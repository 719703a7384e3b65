"""What a report says of how far its scores are to be trusted."""

import pytest

from textdiff.pipeline.reporting.caveats import caveats


def summary(**changes):
    interval = {"mean": 0.8, "low": 0.78, "high": 0.82, "n": 100}
    return {
        "split": "test",
        "variant": "full",
        "labels": 5,
        "about": {"dataset": "own", "backbone": "adm-256", "text_encoder": "clinical-biobert", "protocol": "paper"},
        "scores": {"clean": {"dice": interval | changes.pop("dice", {})}},
        "primary": "clean",
        "bootstrap": {"over": "images"},
        "model": "textdiff",
        "present": {"foreground": 1},
        "changed_since_fit": [],
        "too_large": [],
        "published": [],
        "published_left_out": "",
        "trust": {"reliability": [{"error": 0.1}]},
        "images": [{"dice_clean": 0.8}],
    } | changes


PUBLISHED = [{"method": "TextDiff", "labels": 5}]
ABOUT = {"dataset": "monuseg", "backbone": "nano-he", "text_encoder": "clinical-biobert", "protocol": "clean"}
GOOD = [{"epoch": epoch + 1, "val_dice": value} for epoch, value in enumerate([0.5] * 10 + [0.8, 0.7])]


@pytest.mark.parametrize(
    ("changes", "log", "warning"),
    [
        ({"dice": {"n": 14}}, GOOD, "over 14 images"),
        ({"dice": {"low": 0.7, "high": 0.9}}, GOOD, "spans 20.0 points"),
        ({"dice": {"low": None, "high": None, "n": 1}}, GOOD, "One image has no interval"),
        ({"dice": {"low": None, "high": None, "n": 9}}, GOOD, "Images of one group have no interval"),
        ({"images": [{"dice_clean": 0}]}, GOOD, "Dice of 0"),
        ({"images": [{"dice_clean": 1, "group": f"p{i % 3}"} for i in range(100)]}, GOOD, "100 images are of 3"),
        ({"about": {"dataset": "phantom"}}, GOOD, "Synthetic data"),
        ({"split": "train"}, GOOD, "training split"),
        ({"split": "val"}, GOOD, "validation split"),
        ({}, [{"epoch": 1, "val_dice": 0.95}], "Validation unlike test"),
        ({}, [{"epoch": 1, "val_dice": 0.8}, *GOOD[:10]], "epoch 1 of 11"),
        ({"present": {"nucleus": 1, "gland": 0}}, GOOD, "gland is in 0 of 1 image"),
        ({"changed_since_fit": ["a: the mask", "b: the text"]}, GOOD, "a: the mask; 1 more"),
        ({"trust": {"reliability": [{"error": 0.01}, {"error": 0.03}]}}, GOOD, "1.0 % without it, 3.0 % with it"),
        ({"published": PUBLISHED, "about": ABOUT}, GOOD, "nano-he (adm-256)"),
        ({"published": PUBLISHED, "about": ABOUT, "labels": 7}, GOOD, "had 5"),
    ],
)
def test_each_doubt_is_said(changes, log, warning):
    config = {"git": "abc", "val_ids": ["v"] * 9, "fit": {"select": "best"}}
    assert [caveat.level for caveat in caveats(config, summary(), GOOD)] == ["note"]
    found = caveats(config, summary(**changes), log)
    assert any(caveat.level == "warning" and warning in caveat.text for caveat in found), found


@pytest.mark.parametrize("val_ids", [[], ["v"]])
@pytest.mark.parametrize(
    ("select", "kept"),
    [("last", "he weights of the last epoch were kept"), ("average", "he running average of the weights was kept")],
)
def test_which_weights_were_kept_is_said(val_ids, select, kept):
    config = {"git": "abc", "val_ids": val_ids, "fit": {"select": select}}
    notes = [caveat.text for caveat in caveats(config, summary(), GOOD) if caveat.level == "note"]
    (said,) = (text for text in notes if " kept" in text)
    assert kept in said


COMBINED = {"runs": [{"weight": 0.5}, {"weight": 0.5}], "weighed": None}


@pytest.mark.parametrize(
    ("config", "level", "said"),
    [
        ({"fit": {"select": "best"}}, "warning", "by which the weights were selected"),
        ({"fit": {"select": "last"}}, "note", "which chose nothing in the fit; the temperature"),
        ({"fit": {"select": "average"}}, "note", "which chose nothing in the fit; the temperature"),
        ({"fit": {"select": "best"}, "parameters": 0}, "note", "which chose nothing in the fit"),
        ({"fit": {"select": "last", "schedule": "plateau"}}, "warning", "by which the learning rate was lowered"),
        ({"fit": {"select": "best"}, "val_ids": []}, "note", "which chose nothing in the fit"),
        ({"fit": {"select": "last"}, **COMBINED}, "warning", "which the fits of its runs have seen"),
        ({"fit": {"select": "last"}, **COMBINED, "weighed": {"images": 3}}, "warning", "its runs are weighed"),
    ],
)
def test_what_the_validation_images_chose_is_said_where_they_are_scored(config, level, said):
    scored = summary(split="val", trust={"reliability": [{"error": 0.03}, {"error": 0.01}]})
    found = caveats({"git": "abc", "val_ids": ["v"] * 9} | config, scored, GOOD)
    ((own_level, text),) = (caveat for caveat in found if "validation split" in caveat.text)
    assert (own_level, said in text) == (level, True), text


def test_weights_without_validation_or_with_little_are_said():
    config = {"git": None, "val_ids": [], "fit": {}}
    assert any("last epoch" in caveat.text for caveat in caveats(config, summary(), [{"epoch": 1.0}]))
    ensemble = {"git": "abc", "val_ids": ["v"], "fit": {"select": "last"}}  # whose members have the logs
    assert not any("No validation images" in caveat.text for caveat in caveats(ensemble, summary(), []))
    found = caveats({"git": "abc+", "val_ids": ["v"], "fit": {}}, summary(), GOOD)
    assert any("1 validation image only" in caveat.text for caveat in found)
    assert any("uncommitted" in caveat.text for caveat in found)
    found = caveats({"git": "abc", "val_ids": ["v"], "fit": {"select": "last"}}, summary(), GOOD)
    assert not any("selected on" in caveat.text for caveat in found)
    assert any("70.0" in caveat.text and caveat.level == "warning" for caveat in found)
