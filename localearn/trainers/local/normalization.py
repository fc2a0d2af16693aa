"""What Forward-Forward does to activities: hide their length from the next block, and draw units to their peers."""

import math

import torch
from torch import Tensor, nn

EPS = 1e-8
MOMENTUM = 0.9


def length_normalized(h: Tensor) -> Tensor:
    """Return h / (RMS(h) + 1e-8), RMS the root mean square of each row of h, (N, ...)."""
    rms = torch.linalg.vector_norm(h.flatten(1), dim=1) / math.sqrt(math.prod(h.shape[1:]))
    return h / (rms + EPS).to(h.dtype).view(-1, *(1,) * (h.dim() - 1))


def share_off(h: Tensor) -> Tensor:
    """Return the share, a scalar, of the units or, of maps, channels of h, (N, n, ...), that no row turns on."""
    return (h.flatten(2).amax(2) if h.dim() > 2 else h).amax(0).le(0).to(torch.float32).mean()


class PeerNormalization(nn.Module):
    """Draws each unit's mean activity m_i to the mean of its block: strength * mean_i (mean_j m_j - m_i)^2.

    m = 0.9 m + 0.1 (mean over the batch), (n,), is a buffer that begins at 0.5 and moves with every call; the gradient
    is that of this batch's share. It passes the block's post as if it were the identity, where that keeps the shape,
    so that a unit that is always off is revived.
    """

    running: Tensor

    def __init__(self, like: Tensor, size: int, strength: float):
        super().__init__()
        self.strength = strength
        self.register_buffer("running", torch.full((size,), 0.5, device=like.device, dtype=like.dtype))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss, a scalar, of a block's op's output z and its own output h, (N, ...) both."""
        mean = self._mean(h)
        if z.shape == h.shape:
            before = self._mean(z)
            mean = mean.detach() + before - before.detach()
        mean = MOMENTUM * self.running + (1 - MOMENTUM) * mean
        self.running.copy_(mean.detach())
        return self.strength * (mean.mean() - mean).square().mean()

    def _mean(self, h: Tensor) -> Tensor:
        return h.flatten(1).mean(0).to(self.running.dtype)
