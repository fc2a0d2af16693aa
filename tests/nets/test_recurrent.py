"""Recurrent nets: step by step they are torch's own layers, and rules reach a layer as a block."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call, jvp, vmap

from localearn import Batch, FeedbackAlignment, MonoForward, Recurrent
from localearn.errors import Unsupported, UserError
from localearn.nets.recurrent import RecurrentLayer
from localearn.testing.probes import gradients_of

TOKENS, POSITIONS = 7, 5
CELLS = ["rnn", "gru", "lstm"]


def recurrent(cell: Any = "gru", **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent((POSITIONS,), TOKENS, vocabulary=TOKENS, cell=cell, widths=(6, 4), **options).double()


def along_tangents(fn: Any, at: Any, tangents: Any) -> Any:
    """Return a function's value and its derivative along tangents."""
    return jvp(fn, (at,), (tangents,))


def tokens():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(TOKENS, (2, 4, POSITIONS), generator=generator)
    return Batch(x, y)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_numpys_recurrence(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 3, 4).double()
    x = torch.randn(2, POSITIONS, 3, dtype=torch.float64)
    w, u, b, c = (p.detach().numpy() for p in layer.parameters())
    s, m, states = np.zeros((2, 4)), np.zeros((2, 4)), []
    for t in range(POSITIONS):
        i, r = x[:, t].numpy() @ w.T + b, s @ u.T + c
        if cell == "rnn":
            s = np.tanh(i + r)
        elif cell == "gru":
            (ir, iz, ig), (rr, rz, rg) = np.split(i, 3, -1), np.split(r, 3, -1)
            z = sigmoid(iz + rz)
            s = (1 - z) * np.tanh(ig + sigmoid(ir + rr) * rg) + z * s
        else:
            let_in, forget, new, out = np.split(i + r, 4, -1)
            m = sigmoid(forget) * m + sigmoid(let_in) * np.tanh(new)
            s = sigmoid(out) * np.tanh(m)
        states.append(s)
    np.testing.assert_allclose(layer(x).detach().numpy(), np.stack(states, 1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_it_is_the_same_under_forward_mode_and_vmap(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 3, 4).double()
    x, along = torch.randn(2, 2, POSITIONS, 3, dtype=torch.float64)
    torch.testing.assert_close(vmap(layer)(torch.stack([x, along])), torch.stack([layer(x), layer(along)]))
    value, derivative = along_tangents(layer, x, along)
    torch.testing.assert_close(value, layer(x))
    step = 1e-6
    difference = (layer(x + step * along) - layer(x - step * along)) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=1e-8)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    tangents = {name: torch.randn_like(p) for name, p in weights.items()}
    value, derivative = along_tangents(lambda w: functional_call(layer, w, (x,)), weights, tangents)
    torch.testing.assert_close(value, layer(x))
    up, down = (
        functional_call(layer, {name: w + sign * step * tangents[name] for name, w in weights.items()}, (x,))
        for sign in (1, -1)
    )
    torch.testing.assert_close(derivative, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_an_output_depends_on_no_later_token(cell):
    net, x = recurrent(cell), tokens().x
    assert not net.looks_ahead()
    changed = x.clone()
    changed[:, 3] = (changed[:, 3] + 1) % TOKENS
    moved = (net(changed) - net(x)).abs().amax(-1).amax(0) > 0
    assert moved.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("cell", CELLS)
def test_a_local_rule_differentiates_a_layer_through_time_and_no_further(cell):
    net, batch = recurrent(cell), tokens()
    trainer = MonoForward(net)
    found = gradients_of(trainer, batch)
    for k in range(net.depth):
        h = net.block(k)(net.hidden(batch.x, depth=k).detach())
        loss = torch.nn.functional.cross_entropy(trainer.goodness(k, h).flatten(0, 1), batch.target.flatten())
        names = [name for name, _ in net.block(k).named_parameters()]
        expected = torch.autograd.grad(loss, [net.block(k).get_parameter(name) for name in names])
        for name, gradient in zip(names, expected, strict=True):
            torch.testing.assert_close(found[f"all blocks/net.blocks.{k}.{name}"], gradient)


def test_values_are_classified_by_the_last_state_or_the_mean():
    x = torch.randn(3, POSITIONS, 2)
    shapes: dict[Any, tuple[int, ...]] = {"auto": (3, 4), "pooled": (3, 4), "positions": (3, POSITIONS, 4)}
    for reads, shape in shapes.items():
        net = Recurrent((POSITIONS, 2), 4, widths=[5], reads=reads)
        assert net(x).shape == shape and net.task.has_classes == (reads != "positions")
    last = Recurrent((POSITIONS, 2), 4, widths=[5])
    torch.testing.assert_close(last(x), last.readout(last.hidden(x)[:, -1]))


def test_rules_that_go_around_linear_maps_refuse_it_and_say_what_would_work():
    with pytest.raises(Unsupported, match=r"Recurrent's blocks\.0\.op.* algo=direct_feedback"):
        FeedbackAlignment(recurrent())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "gruu"}, "no cell 'gruu'; did you mean 'gru'"),
        ({"embedding": 0}, "embedding must be positive whole numbers, not 0"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        recurrent(**options)
