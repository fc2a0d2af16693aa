import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from localearn import (
    CNN,
    MLP,
    Autoencoding,
    Batch,
    CounterCurrent,
    Mixer,
    Net,
    Regression,
    Transformer,
    Unsupported,
    UserError,
)
from localearn.data import ArrayData
from localearn.data.base import Split
from localearn.testing import toy
from localearn.trainers.phases import completed

SPLITS: tuple[Split, ...] = ("train", "val", "test")
CLASSES = 3


def rows(n=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(n) % CLASSES)


def mlp(widths=(6, 4)):
    torch.manual_seed(0)
    return MLP(5, CLASSES, widths=widths, activation="elu", bias=False).double()


def arrays(rule):
    """Return W_1..W_{L+1} and V_1..V_{L+1}, each as (outputs, inputs)."""
    net = rule.net
    own = [*(net.block(k).op.weight for k in range(net.depth)), net.readout.weight]
    other = [layer.linear.weight for layer in rule.opposite.layers]
    return [[w.detach().numpy().copy() for w in weights] for weights in (own, other)]


def made(net, **options) -> Any:
    """Return the rule, whose layers are what one looks into here."""
    return CounterCurrent(net, **options)


def elu(z):
    return np.where(z > 0, z, np.exp(z) - 1)


def slope(z):
    return np.where(z > 0, 1.0, np.exp(z))


def passes(x, w, v):
    """Return the pre-activations and activations of both nets: of rows, and of the one-hot rows of the classes."""
    z, h = [None], [x]
    for weight in w[:-1]:
        z.append(h[-1] @ weight.T)
        h.append(elu(z[-1]))
    levels = len(v)
    zc, c = [np.zeros(0)] * levels, [np.zeros(0)] * levels
    signal = np.eye(CLASSES)
    for k in reversed(range(levels)):
        zc[k] = signal @ v[k].T
        c[k] = signal = elu(zc[k]) if k else zc[k]
    return z, h, h[-1] @ w[-1].T, zc, c


def test_steps_by_products_agree_with_numpy_straight_from_the_equations():
    """loss_k = 128 / n_k mean (h_k c_k^T - T)^2; its derivatives at h_k and c_k, each through one layer alone."""
    data, rule, eta = rows(), made(mlp()), 0.05
    w, v = arrays(rule)
    x, target = data.x.numpy(), np.eye(CLASSES)[data.target.numpy()]
    n = len(x)
    optimizer = torch.optim.SGD(rule.parameters(), lr=eta)
    for _ in range(4):
        optimizer.zero_grad()
        metrics = completed(rule.gradients(data))
        optimizer.step()

        z, h, o, zc, c = passes(x, w, v)
        dw, dv = [np.zeros_like(a) for a in w], [np.zeros_like(a) for a in v]
        for k in range(3):
            error = h[k] @ c[k].T - target
            factor = 128 / h[k].shape[1] * 2 / (n * CLASSES)
            np.testing.assert_allclose(metrics[f"loss_{k}"].item(), 128 / h[k].shape[1] * (error**2).mean(), rtol=1e-10)
            if k:
                dw[k - 1] = (factor * error @ c[k] * slope(z[k])).T @ h[k - 1]
            sent = c[k + 1] if k < 2 else np.eye(CLASSES)
            dv[k] = (factor * error.T @ h[k] * (slope(zc[k]) if k else 1)).T @ sent
        p = np.exp(o - o.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        dw[2] = ((p - target) / n).T @ h[2]
        np.testing.assert_allclose(metrics["loss"].item(), -np.log(p[target == 1]).mean(), rtol=1e-10)
        w, v = ([a - eta * d for a, d in zip(*pair, strict=True)] for pair in ((w, dw), (v, dv)))
        for found, expected in zip(itertools.chain(*arrays(rule)), [*w, *v], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def unit(a):
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def cosine_losses(x, target, w, v, h_fixed, c_fixed, contrast, margin):
    """Return the losses, the inputs of all layers being what they are given as."""
    _, h, o, _, _ = passes(x, w, v)
    p = np.exp(o) / np.exp(o).sum(1, keepdims=True)
    keep = (p[target == 1] <= 1 - margin)[:, None]
    same = target @ target.T if contrast == "classes" else np.eye(len(x))
    losses = []
    for k in range(len(v)):
        a = h[0] if k == 0 else elu(h_fixed[k - 1] @ w[k - 1].T)
        sent = c_fixed[k + 1] if k + 1 < len(v) else np.eye(CLASSES)
        b = unit(elu(sent @ v[k].T) if k else sent @ v[k].T)
        a = unit(a) * keep
        losses.append(
            ((a @ b.T - target) ** 2).mean()
            + 0.5 * ((a @ a.T - same) ** 2).mean()
            + 0.5 * ((b @ b.T - np.eye(CLASSES)) ** 2).mean()
        )
    return losses


@pytest.mark.parametrize("contrast", ["rows", "classes"])
@pytest.mark.parametrize("margin", [0.0, 0.68])
def test_gradients_by_cosines_are_differences_of_the_equations_in_numpy(contrast, margin):
    """Central differences of loss_k alone in W_k and V_{k+1}, with what comes before them held fixed."""
    data = rows()
    rule = made(mlp(), similarity="cosine", contrast=contrast, margin=margin)
    w, v = arrays(rule)
    x, target = data.x.numpy(), np.eye(CLASSES)[data.target.numpy()]
    _, h, o, _, c = passes(x, w, v)
    p = (np.exp(o) / np.exp(o).sum(1, keepdims=True))[target == 1]
    assert margin == 0 or 0 < (p > 1 - margin).sum() < len(x), "some rows are to be told, and some are not"
    metrics = completed(rule.gradients(data))
    losses = functools.partial(cosine_losses, x, target, h_fixed=h, c_fixed=c, contrast=contrast, margin=margin)
    for k, loss in enumerate(losses(w, v)):
        np.testing.assert_allclose(metrics[f"loss_{k}"].item(), loss, rtol=1e-10)
    for own, of_weight in ((True, range(2)), (False, range(3))):
        for j in of_weight:
            weights, k = (w, j + 1) if own else (v, j)
            layer = rule.net.block(j).op if own else rule.opposite.layers[j].linear
            found = layer.weight.grad.numpy()
            for place in ((0, 0), (1, 2), (2, 1)):
                kept, sides = weights[j][place], []
                for step in (1e-6, -1e-6):
                    weights[j][place] = kept + step
                    sides.append(losses(w, v)[k])
                weights[j][place] = kept
                np.testing.assert_allclose(found[place], (sides[0] - sides[1]) / 2e-6, rtol=2e-5, atol=1e-9)


def images(n=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 2, 8, 8, generator=generator, dtype=torch.float64)


def test_maps_go_back_by_nearest_neighbours_and_a_convolution():
    torch.manual_seed(0)
    net = CNN((2, 8, 8), CLASSES, channels=(4, 6), pool=(2, 4), norm="none", activation="elu").double()
    rule = made(net)
    c_2, c_1, c_0 = rule.opposite.signals(torch.eye(CLASSES, dtype=torch.float64))
    first, second, third = (layer for layer in rule.opposite.layers)
    expected = F.elu(third.linear.weight.T).view(CLASSES, 6, 1, 1)
    torch.testing.assert_close(c_2, expected)
    expected = F.elu(F.conv2d(expected.repeat_interleave(4, 2).repeat_interleave(4, 3), second.conv.weight, padding=1))
    torch.testing.assert_close(c_1, expected)
    expected = F.conv2d(expected.repeat_interleave(2, 2).repeat_interleave(2, 3), first.conv.weight, padding=1)
    torch.testing.assert_close(c_0, expected)
    assert not [name for name, _ in rule.opposite.named_parameters() if "bias" in name]


def autoencoder():
    """The paper's in small: convolutions with a stride, then nearest neighbours and convolutions; no Linear layer."""
    torch.manual_seed(0)

    def down(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())

    up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    readout = nn.Sequential(nn.Unflatten(1, (4, 4, 4)), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1))
    stages = [down(2, 4), down(4, 6), up]
    return Net.from_blocks(None, stages, nn.Sequential(*readout, nn.Flatten()), input_shape=(2, 8, 8))


def test_an_image_that_is_the_target_goes_through_the_second_net_as_a_map():
    net = autoencoder().for_task(Autoencoding(128)).double()
    rule = made(net, similarity="difference", norm="batch", activation="relu")
    x = images(6)
    signals = list(rule.opposite.signals(x.flatten(1)))
    first = F.conv2d(x, rule.opposite.layers[3].conv.weight, stride=2, padding=1)
    first = (first - first.mean((0, 2, 3), keepdim=True)) / (first.var((0, 2, 3), False, True) + 1e-5).sqrt()
    torch.testing.assert_close(signals[0], first.relu())
    assert [tuple(c.shape[1:]) for c in signals] == [(4, 4, 4), (6, 2, 2), (4, 4, 4), (2, 8, 8)]
    batch = Batch(x, x.flatten(1))
    before = after = completed(rule.gradients(batch))["loss"]
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.02, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        after = completed(rule.gradients(batch))["loss"]
        optimizer.step()
    assert after < 0.9 * before


def test_values_are_compared_row_by_row_and_as_units():
    """An autoencoder: both ends are the input, and between them rows agree by themselves and by their directions."""
    torch.manual_seed(0)
    x = rows().x
    net = MLP(5, 5, widths=(4, 3), activation="elu").for_task(Autoencoding(5)).double()
    rule = made(net, similarity="difference", norm="none")
    metrics = completed(rule.gradients(Batch(x, x)))
    w, h, c, losses = [net.block(k).op for k in range(2)], x, x, []
    outputs, signals = [x], []
    for layer in w:
        outputs.append(h := F.elu(layer(h.detach())))
    for k in (2, 1, 0):
        c = rule.opposite.layers[k](c.detach())
        signals.insert(0, c := F.elu(c) if k else c)
    for k, (h, c) in enumerate(zip(outputs, signals, strict=True)):
        loss = (h - c).square().mean()
        if k:
            one, other = (a - a.mean(1, keepdim=True) for a in (h, c))
            loss = (
                loss + (one / one.norm(dim=1, keepdim=True) - other / other.norm(dim=1, keepdim=True)).square().mean()
            )
        losses.append(loss)
        torch.testing.assert_close(metrics[f"loss_{k}"], loss.detach())
    losses.append((net.readout(outputs[-1].detach()) - x).square().mean())
    parameters = list(rule.parameters())
    for p, expected in zip(parameters, torch.autograd.grad(torch.stack(losses).sum(), parameters), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-13)


def test_a_map_differences_counts_by_its_height_and_has_units_of_places():
    rule = made(CNN((2, 8, 8), 1, channels=(4,)).for_task(Regression()).double(), similarity="difference")
    h, c = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    one, other = (a - a.mean((2, 3), keepdim=True) for a in (h, c))
    one, other = (a / a.square().sum((2, 3), keepdim=True).sqrt() for a in (one, other))
    expected = 6 * ((h - c).square().mean() + (one - other).square().mean())
    torch.testing.assert_close(rule._differences(1, h, c), expected)
    torch.testing.assert_close(rule._differences(0, h, c), 6 * (h - c).square().mean())


@pytest.mark.parametrize("similarity", ["product", "cosine"])
def test_values_by_products_say_which_rows_have_the_same_target(similarity):
    """T_ij = [t_i = t_j], of the rows' own signals; the second net may normalise over the batch."""
    torch.manual_seed(0)
    net = MLP(5, 2, widths=(4,), activation="elu").for_task(Regression(2)).double()
    rule = made(net, similarity=similarity, norm="batch")
    x = rows(4).x
    t = torch.tensor([[0.5, 1.0], [0.2, 1.0], [0.5, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    metrics = completed(rule.gradients(Batch(x, t)))
    same = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    h, c = net.block(0)(x), rule.opposite.layers[1](t)
    c = F.elu((c - c.mean(0)) / (c.var(0, unbiased=False) + 1e-5).sqrt())
    if similarity == "product":
        expected = 128 / 4 * (h @ c.T - same).square().mean()
    else:
        h, c = h / h.norm(dim=1, keepdim=True), c / c.norm(dim=1, keepdim=True)
        terms = [f * (a @ b.T - same).square().mean() for f, a, b in ((1, h, c), (0.5, h, h), (0.5, c, c))]
        expected = torch.stack(terms).sum()
    torch.testing.assert_close(metrics["loss_1"], expected.detach())


def test_nothing_crosses_from_one_layer_to_another_in_either_net():
    """The gradient of a layer of the second net stays as it is whatever its later layers are; so do the blocks'."""
    data, rule = rows(), made(mlp((6, 4, 4)))
    completed(rule.gradients(data))
    plain = {name: p.grad.clone() for name, p in rule.named_parameters()}
    for k in range(1, 4):
        changed = copy.deepcopy(rule)
        changed.zero_grad(set_to_none=True)
        with torch.no_grad():
            for j in range(k):  # which come after layer k on the way from the target
                changed.opposite.layers[j].linear.weight.add_(1)
        completed(changed.gradients(data))
        for j in range(k, 4):
            assert torch.equal(
                changed.opposite.layers[j].linear.weight.grad, plain[f"opposite.layers.{j}.linear.weight"]
            )
    assert all(s.grad_fn is not None for s in rule.opposite.signals(torch.eye(CLASSES, dtype=torch.float64)))


def test_centered_gradients_have_no_mean_over_a_units_weights():
    torch.manual_seed(0)
    net = CNN((2, 8, 8), CLASSES, channels=(4, 6), norm="none").double()
    batch, rule, plain = Batch(images(), torch.arange(5) % CLASSES), made(net, centered=True), None
    plain = copy.deepcopy(rule)
    plain.centered = False
    completed(rule.gradients(batch))
    completed(plain.gradients(batch))
    for (name, p), other in zip(rule.named_parameters(), plain.parameters(), strict=True):
        axes = tuple(range(1, p.dim()))
        expected = other.grad - other.grad.mean(axes, keepdim=True) if axes else other.grad
        torch.testing.assert_close(p.grad, expected, msg=name)


@pytest.mark.parametrize("bound", [None, 0.01])
def test_each_net_is_clipped_by_its_own_norm(bound):
    data, rule = rows(), made(mlp())
    other = copy.deepcopy(rule)
    parts = ArrayData("rows", dict.fromkeys(SPLITS, data.x), dict.fromkeys(SPLITS, data.target), CLASSES)
    plain = functools.partial(torch.optim.SGD, lr=0.1)
    rule.fit(parts, epochs=1, batch_size=7, optim=plain, clip_norm=bound, restore_best=False)
    completed(other.gradients(data))
    if bound is not None:
        for net in (other.net, other.opposite):
            assert nn.utils.clip_grad_norm_(net.parameters(), bound) > bound
    for found, p in zip(rule.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, p - 0.1 * p.grad, rtol=1e-9, atol=1e-12)


def test_the_second_net_is_saved_and_the_first_one_alone_predicts(tmp_path):
    rule = made(mlp())
    assert {name.partition(".")[0] for name in rule.state_dict()} == {"net", "opposite"}
    assert rule.net_predicts
    fresh = made(mlp())
    fresh.load_state_dict(rule.state_dict())
    data = rows()
    for one in (rule, fresh):
        one.zero_grad(set_to_none=True)
        completed(one.gradients(data))
    for p, q in zip(rule.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: made(mlp(), similarity="difference").check_task(mlp().task),
            "use similarity=product or cosine",
        ),
        (
            lambda: made(Mixer((1, 4, 4), 2, patch=2, width=8, layers=1)),
            "Mixer has others; .* or net=mlp, cnn or resnet20",
        ),
        (
            lambda: made(Transformer((4, 3), 2, layers=1, width=8, heads=2)),
            "has others; use algo=direct_feedback_alignment",
        ),
    ],
)
def test_nets_of_other_rows_are_refused(make, said):
    with pytest.raises(Unsupported, match=said):
        make()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": 0.0}, "scale must be positive"),
        ({"apart": -1.0}, "apart must be 0"),
        ({"margin": 1.0}, "margin must be 0 .* and less than 1"),
        ({"activation": "elo"}, "no activation 'elo'"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        made(mlp(), **options)


def test_the_rule_learns_from_maps_what_random_blocks_do_not_show():
    batch = toy("cnn").batch
    torch.manual_seed(0)
    net: Net = CNN((1, 4, 4), 2, channels=(8, 8), norm="none", activation="elu")
    rule = made(net, similarity="cosine")
    optimizer = torch.optim.Adam(rule.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        completed(rule.gradients(batch))
        optimizer.step()
    assert (net(batch.x).argmax(1) != batch.target).float().mean() < 0.05
