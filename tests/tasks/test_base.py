"""A task's losses, errors and metrics are those of PyTorch and scikit-learn, however elements come in batches."""

import json
import math
from typing import Any, cast

import pytest
import torch

from localearn.data import Batch
from localearn.errors import UserError
from localearn.tasks import KINDS, Autoencoding, Classification, MultiLabel, Regression, better, read_task
from tests.helpers.elements import labelled, values

CRITERIA = ("squared", "absolute", "huber")


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


def test_pooled_probabilities_add_up_and_pooled_values_are_averaged():
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(Classification(3).pool([one, other]).exp(), one.softmax(1) + other.softmax(1))
    torch.testing.assert_close(Regression(3).pool([one, other]), (one + other) / 2)


def test_a_figure_knows_which_way_is_better():
    task = Regression()
    assert [task.direction(name) for name in ("loss", "rmse", "mae", "r2")] == ["min", "min", "min", "max"]
    assert Classification(2).direction("accuracy") == "max"
    assert better("min", 1.0, 2.0) and better("max", 2.0, 1.0) and not better("max", math.nan, 1.0)


def test_a_task_is_its_options():
    assert Classification(3) == Classification(3) != Classification(4)
    assert Regression(1, "huber") == Regression(1, "huber") != Regression(1)
    assert hash(Regression()) == hash(Regression())


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
    with pytest.raises(ValueError, match="auc needs all outputs"):
        task.finish({name: total / count for name, total in sums.items()})
    assert task.needs_whole and not Regression().needs_whole


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
