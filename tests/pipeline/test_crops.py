"""The data side of pretraining: which images are taken, and which crops are cut from them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from textdiff.errors import UserError
from textdiff.images import formats
from textdiff.images.colour import jitter
from textdiff.models.backbones.corruption import Noise
from textdiff.pipeline.pretraining.crops import CropLoader, Crops, ImageCache
from textdiff.pipeline.pretraining.unlabelled import held_out, survey


def colour(rng, height=40, width=48):
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(colour(rng)).save(paths[-1])
    return tuple(paths)


def crops_of(images, **options):
    defaults = {"corruption": Noise(), "size": 16, "scale": (0.5, 1.0), "modality": "he", "t_max": 1000, "seed": 0}
    return Crops(images, **{**defaults, **options}, cache=ImageCache(10**8))


def test_stray_files_are_each_reported_once_skipped_and_counted(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    good = colour(rng)
    for name in ("a.png", "b.png", "copy of b.png"):
        Image.fromarray(good if name != "a.png" else colour(rng)).save(tmp_path / name)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(colour(rng, 15, 400)).save(tmp_path / "tiny.png")
    Image.fromarray(good[..., 0]).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "deep.tif", good.astype(np.uint16) * 257)
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    Image.fromarray(colour(rng, 200, 200)).save(tmp_path / "huge.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "storage").symlink_to(tmp_path.parent)

    found = survey(tmp_path, 16, "he", workers=2)
    assert [path.name for path in found.images] == ["a.png", "b.png", "copy of b.png"]
    assert found.skipped == {"16-bit": 1, "broken": 2, "grey": 1, "huge": 1, "tiny": 1}
    assert found.duplicates == 1
    said = capsys.readouterr().err
    for name in ("broken.png", "empty.jpg", "tiny.png", "grey.png", "deep.tif", "huge.png", "(storage)"):
        assert said.count(name) == 1
    pixels = sum(np.prod(Image.open(path).size) for path in found.images)
    assert (
        f"{tmp_path}: holds 3 images that can be used (1 is a copy of another), of {pixels:,} pixels in all; "
        "skipped are 1 16-bit, 2 broken, 1 grey, 1 huge, 1 tiny\n"
    ) in said


def test_x_rays_may_be_grey_and_16_bit(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (40, 40), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", grey)
    Image.fromarray((grey >> 8).astype(np.uint8)).save(tmp_path / "grey.png")
    assert len(survey(tmp_path, 16, "cxr", workers=1, quiet=True).images) == 2


@pytest.mark.parametrize(("content", "message"), [([], "holds no images"), (["x.png"], "0 of 1 image can be used")])
def test_directory_without_usable_images_is_an_error_that_says_so(tmp_path, content, message):
    for name in content:
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=message):
        survey(tmp_path, 16, "he", workers=1, quiet=True)


def test_missing_directory_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        survey(tmp_path / "nothing", 16, "he", workers=1)


def test_digest_changes_with_a_files_content(images):
    root = images[0].parent
    first = survey(root, 16, "he", workers=2, quiet=True).digest
    assert survey(root, 16, "he", workers=1, quiet=True).digest == first
    Image.fromarray(colour(np.random.default_rng(9))).save(images[3])
    assert survey(root, 16, "he", workers=1, quiet=True).digest != first


def test_held_out_share_is_about_a_twentieth_and_does_not_depend_on_the_others():
    root = Path("/data")
    paths = [root / f"{i}.png" for i in range(2000)]
    training, kept = held_out(paths, root)
    assert 60 < len(kept) < 140
    assert sorted({*training, *kept}) == sorted(paths)
    assert set(held_out(paths[:1000], root)[1]) == set(kept) & set(paths[:1000])


@pytest.mark.parametrize("count", [2, 3])
def test_held_out_and_training_each_have_an_image(count):
    paths = [Path(f"/data/{i}.png") for i in range(count)]
    training, kept = held_out(paths, Path("/data"))
    assert training
    assert kept


def test_crop_at_a_quarter_is_the_average_of_four_by_four_pixels(images):
    crops = crops_of(images, size=10, scale=(0.25, 0.25))
    image = np.asarray(Image.open(images[0]))
    square = images[0].with_name("square.png")
    Image.fromarray(image[:, :40]).save(square)
    crop, _ = crops.fixed(square)
    expected = image[:, :40].reshape(10, 4, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(crop - expected).max() <= 1  # Pillow rounds after each of two passes


def test_every_epoch_shows_every_image_once_in_a_new_order(images):
    crops = crops_of(images)
    orders = [tuple(crops.order(epoch)) for epoch in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) > 1


@pytest.mark.parametrize("modality", ["he", "cxr", "none"])
def test_samples_are_the_same_in_any_order_and_differ_from_each_other(images, modality):
    one, two = crops_of(images, modality=modality), crops_of(images, modality=modality)
    forward = [one[i] for i in range(8)]
    backward = [two[i] for i in reversed(range(8))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert len({crop.tobytes() for crop, _, _ in forward}) == 8
    assert not np.array_equal(one[0][0], crops_of(images, seed=1)[0][0])


def test_timesteps_stay_below_the_limit_and_noise_is_standard_normal(images):
    samples = [crops_of(images, t_max=10)[i] for i in range(100)]
    assert {t for _, t, _ in samples} == set(range(10))
    noise = np.stack([noise for _, _, noise in samples])
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def batches(crops, count, **options):
    with CropLoader(crops, **{"batch": 4, "first_step": 0, "workers": 1, **options}) as loader:
        return list(itertools.islice(loader, count))


def test_batches_do_not_depend_on_workers_or_on_where_training_resumes(images):
    reference = batches(crops_of(images), 6)
    for other in (batches(crops_of(images), 6, workers=5), [None] * 3 + batches(crops_of(images), 3, first_step=3)):
        for a, b in zip(reference, other, strict=True):
            assert b is None or all(x.equal(y) for x, y in zip(a, b, strict=True))


def test_processes_share_out_each_batch(images):
    whole = batches(crops_of(images), 3)
    parts = [batches(crops_of(images), 3, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        for rank in range(2):
            assert parts[rank][step].x0.equal(batch.x0[rank::2])
            assert parts[rank][step].drawn.equal(batch.drawn[rank::2])


def test_tensors_are_the_crops_scaled_to_plus_and_minus_one(images):
    crops = crops_of(images)
    (batch,) = batches(crops, 1)
    expected = crops[2][0].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(batch.x0[2], expected, atol=1e-6)


def test_stain_jitter_leaves_white_nearly_white_and_keeps_dark_darker():
    rng = np.random.default_rng(0)
    white, purple = np.full((1, 1, 3), 255, np.uint8), np.full((1, 1, 3), (110, 60, 140), np.uint8)
    for _ in range(50):
        state = rng.bit_generator.state
        bright = jitter(white, "he", rng)
        rng.bit_generator.state = state
        assert bright.min() >= 247
        assert (jitter(purple, "he", rng) < bright).all()


def test_stain_jitter_moves_along_the_stains():
    from skimage.color import rgb_from_hed

    # A pure haematoxylin pixel stays one, whatever the strength: its density keeps its direction.
    density = 1.2 * rgb_from_hed[0]
    pixel = np.rint(255 * np.exp(-density)).astype(np.uint8).reshape(1, 1, 3)

    class Middle(np.random.Generator):
        def uniform(self, low, high, size=None):
            return np.zeros(size) if high == 0.03 else super().uniform(low, high, size)

    rng = Middle(np.random.PCG64(3))
    for _ in range(20):
        moved = -np.log(jitter(pixel, "he", rng)[0, 0] / 255)
        assert moved @ rgb_from_hed[0] / np.linalg.norm(moved) / np.linalg.norm(rgb_from_hed[0]) > 0.9995
        assert 0.7 < np.linalg.norm(moved) / np.linalg.norm(density) < 1.4


def test_decoded_images_kept_in_memory_are_bounded(images):
    cache = ImageCache(3 * 40 * 48 * 3)
    for path in (*images, *images):
        np.testing.assert_array_equal(cache[path], np.asarray(Image.open(path)))
        assert cache.bytes <= cache.limit
        assert cache.bytes == sum(image.nbytes for image in cache.kept.values())
    assert len(cache.kept) == 3
