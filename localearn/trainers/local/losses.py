"""Losses of a linear predictor: the squared error, the cross-entropy and the sparsemax loss."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.trainers.local.labels import one_hot

Loss = Literal["mse", "ce", "sparsemax"]


def squared_error(z: Tensor, y: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return mean_i |Y_i - z_i|^2, a scalar.

    Args:
        z: outputs, (N, C).
        y: labels, (N,), or values, (N, C).
        counted: (N,) bool, the rows that the mean is over; None: all.

    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return mean_over((z - encoded_targets(y, z.shape[1]).to(z.dtype)).square().sum(1), counted)


def cross_entropy(z: Tensor, y: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy, a scalar.

    Args:
        z: logits, (N, C).
        y: labels, (N,).
        counted: (N,) bool, the rows that the mean is over; None: all.

    """
    if counted is None:
        return F.cross_entropy(z, y)
    return mean_over(F.cross_entropy(z, y, reduction="none"), counted)


def sparsemax_loss(z: Tensor, y: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean sparsemax loss, a scalar (section 3).

        L = -z_y + (sum over p_j > 0 of z_j^2 - tau^2) / 2 + 1/2 = z . p - |p|^2 / 2 - z_y + 1/2,   p = sparsemax(z)

    In the second form p maximises, so that it may stand as a constant and the gradient is p - Y.

    Args:
        z: scores, (N, C).
        y: labels, (N,).
        counted: (N,) bool, the rows that the mean is over; None: all.

    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    p = sparsemax(z.detach())
    losses = (z * p).sum(1) - p.square().sum(1) / 2 - z.gather(1, y.unsqueeze(1)).squeeze(1) + 0.5
    return mean_over(losses, counted)


def sparsemax(z: Tensor) -> Tensor:
    """Return the Euclidean projection of each row onto the probability simplex (algorithm 1).

    p = max(z - tau, 0), tau such that a row sums to 1: with z sorted downwards, K the largest k with
    1 + k z_(k) > z_(1) + ... + z_(k), and tau = (z_(1) + ... + z_(K) - 1) / K.

    Args:
        z: (N, C).

    """
    z = z - z.amax(1, keepdim=True)  # which changes nothing, but that 1 + z is not z for large scores
    ordered = z.sort(dim=1, descending=True).values
    sums = ordered.cumsum(1)
    k = torch.arange(1, z.shape[1] + 1, device=z.device, dtype=z.dtype)
    size = (1 + k * ordered > sums).sum(1, keepdim=True).clamp_(min=1)  # 0 only where a score is not a number
    tau = (sums.gather(1, size - 1) - 1) / size
    return (z - tau).clamp_(min=0)


def mean_over(losses: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean, a scalar.

    Args:
        losses: (N,).
        counted: (N,) bool, the rows that the mean is over; None: all.

    """
    return losses.mean() if counted is None else (losses * counted).sum() / counted.sum().clamp_min(1)


def encoded_targets(y: Tensor, outputs: int) -> Tensor:
    """Return values, (N, C), as they are, and labels, (N,), as boolean one-hot rows, (N, C).

    Args:
        y: the targets.
        outputs: C.

    """
    return y if y.dim() == 2 else one_hot(y, outputs)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "mse": squared_error,
    "ce": cross_entropy,
    "sparsemax": sparsemax_loss,
}
