import copy
import math

import numpy as np
import torch

from localearn import MLP, Backprop, Batch, FeedbackAlignment


def test_with_the_weights_as_feedback_it_is_backprop(task64):
    net, batch = task64
    reference, trainer = Backprop(copy.deepcopy(net)), FeedbackAlignment(net)
    for name, path in trainer.named_paths():
        path.get_buffer("feedback").copy_(net.get_parameter(name).detach())
    loss, true_loss = trainer.gradients(batch)["loss"], reference.gradients(batch)["loss"]
    assert torch.equal(loss, true_loss)
    for (name, p), (_, true) in zip(net.named_parameters(), reference.net.named_parameters(), strict=True):
        assert p.grad is not None and true.grad is not None, name
        torch.testing.assert_close(p.grad, true.grad, rtol=1e-12, atol=1e-14)


def test_in_bfloat16_too(task):
    net, batch = task
    reference, trainer = Backprop(copy.deepcopy(net)), FeedbackAlignment(net)
    for name, path in trainer.named_paths():
        path.get_buffer("feedback").copy_(net.get_parameter(name).detach())
    with torch.autocast("cpu", torch.bfloat16):
        trainer.gradients(batch)
        reference.gradients(batch)
    for (name, p), (_, true) in zip(net.named_parameters(), reference.net.named_parameters(), strict=True):
        assert p.grad is not None and true.grad is not None, name
        torch.testing.assert_close(p.grad, true.grad, rtol=1e-2, atol=1e-3)


def test_with_other_feedback_it_is_not(task64):
    net, batch = task64
    reference, trainer = Backprop(copy.deepcopy(net)), FeedbackAlignment(net)
    trainer.gradients(batch)
    reference.gradients(batch)
    first = next(p.grad for p in net.parameters())
    true = next(p.grad for p in reference.net.parameters())
    assert first is not None and true is not None
    assert (first - true).norm() > 0.1 * true.norm()


def test_steps_are_those_of_the_papers_equations():
    torch.manual_seed(0)
    net = MLP((4,), 3, widths=(6, 5)).double()
    trainer = FeedbackAlignment(net)
    x, y = torch.randn(7, 4).double(), torch.arange(7) % 3
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.5)

    layers = [net.block(0).op, net.block(1).op, net.readout]
    weights = [layer.get_parameter("weight").detach().numpy().copy() for layer in layers]
    biases = [layer.get_parameter("bias").detach().numpy().copy() for layer in layers]
    feedback = [path.get_buffer("feedback").numpy().copy() for _, path in trainer.named_paths()]
    for _ in range(5):
        optimizer.zero_grad()
        trainer.gradients(Batch(x, y))
        optimizer.step()

        h = [x.numpy()]
        z = []
        for weight, bias in zip(weights, biases, strict=True):
            z.append(h[-1] @ weight.T + bias)
            h.append(np.maximum(z[-1], 0))
        p = np.exp(z[-1]) / np.exp(z[-1]).sum(1, keepdims=True)
        delta = (p - np.eye(3)[y.numpy()]) / 7
        for k in (2, 1, 0):
            weights[k] -= 0.5 * delta.T @ h[k]
            biases[k] -= 0.5 * delta.sum(0)
            if k:
                delta = (delta @ feedback[k - 1]) * (z[k - 1] > 0)
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            np.testing.assert_allclose(layer.get_parameter("weight").detach().numpy(), weight, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(layer.get_parameter("bias").detach().numpy(), bias, rtol=1e-11, atol=1e-13)


def test_feedback_is_drawn_like_the_weight():
    torch.manual_seed(0)
    net = MLP((10,), 3, widths=(400, 500))
    weight = net.block(1).op.get_parameter("weight").detach()
    with torch.no_grad():
        weight.mul_(3)  # another initialisation than torch's
    feedback = FeedbackAlignment(net).named_paths()[0][1].get_buffer("feedback")
    deviation = weight.square().mean().sqrt().item()
    assert feedback.shape == weight.shape
    assert feedback.abs().max().item() <= math.sqrt(3) * deviation
    # Means over 200,000 draws, 5 standard errors each: 2 * 6e-7 false alarms, were the seed not fixed.
    assert abs(feedback.mean().item()) < 5 * deviation / math.sqrt(200_000)
    # A uniform variable's square has a variance of 4/5 of its mean squared.
    assert abs(feedback.square().mean().item() / deviation**2 - 1) < 5 * math.sqrt(0.8 / 200_000)
    correlation = (feedback * weight).mean().item() / deviation**2
    assert abs(correlation) < 5 / math.sqrt(200_000)


def test_it_learns_and_the_weights_come_to_align_with_the_feedback():
    torch.manual_seed(0)
    x = torch.randn(300, 10)
    batch = Batch(x, (x[:, 0] * x[:, 1] > 0).long())
    trainer = FeedbackAlignment(MLP((10,), 2, widths=(50, 50)))
    before = trainer.path_angles()["readout"]
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        losses.append(trainer.gradients(batch)["loss"])
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    assert trainer.path_angles()["readout"] < before - 20
    assert trainer.path_angles()["readout"] < 70
