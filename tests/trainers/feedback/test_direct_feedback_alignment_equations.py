import math

import numpy as np
import pytest
import torch

from localearn import GNN, MLP, Backprop, Batch, DirectFeedbackAlignment
from localearn.testing import toy
from localearn.testing.probes import differing, gradients_of, of_block, parameters_after


def test_with_the_product_of_the_later_weights_it_is_backprop_in_a_linear_net(vectors):
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


def test_steps_agree_with_numpy_straight_from_the_equations(vectors):
    torch.manual_seed(0)
    net = MLP(5, 3, widths=(6, 4)).double()
    trainer = DirectFeedbackAlignment(net)
    assert trainer.feedback.shape == (3, 6)
    feedback = [trainer.feedback[:, :n].numpy() / np.sqrt(6) for n in (6, 4)]
    layers = [net.block(0).op, net.block(1).op, net.readout]
    w = [layer.get_parameter("weight").detach().numpy().copy() for layer in layers]
    b = [layer.get_parameter("bias").detach().numpy().copy() for layer in layers]
    x, onehot, eta = vectors.x.numpy(), np.eye(3)[vectors.y.numpy()], 0.3

    optimizer = torch.optim.SGD(net.parameters(), lr=eta)
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(vectors)
        optimizer.step()

        z1 = x @ w[0].T + b[0]
        h1 = np.maximum(z1, 0)
        z2 = h1 @ w[1].T + b[1]
        h2 = np.maximum(z2, 0)
        o = h2 @ w[2].T + b[2]
        p = np.exp(o - o.max(1, keepdims=True))
        e = (p / p.sum(1, keepdims=True) - onehot) / len(x)
        deltas = [(e @ feedback[0]) * (z1 > 0), (e @ feedback[1]) * (z2 > 0), e]
        for k, (delta, h) in enumerate(zip(deltas, (x, h1, h2), strict=True)):
            w[k] = w[k] - eta * delta.T @ h
            b[k] = b[k] - eta * delta.sum(0)

    for layer, weight, bias in zip(layers, w, b, strict=True):
        np.testing.assert_allclose(layer.get_parameter("weight").detach(), weight, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(layer.get_parameter("bias").detach(), bias, rtol=1e-11, atol=1e-14)


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


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gcn"])
def test_no_later_weight_is_read_after_the_forward_pass_and_backprop_reads_them(kind):
    net, batch = toy(kind).net(), toy(kind).batch
    for rule, reads in ((DirectFeedbackAlignment(net), False), (Backprop(net), True)):
        plain = gradients_of(rule, batch)
        for k in range(net.depth):
            changed = gradients_of(rule, batch, then_change=parameters_after(rule, k, readout=True))
            assert bool(differing(of_block(plain, k), of_block(changed, k))) == reads


def test_the_feedback_is_a_fixed_buffer_of_the_state_and_no_parameter():
    trainer = DirectFeedbackAlignment(toy("mlp").net())
    assert "feedback" in trainer.state_dict()
    assert not any(p is trainer.feedback for p in trainer.parameters())
    assert trainer.feedback.abs().max() <= 1
    before = trainer.feedback.clone()
    trainer.gradients(toy("mlp").batch)
    assert torch.equal(trainer.feedback, before)
