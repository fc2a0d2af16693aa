"""State feedback against NumPy, straight from the paper's equations, and where it is backpropagation."""

from typing import Any

import numpy as np
import pytest
import torch

from localearn import Backprop, Batch, Recurrent, Regression, StateFeedback, Transformer, cli, load_net
from localearn.data import adding, copy_memory
from localearn.errors import Unsupported
from localearn.nets.recurrent import RecurrentLayer
from localearn.nets.through_time import Diagonal
from localearn.testing.probes import gradients_of
from localearn.training.diagnostics import alignment_angles
from localearn.training.experiment import execute
from tests.helpers.conformance import Suite

CELLS: list[Any] = ["rnn", "gru", "lstm"]
N, T, WIDTHS = 3, 5, (5, 3)


def recurrent(cell: Any = "gru", **options: Any) -> Recurrent:
    torch.manual_seed(0)
    net = Recurrent((T, 2), 3, cell=cell, widths=WIDTHS, reads="positions", **options)
    return net.for_task(net.task).double()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, T, 2, dtype=torch.float64, generator=generator)
    return Batch(x, torch.randint(3, (N, T), generator=generator))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(cell, x, w, u, b, c):
    """Return a layer's states, (N, T, n), and of each step what its derivative needs."""
    n = u.shape[1]
    s, m, states, kept = np.zeros((N, n)), np.zeros((N, n)), [], []
    for t in range(T):
        i, r, before, memory = x[:, t] @ w.T + b, s @ u.T + c, s, m
        if cell == "rnn":
            s = np.tanh(i + r)
            gates = ()
        elif cell == "gru":
            (ir, iz, ig), (rr, rz, rg) = np.split(i, 3, -1), np.split(r, 3, -1)
            reset, z = sigmoid(ir + rr), sigmoid(iz + rz)
            new = np.tanh(ig + reset * rg)
            s = (1 - z) * new + z * s
            gates = (reset, z, new, rg)
        else:
            gates = tuple(
                f(a) for f, a in zip((sigmoid, sigmoid, np.tanh, sigmoid), np.split(i + r, 4, -1), strict=True)
            )
            let_in, forget, new, out = gates
            m = forget * m + let_in * new
            s = out * np.tanh(m)
            gates = (*gates, m)
        states.append(s)
        kept.append((before, memory, gates))
    return np.stack(states, 1), kept


def step_back(cell, g, s, before, memory, gates):
    """Return dL/d(W x + b) and dL/d(U s_{t-1} + c) of g = dL/ds_t, the state before and the memory being constants."""
    if cell == "rnn":
        d = g * (1 - s**2)
        return d, d
    if cell == "gru":
        reset, z, new, rg = gates
        d_z, d_new = g * (before - new) * z * (1 - z), g * (1 - z) * (1 - new**2)
        d_reset = d_new * rg * reset * (1 - reset)
        return np.concatenate([d_reset, d_z, d_new], -1), np.concatenate([d_reset, d_z, d_new * reset], -1)
    let_in, forget, new, out, m = gates
    d_m = g * out * (1 - np.tanh(m) ** 2)
    d = np.concatenate(
        [
            d_m * new * let_in * (1 - let_in),
            d_m * memory * forget * (1 - forget),
            d_m * let_in * (1 - new**2),
            g * np.tanh(m) * out * (1 - out),
        ],
        -1,
    )
    return d, d


@pytest.mark.parametrize("recursion", ["scan", "fft"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_is_numpys(cell, recursion):
    trainer, of = StateFeedback(recurrent(cell), recursion=recursion), batch()
    found = gradients_of(trainer, of)
    layers = [[p.detach().numpy() for p in trainer.net.block(k).parameters()] for k in range(2)]
    h, passes = of.x.numpy(), []
    for weights in layers:
        states, kept = forward(cell, h, *weights)
        passes.append((h, states, kept))
        h = states
    readout = trainer.net.readout
    v, bias = readout.weight.detach().numpy(), readout.bias.detach().numpy()  # pyright: ignore
    logits = h @ v.T + bias
    error = np.exp(logits - logits.max(-1, keepdims=True))
    error = (error / error.sum(-1, keepdims=True) - np.eye(3)[of.target.numpy()]) / (N * T)
    expected = {"net.readout.weight": np.einsum("ntc,nth->ch", error, h), "net.readout.bias": error.sum((0, 1))}
    local = error @ v
    for k in (1, 0):
        w, (x, states, kept) = layers[k][0], passes[k]
        a = np.arange(WIDTHS[k]) / (WIDTHS[k] - 1)
        totals, g, below = [np.zeros_like(p) for p in layers[k]], np.zeros((N, WIDTHS[k])), np.zeros_like(x)
        for t in reversed(range(T)):
            g = local[:, t] + g * a
            d_in, d_rec = step_back(cell, g, states[:, t], *kept[t])
            for total, part in zip(
                totals, (d_in.T @ x[:, t], d_rec.T @ kept[t][0], d_in.sum(0), d_rec.sum(0)), strict=True
            ):
                total += part
            below[:, t] = d_in @ w
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        expected |= {f"net.blocks.{k}.op.layer.{name}": value for name, value in zip(names, totals, strict=True)}
        local = below
    assert {f"all/{name}" for name in expected} == set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"all/{name}"].numpy(), value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_is_backpropagation_where_the_jacobian_is_that_diagonal():
    """A gated unit with constant gates is s_t = z s_{t-1} + (1 - z) new(x_t), of Jacobian diag(z)."""
    net, of = recurrent("gru"), batch()
    trainer = StateFeedback(net)
    layers = [layer for layer in net.modules() if isinstance(layer, RecurrentLayer)]
    with torch.no_grad():
        for layer, feedback in zip(layers, trainer.feedbacks, strict=True):
            n, torch_layer = layer.layer.hidden_size, layer.layer
            torch_layer.weight_hh_l0.zero_()
            torch_layer.weight_ih_l0[n : 2 * n] = 0
            z = (torch_layer.bias_ih_l0 + torch_layer.bias_hh_l0)[n : 2 * n].sigmoid()
            assert isinstance(feedback, Diagonal)
            feedback.diagonal.copy_(z)
    found, exact = gradients_of(trainer, of), gradients_of(Backprop(net), of)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_without_feedback_it_is_fully_truncated_and_by_the_nets_option_the_same_as_backprop(cell):
    of = batch()
    trainer = StateFeedback(recurrent(cell))
    by_rule = gradients_of(trainer, of)
    by_net = gradients_of(Backprop(recurrent(cell, through_time="diagonal")), of)
    for feedback in trainer.feedbacks:
        feedback.get_buffer("diagonal").zero_()
    without = gradients_of(trainer, of)
    truncated = gradients_of(Backprop(recurrent(cell, through_time="none")), of)
    for name in by_rule:
        assert torch.equal(by_rule[name], by_net[name])
        assert torch.equal(without[name], truncated[name])
    assert any(not torch.equal(by_rule[name], without[name]) for name in by_rule)


def test_the_net_is_left_as_it_was_and_its_state_has_no_feedback():
    net = recurrent()
    names = set(net.state_dict())
    trainer = StateFeedback(net, feedback="orthogonal")
    gradients_of(trainer, batch())
    assert set(net.state_dict()) == names
    assert {name for name in trainer.state_dict() if "feedbacks" in name} == {
        f"feedbacks.{k}.diagonal" for k in range(2)
    }
    exact = gradients_of(Backprop(net), batch())
    assert all(torch.equal(exact[name], g) for name, g in gradients_of(Backprop(recurrent()), batch()).items())


def test_block_by_block_it_has_the_same_bits():
    whole, parts = StateFeedback(recurrent()), StateFeedback(recurrent())
    whole.gradients(batch())
    for _ in parts.by_block(batch()):  # pyright: ignore
        pass
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)  # pyright: ignore


def test_what_it_does_not_serve_is_refused_with_what_would_work():
    with pytest.raises(Unsupported, match=r"Transformer has no recurrent layer; use net=gru.* algo=backprop"):
        StateFeedback(Transformer((4, 3), 2))
    with pytest.raises(Unsupported, match=r"Recurrent is built .* truncated derivatives.*net\.through_time=exact"):
        StateFeedback(recurrent(through_time="truncated"))


class TestOnTokens(Suite):
    """The suite on a recurrent net of every cell and every feedback that the README's own suite does not build."""

    kinds = ("recurrent",)

    def make(self, net):
        return StateFeedback(net, feedback="orthogonal", recursion="fft")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("feedback", ["linear", "gaussian", "orthogonal"])
def test_it_learns_language_and_values(cell, feedback):
    torch.manual_seed(0)
    copying, values = copy_memory(2, symbols=2, length=2, train_size=128), adding(6, train_size=128)
    for data in (copying, values):
        sizes = (data.input_shape, data.task.outputs)
        net = Recurrent(*sizes, vocabulary=data.vocabulary, cell=cell, widths=(8,)).for_task(data.task)
        assert isinstance(net.task, Regression) == (data is values)
        trainer = StateFeedback(net, feedback)
        optimizer = torch.optim.Adam(trainer.parameters(), lr=0.02)
        losses = []
        for of in [*data.batches("train", 128)] * 40:
            optimizer.zero_grad()
            losses.append(trainer.gradients(of)["loss"].item())
            optimizer.step()
        assert losses[-1] < 0.8 * losses[0]


def test_marks_before_the_last_window_teach_what_a_mark_is_but_for_truncated_derivatives():
    """Why truncation fails where marks stand at the start alone, and not where one may stand near the end."""

    def of_marks(rule):
        return gradients_of(rule, batch)["all/net.blocks.0.op.layer.weight_ih_l0"][:, 1].abs().max().item()

    def built(**options):
        torch.manual_seed(0)
        return Recurrent((12, 2), 1, widths=(6,), **options).for_task(data.task)

    for marked, taught in ((8, False), (12, True)):
        data = adding(12, train_size=64, marked=marked)
        (batch,) = data.batches("train", 64)
        for through_time in ("truncated", "none"):
            rule = Backprop(built(through_time=through_time, truncation=4))
            assert (of_marks(rule) > 0) == taught, (marked, through_time)
        assert of_marks(StateFeedback(built())) > 0 < of_marks(Backprop(built()))


def test_its_angles_are_to_the_exact_gradient_whatever_the_net_is_built_with():
    of, plain = batch(), recurrent()
    of = Batch(of.x.float(), of.target)
    by_rule = alignment_angles(StateFeedback(plain.float()), of)
    by_net = alignment_angles(Backprop(recurrent(through_time="diagonal").float()), of)
    assert by_rule == by_net and by_rule["angle_readout"] == pytest.approx(0, abs=0.1)
    assert all(1 < (by_rule[f"angle_{k}"] or 0) < 90 for k in (1, 2))


def test_a_run_by_command_and_one_by_python_have_the_same_bits_and_by_a_seed_the_same_feedback(tmp_path):
    small = ["dataset=adding", "dataset.steps=6", "dataset.train_size=96", "net.widths=[8,6]", "algo.feedback=gaussian"]
    quiet = ["progress=false", "energy.enabled=false", "device=cpu", f"out={tmp_path / 'command'}", "epochs=2"]
    config, choices = cli.compose(["algo=state_feedback", *small, *quiet])
    assert choices["recipe"] == "sequence"
    commanded = execute(config, choices)
    torch.manual_seed(0)
    data = adding(6, train_size=96)
    net = Recurrent((6, 2), 1, widths=(8, 6)).for_task(data.task)
    called = StateFeedback(net, feedback="gaussian").fit(data, epochs=2, device="cpu", out=tmp_path / "python")
    assert called.test_loss == commanded.test_loss
    loaded = load_net(tmp_path / "command").state_dict()
    assert net.state_dict().keys() == loaded.keys()
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())
