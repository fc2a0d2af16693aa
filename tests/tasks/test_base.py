"""A task's losses, errors and metrics are those of PyTorch and scikit-learn, however elements come in batches."""

import json
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from localearn.data import Batch
from localearn.errors import UserError
from localearn.tasks import KINDS, Autoencoding, Classification, MultiLabel, Regression, better, read_task

CRITERIA = ("squared", "absolute", "huber")


def measured(task, output, target, parts=1):
    """Return the loss and the metrics of outputs that come in so many batches."""
    totals, count = task.measure(output[:0], target[:0])
    assert all(not total.any() for total in totals.values()) and count == 0
    for rows in torch.arange(len(output)).chunk(parts):
        sums, elements = task.measure(output[rows], target[rows])
        totals, count = {name: totals[name] + sums[name] for name in totals}, count + elements
    whole = (output, target) if task.needs_whole else ()
    return {name: v.item() for name, v in task.finish({n: t / count for n, t in totals.items()}, *whole).items()}


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


def labelled(rows, outputs, seed=0, tied=False, share=0.3):
    """Return logits, of a few levels where they are tied, and zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(rows, outputs, generator=generator) < share).float()
    logits = torch.randn(rows, outputs, generator=generator, dtype=torch.float64) + target
    return (logits.mul(1.5).round() if tied else logits), target


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [2, 7, 101])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 3])
def test_binary_metrics_are_scikit_learns_ties_included(tied, rows, seed, parts):
    logits, target = labelled(rows, 1, seed, tied, share=0.5)
    target[0], target[1] = 0.0, 1.0
    found = measured(MultiLabel(), logits, target, parts)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target, logits), abs=1e-12)
    assert found["log_loss"] == found["loss"] == pytest.approx(metrics.log_loss(target, logits.sigmoid()), rel=1e-9)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(target, logits > 0))
    flat = measured(MultiLabel(), logits, target.squeeze(1), parts)
    assert flat == found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rows", "outputs", "k"), [(40, 3, 10), (25, 17, 10), (9, 5, 4), (60, 30, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_metrics_of_several_labels_are_scikit_learns_ties_included(tied, rows, outputs, k, seed):
    logits, target = labelled(rows, outputs, seed, tied)
    target[0], target[1] = 0.0, 1.0  # a row without a true label, and one of true labels alone
    found = measured(MultiLabel(outputs, k=k), logits, target, parts=3)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target, logits, average="macro"), abs=1e-12)
    columns = [metrics.log_loss(t, o.sigmoid()) for o, t in zip(logits.T, target.T, strict=True)]
    assert found["log_loss"] == pytest.approx(np.mean(columns), rel=1e-9)
    if k >= outputs:
        assert list(found) == ["loss", "auc", "log_loss"]
        return
    has = target.any(1)
    assert not has.all()
    assert list(found) == ["loss", f"recall@{k}", f"ndcg@{k}", "log_loss", "auc"]
    expected = metrics.ndcg_score(target[has].numpy(), logits[has].numpy(), k=k)
    assert found[f"ndcg@{k}"] == pytest.approx(expected, abs=1e-12)
    assert found[f"recall@{k}"] == pytest.approx(
        np.mean([recall(logits[row], target[row], k) for row in has.nonzero().flatten()])
    )


def recall(logits, target, k):
    """Return the share of the true labels among the k largest, the mean over the orders of equal ones, by counting."""
    level = sorted(logits.tolist(), reverse=True)[k - 1]
    places = k - int((logits > level).sum())
    equal = logits == level
    inside = target[logits > level].sum() + target[equal].sum() * places / equal.sum()
    return float(inside / target.sum())


def test_a_label_that_no_row_or_every_row_has_is_left_out_of_the_auc_and_without_any_it_is_nan():
    logits, target = labelled(30, 4)
    target[:, 1], target[:, 3] = 0.0, 1.0
    found = measured(MultiLabel(4), logits, target)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target[:, [0, 2]], logits[:, [0, 2]]), abs=1e-12)
    assert math.isnan(measured(MultiLabel(), logits[:, :1], torch.ones(30, 1))["auc"])


def test_the_auc_of_many_columns_is_taken_some_at_a_time(monkeypatch):
    logits, target = labelled(50, 9, tied=True)
    whole = measured(MultiLabel(9, k=0), logits, target)["auc"]
    monkeypatch.setattr("localearn.tasks.ranking._AT_ONCE", 100)
    assert measured(MultiLabel(9, k=0), logits, target)["auc"] == pytest.approx(whole, abs=1e-15)


def test_ranks_of_more_rows_than_a_float_counts_are_exact():
    rows = 300_001
    scores = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    target = (torch.arange(rows) >= rows - 3).float().unsqueeze(1)
    target[0] = 1
    assert measured(MultiLabel(), scores, target)["auc"] == pytest.approx(
        metrics.roc_auc_score(target, scores), abs=1e-12
    )


@pytest.mark.parametrize("criterion", ["squared", "bce"])
@pytest.mark.parametrize("parts", [1, 4])
def test_the_metrics_of_a_reconstruction_are_in_the_unit_before_it_was_normalised(criterion, parts):
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(0, 256, (13, 2, 3, 4), generator=generator).double()
    center, scale = ((10.0, 20.0), (50.0, 70.0)) if criterion == "squared" else ((0.0, 0.0), (255.0, 255.0))
    x = (raw - torch.tensor(center).view(2, 1, 1)) / torch.tensor(scale).view(2, 1, 1)
    target = x.flatten(1)
    output = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    task = Autoencoding(24, criterion, peak=255.0, center=center, scale=scale)
    seen = task.decode(output)
    shown = (output.sigmoid() if criterion == "bce" else output).view_as(raw)
    expected = shown * torch.tensor(scale).view(2, 1, 1) + torch.tensor(center).view(2, 1, 1)
    torch.testing.assert_close(seen, expected.flatten(1))
    found = measured(task, output, target, parts)
    error = metrics.mean_squared_error(raw.flatten(1), seen)
    assert found["mse"] == pytest.approx(error)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / error))
    assert list(found) == ["loss", "psnr", "mse"] and task.direction("psnr") == "max"
    reference = F.mse_loss if criterion == "squared" else F.binary_cross_entropy_with_logits
    assert found["loss"] == pytest.approx(reference(output, target).item())
    assert list(measured(Autoencoding(24, criterion), output, target)) == ["loss", "mse"]


def test_a_regression_with_a_peak_is_judged_by_its_psnr():
    output, target = values(41, 3)
    task = Regression(3, center=(1.0, 2.0, 3.0), scale=(20.0, 30.0, 40.0), peak=255.0)
    found = measured(task, output, target, 4)
    error = metrics.mean_squared_error(task.decode(target), task.decode(output))
    assert next(iter(task.metrics)).name == "psnr" and task.direction("psnr") == "max"
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / error))
    plain = measured(Regression(3, center=task.center, scale=task.scale), output, target, 4)
    assert {name: found[name] for name in plain} == plain


TASKS = [
    Classification(3),
    Regression(2, "huber", 0.5, (1.0, 2.0), (3.0, 4.0), 255.0),
    Regression(),
    MultiLabel(),
    MultiLabel(12, k=5),
    Autoencoding(12, "bce", 255.0, (0.0,), (255.0,)),
    Autoencoding(12, center=(1.0, 2.0, 3.0), scale=(1.0, 2.0, 3.0)),
]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_task_is_read_back_from_what_a_file_has_of_it(task):
    assert {type(task) for task in TASKS} <= set(KINDS.values())
    read = read_task("net.safetensors", json.loads(json.dumps(task.describe())))
    assert read == task and hash(read) == hash(task) and read.metrics[0].name == task.metrics[0].name


@pytest.mark.parametrize("task", [MultiLabel(3), MultiLabel(12), Autoencoding(3), Autoencoding(3, "bce")], ids=str)
def test_the_other_tasks_take_copies_of_the_rows_too_and_narrow_outputs(task):
    output, target = labelled(7, task.outputs)
    copies = torch.stack([output, output.flip(0)])
    found = task.losses(copies, target)
    assert found.shape == (2, 7)
    torch.testing.assert_close(found[0], task.losses(output, target))
    torch.testing.assert_close(found[0].mean(), task.loss(output, Batch(output, target)))
    assert task.losses(output.bfloat16(), target).dtype == torch.float32
    assert torch.equal(task.encode(target), target)
    logits = getattr(task, "criterion", "bce") == "bce"
    assert torch.equal(task.regressand(target), 4 * target - 2 if logits else target)
    _, error = task.error(output, Batch(output, target))
    if getattr(task, "criterion", "bce") == "bce":
        torch.testing.assert_close(error, (output.sigmoid() - target) / target.numel())


def test_a_metric_of_a_whole_split_needs_its_outputs():
    task = MultiLabel()
    sums, count = task.measure(torch.zeros(4, 1), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="auc is made of all outputs"):
        task.finish({name: total / count for name, total in sums.items()})
    assert task.needs_whole and not Regression().needs_whole


def test_a_regression_says_its_peak_only_where_it_has_one():
    """Fingerprints and checkpoints of former versions have the text."""
    assert str(Regression()) == "Regression(outputs=1, criterion='squared', delta=1.0, center=(), scale=())"
    assert "peak=255.0" in str(Regression(peak=255.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiLabel(0), "1 output or more"),
        (lambda: MultiLabel(3, k=-1), "k must be 1 or more"),
        (lambda: Autoencoding(0), "1 output or more"),
        (lambda: Autoencoding(criterion=cast("Any", "ce")), "criterion must be squared or bce, not 'ce'"),
        (lambda: Autoencoding(3, scale=(1.0, 1.0)), "scale has 2 values"),
        (lambda: Autoencoding(2, scale=(1.0, 0.0)), "scale must be positive"),
        (lambda: Autoencoding(2, peak=0.0), "peak must be positive"),
        (lambda: Regression(peak=-1.0), "peak must be positive"),
    ],
)
def test_options_of_the_other_tasks_that_cannot_be_are_told(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (MultiLabel(2), torch.tensor([[0.0, 1.0], [0.0, 2.0]]), "y holds 2 in row 1; zeros and ones"),
        (MultiLabel(2), torch.tensor([[0.0, math.nan]]), "y holds 1 of 2 values that are NaN"),
        (MultiLabel(2), torch.zeros(4, 3), r"shape \(4, 3\); floating-point \(N, 2\) is expected for MultiLabel"),
        (MultiLabel(2), torch.zeros(4), r"shape \(4,\); floating-point"),
        (MultiLabel(), torch.zeros(4, dtype=torch.long), "torch.int64"),
        (Regression(), torch.full((4, 1), math.inf), "NaN or infinite"),
        (Autoencoding(2, "bce"), torch.tensor([[-1.0, 0.5]]), "runs from -1 to 0.5.*use normalize=unit"),
    ],
)
def test_targets_that_a_task_cannot_take_are_told(task, target, message):
    with pytest.raises(UserError, match=message):
        task.check_target("y", target)


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (Regression(), torch.full((4, 1), 3.0), "y is 3 in every row, so there is nothing to learn"),
        (Regression(center=(10.0,), scale=(2.0,)), torch.zeros(4, 1), "y is 10 in every row"),
        (Regression(2), torch.tensor([[1.0, 2.0]] * 3), "y is the same in every row"),
        (MultiLabel(), torch.ones(4, 1), "y is 1 in every row, so there is nothing to learn"),
        (MultiLabel(2), torch.tensor([[1.0, 0.0]] * 3), "y is the same in every row"),
        (Autoencoding(2), torch.ones(4, 2), "y is the same in every row"),
    ],
)
def test_targets_from_which_nothing_is_learned_are_told(task, target, message):
    task.check_target("y", target)
    with pytest.raises(UserError, match=message):
        task.check_learnable("y", target)
    varied = target.clone()
    varied[0, 0] = 1 - varied[0, 0]
    task.check_learnable("y", varied)
