"""What stage one lacks is said at once, before an image is read, with a command that works here and now."""

import re
import shlex

import pytest

MODELS = ("256x256_diffusion_uncond.pt", "clinical-biobert")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path / "weights"))
    for name in ("TEXTDIFF_ADM_256", "TEXTDIFF_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--dataset", "monuseg"], ["3 things", "no MoNuSeg directory", *MODELS]),
        (["--dataset", "folder"], ["3 things", "--data", *MODELS]),
        (["--dataset", "monuseg", "--data", "data"], ["2 things", *MODELS]),
        (["--dataset", "monuseg", "--data", "data", "--text-encoder", "none"], MODELS[:1]),
        (["--dataset", "monuseg", "--data", "data", "--backbone", "nano-he"], MODELS[1:]),
    ],
)
def test_everything_missing_is_named_before_an_image_is_read(tmp_path, make_lvit, textdiff_once, arguments, named):
    broken = make_lvit() / "Train_Folder/img/train_000.png"
    broken.write_bytes(b"")
    said = textdiff_once(tmp_path, "extract", *arguments, status=2).stderr
    assert len(said.splitlines()) == 1
    assert all(part in said for part in named), said
    assert "train_000" not in said


def test_the_command_that_is_named_works(tmp_path, make_lvit, textdiff_once):
    make_lvit("my data", n_train=1, n_val=0, n_test=1)
    said = textdiff_once(tmp_path, "extract", "--dataset", "monuseg", "--data", "my data", status=2).stderr
    program, *command = shlex.split(re.search(r"`(textdiff extract [^`]+)`", said).group(1))
    assert program == "textdiff"
    textdiff_once(tmp_path, *command, "--image-size", "64", "--views", "1")
    textdiff_once(tmp_path, "fit", "--cache", "cache/monuseg.zarr", "--epochs", "1")
    assert "Dice" in textdiff_once(tmp_path, "score").stdout


def test_a_misspelt_backbone_is_a_mistake_and_not_a_missing_model(tmp_path, make_lvit, textdiff_once):
    make_lvit()
    said = textdiff_once(
        tmp_path, "extract", "--dataset", "monuseg", "--data", "data", "--backbone", "adm-265", status=2
    )
    assert "did you mean adm-256" in said.stderr
    assert "clinical-biobert" not in said.stderr
