"""``score --text``: one text for all images, what a missing one does, and what it costs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import textdiff
from textdiff.metrics.intervals import bootstrap_mean
from textdiff.pipeline import predictions
from textdiff.pipeline.evaluation.given_text import GivenText, paired_differences
from textdiff.pipeline.evaluation.image_predictions import TRUTHS
from textdiff.pipeline.runs import Run, write_config
from textdiff.tests.run_cases import newest
from textdiff.tests.text_cases import make_bert

SHARED = "all nuclei are round"
READING = ("full", "concat", "constant-text", "shuffled-text")
EMPTY = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A BERT with random weights that knows the words of ``SHARED``."""
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    make_bert(folder, SHARED.split())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_lvit_once, tiny_backbone, textdiff_once, encoder) -> Path:
    """Caches of two data sets, ``one`` whose images share a text and ``own`` whose do not, and a run of each kind."""
    root = tmp_path_factory.mktemp("made")
    smallest = ("--backbone", str(tiny_backbone), "--image-size", "64", "--blocks", "6", "--steps", "50")
    for name, text in (("one", SHARED), ("own", "{} nuclei")):
        make_lvit_once(root / name, n_train=3, n_val=1, n_test=3, size=(72, 96), text=text)
        extract = ("extract", "--dataset", "monuseg", "--data", name, "--cache", f"{name}.zarr")
        textdiff_once(root, *extract, "--text-encoder", str(encoder), *smallest)
    for cache, variant in (*(("one", variant) for variant in READING), ("own", "full"), ("own", "no-text")):
        fit = ("fit", "--cache", f"{cache}.zarr", "--variant", variant, "--epochs", "1", "--learning-rate", "0.01")
        textdiff_once(root, *fit, "--runs", "fits")
        shutil.move(newest(root / "fits").path, root / f"{cache}-{variant}")
    return root


@pytest.fixture
def own(made, tmp_path) -> Run:
    """A run on texts of the images' own, that is not scored yet."""
    return Run(Path(shutil.copytree(made / "own-full", tmp_path / "run")))


def stored(run: Path, name: str) -> dict:
    return json.loads((run / name).read_text())


@pytest.mark.parametrize("variant", READING)
def test_the_text_that_all_images_share_gives_the_runs_own_scores_bit_for_bit(made, variant, textdiff_once):
    run = made / f"one-{variant}"
    textdiff_once(made, "score", "--run", str(run))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = textdiff_once(made, "score", "--run", str(run), "--text", SHARED)
    [name] = [path.name for path in run.glob("scores-*.json")]
    assert re.fullmatch(r"scores-text-all-nuclei-are-round-[0-9a-f]{8}\.json", name)
    scores = stored(run, name)
    assert scores["images"] == stored(run, "scores.json")["images"]
    assert scores["given_text"] == {"text": SHARED, "tokens": 6}
    zero = {"mean": 0, "low": 0, "high": 0, "n": 3}
    assert scores["differences"]["clean"] == {"dice": zero, "iou": zero}
    assert set(scores["differences"]["original"]) == {"dice", "iou", "aji", "pq", "f1"}
    assert f'Given to every image: "{SHARED}" (6 tokens)' in result.stdout
    assert before == {name: (run / name).read_bytes() for name in before}


def test_a_combined_run_gives_it_to_each_of_its_runs_that_reads_texts(made, tmp_path, textdiff_once):
    runs = [made / "one-full", made / "one-concat", made / "one-unet"]
    textdiff_once(made, "fit", "--cache", "one.zarr", "--model", "unet", "--width", "8", "--epochs", "1", "--runs", "u")
    shutil.move(newest(made / "u").path, runs[-1])
    run = textdiff.combine(runs, runs=tmp_path).path
    textdiff_once(made, "score", "--run", str(run))
    for text, same in ((SHARED, True), ("", False)):
        textdiff_once(made, "score", "--run", str(run), "--text", text)
        (name,) = [path.name for path in run.glob(f"scores-text-{'all' if same else 'empty'}*.json")]
        given, own = ([one | {"text": ""} for one in stored(run, file)["images"]] for file in (name, "scores.json"))
        assert (given == own) == same


def test_predict_tells_what_each_run_of_a_combined_one_does_and_measures_that_one(made, tmp_path, textdiff_once):
    run = textdiff.combine([made / "one-full", made / "one-concat"], runs=tmp_path).path
    image = made / "one/Test_Folder/img/test_000.tif"
    said = textdiff_once(made, "predict", str(image), "--run", str(run), "--out", str(tmp_path / "out")).stderr
    (line,) = [line for line in said.splitlines() if "1 of 1 image has no text" in line]
    assert "no text (--text): one of the combined runs reads it, so it is given the empty string and attends" in line
    assert "tokens alone, and another reads it, so it is given the empty string and averages" in line
    assert f'averages its special tokens alone; what that costs: textdiff score --run {run} --text ""' in line


def test_an_empty_text_is_what_predict_does_without_one(own, made):
    scores = textdiff.score(own, text="")
    assert scores.summary["given_text"] == {"text": "", "tokens": 2}
    files = {path.name for path in scores.files}
    assert files == {
        f"{kind}-text-empty.{end}"
        for kind, end in (("scores", "csv"), ("scores", "json"), ("overlay", "png"), ("report", "md"))
    }
    assert not own.scores_file().exists()
    report = (own.path / "report-text-empty.md").read_text()
    assert "Given to every image: no text, the empty string (2 tokens)" in report
    assert "Means over 3 images" in report
    predictor = textdiff.Predictor(own)
    for record in stored(own.path, "scores-text-empty.json")["images"]:
        assert record["text"] == ""
        masks = made / "own/Test_Folder/labelcol"
        true = np.asarray(Image.open(masks / f"{record['id']}.png")) > 0
        predicted = predictor(made / f"own/Test_Folder/img/{record['id']}.tif").argmax(0) > 0
        assert record["iou_original"] == pytest.approx((predicted & true).sum() / (predicted | true).sum())


def test_every_image_comes_with_the_texts_tokens_and_no_others(own, made, encoder, monkeypatch):
    from transformers import BertModel

    model, seen = BertModel.from_pretrained(encoder).eval(), []

    def predict_members(network, item, precision):
        seen.append(item)
        return predict(network, item, precision)

    predict = predictions.predict_members
    monkeypatch.setattr(predictions, "predict_members", predict_members)
    for text, ids in (("", [2, 3]), (SHARED, [2, 5, 6, 7, 8, 3])):
        seen.clear()
        textdiff.score(own, text=text)
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids])).last_hidden_state
        assert len(seen) == 3
        assert all(torch.allclose(item.tokens, expected, atol=1e-6) and item.token_mask.all() for item in seen)
    predictor, image = textdiff.Predictor(own), made / "own/Test_Folder/img/test_000.tif"
    assert np.abs(predictor(image, "") - predictor(image, SHARED)).max() > 1e-6


def test_differences_are_paired_and_named_after_split_and_text(own, textdiff_once):
    command = ("score", "--run", str(own.path), "--split", "train")
    first = textdiff_once(own.path, *command, "--text", "")
    assert f"textdiff score --run {own.path} --split train, and this command again" in first.stderr
    assert stored(own.path, "scores-train-text-empty.json")["differences"] is None
    textdiff_once(own.path, *command)
    textdiff_once(own.path, *command, "--text", "", "--min-area", "3")
    scores = stored(own.path, "scores-train-text-empty.json")
    # Objects are counted otherwise now, so nothing of them can be compared.
    assert {name: set(found) for name, found in scores["differences"].items()} == {t: {"dice", "iou"} for t in TRUTHS}
    before, after = ({i["id"]: i["dice_clean"] for i in s["images"]} for s in (own.scores("train"), scores))
    expected = bootstrap_mean([after[name] - before[name] for name in after])
    assert scores["differences"]["clean"]["dice"] == expected._asdict()


def test_images_are_paired_by_their_names_and_others_are_refused(capsys):
    names = [f"{metric}_{truth}" for metric in ("dice", "iou") for truth in TRUTHS]
    draw = np.random.default_rng(0).random((2, 4))
    ours, theirs = ([{"id": n, **dict.fromkeys(names, v)} for n, v in enumerate(row)] for row in draw)
    found = paired_differences(ours, theirs[::-1], TRUTHS, ("dice", "iou", "aji"), 0)
    assert found["paper"] == dict.fromkeys(("dice", "iou"), bootstrap_mean(draw[0] - draw[1]))
    assert paired_differences(ours, theirs[1:], TRUTHS, ("dice",), 0) is None
    assert "of other images" in capsys.readouterr().err


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5))
def test_names_of_files_tell_texts_apart(texts):
    suffixes = [GivenText(text, EMPTY).suffix for text in texts]
    assert len(set(suffixes)) == len(texts)
    assert all(re.fullmatch(r"-text(-[a-z0-9]+)+", suffix) and len(suffix) < 40 for suffix in suffixes)


@pytest.fixture(scope="module")
def unread(made, tiny_backbone, textdiff_once) -> dict[str, Path]:
    """Runs that read no text, of each kind."""
    small = ("--model", "unet", "--width", "8", "--epochs", "1")
    textdiff_once(made, "fit", "--cache", "own.zarr", *small, "--runs", "unets")
    extract = ("extract", "--dataset", "monuseg", "--data", "own", "--cache", "none.zarr", "--text-encoder", "none")
    smallest = ("--backbone", str(tiny_backbone), "--image-size", "64", "--blocks", "6", "--steps", "50")
    textdiff_once(made, *extract, *smallest)
    textdiff_once(made, *("fit", "--cache", "none.zarr", "--variant", "no-text", "--epochs", "1", "--runs", "without"))
    return {
        "unet": newest(made / "unets").path,
        "no-text": made / "own-no-text",
        "cache": newest(made / "without").path,
    }


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unet", "is a plain U-Net and reads no text"),
        ("no-text", "is of the variant no-text and reads no text"),
        ("cache", "its cache was made with --text-encoder none"),
    ],
)
def test_a_run_that_reads_no_text_is_refused_in_one_line(unread, kind, said, textdiff_once):
    before = sorted(unread[kind].iterdir())
    result = textdiff_once(unread[kind], "score", "--run", str(unread[kind]), "--text", "", status=2)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(unread[kind].iterdir()) == before


def test_another_text_encoder_is_refused(own, encoder, tmp_path):
    other = shutil.copytree(encoder, tmp_path / "other")
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    config = own.config | {"about": own.config["about"] | {"text_encoder": str(other)}}
    write_config(own, config)
    with pytest.raises(textdiff.UserError, match="not the text encoder that"):
        textdiff.score(Run(own.path), text=SHARED)


@pytest.mark.parametrize(
    ("variant", "does"),
    [
        ("full", "attends to its special tokens alone;"),
        ("concat", "averages its special tokens alone;"),
        ("constant-text", "alone instead of the one sentence that it was fitted with;"),
    ],
)
def test_predict_says_what_a_missing_text_does_and_how_to_measure_it(made, variant, does, tmp_path, textdiff_once):
    run, image = made / f"one-{variant}", made / "one/Test_Folder/img/test_000.tif"
    result = textdiff_once(made, "predict", str(image), "--run", str(run), "--out", str(tmp_path / "out"))
    said = " ".join(result.stderr.split())
    assert "1 of 1 image has no text" in said
    assert does in said
    assert f'textdiff score --run {run} --text ""' in said


def test_a_data_set_without_texts_is_fitted_without_them_or_the_user_is_told(encoder, tmp_path, textdiff_once):
    for folder in ("images", "masks"):
        (tmp_path / "plain" / folder).mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(tmp_path / "plain" / folder / "a.png")
    smallest = ("--backbone", "rgb", "--image-size", "32", "--text-encoder", str(encoder))
    made = textdiff_once(tmp_path, "extract", "--dataset", "folder", "--data", "plain", *smallest)
    assert made.stderr.splitlines()[-1] == "next: textdiff fit --cache cache/plain.zarr --variant no-text"
    told = "no training image has a text"
    fit = ("fit", "--cache", "cache/plain.zarr", "--epochs", "1")
    assert told in textdiff_once(tmp_path, *fit).stderr
    done = textdiff_once(tmp_path, *fit, "--variant", "no-text")
    assert told not in done.stderr
    # Nothing is there to be scored, and that is said with the fix.
    assert done.stderr.splitlines()[-1] == f"next: textdiff predict IMAGES --run {done.stdout.strip()}"
    assert "by its --val 0.2 --test 0.2 and fit again" in textdiff_once(tmp_path, "score", status=2).stderr


def test_a_predictor_says_so_once_and_only_where_the_run_reads_text(made, capsys):
    image = made / "own/Test_Folder/img/test_000.tif"
    for name, times in (("own-full", 1), ("own-no-text", 0)):
        predictor = textdiff.Predictor(made / name)
        reads = "reads text" if times else "reads no text"
        assert f"{made / name} ({name.removeprefix('own-')}): foreground; {reads}>" in repr(predictor)
        capsys.readouterr()
        predictor(image, "own nuclei" if times else "")
        assert "text" not in capsys.readouterr().err
        for _ in range(2):
            predictor(image)
            predictor.overlay(image)
        said = capsys.readouterr().err
        assert said.count("an image has no text: the run reads it, so it is given the empty string") == times
        assert said.count("attends to its special tokens alone") == times
