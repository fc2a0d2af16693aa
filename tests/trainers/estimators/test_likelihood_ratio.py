"""The likelihood ratio's estimates, one for each of many equal rows, so that one call gives thousands of them.

Statistics are taken from fixed seeds. A correct estimator with another seed would fail a test of means once in 10,000
times (normal approximation, Bonferroni over all values that a test compares).
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from localearn import CNN, GNN, MLP, Batch, LikelihoodRatio, UserError
from localearn.nets.conv import LeNet
from localearn.tasks import Classification
from localearn.testing import toy
from localearn.trainers.estimators import likelihood_ratio
from tests.helpers.conformance import BASIC, Suite

ROWS = 20_000
FALSE_ALARM = 1e-4
PLAIN = {"copies": 8, "antithetic": False, "baseline": "none", "layerwise": False}
OPTIONS = {
    "plain": PLAIN,
    "one copy": {**PLAIN, "copies": 1},
    "antithetic": {**PLAIN, "antithetic": True},
    "mean": {**PLAIN, "baseline": "mean"},
    "clean": {**PLAIN, "baseline": "clean"},
    "mean of pairs": {**PLAIN, "antithetic": True, "baseline": "mean"},
    "clean of pairs": {**PLAIN, "antithetic": True, "baseline": "clean"},
    "layerwise": {**PLAIN, "layerwise": True},
    "sobol": {**PLAIN, "noise": "sobol"},
    "sobol pairs": {**PLAIN, "antithetic": True, "noise": "sobol", "layerwise": True},
    "sigmas": {**PLAIN, "sigma": [0.3, 0.8]},
}


class TestLayerwiseConformance(Suite):
    runs_on = BASIC
    draws_noise = True

    def make(self, net):
        return LikelihoodRatio(net, copies=16, antithetic=False, baseline="clean", layerwise=True)


@pytest.fixture
def estimates(monkeypatch):
    """Return a function that gives each site's estimates of d loss / d bias, one for each row: [(ROWS, n_k)]."""

    def collect(rule, data):
        found = []
        monkeypatch.setattr(likelihood_ratio, "accumulate_grad", lambda value, delta: found.append(delta.detach()))
        rule.gradients(data)
        deltas = found[1:]  # the readout's comes first
        return [len(data.x) * (d.sum(0) if d.dim() == 3 else d) for d in deltas]

    return collect


def mlp(activation="tanh"):
    torch.manual_seed(0)
    return MLP((3,), 3, widths=(3, 2), activation=activation).double()


def equal_rows(n=ROWS):
    return Batch(torch.tensor([[0.5, -1.0, 0.8]], dtype=torch.float64).expand(n, 3), torch.tensor([1]).expand(n))


def smoothed(net, data, sigmas):
    """Return each block's mean and variance of d loss / d bias under noise, by differentiating through the noise."""
    h, shifts = data.x, []
    for k, sigma in enumerate(sigmas):
        block = net.block(k)
        z = block.op(h)
        shifts.append(torch.zeros_like(z, requires_grad=True))
        h = block.post(z + sigma * torch.randn_like(z) + shifts[-1])
    loss = nn.functional.cross_entropy(net.readout(h), data.y, reduction="sum")
    return torch.autograd.grad(loss, shifts)


def assert_same_means(one, other):
    """Compare the means of two independent samples, (n, values) each."""
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    score = ((one.mean(0) - other.mean(0)) / error).abs().max().item()
    assert score < NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / one.shape[1])


@pytest.mark.parametrize("name", OPTIONS)
def test_unbiased(name, estimates):
    """The mean estimate is the gradient of the loss expected under the noise, whatever the options."""
    net, options = mlp(), {"sigma": 0.5, **OPTIONS[name]}
    rule = LikelihoodRatio(net, **options)
    found = estimates(rule, equal_rows())
    for k, one in enumerate(found):
        noisy = [s if j == k or not rule.layerwise else 0.0 for j, s in enumerate(rule.sigmas)]
        assert_same_means(one, smoothed(net, equal_rows(), noisy)[k])


@pytest.mark.parametrize("block", [1, 2])
def test_unbiased_on_a_graph(block, monkeypatch):
    """Each of many copies is an estimate: for block 2 from the losses an edge away, for block 3 from a node's own."""
    torch.manual_seed(0)
    copies, sigma, net = 20_000, 0.5, GNN(3, 2, widths=(2, 2, 2), dropout=0.0, activation="tanh").double()
    edges = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 1, 2, 4]])  # with one-way streets: 0 to 1, 3 to 2, 3 to 4
    labelled = torch.tensor([0, 2, 4])
    data = Batch(torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0]), (edges,), labelled)
    deltas = []
    monkeypatch.setattr(likelihood_ratio, "accumulate_grad", lambda value, delta: deltas.append(delta.detach()))
    LikelihoodRatio(net, sigma=sigma, copies=copies, antithetic=False, layerwise=False).gradients(data)
    h, shift = data.x.expand(copies, 5, 3), torch.zeros(copies, 5, 2, dtype=torch.float64, requires_grad=True)
    for k in range(net.depth):
        z = net.block(k).op(h, edges)
        h = torch.tanh(z + sigma * torch.randn_like(z) + (shift if k == block else 0))
    loss = nn.functional.cross_entropy(
        net.readout(h)[:, labelled].flatten(0, 1), data.y.repeat(copies), reduction="sum"
    )
    (expected,) = torch.autograd.grad(loss / len(labelled), shift)
    found, expected = copies * deltas[block + 1].flatten(1), expected.flatten(1)
    moved = (expected != 0).any(0)
    assert torch.equal((found != 0).any(0), moved), "noise that reaches no labelled node has no weight"
    assert_same_means(found[:, moved], expected[:, moved])


def test_each_option_lowers_the_variance(estimates):
    """Total variance over 20,000 draws; a ratio of two has a standard error of about 0.02 of its value.

    Measured, of the plain estimate's with as many copies: pairs 0.0006, mean 0.0004, clean 0.0003, Sobol 0.09; with 64
    copies Sobol and clean 0.00002; layerwise 0.6 of clean; the larger noise in block 2 0.63.
    """
    net = mlp()

    def variance(rows=ROWS, **options):
        torch.manual_seed(1)
        found = estimates(
            LikelihoodRatio(net, sigma=options.pop("sigma", 0.1), **{**PLAIN, **options}), equal_rows(rows)
        )
        return sum(one.var(0).sum().item() for one in found)

    plain, clean = variance(), variance(baseline="clean")
    assert variance(antithetic=True) < 0.01 * plain
    assert variance(baseline="mean") < 0.01 * plain
    assert clean < 0.01 * plain
    assert variance(noise="sobol") < 0.2 * plain
    assert variance(layerwise=True, baseline="clean") < 0.8 * clean
    assert variance(sigma=[0.1, 0.4]) < 0.8 * plain
    assert 0.45 < variance(copies=16) / plain < 0.55
    many = {"rows": 2000, "copies": 64, "baseline": "clean"}
    assert variance(**many, noise="sobol") < 0.5 * variance(**many)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("baseline", ["mean", "clean"])
def test_pairs_need_a_baseline_after_the_first_block(baseline, norm):
    """Mean squared error of each block's gradient: the copies of a pair differ in what later blocks take.

    Measured, of the error of pairs alone: 1, 0.040 and 0.015 in blocks 1 to 3, for in the first a pair does cancel a
    baseline; with layer normalisation, whose parameters are perturbed too, 0.81, 0.31 and 0.17.
    """
    torch.manual_seed(0)
    net = MLP((8,), 3, widths=(20, 20, 20), norm=norm).double()
    data = Batch(torch.randn(16, 8, dtype=torch.float64), torch.arange(16) % 3)

    def gradients(rule):
        rule.zero_grad()
        rule.gradients(data)
        return [
            torch.cat([p.grad.flatten() for p in net.block(k).parameters() if p.grad is not None])
            for k in range(net.depth)
        ]

    def errors(baseline):
        torch.manual_seed(1)
        rule = LikelihoodRatio(net, sigma=0.1, copies=8, baseline=baseline, layerwise=False)
        draws = [gradients(rule) for _ in range(60)]
        return [torch.stack(of_block).var(0).sum().item() for of_block in zip(*draws, strict=True)]

    ratios = [with_it / without for with_it, without in zip(errors(baseline), errors("none"), strict=True)]
    assert ratios[0] == pytest.approx(1.0) if norm == "none" else ratios[0] < 0.9
    assert max(ratios[1:]) < (0.1 if norm == "none" else 0.5)


class Quadratic(Classification):
    """The loss |o - t|^2 / 2, whatever the label."""

    target = torch.tensor([0.3, -0.7], dtype=torch.float64)

    def losses(self, output, target):
        return (output - self.target).square().sum(-1) / 2


def test_closed_form_of_a_quadratic_loss(estimates):
    """In a linear net with the loss |o - t|^2 / 2, pairs have mean a and, to first order, variance |a|^2 + a_i^2.

    a = W_o^T (W_o z - t) is the gradient at z; a pair's estimate is (a . eps) eps_i / sigma^2 without remainder, as the
    quadratic term cancels in it.
    """
    torch.manual_seed(0)
    net = MLP((3,), 2, widths=(4,), activation="identity").double().for_task(Quadratic(2))
    data = equal_rows()
    (found,) = estimates(LikelihoodRatio(net, sigma=0.7, copies=2, layerwise=False), data)
    with torch.no_grad():
        gradient = (net(data.x[:1]) - Quadratic.target) @ net.readout.weight
    size = gradient.square().sum()
    error = ((size + gradient**2) / ROWS).sqrt()
    assert ((found.mean(0) - gradient) / error).abs().max() < NormalDist().inv_cdf(1 - FALSE_ALARM / 8)
    torch.testing.assert_close(found.var(0), (size + gradient**2)[0], rtol=0.1, atol=0)


def test_agrees_with_numpy_for_several_steps(monkeypatch):
    """The paper's equations in NumPy, copy after copy and row after row, with the same noise and plain descent."""
    torch.manual_seed(0)
    net, sigma = MLP((3,), 2, widths=(4, 5)).double(), 0.3
    rule = LikelihoodRatio(net, sigma=sigma, copies=4, antithetic=False, baseline="mean", layerwise=False)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    drawn = []
    draw = rule.noise.draw
    monkeypatch.setattr(rule.noise, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1])
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.05)
    w1, b1, w2, b2, wo, bo = (p.detach().numpy().copy() for p in net.parameters())
    for _ in range(4):
        drawn.clear()
        optimizer.zero_grad()
        rule.gradients(Batch(x, y))
        optimizer.step()
        steps = [np.zeros_like(p) for p in (w1, b1, w2, b2, wo, bo)]
        for i in range(6):
            h0, label = x[i].numpy(), int(y[i])
            losses, passes = [], []
            for c in range(4):
                e1, e2 = (sigma * noise[c, i].numpy() for noise in drawn)
                h1 = np.maximum(w1 @ h0 + b1 + e1, 0)
                h2 = np.maximum(w2 @ h1 + b2 + e2, 0)
                o = wo @ h2 + bo
                p = np.exp(o) / np.exp(o).sum()
                losses.append(-np.log(p[label]))
                passes.append((e1, h1, e2, h2, p - np.eye(2)[label]))
            for c, (e1, h1, e2, h2, error) in enumerate(passes):
                w = losses[c] - (sum(losses) - losses[c]) / 3
                d1, d2 = w * e1 / sigma**2, w * e2 / sigma**2
                found = (np.outer(d1, h0), d1, np.outer(d2, h1), d2, np.outer(error, h2), error)
                for step, value in zip(steps, found, strict=True):
                    step += value / 24
        for p, step in zip((w1, b1, w2, b2, wo, bo), steps, strict=True):
            p -= 0.05 * step
        for found, expected in zip(net.parameters(), (w1, b1, w2, b2, wo, bo), strict=True):
            np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["sign", "heaviside"])
def test_trains_a_net_without_derivatives(activation):
    """The exclusive-or with units that only switch: the gradient is zero in the block, the estimate is not."""
    data = toy("mlp").batch
    torch.manual_seed(0)
    net = MLP((6,), 2, widths=(16,), activation=activation)
    nn.functional.cross_entropy(net(data.x), data.y).backward()
    gradient = net.get_parameter("blocks.0.op.weight").grad
    assert gradient is not None and gradient.abs().max() == 0
    losses = {}
    for trained in ("all", "readout"):
        torch.manual_seed(0)
        rule = LikelihoodRatio(MLP((6,), 2, widths=(16,), activation=activation), sigma=0.5, copies=16)
        part = rule if trained == "all" else rule.net.readout
        optimizer = torch.optim.Adam(part.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            rule.gradients(data)
            optimizer.step()
        rule.eval()
        losses[trained] = nn.functional.cross_entropy(rule.predict(data.x), data.y).item()
    assert losses["all"] < 0.5 * losses["readout"]


def test_sobol_copies_are_balanced():
    """Eight copies of a value fall one into each eighth of the normal distribution, in each row and draw anew."""
    rule = LikelihoodRatio(mlp(), copies=8, antithetic=False, noise="sobol")
    one, other = (rule.noise.draw(torch.zeros(5, 3), torch.float64, 0) for _ in range(2))
    eighths = (torch.special.ndtr(one) * 8).long().sort(0).values
    assert torch.equal(eighths, torch.arange(8)[:, None, None].expand(8, 5, 3))
    assert not torch.equal(one, other)


def test_extreme_sobol_digits_stay_finite():
    rule = LikelihoodRatio(mlp(), copies=2, antithetic=False, noise="sobol")
    for digits in (0, 2**30 - 1):
        rule.get_buffer("noise.points").fill_(digits)
        assert rule.noise.draw(torch.zeros(1000, 3), torch.float32, 0).isfinite().all()


def test_convolution_and_normalisation_follow_the_noise():
    """Every parameter of a batch-normalised CNN gets an estimate, and a step counts as one batch."""
    torch.manual_seed(0)
    net = CNN((1, 6, 6), 2, channels=(4,), norm="batch")
    rule, data = LikelihoodRatio(net, copies=4), Batch(torch.randn(8, 1, 6, 6), torch.arange(8) % 2)
    rule.gradients(data)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert net.get_buffer("blocks.0.post.0.num_batches_tracked") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": [0.1, -0.1]}, "sigma must be positive"),
        ({"sigma": math.inf}, "sigma must be a number or a list of numbers, not inf"),
        ({"sigma": "ab"}, "sigma must be a number or a list of numbers, not 'ab'"),
        ({"sigma": [0.1]}, "sigma has 1 values for 2 blocks"),
        ({"copies": 0, "antithetic": False}, "copies must be 1 or more"),
        ({"copies": 2.0}, "copies must be a whole number, not 2.0"),
        ({"layerwise": 1}, "layerwise must be true or false, not 1"),
        ({"copies": 3}, "come in pairs, and 3 is odd; use copies=4"),
        ({"copies": 2, "baseline": "mean"}, "other pairs, and there are none; use copies=4 or more"),
        ({"copies": 1, "antithetic": False, "baseline": "mean"}, "use copies=2 or more"),
        (
            {"copies": 8, "antithetic": False, "baseline": "median"},
            "must be none, mean or clean, not 'median'",
        ),
        ({"copies": 8, "antithetic": False, "baseline": "mean", "noise": "sobol"}, "use baseline=clean"),
        ({"copies": 6, "antithetic": False, "noise": "sobol"}, "has 2, 4, 8, ... points, not 6"),
        ({"noise": "sobl"}, "noise must be gaussian or sobol, not 'sobl'; did you mean 'sobol'?"),
    ],
)
def test_refuses_contradictions(options, message):
    with pytest.raises(UserError) as refusal:
        LikelihoodRatio(mlp(), **options)
    assert message in str(refusal.value)


def test_refuses_sobol_noise_for_too_many_values():
    with pytest.raises(UserError, match="a row 30000 values; use noise=gaussian"):
        LikelihoodRatio(MLP((2,), 2, widths=(30_000,)), antithetic=False, noise="sobol")


@pytest.mark.parametrize("layerwise", [True, False])
def test_an_averaged_map_may_lie_channels_last(layerwise):
    """torch warns of a slow way, which is an error here, where it averages many copies of such a map to one pixel."""

    def gradients(memory_format):
        torch.manual_seed(0)
        net = LeNet((3, 8, 8), 3, channels=[4, 6], kernel_size=3, hidden=5).double()
        trainer = LikelihoodRatio(net, layerwise=layerwise).to(memory_format=memory_format)
        trainer.gradients(Batch(torch.randn(4, 3, 8, 8, dtype=torch.double), torch.tensor([0, 1, 2, 0])))
        return [p.grad for p in trainer.parameters()]

    for found, expected in zip(gradients(torch.channels_last), gradients(torch.contiguous_format), strict=True):
        torch.testing.assert_close(found, expected)
