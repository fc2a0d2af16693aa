import pytest
import torch
from torch import nn

from localearn import MLP, Batch, ForwardGradient, UserError
from localearn.testing import toy
from localearn.trainers.estimators import forward_gradient
from tests.helpers.conformance import BASIC, Suite


class TestActivityConformance(Suite):
    runs_on = BASIC

    def make(self, net):
        return ForwardGradient(net, guess="local")


class TestWeightConformance(Suite):
    runs_on = BASIC[:-1]

    def make(self, net):
        return ForwardGradient(net, space="weight", guess="local")


def setup(space):
    torch.manual_seed(0)
    rule = ForwardGradient(MLP((6,), 3, widths=(7, 5, 4), activation="tanh").double(), space=space, guess="local")
    return rule, Batch(torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,)))


def heads(rule):
    assert rule.guess is not None
    return list(rule.guess.heads)


def local_and_true(rule, data):
    """Return each block's z, its local auxiliary loss and the net's loss, all differentiable by z and the weights."""
    net, h, zs, auxiliary = rule.net, data.x, [], []
    for k in range(net.depth):
        z = net.block(k).op(h)
        zs.append(z)
        h = net.block(k).post(z)
        if k < net.depth - 1:
            auxiliary.append(nn.functional.cross_entropy(heads(rule)[k](h), data.y))
    loss = nn.functional.cross_entropy(net.readout(h), data.y)
    return zs, [*auxiliary, loss], loss


def test_activity_space_projects_each_row_on_its_guess(monkeypatch):
    rule, data = setup("activity")
    found = []
    monkeypatch.setattr(forward_gradient, "accumulate_grad", lambda value, delta: found.append(delta.detach()))
    rule.gradients(data)
    zs, auxiliary, loss = local_and_true(rule, data)
    true = torch.autograd.grad(loss, zs, retain_graph=True)
    for z, own, gradient, delta in zip(zs, auxiliary, true, found[1:], strict=True):
        (v,) = torch.autograd.grad(own, z, retain_graph=True)
        expected = (gradient * v).sum(1, keepdim=True) / v.square().sum(1, keepdim=True) * v
        torch.testing.assert_close(delta, expected)


def test_activity_space_projects_a_graphs_batch_on_its_guess(monkeypatch):
    torch.manual_seed(0)
    data = toy("gcn").batch
    data = Batch(data.x.double(), data.y, data.context, data.nodes)
    rule = ForwardGradient(toy("gcn").net().double(), guess="local")
    found = []
    monkeypatch.setattr(forward_gradient, "accumulate_grad", lambda value, delta: found.append(delta.detach()))
    rule.gradients(data)
    z = rule.net.block(0).op(data.x, *data.context).detach().requires_grad_()
    h = rule.net.block(0).post(z)
    (v,) = torch.autograd.grad(nn.functional.cross_entropy(data.rows(heads(rule)[0](h)), data.y), z)
    logits = rule.net.readout(rule.net.block(1)(rule.net.block(0).post(z), *data.context))
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(data.rows(logits), data.y), z)
    torch.testing.assert_close(found[1], (gradient * v).sum() / v.square().sum() * v)


def test_weight_space_projects_each_block_on_its_guess():
    rule, data = setup("weight")
    rule.gradients(data)
    _, auxiliary, loss = local_and_true(rule, data)
    for k, own in enumerate(auxiliary):
        weights = list(rule.net.blocks[k].parameters())
        weights += list(rule.net.readout.parameters()) if k == rule.net.depth - 1 else []
        v = torch.autograd.grad(own, weights, retain_graph=True)
        gradient = torch.autograd.grad(loss, weights, retain_graph=True)
        along = sum((g * u).sum() for g, u in zip(gradient, v, strict=True))
        length = sum(u.square().sum() for u in v)
        for p, u in zip(weights, v, strict=True):
            torch.testing.assert_close(p.grad, along / length * u)


@pytest.mark.parametrize("space", ["weight", "activity"])
def test_last_block_and_readout_follow_their_gradient_and_heads_theirs(space):
    rule, data = setup(space)
    rule.gradients(data)
    _, auxiliary, loss = local_and_true(rule, data)
    last = [*rule.net.blocks[-1].parameters(), *rule.net.readout.parameters()]
    for p, expected in zip(last, torch.autograd.grad(loss, last, retain_graph=True), strict=True):
        torch.testing.assert_close(p.grad, expected)
    for head, own in zip(heads(rule), auxiliary, strict=False):
        for p, expected in zip(
            head.parameters(), torch.autograd.grad(own, list(head.parameters()), retain_graph=True), strict=True
        ):
            torch.testing.assert_close(p.grad, expected)


@pytest.mark.parametrize("space", ["weight", "activity"])
def test_a_flat_local_loss_moves_nothing(space):
    """Where a guess is zero there is no direction; the estimate is zero, not a quotient of zeros."""
    rule, data = setup(space)
    with torch.no_grad():
        rule.get_parameter("guess.heads.0.weight").zero_()
    rule.gradients(data)
    first, second = (rule.net.get_parameter(f"blocks.{k}.op.weight").grad for k in (0, 1))
    assert first is not None and first.abs().max() == 0
    assert second is not None and second.abs().max() > 0


def test_refuses_contradictions():
    net = MLP((6,), 3, widths=(7,))
    with pytest.raises(UserError, match="one direction for each block; use tangents=1, not 4"):
        ForwardGradient(net, guess="local", tangents=4)
    with pytest.raises(UserError, match="guess must be noise or local or null, not 'global'"):
        ForwardGradient(net, guess="global")  # pyright: ignore[reportArgumentType]
