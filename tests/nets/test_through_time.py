"""Derivatives through time: the fast ones are those of a sequential recursion, backward and forward."""

from typing import Any

import pytest
import torch
from torch.func import functional_call, jvp
from torch.utils._python_dispatch import TorchDispatchMode

from localearn import Batch, DirectFeedbackAlignment, ForwardGradient, MonoForward, Recurrent
from localearn.errors import UserError
from localearn.nets.recurrent import RecurrentLayer
from localearn.nets.through_time import RECURSIONS, Detached, Diagonal, ThroughTime, Truncated
from localearn.testing.probes import gradients_of

CELLS: list[Any] = ["rnn", "gru", "lstm"]
FEEDBACKS: list[Any] = ["linear", "gaussian", "orthogonal"]
DERIVATIVES: dict[str, Any] = {
    "exact": lambda n: None,
    "truncated": lambda n: Truncated(3),
    "none": lambda n: Detached(),
    **{feedback: lambda n, feedback=feedback: Diagonal(n, feedback) for feedback in FEEDBACKS},
}
N, T, N_IN = 3, 7, 2


def matrix_of(time: Diagonal, n: int) -> torch.Tensor:
    """Return A, (n, n), of which a row vector times A is what comes back."""
    a = time.diagonal
    if a.dim() == 1:
        return torch.diag(a)
    turns = [torch.tensor([[c, s], [-s, c]]) for c, s in a.tolist()]
    return torch.block_diag(*turns).to(a)[:n, :n]


def layer_of(cell: Any, n: int = 5, time: ThroughTime | None = None, seed: int = 0) -> RecurrentLayer:
    torch.manual_seed(seed)
    layer = RecurrentLayer(cell, N_IN, n)
    layer.through_time = time
    return layer.double()


def rows(n: int = N_IN, seed: int = 1) -> torch.Tensor:
    return torch.randn(N, T, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("n", [1, 2, 5, 6])
@pytest.mark.parametrize("steps", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("recursion", RECURSIONS)
def test_the_recursion_at_once_is_the_sequential_one(recursion, steps, n, feedback):
    torch.manual_seed(0)
    time = Diagonal(n, feedback).double()
    local, a = torch.randn(2, steps, n, dtype=torch.float64), matrix_of(time, n)
    g, expected = torch.zeros(2, n, dtype=torch.float64), []
    for t in reversed(range(steps)):
        g = local[:, t] + g @ a
        expected.append(g)
    found = RECURSIONS[recursion](local, time.diagonal)
    torch.testing.assert_close(found, torch.stack(expected[::-1], 1), rtol=1e-12, atol=1e-12)


def test_the_diagonals_are_as_they_are_said_to_be():
    torch.manual_seed(0)
    assert Diagonal(5).diagonal.tolist() == [0, 0.25, 0.5, 0.75, 1] and Diagonal(1).diagonal.tolist() == [1]
    gaussian = Diagonal(20000, "gaussian").diagonal
    # Of a normal distribution cut off at two deviations: 0.88 of its deviation is left; 8 standard errors of the mean.
    assert gaussian.abs().max() <= 1 and gaussian.mean().abs() < 0.025 and abs(gaussian.std() - 0.44) < 0.02
    for n in (4, 5):
        a = matrix_of(Diagonal(n, "orthogonal").double(), n)
        torch.testing.assert_close(a @ a.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-6)
    assert not torch.equal(Diagonal(4, "orthogonal").diagonal, Diagonal(4, "orthogonal").diagonal)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_what_a_layer_computes_stays(name, cell):
    layer, x = layer_of(cell, time=DERIVATIVES[name](5)), rows()
    expected = layer.layer(x)[0]
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_backward_mode_is_that_of_the_recursion_step_by_step(name, cell):
    time = DERIVATIVES[name](5)
    layer, x = layer_of(cell, time=time), rows().requires_grad_()
    along = rows(5, seed=2)
    wanted = [x, *layer.layer.parameters()]
    found = torch.autograd.grad((layer(x) * along).sum(), wanted)
    expected = torch.autograd.grad((layer._step_by_step(x) * along).sum(), wanted)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    layer.through_time = None
    exact = torch.autograd.grad((layer(x) * along).sum(), wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True)) == (name == "exact")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_forward_mode_has_the_same_jacobian_as_backward_mode(name, cell):
    layer, x, along = layer_of(cell, time=DERIVATIVES[name](5)), rows(), rows(5, seed=2)
    weights = {f"layer.{name}": p.detach() for name, p in layer.layer.named_parameters()}
    tangents = {name: torch.randn_like(p) for name, p in weights.items()}
    _, moved = jvp(lambda w: functional_call(layer, w, (x,)), (weights,), (tangents,))  # pyright: ignore
    back = torch.autograd.grad((layer(x) * along).sum(), list(layer.layer.parameters()))
    there = sum((g * v).sum() for g, v in zip(back, tangents.values(), strict=True))
    torch.testing.assert_close((moved * along).sum(), there, rtol=1e-9, atol=1e-10)


def test_a_step_sends_nothing_back_past_its_window_and_by_a_diagonal_what_a_says():
    x, rest = rows().requires_grad_(), {}
    for name in ("truncated", "none", "linear"):
        layer = layer_of("rnn", time=DERIVATIVES[name](5))
        states = layer(x)
        (back,) = torch.autograd.grad(states[:, -1].sum(), x)
        rest[name] = [t for t in range(T) if back[:, t].abs().max() > 0]
        if name == "linear":  # whatever the weights to the states are
            expected = torch.linspace(0, 1, 5).double() ** 2 * (1 - states[:, -3] ** 2) @ layer.layer.weight_ih_l0
            torch.testing.assert_close(back[:, -3], expected, rtol=1e-9, atol=1e-12)
    assert rest == {"truncated": [6], "none": [6], "linear": list(range(T))}


@pytest.mark.parametrize("rule", [MonoForward, DirectFeedbackAlignment, ForwardGradient])
def test_every_rule_has_the_derivative_that_the_net_is_built_with(rule):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(4, (2, 3, T), generator=generator)
    found = {}
    for name in ("exact", "truncated", "none", "diagonal"):
        torch.manual_seed(0)
        net = Recurrent((T,), 4, vocabulary=4, cell="gru", widths=(5, 4), through_time=name, truncation=2).double()
        trainer = rule(net)
        torch.manual_seed(3)
        gradients = gradients_of(trainer, Batch(x, y))
        found[name] = torch.cat([g.flatten() for key, g in gradients.items() if "diagonal" not in key])
    assert len({tuple(g.tolist()) for g in found.values()}) == 4


def test_the_derivative_travels_with_the_nets_weights():
    torch.manual_seed(0)
    options: dict[str, Any] = {"widths": (5, 4), "through_time": "diagonal", "feedback": "gaussian"}
    net, other = (Recurrent((T, 2), 3, **options) for _ in range(2))
    other.load_state_dict(net.state_dict())
    for ours, theirs in zip(net.modules(), other.modules(), strict=True):
        if isinstance(ours, Diagonal) and isinstance(theirs, Diagonal):
            assert torch.equal(ours.diagonal, theirs.diagonal)
    plain = Recurrent((T, 2), 3, widths=(5, 4)).state_dict()
    assert {name for name in net.state_dict() if name not in plain} == {
        f"blocks.{k}.op.through_time.diagonal" for k in range(2)
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"through_time": "diagnal"}, "no derivative through_time 'diagnal'; did you mean 'diagonal'"),
        ({"through_time": "truncated", "truncation": 0}, "truncation must be 1 or more steps, not 0"),
        ({"feedback": "linar"}, "no feedback 'linar'; did you mean 'linear'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Recurrent((T, 2), 3, **options)


class Counted(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cell", ["rnn", "gru"])  # torch's LSTM is one operation on some processors, whatever T
def test_the_way_back_takes_a_number_of_operations_that_hardly_grows_with_the_steps(cell):
    layer, counts = layer_of(cell), {}
    for name in ("exact", "none", "linear", "orthogonal"):
        layer.through_time = DERIVATIVES[name](5)
        layer.double()
        for steps in (16, 64):
            x = torch.randn(2, steps, N_IN, dtype=torch.float64, requires_grad=True)
            states = layer(x)
            with Counted() as operations:
                states.sum().backward()
            counts[name, steps] = operations.count
    assert counts["exact", 64] > 3 * counts["exact", 16]
    assert counts["none", 64] == counts["none", 16]
    for name in ("linear", "orthogonal"):  # two more doublings
        more = counts[name, 64] - counts[name, 16]
        assert 0 < more <= 2 * 8 and counts[name, 64] < counts["exact", 16]
