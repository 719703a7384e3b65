"""``extract --update``: after a change of the data set only what is new runs the backbone."""

import shutil

import pytest

import textdiff
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.models.backbones.extractor import Extractor
from textdiff.tests.file_tools import files
from textdiff.tests.lab_cases import (
    left_beside,
    lost_mask,
    move,
    new_image,
    new_mask,
    other_image,
    other_mask,
    other_text,
    removed_image,
    renamed,
)

REAL = Extractor.grids


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (new_mask, 0),
        (other_mask, 0),
        (lost_mask, 0),
        (other_text, 0),
        (removed_image, 0),
        (move, 0),
        (renamed, 0),
        (new_image, 1),
        (other_image, 1),
    ],
)
def test_only_new_rows_run_the_backbone_and_the_bytes_are_those_of_a_cache_from_scratch(lab, forwards, change, new):
    change(lab)
    cache = lab.extract(update=True)
    assert len(forwards) == new
    assert cache.path == lab.cache
    assert cache.done().all()
    assert cache.verify() == []
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch()


@pytest.mark.parametrize("options", [{"unlabelled_value": "7"}, {"instances": True}])
def test_masks_of_another_kind_leave_the_activations_as_they_are(lab, forwards, options):
    with pytest.raises(UserError, match="use --update, which keeps the activations"):
        lab.extract(**options)
    cache = lab.extract(update=True, **options)
    assert len(forwards) == 0
    assert cache.verify() == []
    assert left_beside(lab) == []
    assert files(lab.cache) == lab.scratch(**options)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"views": 8}, 8),
        ({"views": 8, "jitter": "he"}, 8),
        ({"tile": 32, "overlap": 0}, 4),
        ({"views": 8, "test_views": 8}, 8),
        # Views of a training image in varied colours are none of a test image.
        ({"views": 8, "test_views": 8, "jitter": "he"}, 8 + 7),
    ],
)
def test_views_and_tiles_are_taken_over_by_what_they_show(lab, forwards, options, made):
    lab.extract(overwrite=True, **options)
    lab.draw("b")
    lab.change("c", split="test")
    lab.add("aa", "train")
    forwards.clear()
    lab.extract(update=True, **options)
    assert len(forwards) == made
    assert files(lab.cache) == lab.scratch(**options)


def test_of_one_view_the_other_seven_are_new(lab, forwards):
    cache = lab.extract(update=True, views=8)
    assert len(forwards) == 2 * 7  # b has no mask, and so one view
    assert len(cache.rows) == 2 * 8 + 4


def test_without_the_option_a_changed_data_set_is_refused_in_one_line_that_names_it_and_what_is_kept(lab):
    before = files(lab.cache)
    new_image(lab)
    with pytest.raises(UserError, match=r"zarr: --update keeps 6 of 7 rows .*aa, view 0: not in the cache$") as error:
        lab.extract()
    assert "\n" not in str(error.value)
    assert "--overwrite" in str(error.value)
    assert files(lab.cache) == before


def test_only_rows_that_changed_are_named_where_a_new_text_shifts_the_others_indices(lab):
    other_text(lab)
    with pytest.raises(UserError) as error:
        lab.extract()
    changes = str(error.value).split("made of: ")[1]
    assert changes.startswith('a, view 0: text: "few nuclei" in the cache')
    assert ";" not in changes


def test_alike_changes_of_the_views_of_an_image_are_named_once(lab):
    lab.extract(overwrite=True, views=8, shard=(98, 99))
    lab.draw("a", seed=2)
    with pytest.raises(UserError, match=r"made of: a, 8 rows: mask_sha256: [^;]*$"):
        lab.extract(views=8)


def test_other_features_are_refused_whatever_is_asked_for(lab):
    before = files(lab.cache)
    with pytest.raises(UserError, match="noise_seed: 0 in the cache, 1 asked for"):
        lab.extract(update=True, seed=1)
    with pytest.raises(UserError, match="give one of them"):
        lab.extract(update=True, overwrite=True)
    assert files(lab.cache) == before


def test_a_damaged_row_of_the_old_cache_is_made_anew_and_said(lab, forwards, capsys):
    file = lab.cache / "features/b08/c.2.1.0.0.0"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    # Sound by itself, but not what was written: only the ledger tells.
    shutil.copyfile(lab.cache / "features/b06/c.4.0.0.0.0", lab.cache / "features/b06/c.3.0.0.0.0")
    new_mask(lab)
    lab.extract(update=True)
    said = capsys.readouterr().err
    assert "row 2 (c, view 0): block 8 at step 150: the checksum does not match; it is made anew" in said
    assert (
        "row 3 (v, view 0): the ledger: the chunks are sound but not those that were written; it is made anew" in said
    )
    assert len(forwards) == 2
    assert files(lab.cache) == lab.scratch()


def test_rows_the_old_cache_does_not_have_are_made(lab, forwards):
    FeatureCache.open(lab.cache, writable=True).forget([0, 5])
    new_mask(lab)
    lab.extract(update=True)
    assert len(forwards) == 2
    assert files(lab.cache) == lab.scratch()


def test_with_the_real_backbone_on_the_command_line(tmp_path, make_lvit, tiny_backbone, textdiff_once, monkeypatch):
    monkeypatch.setattr(Extractor, "grids", REAL)
    data = make_lvit(n_train=2, n_val=0, n_test=1)
    arguments = ["extract", "--dataset", "monuseg", "--data", str(data), "--backbone", str(tiny_backbone)]
    arguments += ["--text-encoder", "none", "--image-size", "64", "--steps", "50", "--blocks", "6,8"]
    textdiff_once(tmp_path, *arguments, "--cache", "c.zarr")
    shutil.copy(data / "Train_Folder/labelcol/train_001.png", data / "Train_Folder/labelcol/train_000.png")
    assert "--update keeps 3 of 3" in textdiff_once(tmp_path, *arguments, "--cache", "c.zarr", status=2).stderr
    said = textdiff_once(tmp_path, *arguments, "--cache", "c.zarr", "--update").stderr
    assert "c.zarr: 3 rows are taken over, and 0 rows are made" in said
    assert "next: textdiff fit --cache c.zarr --variant no-text\n" in said
    textdiff_once(tmp_path, *arguments, "--cache", "scratch.zarr")
    assert files(tmp_path / "c.zarr") == files(tmp_path / "scratch.zarr")


def test_with_nothing_else_to_update_the_new_place_of_the_data_is_recorded(lab, forwards):
    lab.extract(update=True)  # records where the backbone is from here
    before = files(lab.cache)
    lab.extract(update=True)
    assert files(lab.cache) == before
    lab.data = lab.data.rename(lab.root / "moved")
    lab.extract(update=True, dry_run=True)
    assert files(lab.cache) == before
    lab.extract(update=True)
    assert textdiff.extract(cache=lab.cache).verify() == []
    assert not forwards
    assert files(lab.cache) == lab.scratch()


def test_a_dry_run_says_what_is_kept_and_leaves_everything_as_it_was(lab, forwards, capsys):
    new_image(lab)
    before = files(lab.root)
    cache = lab.extract(update=True, dry_run=True)
    assert ": 6 rows are taken over, and 1 row is made\n" in capsys.readouterr().err
    assert len(cache.rows) == 6
    assert files(lab.root) == before
    planned = lab.extract(lab.root / "not/yet.zarr", dry_run=True)
    assert len(planned.pending()) == 7
    assert not (lab.root / "not").exists()
    assert not forwards


def test_who_reads_or_writes_a_cache_that_is_replaced_meanwhile_is_stopped(lab):
    reader = FeatureCache.open(lab.cache, writable=True)
    image, features = reader.image(1), {block: reader.features(1, block) for block in reader.blocks}
    removed_image(lab)
    lab.extract(update=True)
    now = files(lab.cache)
    for use in (
        lambda: reader.features(1, 8),
        lambda: reader.mask(0),
        lambda: reader.text(0),
        lambda: reader.truth(0),
        lambda: reader.write(1, features, image),
    ):
        with pytest.raises(UserError, match="was replaced by another cache while it was in use"):
            use()
    assert files(lab.cache) == now
