"""NoProp's net: the published one, and the posterior that its blocks sample from."""

import copy

import torch
from torch import nn

from localearn import Denoiser
from localearn.nets.denoiser import Denoising, coefficients, cosine_alpha_bar


def test_the_posterior_keeps_what_q_says_of_every_time():
    """A step from q(z_{t-1} | y) with the true embedding ends in q(z_t | y): its mean and its variance, eq. 6."""
    bar = torch.tensor(cosine_alpha_bar(10), dtype=torch.float64)
    a, b, c = coefficients(bar)
    torch.testing.assert_close(a + b * bar[:-1].sqrt(), bar[1:].sqrt())
    torch.testing.assert_close(b**2 * (1 - bar[:-1]) + c, 1 - bar[1:])
    assert bar.diff().min() > 0 and bar[0] < 1e-30 and 0.999 < bar[-1] < 1


def test_the_published_net_is_figure_6():
    """By its layers, and the parameters that these come to."""
    net = Denoiser((3, 32, 32), 10)
    assert net.depth == 10
    x = (27 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + 128 * 64 * 256 + 2 * 256
    z = 10 * 256 + 2 * 256 * 256 + 3 * 2 * 256
    head = 512 * 256 + 2 * 256 + 256 * 128 + 2 * 128 + 129 * 10
    assert sum(p.numel() for p in net.block(0).parameters()) == x + z + head
    dropped = [module.p for module in net.block(0).modules() if isinstance(module, nn.Dropout)]
    assert dropped == [0.2] * 3
    timed = Denoiser((1, 28, 28), 10, form="ct")
    assert timed.depth == 1 and not any(isinstance(module, nn.BatchNorm1d) for module in timed.modules())
    twin = copy.deepcopy(timed)
    step = twin.block(0).op
    assert isinstance(step, Denoising) and step._shared == (twin.embedding, twin.noise, twin.schedule)
    assert twin.schedule is not timed.schedule
