import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from localearn import CNN, MLP, MonoForward, Net, Unsupported, UserError
from localearn.testing import toy
from localearn.testing.probes import learn, phased, train


def array(layer, name):
    return layer.get_parameter(name).detach().numpy().copy()


def goodness_by_hand(trainer, k, h):
    """G_k = flatten(h_k) M_k^T, k = 0..L-1, with the readout's bias in the last."""
    if k == trainer.net.depth - 1:
        return h.flatten(1) @ trainer.net.readout.weight.T + trainer.net.readout.bias
    return h.flatten(1) @ trainer.projections[k].weight.T


def test_gradients_are_autograds_of_the_sum_of_local_losses(case):
    net, batch = case
    trainer = MonoForward(net)
    metrics = trainer.gradients(batch)
    h, losses = net.stem(batch.x), []
    for k in range(net.depth):
        h = net.block(k)(h.detach(), *batch.context)
        losses.append(F.cross_entropy(batch.rows(goodness_by_hand(trainer, k, h)), batch.y))
    parameters = list(trainer.parameters())
    for p, expected in zip(parameters, torch.autograd.grad(torch.stack(losses).sum(), parameters), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-14)
    for k, loss in enumerate(losses):
        torch.testing.assert_close(metrics[f"loss_{k + 1}"], loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).sum().detach(), rtol=1e-12, atol=0)


def test_steps_agree_with_numpy_straight_from_the_equations(vectors):
    """W_k += -eta dCE(h_k M_k^T, y)/dW_k and so on, h_k = relu(W_k h_{k-1} + b_k), as the paper has it."""
    torch.manual_seed(0)
    net = MLP(5, 3, widths=(6, 4)).double()
    trainer = MonoForward(net)
    x, onehot, eta = vectors.x.numpy(), np.eye(3)[vectors.y.numpy()], 0.3
    w = [array(net.block(k).op, "weight") for k in range(2)]
    b = [array(net.block(k).op, "bias") for k in range(2)]
    m = [array(trainer.projections[0], "weight"), array(net.readout, "weight")]
    c = array(net.readout, "bias")

    optimizer = torch.optim.SGD(trainer.parameters(), lr=eta)
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(vectors)
        optimizer.step()

        h = x
        for k in range(2):
            z = h @ w[k].T + b[k]
            out = np.maximum(z, 0)
            g = out @ m[k].T + (c if k == 1 else 0)
            p = np.exp(g - g.max(1, keepdims=True))
            e = (p / p.sum(1, keepdims=True) - onehot) / len(x)
            dz = (e @ m[k]) * (z > 0)
            m[k] = m[k] - eta * e.T @ out
            w[k] = w[k] - eta * dz.T @ h
            b[k] = b[k] - eta * dz.sum(0)
            if k == 1:
                c = c - eta * e.sum(0)
            h = out  # of the weights before the step, as all blocks see the same batch

    for k in range(2):
        np.testing.assert_allclose(array(net.block(k).op, "weight"), w[k], rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(array(net.block(k).op, "bias"), b[k], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(array(trainer.projections[0], "weight"), m[0], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(array(net.readout, "weight"), m[1], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(array(net.readout, "bias"), c, rtol=1e-11, atol=1e-14)


def test_bp_prediction_is_the_net_alone_and_ff_the_sum_of_all_goodness(case):
    net, batch = case
    trainer, summed = MonoForward(net), MonoForward(net, prediction="ff")
    summed.load_state_dict(trainer.state_dict())
    trainer.eval()
    torch.testing.assert_close(trainer.predict(batch.x, *batch.context), net(batch.x, *batch.context))
    expected = sum(goodness_by_hand(trainer, k, h) for k, h in enumerate(net.outputs(batch.x, *batch.context)))
    summed.eval()
    torch.testing.assert_close(summed.predict(batch.x, *batch.context), expected)


def test_the_last_projection_is_the_readout():
    net = MLP(6, 2, widths=(5, 4, 3))
    trainer = MonoForward(net)
    assert [p.weight.shape for p in trainer.projections] == [(2, 5), (2, 4)]
    assert all(p.bias is None for p in trainer.projections)
    h = torch.randn(7, 3)
    torch.testing.assert_close(trainer.goodness(2, h), net.readout(h))
    assert any(p is net.readout.weight for p in trainer.block_parameters(2))


def test_a_projection_reads_the_flattened_map():
    net = CNN((1, 4, 4), 2, channels=(3, 4))
    assert net.shapes[0] == (3, 2, 2)
    assert MonoForward(net).projections[0].weight.shape == (2, 12)


@pytest.mark.parametrize("prediction", ["bp", "ff"])
def test_greedy_is_training_one_block_net_after_another_on_cached_features(prediction):
    torch.manual_seed(0)
    net, batch = toy("mlp").net().double(), replace(toy("mlp").batch, x=toy("mlp").batch.x.double())
    trainer = MonoForward(net, schedule="greedy", prediction=prediction)
    first, second = copy.deepcopy(net.block(0)), copy.deepcopy(net.block(1))
    readout = nn.Linear(8, 2, bias=False).double()
    readout.load_state_dict(trainer.projections[0].state_dict())
    alone = Net([first], readout, input_shape=(6,))
    last = Net([second], copy.deepcopy(net.readout), input_shape=(8,))

    train(trainer, batch, 10, 0.05)
    train(MonoForward(alone), batch, 10, 0.05)
    features = first(batch.x).detach()
    train(MonoForward(last), replace(batch, x=features), 10, 0.05)

    for ours, theirs in ((net.block(0), first), (net.block(1), second), (net.readout, last.readout)):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(trainer.projections[0].weight, readout.weight, rtol=1e-12, atol=1e-15)
    of_first, of_second = trainer.phases()
    torch.testing.assert_close(of_second.predict(features), last(features))
    torch.testing.assert_close(of_first.predict(batch.x), alone(batch.x))


def test_a_greedy_phase_trains_its_block_and_freezes_those_before():
    model = nn.Sequential(
        *(nn.Dropout(0.5), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()),
        *(nn.Dropout(0.5), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    )
    trainer, x = MonoForward(Net.from_sequential(model), schedule="greedy"), toy("mlp").batch.x
    before, phase = trainer.phases()
    assert (before.width, phase.width) == (None, 5)
    trainer.train()
    phase.freeze()
    assert [module.training for module in model] == [False] * 5 + [True] * 3
    frozen = copy.deepcopy(trainer.net.block(0).state_dict())
    torch.testing.assert_close(phase.input(x), phase.input(x))  # no dropout in what is frozen
    learn(phase, replace(toy("mlp").batch, x=phase.input(x).detach()))
    assert all(torch.equal(value, frozen[name]) for name, value in trainer.net.block(0).state_dict().items())
    assert all(p.grad is None for p in (*trainer.net.block(0).parameters(), *trainer.projections.parameters()))
    trainer.train()
    before.freeze()
    assert all(module.training for module in model)


def test_the_phases_hold_every_parameter_once():
    for schedule in ("joint", "greedy"):
        trainer = MonoForward(toy("cnn").net(), schedule=schedule)
        held = [p for phase in trainer.phases() for p in phase.parameters]
        assert len(held) == len(set(held)) == len(list(trainer.parameters()))


def test_greedy_metrics_are_those_of_the_phases_block():
    trainer = MonoForward(toy("mlp").net(), schedule="greedy")
    names = [set(learn(phase, inputs)) for phase, inputs in phased(trainer, toy("mlp").batch)]
    assert names == [{"loss", "loss_1"}, {"loss", "loss_2"}]


def test_a_readout_that_is_no_projection_is_refused():
    net = MLP(6, 2, widths=(5,))
    net.readout = nn.Sequential(nn.ReLU(), net.readout)
    with pytest.raises(
        Unsupported, match="mono_forward's last projection is the readout, a Linear; MLP has a Sequential"
    ):
        MonoForward(net)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(UserError, match="prediction must be bp or ff, not 'sum'"):
        MonoForward(MLP(6, 2, widths=(5,)), prediction="sum")  # pyright: ignore[reportArgumentType]
