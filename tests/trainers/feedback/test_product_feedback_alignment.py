import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from localearn import MLP, Backprop, Batch, ProductFeedbackAlignment, UserError
from localearn.trainers.feedback.paths import PathFunction


def net64(*widths: int) -> MLP:
    torch.manual_seed(0)
    return MLP((4,), 3, widths=widths).double()


def align(trainer: ProductFeedbackAlignment) -> None:
    """Set R to the pseudoinverse of B times W, group by group, so that B R = W."""
    for name, path in trainer.named_paths():
        weight, fixed, plastic = (
            trainer.net.get_parameter(name),
            path.get_buffer("fixed"),
            path.get_parameter("plastic"),
        )
        groups = len(plastic) // fixed.shape[1]
        inverse = torch.linalg.pinv(fixed.unflatten(0, (groups, -1)))
        with torch.no_grad():
            plastic.copy_((inverse @ weight.flatten(1).unflatten(0, (groups, -1))).flatten(0, 1).view_as(plastic))


@pytest.mark.parametrize("expansion", [1, 1.5, 10])
@pytest.mark.parametrize("feedback", ["random", "orthogonal"])
def test_where_b_r_is_w_it_is_backprop(task64, expansion, feedback):
    net, batch = task64
    reference, trainer = Backprop(copy.deepcopy(net)), ProductFeedbackAlignment(net, expansion, feedback)
    align(trainer)
    trainer.gradients(batch)
    reference.gradients(batch)
    for p, true in zip(net.parameters(), reference.net.parameters(), strict=True):
        assert p.grad is not None and true.grad is not None
        # A square random B has a condition number of some hundreds.
        torch.testing.assert_close(p.grad, true.grad, rtol=1e-8, atol=1e-11)


def test_rs_gradient_is_b_transposed_times_ws(task64):
    """(delta B)^T h = B^T (delta^T h): the Hebbian product with the relayed error."""
    net, batch = task64
    trainer = ProductFeedbackAlignment(net, expansion=3)
    trainer.gradients(batch)
    for name, path in trainer.named_paths():
        fixed, plastic, gradient = path.get_buffer("fixed"), path.get_parameter("plastic"), net.get_parameter(name).grad
        assert gradient is not None and plastic.grad is not None
        groups = len(plastic) // fixed.shape[1]
        by_group = fixed.unflatten(0, (groups, -1)).mT @ gradient.flatten(1).unflatten(0, (groups, -1))
        torch.testing.assert_close(plastic.grad, by_group.flatten(0, 1).view_as(plastic), rtol=1e-10, atol=1e-14)


def test_the_two_orders_of_multiplication_agree():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 7, 7).double(), torch.randn(6, 2, 3, 3).double().requires_grad_()
    mix, back = torch.randn(6, 5).double(), torch.randn(10, 2, 3, 3).double().requires_grad_()
    whole = (mix.unflatten(0, (2, 3)) @ back.flatten(1).unflatten(0, (2, 5))).flatten(0, 1).view_as(weight)
    geometry = (2, 1, 1, 2)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    delta = torch.randn(3, 6, 4, 4).double()
    by_steps = PathFunction.apply(F.conv2d, geometry, one, weight, None, back, mix)
    at_once = PathFunction.apply(F.conv2d, geometry, two, weight, None, whole, None)
    first = torch.autograd.grad(by_steps, (one, weight, back), delta)  # pyright: ignore
    second = torch.autograd.grad(at_once, (two, weight, back), delta)  # pyright: ignore
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [5, 40])  # fewer than units, and more
def test_steps_are_those_of_the_papers_equations(rows):
    net = net64(8, 7)
    trainer = ProductFeedbackAlignment(net, expansion=2)
    x, y = torch.randn(rows, 4).double(), torch.arange(rows) % 3
    lr, decay = 0.3, 0.01
    optimizer = torch.optim.SGD(trainer.parameters(), lr=lr, weight_decay=decay)
    layers = [net.block(0).op, net.block(1).op, net.readout]
    weights = [layer.get_parameter("weight").detach().numpy().copy() for layer in layers]
    biases = [layer.get_parameter("bias").detach().numpy().copy() for layer in layers]
    fixed = [path.get_buffer("fixed").numpy().copy() for _, path in trainer.named_paths()]
    plastic = [path.get_parameter("plastic").detach().numpy().copy() for _, path in trainer.named_paths()]
    assert [b.shape for b in fixed] == [(7, 14), (3, 6)]
    assert [r.shape for r in plastic] == [(14, 8), (6, 7)]
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(Batch(x, y))
        optimizer.step()

        h1 = np.maximum(z1 := x.numpy() @ weights[0].T + biases[0], 0)
        h2 = np.maximum(z2 := h1 @ weights[1].T + biases[1], 0)
        o = h2 @ weights[2].T + biases[2]
        e = (np.exp(o) / np.exp(o).sum(1, keepdims=True) - np.eye(3)[y.numpy()]) / rows
        relayed2 = e @ fixed[1]
        d2 = relayed2 @ plastic[1] * (z2 > 0)
        relayed1 = d2 @ fixed[0]
        d1 = relayed1 @ plastic[0] * (z1 > 0)
        for r, gradient in ((0, relayed1.T @ h1), (1, relayed2.T @ h2)):
            plastic[r] -= lr * (gradient + decay * plastic[r])
        for k, (delta, h) in enumerate(((d1, x.numpy()), (d2, h1), (e, h2))):
            weights[k] -= lr * (delta.T @ h + decay * weights[k])
            biases[k] -= lr * (delta.sum(0) + decay * biases[k])
        for layer, weight in zip(layers, weights, strict=True):
            np.testing.assert_allclose(layer.get_parameter("weight").detach().numpy(), weight, rtol=1e-10, atol=1e-13)
        for (_, path), r in zip(trainer.named_paths(), plastic, strict=True):
            np.testing.assert_allclose(path.get_parameter("plastic").detach().numpy(), r, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_weight_decay_r_tends_to_b_transposed_times_w(momentum):
    """D = R - B^T W moves by the decay alone, whatever the data: D' = D - lr v, v = momentum v + decay D."""
    net = net64(12, 10)
    trainer = ProductFeedbackAlignment(net, expansion=4)
    x = torch.randn(30, 4).double()
    batch = Batch(x, (x[:, 0] > 0).long())
    lr, decay = 0.1, 0.02
    optimizer = torch.optim.SGD(trainer.parameters(), lr=lr, weight_decay=decay, momentum=momentum)

    def distances() -> list[torch.Tensor]:
        return [
            (path.get_parameter("plastic") - path.get_buffer("fixed").T @ net.get_parameter(name)).detach()
            for name, path in trainer.named_paths()
        ]

    expected, first, angles = distances(), distances(), trainer.path_angles()
    velocity = [torch.zeros_like(d) for d in expected]
    for _ in range(400):
        optimizer.zero_grad()
        trainer.gradients(batch)
        optimizer.step()
        velocity = [momentum * v + decay * d for v, d in zip(velocity, expected, strict=True)]
        expected = [d - lr * v for v, d in zip(velocity, expected, strict=True)]
    for now, then, want in zip(distances(), first, expected, strict=True):
        torch.testing.assert_close(now, want, rtol=1e-7, atol=1e-9)
        assert now.norm() < 0.5 * then.norm()
    for name, angle in trainer.path_angles().items():
        assert angle < angles[name] - 20


@pytest.mark.parametrize(("expansion", "near", "far"), [(1, 35, 60), (10, 12, 25)])
def test_a_settled_r_is_the_closer_to_w_the_larger_the_expansion(expansion, near, far):
    """Where R = B^T W, B R = B B^T W; for random B the cosine to W is about 1 / sqrt(1 + 1 / expansion)."""
    net = net64(200, 100)
    trainer = ProductFeedbackAlignment(net, expansion)
    for name, path in trainer.named_paths():
        with torch.no_grad():
            path.get_parameter("plastic").copy_(path.get_buffer("fixed").T @ net.get_parameter(name))
    angle = trainer.path_angles()["blocks.1.op"].item()
    assert near < angle < far
    assert angle == pytest.approx(math.degrees(math.acos(1 / math.sqrt(1 + 1 / expansion))), abs=2)


def test_with_orthogonal_feedback_a_settled_r_gives_w_itself():
    net = net64(20, 10)
    trainer = ProductFeedbackAlignment(net, 1, "orthogonal")
    for name, path in trainer.named_paths():
        fixed, weight = path.get_buffer("fixed"), net.get_parameter(name)
        torch.testing.assert_close(fixed @ fixed.T, torch.eye(len(fixed)).double())
        with torch.no_grad():
            path.get_parameter("plastic").copy_(fixed.T @ weight)
        torch.testing.assert_close(path.matrix(weight), weight.detach())


def test_b_stays_and_r_learns():
    trainer = ProductFeedbackAlignment(net64(8, 7))
    assert all(".plastic" in name for name, _ in trainer.named_parameters() if name.startswith("paths."))
    assert all(".fixed" in name for name, _ in trainer.named_buffers() if name.startswith("paths."))
    (phase,) = trainer.phases()
    assert {id(p) for p in phase.parameters} == {id(p) for p in trainer.parameters()}


@pytest.mark.parametrize(
    ("expansion", "told"),
    [(0.99, "1 or more"), (0, "1 or more"), (-1, "1 or more"), (math.nan, "a number"), (math.inf, "a number")],
)
def test_an_expansion_below_one_is_refused(expansion, told):
    with pytest.raises(UserError, match=f"expansion must be {told}"):
        ProductFeedbackAlignment(net64(8, 7), expansion)


def test_an_unknown_feedback_is_refused():
    with pytest.raises(UserError, match="random or orthogonal, not 'ortogonal'; did you mean 'orthogonal'"):
        ProductFeedbackAlignment(net64(8, 7), 2, "ortogonal")  # pyright: ignore[reportArgumentType]
