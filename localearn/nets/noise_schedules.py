"""Noise schedules of diffusion: how much of a clean embedding a noisy one holds at each time."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OFFSET = 0.008  # of the cosine, so that no step is the identity; Nichol, Dhariwal, arXiv 2102.09672, eq. 17


def cosine_alpha_bar(steps: int) -> list[float]:
    """Return abar_0, ..., abar_T of the fixed cosine schedule, rising from 0 to almost 1.

    abar_t = cos^2(pi / 2 (1 - t / T + s) / (1 + s)), s = 0.008: Nichol and Dhariwal's (arXiv 2102.09672, eq. 17), whose
    time runs the other way, without the division by its largest value, by which SNR(T) would be infinite.
    """
    return [math.cos(math.pi / 2 * (1 - t / steps + _OFFSET) / (1 + _OFFSET)) ** 2 for t in range(steps + 1)]


def snr(alpha_bar: float) -> float:
    """Return the signal-to-noise ratio abar / (1 - abar)."""
    return alpha_bar / (1 - alpha_bar)


def coefficients(alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a_t, b_t, c_t, (T,) each, of z_t = a_t u + b_t z_{t-1} + sqrt(c_t) eps, from abar_0..abar_T, (T + 1,).

    With alpha_{t-1} = abar_{t-1} / abar_t this is the posterior q(z_t | z_{t-1}, u) of arXiv 2503.24322, eq. 40-41.
    """
    before, after = alpha_bar[:-1], alpha_bar[1:]
    alpha = before / after
    a = after.sqrt() * (1 - alpha) / (1 - before)
    b = alpha.sqrt() * (1 - after) / (1 - before)
    c = (1 - after) * (1 - alpha) / (1 - before)
    return a, b, c


class LearnedSchedule(nn.Module):
    """A schedule in continuous time that learns: SNR(t) = exp(-gamma(t)), abar(t) = sigmoid(-gamma(t)), t in [0, 1].

        g(t) = sum_j v_j sigmoid(w_j t + b_j)                             v, w > 0: two layers, rising in t
        gamma(t) = gamma_0 + (gamma_1 - gamma_0) (1 - (g(t) - g(0)) / (g(1) - g(0)))

    So gamma falls from gamma_1 to gamma_0, which learn too. arXiv 2503.24322, eq. 65-67. Weights and the ends' distance
    are softplus of what is learned, which keeps them positive. The hidden width and the first ends, -4 and 4, are
    ours: the paper gives none.
    """

    def __init__(self, hidden: int = 64, ends: tuple[float, float] = (-4.0, 4.0)):
        super().__init__()
        self.first = nn.Parameter(torch.randn(hidden))
        self.bias = nn.Parameter(torch.randn(hidden))
        self.second = nn.Parameter(torch.randn(hidden))
        self.low = nn.Parameter(torch.tensor(ends[0]))
        self.span = nn.Parameter(torch.tensor(ends[1] - ends[0]).expm1().log())  # the inverse of softplus

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma and its derivative, shaped as t."""
        w, v = F.softplus(self.first), F.softplus(self.second)
        ends = torch.sigmoid(torch.stack([self.bias, w + self.bias])) @ v
        s = torch.sigmoid(t.unsqueeze(-1) * w + self.bias)
        share, slope = (s @ v - ends[0]) / (ends[1] - ends[0]), (s * (1 - s)) @ (w * v) / (ends[1] - ends[0])
        span = F.softplus(self.span)
        return self.low + span * (1 - share), -span * slope

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Return abar(t), shaped as t."""
        return torch.sigmoid(-self(t)[0])

    def snr_slope(self, t: Tensor) -> Tensor:
        """Return SNR'(t) = -gamma'(t) exp(-gamma(t)), shaped as t."""
        gamma, slope = self(t)
        return -slope * (-gamma).exp()
