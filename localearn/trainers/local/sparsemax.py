"""Sparsemax and its loss (Martins, Astudillo, arXiv 1602.02068)."""

import torch
from torch import Tensor

from localearn.trainers.local.ridge import mean_over


def sparsemax(z: Tensor) -> Tensor:
    """Return the Euclidean projection of each row of z, (N, C), onto the probability simplex (algorithm 1).

    p = max(z - tau, 0), tau such that a row sums to 1: with z sorted downwards, K the largest k with
    1 + k z_(k) > z_(1) + ... + z_(k), and tau = (z_(1) + ... + z_(K) - 1) / K.
    """
    z = z - z.amax(1, keepdim=True)  # which changes nothing, but that 1 + z is not z for large scores
    ordered = z.sort(dim=1, descending=True).values
    sums = ordered.cumsum(1)
    k = torch.arange(1, z.shape[1] + 1, device=z.device, dtype=z.dtype)
    size = (1 + k * ordered > sums).sum(1, keepdim=True).clamp_(min=1)  # 0 only where a score is not a number
    tau = (sums.gather(1, size - 1) - 1) / size
    return (z - tau).clamp_(min=0)


def sparsemax_loss(z: Tensor, y: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean sparsemax loss, a scalar, of scores z, (N, C), at labels y, (N,) (section 3).

        L = -z_y + (sum over p_j > 0 of z_j^2 - tau^2) / 2 + 1/2 = z . p - |p|^2 / 2 - z_y + 1/2,   p = sparsemax(z)

    In the second form p maximises, so that it may stand as a constant and the gradient is p - Y. The mean is over those
    rows that are counted, (N,) bool; over all where it is None.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    p = sparsemax(z.detach())
    losses = (z * p).sum(1) - p.square().sum(1) / 2 - z.gather(1, y.unsqueeze(1)).squeeze(1) + 0.5
    return mean_over(losses, counted)
