"""How a network is trained by default."""

import math

import numpy as np
import pytest
import torch

from textdiff.cache import Item
from textdiff.errors import UserError
from textdiff.images.images import symmetry
from textdiff.models.networks.augment import AUGMENTATIONS, turned_and_scaled
from textdiff.models.networks.head import Head
from textdiff.models.networks.models import get_recipe
from textdiff.models.networks.plain_unet import PlainUNet
from textdiff.models.networks.textdiff import standardised
from textdiff.pipeline.training.schedules import learning_rate


def test_reference_recipe_is_the_papers():
    recipe = get_recipe("textdiff", "default")
    assert (recipe.learning_rate, recipe.decay_epoch, recipe.batch_size, recipe.select) == (1e-4, 60, 1, "best")
    assert (recipe.hidden, recipe.standardise, recipe.schedule) == ((128, 32), False, "step")


def test_an_unknown_recipe_is_refused_by_name():
    with pytest.raises(UserError, match="--recipe quick: not for --model textdiff; use default or fair"):
        get_recipe("textdiff", "quick")


@pytest.mark.parametrize("epoch", [0, 7, 39])
def test_schedules_follow_their_formulas(epoch):
    options = {"learning_rate": 2e-3, "epochs": 40, "decay_epoch": 7}
    assert learning_rate(options | {"schedule": "step"}, epoch) == pytest.approx(2e-4 if epoch >= 7 else 2e-3)
    cosine = 1e-3 * (1 + math.cos(math.pi * epoch / 40))
    assert learning_rate(options | {"schedule": "cosine"}, epoch) == pytest.approx(cosine)


def test_standardised_channels_have_mean_0_and_deviation_1_and_constant_ones_are_0():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64) * 5 + 3
    x[1, 2] = 7
    y = standardised(x).double().numpy()
    expected = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), correction=0, keepdim=True).clamp(min=1e-3)
    assert np.allclose(y, expected.numpy(), atol=1e-4)
    assert not y[1, 2].any()


def test_a_standardising_head_does_not_see_gain_and_offset_of_a_channel():
    torch.manual_seed(0)
    head = Head([4, 2], 2, 8, width=8, image_size=16, variant="no-text", standardise=True).eval()
    levels = [torch.randn(1, 8, 4, 4), torch.randn(1, 4, 16, 16)]
    with torch.inference_mode():
        same = head([3 * levels[0] + 2, levels[1] * 0.5 - 1], None)
        assert torch.allclose(head(levels, None), same, atol=1e-4)
        other = Head(**(head.config | {"standardise": False})).eval()
        other.load_state_dict(head.state_dict())
        assert not torch.allclose(other(levels, None), other([3 * levels[0] + 2, levels[1] * 0.5 - 1], None), atol=1e-2)


def test_polynomial_falls_with_every_step_and_ends_at_zero():
    options = {"learning_rate": 0.01, "epochs": 30, "schedule": "polynomial"}
    for step in range(90):
        assert learning_rate(options, step / 3) == pytest.approx(0.01 * (1 - step / 90) ** 0.9)
    assert learning_rate(options, 30) == 0


def test_restarts_are_those_of_pytorch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, eta_min=1e-4)
    options = {"learning_rate": 1e-3, "epochs": 25, "schedule": "restarts"}
    for epoch in range(25):
        assert learning_rate(options, epoch + 0.3) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # A rate below the lowest stays.
    assert learning_rate(options | {"learning_rate": 5e-5}, 7) == pytest.approx(5e-5)


def test_plateau_halves_as_pytorchs_does_that_looks_at_every_third_score():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 1e-3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=5, threshold=0)
    options = {"learning_rate": 1e-3, "epochs": 100, "schedule": "plateau"}
    rng, scores, looks, rates = np.random.default_rng(0), [], 0, set()
    for epoch in range(300):
        assert learning_rate(options, epoch, scores) == pytest.approx(optimizer.param_groups[0]["lr"])
        score = None if epoch % 2 else min(0.2 + epoch / 300, 0.4) + float(rng.normal(0, 0.01))
        scores.append(score)
        if score is not None:
            looks += 1
            if looks % 3 == 0:
                optimizer.step()
                theirs.step(score)
        rates.add(optimizer.param_groups[0]["lr"])
    assert len(rates) > 2


DISC = np.hypot(*(np.mgrid[:40, :40] - np.array([10, 24])[:, None, None])) < 8


def picture(dtype: torch.dtype = torch.uint8) -> Item:
    """A bright disc away from the middle, and its mask."""
    image = torch.from_numpy(np.where(DISC, 255, 0)).expand(1, 3, 40, 40).to(dtype)
    return Item(0, [], torch.from_numpy(DISC.astype(np.int64))[None], None, None, image)


@pytest.mark.parametrize("name", sorted({*AUGMENTATIONS} - {"none"}))
def test_image_and_mask_are_changed_alike_by_what_the_epoch_and_the_seed_draw(name):
    network = PlainUNet(width=4, augment=name)

    def drawn(seed: int, epoch: int) -> list[Item]:
        return list(network.augment([picture()] * 60, seed, epoch))

    for item in drawn(1, 2):
        differ = (item.image[0, 0] > 127) != (item.mask[0] > 0)
        # Bilinearly the disc's edge comes between two pixels.
        assert differ.sum() <= (12 if name == "scales" else 0)
        assert item.image.dtype == torch.uint8
        assert item.mask.dtype == torch.int64
    first, again, later, other = (
        [item.image.numpy().tobytes() for item in drawn(*given)] for given in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    assert first == again
    assert len({tuple(first), tuple(later), tuple(other)}) == 3


def kinds(name: str, count: int = 4000) -> list[str]:
    """What happened to each of many copies: ``none``, one of the symmetries, or ``moved``."""
    known = {symmetry(DISC, view).tobytes(): f"view {view}" for view in range(8)}
    items = PlainUNet(width=4, augment=name).augment([picture()] * count, 0, 0)
    return [known.get((item.mask[0].numpy() > 0).tobytes(), "moved") for item in items]


def test_turns_mirror_half_of_the_images_and_turn_a_quarter_of_them_a_little():
    seen = kinds("turns")
    shares = {kind: seen.count(kind) / len(seen) for kind in set(seen)}
    assert shares.keys() == {"view 0", "moved", *(f"view {view}" for view in range(4, 8))}
    for view in range(4, 8):
        assert shares[f"view {view}"] == pytest.approx(1 / 8, abs=0.025)
    assert shares["moved"] == pytest.approx(1 / 4 * 39 / 40, abs=0.03)


def test_scales_change_half_of_the_images():
    seen = kinds("scales", 1000)
    assert seen.count("view 0") / len(seen) == pytest.approx(1 / 2, abs=0.06)
    assert set(seen) == {"view 0", "moved"}


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_turn_is_about_the_middle_by_its_angle_and_none_changes_nothing(mode):
    item = picture()
    same = turned_and_scaled(item, 0.0, 1.0, mode)
    assert torch.equal(same.image, item.image)
    assert torch.equal(same.mask, item.mask)
    quarter = turned_and_scaled(item, 90.0, 1.0, mode)
    assert any(torch.equal(quarter.mask[0], torch.rot90(item.mask[0], turns)) for turns in (1, 3))
    for angle, scale in ((17.0, 1.0), (0.0, 1.1), (-10.0, 0.9)):
        moved = turned_and_scaled(item, angle, scale, mode).mask[0].numpy() > 0
        assert moved.sum() == pytest.approx(DISC.sum() * scale**2, rel=0.05)
        before, after = (np.argwhere(disc).mean(0) - 19.5 for disc in (DISC, moved))
        assert np.hypot(*after) == pytest.approx(np.hypot(*before) * scale, abs=0.3)
        turned = np.rad2deg(np.arctan2(*after) - np.arctan2(*before))
        assert abs(turned) == pytest.approx(abs(angle), abs=1.5)
