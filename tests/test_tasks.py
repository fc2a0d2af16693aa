"""A task's losses, errors and metrics are those of PyTorch and scikit-learn, however elements come in batches."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from localearn.data import Batch
from localearn.errors import UserError
from localearn.tasks import Classification, Regression, better

CRITERIA = ("squared", "absolute", "huber")


def measured(task, output, target, parts=1):
    """Return the loss and the metrics of outputs that come in so many batches."""
    totals, count = task.measure(output[:0], target[:0])
    assert all(not total.any() for total in totals.values()) and count == 0
    for rows in torch.arange(len(output)).chunk(parts):
        sums, elements = task.measure(output[rows], target[rows])
        totals, count = {name: totals[name] + sums[name] for name in totals}, count + elements
    return {name: value.item() for name, value in task.finish({n: t / count for n, t in totals.items()}).items()}


def values(rows, outputs, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    target = 3 * torch.randn(rows, outputs, generator=generator, dtype=dtype) + torch.arange(outputs)
    return target + torch.randn(rows, outputs, generator=generator, dtype=dtype), target


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 4])
def test_accuracy_and_log_loss_are_scikit_learns(seed, parts):
    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(37, 5, generator=generator), torch.randint(5, (37,), generator=generator)
    found = measured(Classification(5), logits, y, parts)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, logits.argmax(1)))
    assert 0 < found["accuracy"] < 1
    assert found["loss"] == pytest.approx(metrics.log_loss(y, logits.double().softmax(1), labels=range(5)), rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 4])
def test_rmse_mae_and_r2_are_scikit_learns(outputs, seed, parts):
    output, target = values(41, outputs, seed)
    found = measured(Regression(outputs), output, target, parts)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(target, output))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(target, output))
    assert found["r2"] == pytest.approx(metrics.r2_score(target, output))
    assert found["loss"] == pytest.approx(metrics.mean_squared_error(target, output))
    assert 0 < found["r2"] < 1


def test_metrics_are_in_the_unit_before_the_targets_were_standardised():
    output, target = values(41, 2)
    center, scale = (7.0, -2.0), (20.0, 0.5)
    task = Regression(2, center=center, scale=scale)
    raw = task.decode(output), task.decode(target)
    np.testing.assert_allclose(raw[1], target.numpy() * np.array(scale) + np.array(center))
    found, expected = measured(task, output, target), measured(Regression(2), *raw)
    for name in ("rmse", "mae", "r2"):
        assert found[name] == pytest.approx(expected[name])
    assert found["loss"] == pytest.approx(metrics.mean_squared_error(target, output))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("off", [0.0, 0.5])
def test_r2_of_targets_that_do_not_vary_is_scikit_learns(constant, off):
    target = torch.full((9, 1), constant, dtype=torch.float64)
    found = measured(Regression(), target + off, target)
    assert found["r2"] == metrics.r2_score(target, target + off)


def test_r2_survives_a_mean_that_is_large_beside_the_deviation():
    output, target = values(200, 1)
    found = measured(Regression(), output + 1e5, target + 1e5)
    assert found["r2"] == pytest.approx(metrics.r2_score(target, output), rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_losses_of_a_regression_are_torchs(criterion):
    output, target = values(11, 2)
    reference = {"squared": F.mse_loss, "absolute": F.l1_loss, "huber": F.huber_loss}[criterion]
    task = Regression(2, criterion)
    torch.testing.assert_close(task.losses(output, target).mean(), reference(output, target))
    torch.testing.assert_close(task.loss(output, Batch(output, target)), reference(output, target))


def test_huber_turns_into_a_line_at_delta():
    target = torch.zeros(3)
    found = Regression(criterion="huber", delta=2.0).losses(torch.tensor([[1.0], [2.0], [5.0]]), target)
    assert found.tolist() == [0.5, 2.0, 2.0 * (5.0 - 1.0)]


@pytest.mark.parametrize("task", [Classification(3), *(Regression(3, c) for c in CRITERIA)], ids=str)
def test_losses_take_copies_of_the_rows_and_a_loss_for_each(task):
    output, target = values(7, 3)
    target = target.argmax(1) if task.has_classes else target
    copies = torch.stack([output, output.flip(0)])
    found = task.losses(copies, target)
    assert found.shape == (2, 7)
    torch.testing.assert_close(found[0], task.losses(output, target))
    torch.testing.assert_close(found[1], task.losses(output.flip(0), target))
    torch.testing.assert_close(found[0].mean(), task.mean_loss(output, target))


def test_a_single_output_takes_targets_without_a_dimension_of_their_own():
    output, target = values(6, 1)
    task = Regression()
    assert torch.equal(task.losses(output, target.squeeze(1)), task.losses(output, target))
    assert measured(task, output, target.squeeze(1)) == measured(task, output, target)


def test_the_error_of_labels_is_softmax_minus_one_hot_bit_for_bit():
    logits, y = torch.randn(9, 4), torch.arange(9) % 4
    loss, error = Classification(4).error(logits, Batch(logits, y))
    free = logits.clone().requires_grad_()
    expected = F.cross_entropy(free, y)
    expected.backward()
    assert free.grad is not None and torch.equal(loss, expected.detach()) and torch.equal(error, free.grad)
    torch.testing.assert_close(error, (logits.softmax(1) - Classification(4).encode(y)) / 9)
    assert not loss.requires_grad and not logits.requires_grad


def test_the_error_of_values_is_twice_the_residual_over_rows_and_outputs_and_zero_without_a_target():
    output, target = values(5, 2)
    nodes = torch.tensor([4, 1])
    _, error = Regression(2).error(output, Batch(output, target[nodes], (), nodes))
    expected = torch.zeros_like(output)
    expected[nodes] = 2 * (output[nodes] - target[nodes]) / 4
    torch.testing.assert_close(error, expected)


def test_pooled_probabilities_add_up_and_pooled_values_are_averaged():
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(Classification(3).pool([one, other]).exp(), one.softmax(1) + other.softmax(1))
    torch.testing.assert_close(Regression(3).pool([one, other]), (one + other) / 2)


def test_a_narrow_output_has_its_loss_in_float32():
    output, target = values(6, 1, dtype=torch.float32)
    assert Regression().losses(output.bfloat16(), target).dtype == torch.float32


def test_a_figure_knows_which_way_is_better():
    task = Regression()
    assert [task.direction(name) for name in ("loss", "rmse", "mae", "r2")] == ["min", "min", "min", "max"]
    assert Classification(2).direction("accuracy") == "max"
    assert better("min", 1.0, 2.0) and better("max", 2.0, 1.0) and not better("max", math.nan, 1.0)


def test_a_task_is_its_options():
    assert Classification(3) == Classification(3) != Classification(4)
    assert Regression(1, "huber") == Regression(1, "huber") != Regression(1)
    assert hash(Regression()) == hash(Regression())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 0}, "1 output or more"),
        ({"criterion": "mse"}, "must be squared, absolute or huber, not 'mse'"),
        ({"delta": 0.0}, "delta must be positive"),
        ({"outputs": 2, "scale": (1.0,)}, "scale has 1 values for 2 outputs"),
        ({"scale": (0.0,)}, "scale must be positive"),
    ],
)
def test_options_that_cannot_be_are_told(options, message):
    with pytest.raises(UserError, match=message):
        Regression(**options)
