"""Mono-Forward with the input's own projection, its greedy schedule, and both predictions."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import localearn
from localearn import MLP, Batch, MonoForward
from localearn.testing import KINDS
from localearn.testing.probes import learn
from tests.helpers.conformance import BASIC, Suite

# Codes and tokens are no values that could be projected.
PROJECTED = [kind for kind in KINDS if kind != "deepfm"], ("classes", "values", "multilabel", "autoencoding")


class TestInputProjectionJoint(Suite):
    runs_on = BASIC
    kinds, tasks = PROJECTED

    def make(self, net):
        return MonoForward(net, prediction="ff", input_projection=True)


class TestInputProjectionGreedy(Suite):
    runs_on = BASIC
    kinds, tasks = PROJECTED

    def make(self, net):
        return MonoForward(net, schedule="greedy", input_projection=True)


def made(seed=0, **options):
    torch.manual_seed(seed)
    return MonoForward(MLP(8, 3, widths=(7, 6)).double(), **options)


def rows(n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, 3, (n,), generator=generator))


def goodnesses(trainer, x):
    """G_0, G_1, ..., each block's input detached."""
    found, h = [x @ trainer.input_projection.weight.T], x
    for k in range(trainer.net.depth):
        h = trainer.net.block(k)(h.detach())
        found.append(trainer.goodness(k, h))
    return found


def test_gradient_is_autograd_of_the_sum_of_the_local_losses():
    trainer, batch = made(input_projection=True), rows()
    metrics = trainer.gradients(batch)
    losses = [F.cross_entropy(goodness, batch.y) for goodness in goodnesses(trainer, batch.x)]
    parameters = list(trainer.phases()[0].parameters)
    assert set(parameters) == set(trainer.parameters())
    for p, expected in zip(parameters, torch.autograd.grad(torch.stack(losses).sum(), parameters), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).sum().detach(), rtol=1e-12, atol=0)
    assert [metrics[f"loss_{k}"].item() for k in range(3)] == pytest.approx([loss.item() for loss in losses])


def test_several_steps_agree_with_numpy():
    trainer = made(input_projection=True)
    own = {name: p.detach().numpy().copy() for name, p in trainer.named_parameters()}
    w = [own["net.blocks.0.op.weight"], own["net.blocks.1.op.weight"]]
    b = [own["net.blocks.0.op.bias"], own["net.blocks.1.op.bias"]]
    m = [own["input_projection.weight"], own["projections.0.weight"], own["net.readout.weight"]]
    c = own["net.readout.bias"]
    optimizer = torch.optim.SGD(trainer.phases()[0].parameters, lr=0.3)
    for seed in range(5):
        batch = rows(seed=seed)
        optimizer.zero_grad()
        trainer.gradients(batch)
        optimizer.step()
        h, y = batch.x.numpy(), np.eye(3)[batch.y]
        for k in range(3):
            if k:
                before = h
                h = np.maximum(before @ w[k - 1].T + b[k - 1], 0)
            goodness = h @ m[k].T + (c if k == 2 else 0)
            p = np.exp(goodness - goodness.max(1, keepdims=True))
            error = (p / p.sum(1, keepdims=True) - y) / len(y)
            if k:
                delta = error @ m[k] * (h > 0)
                w[k - 1] -= 0.3 * delta.T @ before
                b[k - 1] -= 0.3 * delta.sum(0)
            m[k] -= 0.3 * error.T @ h
            c -= 0.3 * error.sum(0) if k == 2 else 0
    state = trainer.state_dict()
    for name, expected in (
        ("input_projection.weight", m[0]),
        ("projections.0.weight", m[1]),
        ("net.readout.weight", m[2]),
        ("net.readout.bias", c),
        ("net.blocks.0.op.weight", w[0]),
        ("net.blocks.1.op.weight", w[1]),
        ("net.blocks.1.op.bias", b[1]),
    ):
        np.testing.assert_allclose(state[name], expected, rtol=1e-10, err_msg=name)


def test_greedy_trains_the_input_s_projection_alone_and_first():
    trainer, batch = made(schedule="greedy", input_projection=True), rows()
    phases = trainer.phases()
    assert [phase.name for phase in phases] == ["input", "block 1", "block 2"]
    assert [phase.width for phase in phases] == [None, None, 7]
    joint = made(input_projection=True)
    joint.gradients(batch)
    for phase in phases:
        trainer.zero_grad(set_to_none=True)
        learn(phase, Batch(phase.input(batch.x).detach(), batch.y))
        trained = {name for name, p in trainer.named_parameters() if p.grad is not None}
        assert {id(trainer.get_parameter(name)) for name in trained} == {id(p) for p in phase.parameters}
        for name in trained:
            torch.testing.assert_close(trainer.get_parameter(name).grad, joint.get_parameter(name).grad)


@pytest.mark.parametrize("prediction", ["bp", "ff"])
def test_predictions(prediction):
    trainer, batch = made(prediction=prediction, schedule="greedy", input_projection=True), rows()
    g = goodnesses(trainer, batch.x)
    ff = prediction == "ff"
    torch.testing.assert_close(trainer.predict(batch.x), g[0] + g[1] + g[2] if ff else g[2])
    told = [g[0], g[0] + g[1] if ff else g[1], g[2]]  # a later phase sees features, and not the goodness before
    for phase, expected in zip(trainer.phases(), told, strict=True):
        torch.testing.assert_close(phase.predict(phase.input(batch.x)), expected)


def test_greedy_stops_each_phase_at_its_own_best_and_computes_features_once(monkeypatch):
    data = localearn.load("digits")
    torch.manual_seed(0)
    trainer = MonoForward(MLP(data.input_shape, 10, widths=(32, 32)), schedule="greedy", input_projection=True)
    seen = []
    compute = trainer.net.hidden

    def counted(x, *context, depth=None):
        if depth == 1:
            seen.append(len(x))
        return compute(x, *context, depth=depth)

    monkeypatch.setattr(trainer.net, "hidden", counted)
    record = trainer.fit(data, epochs=15, patience=2, optim=functools.partial(torch.optim.Adam, lr=0.005))
    assert sum(seen) == data.sizes["train"] + data.sizes["val"]
    accuracies = [[line["val_accuracy"] for line in record.history if line["stage"] == stage] for stage in range(3)]
    assert [len(stage) for stage in accuracies] == [stopped_at(stage, 15, patience=2) for stage in accuracies]
    assert len(record.history) < 3 * 15
    assert record.test_accuracy is not None and record.test_accuracy > 0.9
    # The whole net's accuracy is the last stage's best: its weights are the ones that were kept.
    assert record.val_accuracy == max(accuracies[2])


def stopped_at(accuracies, epochs, patience):
    """Return the epoch after which early stopping ends a stage."""
    best, stale = -1.0, 0
    for epoch, accuracy in enumerate(accuracies, 1):
        best, stale = (accuracy, 0) if accuracy > best + 1e-4 else (best, stale + 1)
        if stale == patience:
            return epoch
    return epochs
