"""How a head, a linear map to the outputs, reads a block's output."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import final

from torch import Tensor, nn


class View(ABC):
    """What a net's readout, a local rule's projections and a feedback rule's matrices have of h_k, (N, *shape).

    A view is linear in h, and `spread` is its transpose: <view(h), s> = <h, view.spread(s, h)> for all h and s.
    """

    @abstractmethod
    def width(self, shape: tuple[int, ...]) -> int:
        """Return the number of values that a head reads at once of a row of that shape."""

    @abstractmethod
    def __call__(self, h: Tensor) -> Tensor:
        """Return what a head reads of h, (N, ..., width)."""

    @abstractmethod
    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return a signal at what is read of h, (N, ..., width), as one at h, shaped as h."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@final
class Flattened(View):
    """All of a row at once: (N, n), n the product of its shape."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return n."""
        return math.prod(shape)

    def __call__(self, h: Tensor) -> Tensor:
        """Return (N, n)."""
        return h.flatten(1)

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return the signal in h's shape."""
        return signal.view_as(h)


@final
class PerPosition(View):
    """Each position of a sequence by itself: (N, T, D) as it is, so that outputs are (N, T, C)."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return D."""
        return shape[-1]

    def __call__(self, h: Tensor) -> Tensor:
        """Return (N, T, D)."""
        return h

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return the signal."""
        return signal


@final
class Pooled(View):
    """The mean over positions: (N, D) of a sequence (N, T, D), or of maps (N, D, H, W)."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return D, the last of a sequence's sizes and the first of a map's."""
        return shape[0] if len(shape) == 3 else shape[-1]

    def __call__(self, h: Tensor) -> Tensor:
        """Return (N, D)."""
        if h.dim() == 2:
            return h
        return h.mean((2, 3)) if h.dim() == 4 else h.mean(1)

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return each position's share of the signal."""
        if h.dim() == 2:
            return signal
        share = signal / (h[0].numel() // signal.shape[1])
        return (share[:, :, None, None] if h.dim() == 4 else share[:, None]).expand_as(h)


VIEWS: Mapping[str, Callable[[], View]] = {"flattened": Flattened, "pooled": Pooled, "per_position": PerPosition}


@final
class Head(nn.Module):
    """head(view(h)) as one module, for who needs the two together."""

    def __init__(self, view: View, head: nn.Module):
        super().__init__()
        self.view, self.head = view, head

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return the outputs, (N, ..., C), of h, (N, *shape)."""
        return self.head(self.view(h), *context)
