import copy
import math

import numpy as np
import pytest
import torch

from localearn import CNN, GNN, MLP, Backprop, Batch, DirectFeedbackAlignment, LeNet, ResNet
from localearn.testing import toy
from localearn.testing.probes import differing, gradients_of
from localearn.trainers.feedback.direct_feedback_alignment import _spread


def test_with_the_product_of_the_later_weights_it_is_backprop_in_a_linear_net_by_each_width():
    """B_1 = W_o W_2 and B_2 = W_o are slices of one matrix where W_2 is a scaled identity on top of zeros."""
    torch.manual_seed(0)
    net = MLP((5,), 3, widths=(6, 8), activation="identity").double()
    trainer = DirectFeedbackAlignment(net, scale="width")
    readout = net.readout.get_parameter("weight").detach()
    with torch.no_grad():
        net.block(1).op.get_parameter("weight").copy_(math.sqrt(8 / 6) * torch.eye(8, 6, dtype=torch.float64))
        trainer.feedback.copy_(math.sqrt(8) * readout)
    reference = Backprop(copy.deepcopy(net))
    batch = Batch(torch.randn(7, 5).double(), torch.arange(7) % 3)
    trainer.gradients(batch)
    reference.gradients(batch)
    for (name, p), (_, true) in zip(net.named_parameters(), reference.net.named_parameters(), strict=True):
        assert p.grad is not None and true.grad is not None, name
        torch.testing.assert_close(p.grad, true.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("scale", "lengths"), [("widest", (6, 6)), ("width", (6, 5))])
def test_steps_are_those_of_the_papers_equations(scale, lengths):
    torch.manual_seed(0)
    net = MLP((4,), 3, widths=(6, 5), activation="tanh").double()
    trainer = DirectFeedbackAlignment(net, scale=scale)
    x, y = torch.randn(7, 4).double(), torch.arange(7) % 3
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.5)
    layers = [net.block(0).op, net.block(1).op, net.readout]
    weights = [layer.get_parameter("weight").detach().numpy().copy() for layer in layers]
    biases = [layer.get_parameter("bias").detach().numpy().copy() for layer in layers]
    feedback = trainer.feedback.numpy().copy()
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(Batch(x, y))
        optimizer.step()

        h1 = np.tanh(x.numpy() @ weights[0].T + biases[0])
        h2 = np.tanh(h1 @ weights[1].T + biases[1])
        o = h2 @ weights[2].T + biases[2]
        e = (np.exp(o) / np.exp(o).sum(1, keepdims=True) - np.eye(3)[y.numpy()]) / 7
        d1 = e @ feedback[:, :6] / np.sqrt(lengths[0]) * (1 - h1**2)
        d2 = e @ feedback[:, :5] / np.sqrt(lengths[1]) * (1 - h2**2)
        for k, (delta, h) in enumerate(((d1, x.numpy()), (d2, h1), (e, h2))):
            weights[k] -= 0.5 * delta.T @ h
            biases[k] -= 0.5 * delta.sum(0)
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            np.testing.assert_allclose(layer.get_parameter("weight").detach().numpy(), weight, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(layer.get_parameter("bias").detach().numpy(), bias, rtol=1e-11, atol=1e-13)


def test_a_kernel_is_spread_over_the_map_as_the_next_convolution_would_spread_the_error():
    """By hand: every place of the output adds the kernel's entry that leads from it to a place of the map."""
    torch.manual_seed(0)
    net = CNN((2, 8, 8), 3, channels=(4, 5), norm="none", pool=2).double()
    trainer = DirectFeedbackAlignment(net, feedback="kernel")
    convolution = net.block(1).op
    assert isinstance(convolution, torch.nn.Conv2d)
    torch.manual_seed(1)
    trainer.get_buffer("spread_0").copy_(_spread(convolution, 3, net.shapes[0]))
    torch.manual_seed(1)
    bound = math.sqrt(6 / ((3 + 4) * 9))
    kernel = torch.empty(3, 4, 3, 3).uniform_(-bound, bound).numpy()
    expected = np.zeros((3, 4, 4, 4))
    for out_row, out_column, row, column in np.ndindex(4, 4, 3, 3):
        place = (out_row + row - 1, out_column + column - 1)  # padding 1
        if min(place) >= 0 and max(place) < 4:
            expected[:, :, place[0], place[1]] += kernel[:, :, row, column]
    error = torch.randn(6, 3).double()
    sent = trainer.signal(0, error, torch.empty(6, 4, 4, 4).double())
    np.testing.assert_allclose(sent.numpy(), np.einsum("nc,cijk->nijk", error.numpy(), expected), rtol=1e-5, atol=1e-6)
    last = trainer.signal(1, error, torch.empty(6, 5, 2, 2).double())
    position = error @ trainer.feedback[:, :20] / math.sqrt(max(net.widths))
    torch.testing.assert_close(last.flatten(1), position)


def test_kernels_are_saved_and_serve_residual_blocks():
    torch.manual_seed(0)
    net = ResNet((3, 8, 8), 3, widths=(4, 8), blocks=1)
    trainer = DirectFeedbackAlignment(net, feedback="kernel")
    assert {f"spread_{k}" for k in range(net.depth - 1)} <= trainer.state_dict().keys()
    trainer.gradients(Batch(torch.randn(4, *net.input_shape), torch.arange(4) % 3))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("net", [ResNet((3, 8, 8), 3, widths=(4, 8), blocks=1), LeNet((1, 28, 28), 3)])
def test_it_serves_residual_blocks_and_lenet(net):
    trainer = DirectFeedbackAlignment(net)
    trainer.gradients(Batch(torch.randn(4, *net.input_shape), torch.arange(4) % 3))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_with_one_product_of_the_later_weights_it_is_backprop_in_a_linear_net(vectors):
    """One matrix serves every block, so the later weights are drawn to have one product: W_o W_k = W_o for every k."""
    torch.manual_seed(0)
    net = MLP(5, 3, widths=(6, 6, 6), activation="identity").double()
    readout = net.readout.get_parameter("weight").detach()
    null = torch.eye(6, dtype=torch.float64) - torch.linalg.pinv(readout) @ readout
    for k in (1, 2):
        weight = net.block(k).op.get_parameter("weight")
        weight.data = torch.eye(6, dtype=torch.float64) + null @ weight.data
        torch.testing.assert_close(readout @ weight.data, readout)
    trainer = DirectFeedbackAlignment(net)
    trainer.feedback.copy_(readout * math.sqrt(6))
    fed, true = gradients_of(trainer, vectors), gradients_of(Backprop(net), vectors)
    assert fed.keys() == true.keys()
    for name, grad in true.items():
        torch.testing.assert_close(fed[name], grad, rtol=1e-10, atol=1e-14)
    trainer.feedback.neg_()
    flipped = gradients_of(trainer, vectors)
    torch.testing.assert_close(flipped["all/net.blocks.0.op.weight"], -true["all/net.blocks.0.op.weight"])


def test_the_error_is_zero_at_unlabelled_nodes(monkeypatch):
    torch.manual_seed(0)
    trainer, batch = DirectFeedbackAlignment(GNN(6, 2, widths=(5, 4), dropout=0.0)), toy("gcn").batch
    seen, signal = [], trainer.signal
    monkeypatch.setattr(trainer, "signal", lambda k, e, h: seen.append((k, e, signal(k, e, h))) or seen[-1][-1])
    trainer.gradients(batch)
    unlabelled = torch.ones(len(batch.x), dtype=torch.bool)
    unlabelled[batch.nodes] = False
    assert [k for k, _, _ in seen] == [1, 0], "last block first"
    for _, error, delta in seen:
        assert (error[unlabelled] == 0).all()
        assert (delta[unlabelled] == 0).all()
        assert (error[batch.nodes] != 0).all()


def test_only_labels_that_count_change_the_gradient():
    trainer, batch = DirectFeedbackAlignment(toy("gcn").net()), toy("gcn").batch
    half = len(batch.y) // 2
    assert batch.nodes is not None
    fewer = Batch(batch.x, batch.y[:half], batch.context, batch.nodes[:half])
    assert differing(gradients_of(trainer, batch), gradients_of(trainer, fewer))


def test_the_feedback_is_a_fixed_buffer_of_the_state_and_no_parameter():
    trainer = DirectFeedbackAlignment(toy("mlp").net())
    assert "feedback" in trainer.state_dict()
    assert not any(p is trainer.feedback for p in trainer.parameters())
    assert trainer.feedback.abs().max() <= 1
    before = trainer.feedback.clone()
    trainer.gradients(toy("mlp").batch)
    assert torch.equal(trainer.feedback, before)
