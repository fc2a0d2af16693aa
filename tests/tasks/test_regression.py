"""Regression's losses, error and metrics are those of PyTorch and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from localearn.data import Batch
from localearn.errors import UserError
from localearn.tasks import Regression
from tests.helpers.elements import measured, values

CRITERIA = ("squared", "absolute", "huber")


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


def test_a_single_output_takes_targets_without_a_dimension_of_their_own():
    output, target = values(6, 1)
    task = Regression()
    assert torch.equal(task.losses(output, target.squeeze(1)), task.losses(output, target))
    assert measured(task, output, target.squeeze(1)) == measured(task, output, target)


def test_the_error_of_values_is_twice_the_residual_over_rows_and_outputs_and_zero_without_a_target():
    output, target = values(5, 2)
    nodes = torch.tensor([4, 1])
    _, error = Regression(2).error(output, Batch(output, target[nodes], (), nodes))
    expected = torch.zeros_like(output)
    expected[nodes] = 2 * (output[nodes] - target[nodes]) / 4
    torch.testing.assert_close(error, expected)


def test_a_narrow_output_has_its_loss_in_float32():
    output, target = values(6, 1, dtype=torch.float32)
    assert Regression().losses(output.bfloat16(), target).dtype == torch.float32


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


def test_a_regression_with_a_peak_is_judged_by_its_psnr():
    output, target = values(41, 3)
    task = Regression(3, center=(1.0, 2.0, 3.0), scale=(20.0, 30.0, 40.0), peak=255.0)
    found = measured(task, output, target, 4)
    error = metrics.mean_squared_error(task.decode(target), task.decode(output))
    assert next(iter(task.metrics)).name == "psnr" and task.direction("psnr") == "max"
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / error))
    plain = measured(Regression(3, center=task.center, scale=task.scale), output, target, 4)
    assert {name: found[name] for name in plain} == plain


def test_a_regression_says_its_peak_only_where_it_has_one():
    """Fingerprints and checkpoints of former versions have the text."""
    assert str(Regression()) == "Regression(outputs=1, criterion='squared', delta=1.0, center=(), scale=())"
    assert "peak=255.0" in str(Regression(peak=255.0))
