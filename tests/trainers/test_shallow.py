"""The shallow baseline: the readout learns by backprop's gradient, and no block's weight changes."""

import copy

import numpy as np
import pytest
import torch

from localearn import MLP, Backprop, Batch, Net, Regression, Shallow, Unsupported, UserError
from localearn.data import from_arrays
from localearn.testing import toy


def test_the_readouts_gradient_is_backprops_to_the_bit_and_the_blocks_have_none(case):
    net, batch = case
    reference = copy.deepcopy(net)
    Shallow(net).gradients(batch)
    Backprop(reference).gradients(batch)
    for own, true in zip(net.readout.parameters(), reference.readout.parameters(), strict=True):
        assert own.grad is not None and torch.equal(own.grad, true.grad)
    assert all(p.grad is None for p in net.blocks.parameters())
    assert any(p.grad is not None for p in reference.blocks.parameters())


def test_steps_are_those_of_a_linear_model_on_fixed_features():
    """NumPy, from the equation: softmax regression on h_2 of the weights as they were drawn."""
    torch.manual_seed(0)
    net = MLP((5,), 3, widths=(6, 4), activation="tanh").double()
    x, y = torch.randn(9, 5).double(), torch.arange(9) % 3
    trainer = Shallow(net)
    (phase,) = trainer.phases()
    optimizer = torch.optim.SGD(phase.parameters, lr=0.5)
    w, b = (p.detach().numpy().copy() for p in net.readout.parameters())
    (w1, b1), (w2, b2) = ([p.detach().numpy() for p in net.block(k).op.parameters()] for k in range(2))
    h = np.tanh(np.tanh(x.numpy() @ w1.T + b1) @ w2.T + b2)
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(Batch(x, y))
        optimizer.step()
        p = np.exp(h @ w.T + b)
        e = (p / p.sum(1, keepdims=True) - np.eye(3)[y.numpy()]) / 9
        w, b = w - 0.5 * e.T @ h, b - 0.5 * e.sum(0)
    np.testing.assert_allclose(net.readout.get_parameter("weight").detach(), w, rtol=1e-12)
    np.testing.assert_allclose(net.readout.get_parameter("bias").detach(), b, rtol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "resnet", "transformer"])
def test_a_run_with_weight_decay_leaves_every_blocks_weight_as_it_was_drawn(kind):
    torch.manual_seed(0)
    net = toy(kind).net()
    before = copy.deepcopy(dict(net.named_parameters()))
    optim = lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)  # noqa: E731
    Shallow(net).fit(toy(kind).data, epochs=2, optim=optim)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("readout"), name


def test_it_serves_blocks_without_a_derivative_and_values():
    torch.manual_seed(0)
    net = MLP((4,), 1, widths=(64,), activation="sign").for_task(Regression())
    x = torch.randn(200, 4)
    record = Shallow(net).fit(from_arrays(x, x[:, :1].sign(), task=Regression()), epochs=30)
    r2 = record.metric("r2")
    assert r2 is not None and r2 > 0.4


def test_shared_weights_and_ranks_for_layers_are_refused():
    tied = torch.nn.Linear(5, 5)
    net = Net.from_blocks(None, [torch.nn.Sequential(tied, torch.nn.Tanh())], tied, input_shape=(5,))
    with pytest.raises(Unsupported, match=r"Net's readout shares its weights with one; untie them, or use algo=back"):
        Shallow(net)
    with pytest.raises(UserError, match="trains no block, so there is nothing to distribute by layers"):
        Shallow(MLP((5,), 2, widths=(4,))).pipelined()
