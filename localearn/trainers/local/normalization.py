"""Normalisation of rows by their length, and of units by their peers, for rules whose goodness is a length."""

import math

import torch
from torch import Tensor, nn

EPS = 1e-8
MOMENTUM = 0.9


def length_normalized(h: Tensor, axes: int = 1) -> Tensor:
    """Return h / (RMS(h) + 1e-8), RMS the root mean square of each row.

    Args:
        h: (N, ...).
        axes: how many there are before those that are taken together; 2: of each position of (N, T, D).

    """
    rms = torch.linalg.vector_norm(h.flatten(axes), dim=axes) / math.sqrt(math.prod(h.shape[axes:]))
    return h / (rms + EPS).to(h.dtype).view(*h.shape[:axes], *(1,) * (h.dim() - axes))


def share_off(h: Tensor) -> Tensor:
    """Return the share, a scalar, of the units that no row turns on.

    They are the entries of a row, the channels of maps, the features of a sequence.

    Args:
        h: activities, (N, n), (N, n, H, W) or (N, T, n).

    """
    most = h.flatten(2).amax(2) if h.dim() > 3 else h.flatten(0, -2)
    return most.amax(0).le(0).to(torch.float32).mean()


class PeerNormalization(nn.Module):
    """Draw each unit's mean activity m_i to its block's mean by a loss, strength * mean_i (mean_j m_j - m_i)^2.

    m = 0.9 m + 0.1 (mean over the batch), (n,), is a buffer that begins at 0.5 and moves with every call; the gradient
    is that of this batch's share. It passes the block's post as if it were the identity, where that keeps the shape,
    so that a unit that is always off is revived.

    Args:
        like: a tensor of the buffer's dtype and device.
        size: n, the units.
        strength: as above.

    """

    running: Tensor

    def __init__(self, like: Tensor, size: int, strength: float):
        super().__init__()
        self.strength = strength
        self.register_buffer("running", torch.full((size,), 0.5, device=like.device, dtype=like.dtype))

    def forward(self, z: Tensor, h: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            z: the output of a block's op, (N, ...).
            h: the block's own output, (N, ...).
            counted: (N,) bool, the rows that the mean is over; None: all.

        """
        mean = self._mean(h, counted)
        if z.shape == h.shape:
            before = self._mean(z, counted)
            mean = mean.detach() + before - before.detach()
        mean = MOMENTUM * self.running + (1 - MOMENTUM) * mean
        self.running.copy_(mean.detach())
        return self.strength * (mean.mean() - mean).square().mean()

    def _mean(self, h: Tensor, counted: Tensor | None) -> Tensor:
        rows = h.flatten(1)
        if counted is None:
            return rows.mean(0).to(self.running.dtype)
        return ((rows * counted.unsqueeze(1)).sum(0) / counted.sum().clamp_min(1)).to(self.running.dtype)
