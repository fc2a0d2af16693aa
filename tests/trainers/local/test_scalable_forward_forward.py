import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from localearn import (
    CNN,
    MLP,
    Autoencoding,
    Batch,
    Regression,
    ScalableForwardForward,
    Transformer,
    Unsupported,
    UserError,
)
from localearn.trainers.phases import completed

CLASSES = 3


def rows(n=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(n) % CLASSES)


def images(n=6):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 2, 4, 4, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(n) % CLASSES)


def dense(widths=(6, 4)):
    torch.manual_seed(0)
    return MLP(5, CLASSES, widths=widths, activation="tanh").double()


def maps(**options):
    torch.manual_seed(0)
    return CNN((2, 4, 4), CLASSES, channels=(4, 5), norm="none", activation="tanh", pool=(1, 2), **options).double()


def array(p):
    return p.detach().numpy().copy()


def normalised(h):
    """LN over the last axis, and d LN / d h applied to a gradient."""
    mean, deviation = h.mean(-1, keepdims=True), np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    u = (h - mean) / deviation

    def back(g):
        return (g - g.mean(-1, keepdims=True) - u * (g * u).mean(-1, keepdims=True)) / deviation

    return u, back


@pytest.mark.parametrize("per_class", [1, 2])
def test_steps_agree_with_numpy_straight_from_the_equations(per_class):
    """Of vectors: a = u V^T + d, g_c the mean of c's squares, loss the mean of logsumexp g - g_y, through one block."""
    data, rule, eta = rows(), ScalableForwardForward(dense(), per_class=per_class), 0.3
    x, onehot = data.x.numpy(), np.eye(CLASSES)[data.target.numpy()]
    own = [[array(p) for p in rule.block_parameters(k)] for k in range(2)]
    optimizer = torch.optim.SGD([p for k in range(2) for p in rule.block_parameters(k)], lr=eta)
    for _ in range(4):
        optimizer.zero_grad()
        metrics = completed(rule.gradients(data))
        optimizer.step()
        u = x
        for k in range(2):
            w, b, v, d = own[k]
            h = np.tanh(u @ w.T + b)
            after, back = normalised(h)
            a = (after @ v.T + d).reshape(len(x), CLASSES, per_class)
            g = (a**2).mean(2)
            p = np.exp(g) / np.exp(g).sum(1, keepdims=True)
            loss = (np.log(np.exp(g).sum(1)) - g[onehot == 1]).mean()
            np.testing.assert_allclose(metrics[f"loss_{k + 1}"].item(), loss, rtol=1e-10)
            of_a = (((p - onehot) / len(x))[:, :, None] * 2 * a / per_class).reshape(len(x), -1)
            of_z = back(of_a @ v) * (1 - h**2)
            own[k] = [
                w - eta * of_z.T @ u,
                b - eta * of_z.sum(0),
                v - eta * of_a.T @ after,
                d - eta * of_a.sum(0),
            ]
            u = after
        for k in range(2):
            for p, expected in zip(rule.block_parameters(k), own[k], strict=True):
                np.testing.assert_allclose(array(p), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("norm", "kernel_size"), [("channels", 1), ("channels", 3), ("row", 1)])
def test_maps_have_the_goodness_of_their_classes_channels_and_places(norm, kernel_size):
    """By plain loops over classes, channels and places; a block's gradient is autograd's of its own loss alone."""
    data = images()
    rule = ScalableForwardForward(maps(), kernel_size=kernel_size, per_class=2, norm=norm)
    metrics = completed(rule.gradients(data))
    u, scores = data.x, []
    for k in range(2):
        parameters = rule.block_parameters(k)
        h = rule.net.block(k)(u)
        axes = 1 if norm == "channels" else (1, 2, 3)
        u = (h - h.mean(axes, keepdim=True)) / (h.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
        weight, bias = parameters[-2:]
        a = F.conv2d(u, weight, bias, padding=kernel_size // 2)
        places = a.shape[2] * a.shape[3]
        of_class = [a[:, 2 * c] ** 2 + a[:, 2 * c + 1] ** 2 for c in range(CLASSES)]
        g = [squares.sum((1, 2)) / (2 * places) for squares in of_class]
        g = torch.stack(g, 1)
        loss = (g.exp().sum(1).log() - g.gather(1, data.target[:, None])[:, 0]).mean()
        torch.testing.assert_close(metrics[f"loss_{k + 1}"], loss.detach())
        for p, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-13)
        u = u.detach()
        scores.append(g.detach())
    torch.testing.assert_close(rule.predict(data.x), (scores[0] + scores[1]) / 2)
    rule.prediction = "last"
    torch.testing.assert_close(rule.predict(data.x), scores[1])


def test_the_readout_is_not_trained_nor_read():
    rule, data = ScalableForwardForward(dense()), rows()
    plain = rule.predict(data.x)
    with torch.no_grad():
        rule.net.get_parameter("readout.weight").add_(1)
    completed(rule.gradients(data))
    assert all(p.grad is None for p in rule.net.readout.parameters())
    assert torch.equal(rule.predict(data.x), plain)
    trained = {id(p) for phase in rule.phases() for p in phase.parameters}
    assert not trained & {id(p) for p in rule.net.readout.parameters()}
    assert not rule.net_predicts


def test_a_greedy_phase_learns_what_the_joint_rule_learns_of_its_block():
    """Its features are normalised as the joint rule's are, and its scores are its own block's."""
    data, joint = images(), ScalableForwardForward(maps())
    greedy = ScalableForwardForward(maps(), schedule="greedy")
    greedy.load_state_dict(joint.state_dict())
    completed(joint.gradients(data))
    for k, phase in enumerate(greedy.phases()):
        u = phase.input(data.x)
        completed(phase.gradients(Batch(u, data.target)))
        for p, q in zip(joint.block_parameters(k), greedy.block_parameters(k), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(phase.predict(u), greedy.goodness(k, greedy.hidden(data.x, depth=k + 1)))


def test_what_is_large_in_a_block_is_hidden_from_the_next():
    rule, data = ScalableForwardForward(dense((6, 4))), rows()
    rule.net.block(0).post = torch.nn.Identity()
    plain = rule.predict(data.x)
    scaled = copy.deepcopy(rule)
    with torch.no_grad():
        for p in scaled.net.block(0).parameters():
            p.mul_(100)
    torch.testing.assert_close(scaled.predict(data.x), plain, rtol=1e-3, atol=1e-4)


def test_positions_have_a_goodness_each_and_a_sequence_as_a_whole_their_mean():
    torch.manual_seed(0)
    each = ScalableForwardForward(Transformer((4,), 3, vocabulary=3, layers=1, width=8, heads=2))
    x = torch.tensor([[0, 1, 2, 1]])
    g = each.predict(x)
    assert g.shape == (1, 4, 3)
    changed = each.predict(torch.tensor([[0, 1, 2, 2]]))
    assert torch.equal(changed[:, :3], g[:, :3]), "an earlier position has seen a later one"
    torch.manual_seed(0)
    whole = ScalableForwardForward(Transformer((4, 3), 3, layers=1, width=8, heads=2))
    u = whole.hidden(torch.randn(2, 4, 3), depth=1)
    torch.testing.assert_close(whole.goodness(0, u), whole.heads[0](u).square().mean(1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ScalableForwardForward(dense(), kernel_size=2), "kernel_size must be odd"),
        (lambda: ScalableForwardForward(dense(), per_class=0), "per_class must be 1"),
        (
            lambda: ScalableForwardForward(Transformer((4,), 3, vocabulary=3, layers=1, width=8, heads=2), norm="row"),
            "use norm=channels",
        ),
        (lambda: ScalableForwardForward(MLP(5, 2, widths=(4,)).for_task(Regression(2))), "use algo=mono_forward"),
        (lambda: ScalableForwardForward(dense()).check_task(Autoencoding(5)), "use algo=mono_forward"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises((UserError, Unsupported), match=said):
        make()
