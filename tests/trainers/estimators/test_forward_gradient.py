import copy
import functools
import math
import subprocess
import sys
from statistics import NormalDist

import pytest
import torch
from torch import nn

from localearn import MLP, Backprop, Batch, ForwardGradient, Net, UserError
from localearn.testing.probes import gradients_of
from localearn.trainers.estimators.forward_gradient import _linear_part

REPEATS = 400
FALSE_ALARM_RATE = 1e-6  # of each test of a mean below, over all of its coordinates


def sites_per_row(net):
    """How many values of a row are perturbed: each op's output, and a post's where that has parameters."""
    return sum(
        width * (1 + any(True for _ in net.block(k).post.parameters())) for k, width in enumerate(_op_widths(net))
    )


def _op_widths(net):
    if not isinstance(net.block(0).op, nn.Conv2d):
        return net.widths
    side = net.input_shape[1]
    maps = [(side // 2**k) ** 2 for k in range(net.depth)]
    return [math.prod(shape[:1]) * area for shape, area in zip(net.shapes, maps, strict=True)]


def orthogonal(n):
    """n tangents, the rows, whose mean of v v^T is the identity."""
    square = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return torch.linalg.qr(square)[0] * math.sqrt(n)


def draw_from(basis, *, shared_by_rows):
    """Return a `noise` that deals out the columns of a basis (K, n): to each value asked for, or alike to every row."""
    dealt = 0

    def noise(k, *shape, dtype, device):
        nonlocal dealt
        assert k == len(basis)
        rows, own = (shape[0], shape[1:]) if shared_by_rows else (1, shape)
        part = basis[:, dealt : dealt + math.prod(own)]
        dealt += part.shape[1]
        return part.reshape(k, 1, *own).expand(k, rows, *own).reshape(k, *shape).to(dtype).clone()

    return noise


@pytest.fixture(scope="module")
def small():
    """A float64 MLP of 59 parameters, 22 of them of the first block, and its true gradient."""
    torch.manual_seed(0)
    net = MLP(5, 3, widths=(4, 4), activation="tanh").double()
    batch = Batch(torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 3)
    return net, batch, gradients_of(Backprop(net), batch)


def test_over_a_whole_basis_of_the_weights_it_is_the_gradient(case):
    net, batch = case
    true = gradients_of(Backprop(net), batch)
    basis = orthogonal(sum(p.numel() for p in net.parameters()))
    trainer = ForwardGradient(net, space="weight", tangents=len(basis))
    trainer.noise = draw_from(basis, shared_by_rows=False)
    for name, grad in gradients_of(trainer, batch).items():
        torch.testing.assert_close(grad, true[name], rtol=1e-9, atol=1e-13)


def test_over_a_whole_basis_of_a_rows_activities_it_is_the_gradient(small):
    """Rows of an MLP do not touch each other, so all of them may share one basis: each has a derivative of its own."""
    net, batch, true = small
    basis = orthogonal(sites_per_row(net))
    trainer = ForwardGradient(net, space="activity", tangents=len(basis))
    trainer.noise = draw_from(basis, shared_by_rows=True)
    for name, grad in gradients_of(trainer, batch).items():
        torch.testing.assert_close(grad, true[name], rtol=1e-9, atol=1e-13)


def test_over_a_whole_basis_of_a_batchs_activities_it_is_the_gradient(case):
    """Batch normalisation and edges couple rows: then the basis is of all rows' values, and the derivative too."""
    net, batch = case
    net.couples_rows = lambda: True  # a rule may always take the whole batch's derivative
    true = gradients_of(Backprop(net), batch)
    basis = orthogonal(len(batch.x) * sites_per_row(net))
    trainer = ForwardGradient(net, space="activity", tangents=len(basis))
    trainer.noise = draw_from(basis, shared_by_rows=False)
    for name, grad in gradients_of(trainer, batch).items():
        torch.testing.assert_close(grad, true[name], rtol=1e-8, atol=1e-12)


def test_one_tangent_is_what_each_of_several_would_be(small):
    net, batch, _ = small
    for space in ("weight", "activity"):
        basis = orthogonal(sum(p.numel() for p in net.parameters()))[:3]
        several = ForwardGradient(net, space=space, tangents=3)
        several.noise = draw_from(basis, shared_by_rows=space == "activity")
        mean = gradients_of(several, batch)
        singles = []
        for row in basis:
            one = ForwardGradient(net, space=space, guess="noise")
            one.noise = draw_from(row[None], shared_by_rows=space == "activity")
            singles.append(gradients_of(one, batch))
        for name, grad in mean.items():
            torch.testing.assert_close(grad, torch.stack([s[name] for s in singles]).mean(0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("module", [
    nn.Linear(5, 4), nn.Linear(5, 4, bias=False), nn.Conv2d(5, 4, 3), nn.Conv2d(5, 4, 3, stride=2, padding=1),
    nn.Conv2d(5, 4, 1, bias=False), nn.Conv2d(5, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(5, 5, 3, groups=5),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("tangents", [1, 3])
def test_the_short_way_through_a_linear_map_is_its_derivative(module, tangents):
    shape = (2, 5) if isinstance(module, nn.Linear) else (2, 5, 6, 6)
    h, along = torch.randn(shape), torch.randn(tangents, *shape)
    expected = [torch.func.jvp(module, (h,), (tangent,))[1] for tangent in along]
    torch.testing.assert_close(_linear_part(module, along), torch.stack(expected).detach())


@pytest.fixture(scope="module")
def samples():
    """Estimates of the blocks' gradient of the small net, (REPEATS, P), drawn once for all tests."""
    return functools.cache(_samples)


def _samples(net, batch, space, noise, tangents):
    trainer = ForwardGradient(net, space=space, noise=noise, tangents=tangents, guess="noise")
    torch.manual_seed(0)
    found = []
    for _ in range(REPEATS):
        trainer.zero_grad(set_to_none=True)
        trainer.gradients(batch)
        found.append(flat({name: p.grad for name, p in net.named_parameters()}))
    return torch.stack(found)


def flat(gradients):
    return torch.cat([grad.flatten() for name, grad in gradients.items() if "readout" not in name])


def surprises(estimates, expected):
    """Return whether the mean of (R, P) estimates is as far off as it is by chance at FALSE_ALARM_RATE.

    Two-sided z-tests of every coordinate and of the length along the expected vector, Bonferroni-corrected.
    """
    direction = (expected / expected.norm()).unsqueeze(1)
    estimates, expected = (torch.cat([a, a @ direction], dim=-1) for a in (estimates, expected))
    error = estimates.std(0) / math.sqrt(len(estimates))
    limit = NormalDist().inv_cdf(1 - FALSE_ALARM_RATE / (2 * len(expected)))
    return bool(((estimates.mean(0) - expected).abs() > limit * error).any())


@pytest.mark.parametrize("space", ["weight", "activity"])
@pytest.mark.parametrize(("noise", "tangents"), [("gaussian", 1), ("gaussian", 8), ("rademacher", 8)])
def test_it_is_unbiased(small, samples, space, noise, tangents):
    """The same test must notice estimates that are 1.5 times (K = 1: 5 times) too long, or it could not fail."""
    net, batch, true = small
    estimates = samples(net, batch, space, noise, tangents)
    assert not surprises(estimates, flat(true))
    assert surprises((1 + 4 / tangents) * estimates, flat(true))


def test_the_variance_falls_with_the_tangents_and_in_activity_space(small, samples):
    """Total variances of 400 estimates each: their ratios are known to about 20 %, and expected near 1/8 and 1/9."""
    net, batch, _ = small
    variance = {
        (space, tangents): samples(net, batch, space, "gaussian", tangents).var(0).sum()
        for space in ("weight", "activity")
        for tangents in (1, 8)
    }
    for space in ("weight", "activity"):
        assert variance[space, 8] < variance[space, 1] / 4
    assert variance["activity", 8] < variance["weight", 8] / 2


def test_rademacher_noise_is_signs_alone():
    trainer = ForwardGradient(MLP(5, 3, widths=(4,)), noise="rademacher")
    drawn = trainer.noise(1000, 10, dtype=torch.bfloat16)
    assert drawn.dtype == torch.bfloat16
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(drawn.float().mean().item()) < 4.9 / math.sqrt(drawn.numel())  # false alarms: 1e-6


def test_the_readout_follows_its_true_gradient_in_activity_space(small):
    net, batch, true = small
    found = gradients_of(ForwardGradient(net, space="activity"), batch)
    for name in ("all/net.readout.weight", "all/net.readout.bias"):
        torch.testing.assert_close(found[name], true[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("tangents", [1, 3])
@pytest.mark.parametrize("space", ["weight", "activity"])
def test_running_statistics_are_kept_as_by_an_ordinary_pass(vectors, space, tangents):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    ordinary = copy.deepcopy(model)
    net = Net.from_sequential(model)
    ForwardGradient(net, space=space, tangents=tangents).gradients(vectors)
    ordinary(vectors.x)
    for ours, theirs in zip(model[1].buffers(), ordinary[1].buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_forward_mode_is_loaded_with_the_rule_and_without_its_warning():
    """Else the first step of a process pays for it, in metered time, and warns on the user's terminal."""
    code = (
        "import warnings, torch, localearn; warnings.simplefilter('error'); "
        "rule = localearn.ForwardGradient(localearn.MLP(5, 3, widths=(4,))); "
        "rule.gradients(localearn.Batch(torch.ones(2, 5), torch.tensor([0, 1])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "weights"}, "space must be weight or activity, not 'weights'"),
        ({"tangents": 0}, "tangents must be 1 or more, not 0"),
        ({"tangents": 1.5}, "tangents must be a whole number, not 1.5"),
        ({"tangents": True}, "tangents must be a whole number, not true"),
        ({"tangent": 2}, "ForwardGradient has no option tangent; did you mean 'tangents'"),
        ({"noise": "gausian"}, "noise must be gaussian or rademacher, not 'gausian'; did you mean 'gaussian'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ForwardGradient(MLP(5, 3, widths=(4,)), **options)
