"""Layer collaboration in Forward-Forward (arXiv 2305.12393) against its equations in NumPy, derived by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from localearn import MLP, ForwardForward
from localearn.data import Batch

ROWS, FEATURES, CLASSES, WIDTHS = 5, 7, 3, (4, 6, 5)


def unit(h):
    """h over its root mean square, row by row."""
    return h / (np.sqrt((h**2).mean(1, keepdims=True)) + 1e-8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(weights, x, wrong, y, collaboration):
    """Return each block's loss and its gradient by W and b, for rows with true and then with wrong labels."""
    both = np.concatenate([np.concatenate([np.eye(CLASSES)[labels], x[:, CLASSES:]], axis=1) for labels in (y, wrong)])
    inputs, outputs, h = [], [], both
    for w, b in weights:
        inputs.append(unit(h))
        h = np.maximum(inputs[-1] @ w.T + b, 0)
        outputs.append(h)
    goodness = [(h**2).sum(1) for h in outputs]
    sign = np.repeat([1.0, -1.0], ROWS)  # true labels are to have much, wrong ones little
    found = []
    for k, (h, a) in enumerate(zip(outputs, inputs, strict=True)):
        others = {"none": [], "previous": range(k), "all": [j for j in range(len(weights)) if j != k]}[collaboration]
        gamma = sum((goodness[j] for j in others), np.zeros(2 * ROWS))  # a number for each row, and a constant
        margin = sign * (goodness[k] + gamma - WIDTHS[k])
        loss = np.log1p(np.exp(-margin)).mean()
        d = (-sign * sigmoid(-margin) / (2 * ROWS))[:, None] * 2 * h  # h is zero where the unit is off
        found.append((loss, d.T @ a, d.sum(0)))
    return found


@pytest.mark.parametrize(
    ("collaboration", "schedule"),  # but all and greedy, which is refused: a greedy block has no later ones
    [("none", "joint"), ("previous", "joint"), ("all", "joint"), ("none", "greedy"), ("previous", "greedy")],
)
def test_a_step_is_that_of_the_equations(collaboration, schedule):
    torch.manual_seed(0)
    net: Any = MLP(FEATURES, CLASSES, widths=WIDTHS).double()
    for block in net.blocks:
        torch.nn.init.normal_(block.op.bias, std=0.3)
    trainer = ForwardForward(net, schedule, collaboration=collaboration, peer_normalization=0.0, prediction="goodness")
    x, y = torch.rand(ROWS, FEATURES, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    torch.manual_seed(4)
    wrong = (y + torch.randint_like(y, 1, CLASSES)) % CLASSES
    weights = [(block.op.weight.detach().numpy(), block.op.bias.detach().numpy()) for block in net.blocks]
    expected = by_hand(weights, x.numpy(), wrong.numpy(), y.numpy(), collaboration)
    for phase in trainer.phases():
        torch.manual_seed(4)
        told = {}
        for part in [phase.gradients(Batch(x, y))]:
            for found in [part] if isinstance(part, dict) else part:
                told |= found
        for k, (loss, dw, db) in enumerate(expected):
            if f"loss_{k + 1}" in told:
                op = net.block(k).op
                assert told[f"loss_{k + 1}"].item() == pytest.approx(loss, rel=1e-12)
                np.testing.assert_allclose(op.weight.grad, dw, rtol=1e-9, atol=1e-13)
                np.testing.assert_allclose(op.bias.grad, db, rtol=1e-9, atol=1e-13)
    assert all(np.abs(dw).max() > 1e-4 for _, dw, _ in expected)  # or nothing would be told
    assert all(block.op.weight.grad is not None for block in net.blocks)


def test_a_collaboration_changes_the_losses_but_for_the_first_of_previous():
    torch.manual_seed(0)
    shapes = zip((FEATURES, *WIDTHS), WIDTHS, strict=False)
    weights = [(np.random.RandomState(1).randn(n, m), np.zeros(n)) for m, n in shapes]
    x, y, wrong = np.random.RandomState(2).rand(ROWS, FEATURES), np.array([0, 2, 1, 1, 0]), np.array([1, 0, 2, 0, 2])
    none, previous, every = (
        [loss for loss, *_ in by_hand(weights, x, wrong, y, c)] for c in ("none", "previous", "all")
    )
    assert none[0] == previous[0] != every[0]
    assert none[1] != previous[1] != every[1]
    assert previous[2] == every[2] != none[2]
