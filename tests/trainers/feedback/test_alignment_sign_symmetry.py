import copy
import math

import numpy as np
import pytest
import torch

from localearn import MLP, Backprop, Batch, SignSymmetry, UserError


def net64() -> MLP:
    torch.manual_seed(0)
    return MLP((4,), 3, widths=(40, 30)).double()


def matrices(trainer: SignSymmetry) -> dict[str, torch.Tensor]:
    return {name: path.matrix(trainer.net.get_parameter(name)) for name, path in trainer.named_paths()}


@pytest.mark.parametrize("variant", ["usf", "brsf", "frsf"])
def test_the_signs_are_the_weights(variant):
    trainer = SignSymmetry(net64(), variant)
    for _ in range(2):  # at first, and when the weights have changed
        for name, matrix in matrices(trainer).items():
            assert torch.equal(matrix.sign(), trainer.net.get_parameter(name).sign())
        with torch.no_grad():
            for p in trainer.net.parameters():
                p.neg_()


def test_uniform_magnitudes_are_the_initial_deviation():
    trainer = SignSymmetry(net64(), "usf")
    for name, matrix in matrices(trainer).items():
        deviation = trainer.net.get_parameter(name).square().mean().sqrt()
        assert torch.allclose(matrix.abs(), deviation.expand_as(matrix), rtol=1e-12)
    # torch draws a Linear's weights uniform within 1 / sqrt(fan in), that is with deviation 1 / sqrt(3 fan in);
    # 1,200 draws, 5 standard errors: 6e-7 false alarms, were the seed not fixed.
    scale = matrices(trainer)["blocks.1.op.weight"].abs().max().item()
    assert scale**2 * 3 * 40 == pytest.approx(1, abs=5 * math.sqrt(0.8 / 1200))


@pytest.mark.parametrize(("variant", "redrawn"), [("brsf", True), ("frsf", False)])
def test_random_magnitudes_are_drawn_for_every_batch_or_once(variant, redrawn):
    trainer = SignSymmetry(net64(), variant)
    one, two = matrices(trainer), matrices(trainer)
    for name, matrix in one.items():
        assert torch.equal(matrix, two[name]) != redrawn
        bound = math.sqrt(3) * trainer.net.get_parameter(name).square().mean().sqrt()
        assert (matrix.abs() <= bound).all() and matrix.abs().max() > 0.8 * bound  # missed by 90 draws: 2e-9


@pytest.mark.parametrize("variant", ["usf", "brsf", "frsf"])
def test_weights_that_are_signs_give_backprop_up_to_the_magnitudes(variant, task64):
    """Where every |W| is s, uSF is backprop; the random magnitudes are within 45 degrees of it in expectation."""
    net, batch = task64
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.copy_(p.sign() * 0.3)
    reference, trainer = Backprop(copy.deepcopy(net)), SignSymmetry(net, variant)
    trainer.gradients(batch)
    reference.gradients(batch)
    for p, true in zip(net.parameters(), reference.net.parameters(), strict=True):
        assert p.grad is not None and true.grad is not None
        if variant == "usf":
            torch.testing.assert_close(p.grad, true.grad, rtol=1e-10, atol=1e-13)
    angles = torch.stack(list(trainer.path_angles().values()))
    # |U| of a uniform U has E|U| / sqrt(E U^2) = sqrt(3) / 2, the cosine of 30 degrees.
    assert (angles < (0.01 if variant == "usf" else 45)).all()


@pytest.mark.parametrize("variant", ["usf", "frsf"])
def test_steps_are_those_of_the_papers_equations(variant):
    net = net64()
    trainer = SignSymmetry(net, variant)
    x, y = torch.randn(7, 4).double(), torch.arange(7) % 3
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.5)
    layers = [net.block(0).op, net.block(1).op, net.readout]
    weights = [layer.get_parameter("weight").detach().numpy().copy() for layer in layers]
    magnitudes = [path.get_buffer("magnitude").numpy().copy() for _, path in trainer.named_paths()]
    if variant == "usf":
        magnitudes = [np.sqrt(np.mean(weight**2)) for weight in weights[1:]]
    biases = [layer.get_parameter("bias").detach().numpy().copy() for layer in layers]
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(Batch(x, y))
        optimizer.step()

        h1 = np.maximum(z1 := x.numpy() @ weights[0].T + biases[0], 0)
        h2 = np.maximum(z2 := h1 @ weights[1].T + biases[1], 0)
        o = h2 @ weights[2].T + biases[2]
        e = (np.exp(o) / np.exp(o).sum(1, keepdims=True) - np.eye(3)[y.numpy()]) / 7
        d2 = e @ (magnitudes[1] * np.sign(weights[2])) * (z2 > 0)
        d1 = d2 @ (magnitudes[0] * np.sign(weights[1])) * (z1 > 0)
        for k, (delta, h) in enumerate(((d1, x.numpy()), (d2, h1), (e, h2))):
            weights[k] -= 0.5 * delta.T @ h
            biases[k] -= 0.5 * delta.sum(0)
        for layer, weight in zip(layers, weights, strict=True):
            np.testing.assert_allclose(layer.get_parameter("weight").detach().numpy(), weight, rtol=1e-11, atol=1e-13)


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="usf, brsf or frsf, not 'usff'; did you mean 'usf'"):
        SignSymmetry(net64(), "usff")  # pyright: ignore[reportArgumentType]
