import numpy as np
import pytest
import torch

from textdiff.pipeline.training import losses
from textdiff.pipeline.training.losses import LOSSES, segmentation_loss, soft_dice_loss

LOGITS = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (2, 5, 4), generator=torch.Generator().manual_seed(1))


def dice_by_hand(scores, labels):
    losses = []
    for c in range(scores.shape[1]):
        p, y = scores[:, c].numpy(), (labels == c).numpy().astype(float)
        losses.append(1 - (2 * np.sum(p * y) + 1e-5) / (np.sum(p**2) + np.sum(y**2) + 1e-5))
    return np.mean(losses)


def test_dice_sums_over_the_batch_and_averages_over_classes():
    scores = LOGITS.softmax(1)
    assert float(soft_dice_loss(scores, LABELS)) == pytest.approx(dice_by_hand(scores, LABELS), rel=1e-9)


@pytest.mark.parametrize("dice_on", ["softmax", "logits"])
def test_loss_is_cross_entropy_and_one_and_a_half_times_dice(dice_on):
    p = LOGITS.softmax(1)
    cross_entropy = -np.mean(np.log(np.take_along_axis(p.numpy(), LABELS.numpy()[:, None], axis=1)))
    expected = cross_entropy + 1.5 * dice_by_hand(p if dice_on == "softmax" else LOGITS, LABELS)
    assert float(segmentation_loss(LOGITS, LABELS, dice_on=dice_on)) == pytest.approx(expected, rel=1e-9)


def test_a_perfect_prediction_costs_nothing_even_where_a_class_is_absent():
    labels = torch.zeros(1, 4, 4, dtype=torch.bool)
    logits = torch.stack([torch.full((1, 4, 4), 50.0), torch.full((1, 4, 4), -50.0)], 1)
    assert float(segmentation_loss(logits, labels)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_labels_may_be_of_any_integer_type(dtype):
    labels = (LABELS > 0).to(dtype)
    assert torch.equal(segmentation_loss(LOGITS[:, :2], labels), segmentation_loss(LOGITS[:, :2], (LABELS > 0).long()))


def test_low_precision_logits_are_summed_in_float32():
    logits = torch.full((1, 2, 256, 256), 0.5, dtype=torch.bfloat16)
    labels = torch.zeros(1, 256, 256, dtype=torch.bool)
    loss = segmentation_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(segmentation_loss(logits.double(), labels)), rel=1e-5)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="use 'softmax' or 'logits'"):
        segmentation_loss(LOGITS, LABELS, dice_on="probabilities")


def cross_entropy_by_hand():
    """(B, H, W): minus the logarithm of the true class's probability."""
    p = np.take_along_axis(LOGITS.softmax(1).numpy(), LABELS.numpy()[:, None], axis=1)
    return -np.log(p[:, 0])


@pytest.mark.parametrize(("name", "first", "second"), [("half-dice", 0.5, 0.5), ("more-dice", 0.4, 0.6)])
def test_transunets_and_swin_unets_losses_weigh_cross_entropy_and_dice(name, first, second):
    expected = first * cross_entropy_by_hand().mean() + second * dice_by_hand(LOGITS.softmax(1), LABELS)
    assert float(LOSSES[name](LOGITS, LABELS)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_focal_is_ten_times_the_focal_loss_less_the_logarithm_of_dice(classes):
    logits, labels = LOGITS[:, :classes], LABELS.clamp(max=classes - 1)
    p, y = logits.softmax(1).numpy(), labels.numpy()
    true = np.take_along_axis(p, y[:, None], axis=1)
    focal = np.mean(-((1 - true) ** 2) * np.log(true))
    dice = [(2 * np.sum(p[:, c] * (y == c)) + 1) / (np.sum(p[:, c]) + np.sum(y == c) + 1) for c in range(1, classes)]
    assert float(LOSSES["focal"](logits, labels)) == pytest.approx(10 * focal - np.mean(np.log(dice)), rel=1e-9)


@pytest.mark.parametrize("there", [(0, 1), (0,), (1,)])
def test_balanced_is_half_dice_of_each_image_and_half_cross_entropy_by_class(there):
    logits, y = LOGITS[:, :2], LABELS.clamp(max=1).numpy()
    y = y if len(there) == 2 else np.full_like(y, there[0])
    p = logits.softmax(1).numpy()[:, 1]
    # As published: the probability and the label of each pixel are halved, and a class that is not there costs nothing.
    dice = [
        1 - (2 * np.sum(a / 2 * b / 2) + 1e-5) / (np.sum((a / 2) ** 2) + np.sum((b / 2) ** 2) + 1e-5)
        for a, b in zip(p, y, strict=True)
    ]
    costs = [-np.log(np.where(label, p, 1 - p))[y == label].mean() for label in there]
    expected = 0.5 * np.mean(dice) + 0.5 * np.sum(costs) / 2
    assert float(LOSSES["balanced"](logits, torch.from_numpy(y))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_stays_a_number_with_gradients_however_sure_a_network_is(name):
    logits = (1e4 * LOGITS.float()).requires_grad_()
    LOSSES[name](logits, LABELS).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 2, 5, 5)])
def test_the_form_for_gpus_is_the_mean_cross_entropy_gradient_included(shape):
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]))
    both = [form(logits, labels) for form in (losses.ordered_cross_entropy, torch.nn.functional.cross_entropy)]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in both))
