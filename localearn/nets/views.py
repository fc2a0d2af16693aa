"""Views of a block's output: the part that a head, a linear map to the outputs, reads."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class View(ABC):
    """Define what a net's readout, a rule's heads and its feedback matrices read of h_k, (N, *shape).

    `spread` is the transpose of its derivative at h, and `along` the derivative itself. A view is linear in h, so that
    <view(h), s> = <h, view.spread(s, h)> for all h and s, unless it normalises.
    """

    @property
    def per_position(self) -> bool:
        """Whether a head has an output at each position of a sequence, (N, T, C)."""
        return False

    @abstractmethod
    def width(self, shape: tuple[int, ...]) -> int:
        """Return the number of values that a head reads at once of a row of that shape."""

    @abstractmethod
    def __call__(self, h: Tensor) -> Tensor:
        """Return what a head reads of h, (N, ..., width)."""

    @abstractmethod
    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Propagate a signal back: the transpose of the derivative at h, applied to it.

        Args:
            signal: at the values that are read, (N, ..., width).
            h: (N, *shape).

        Returns:
            The signal at h, shaped as h.

        """

    def along(self, tangent: Tensor, h: Tensor) -> Tensor:
        """Propagate tangents forward: the derivative of the view at h, applied to them.

        Args:
            tangent: (K, *h.shape).
            h: (N, *shape).

        Returns:
            The tangents of the values that are read, (K, N, ..., width).

        """
        return self(tangent.flatten(0, 1)).unflatten(0, tangent.shape[:2])

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@final
class Flattened(View):
    """Read all of a row at once: (N, n), n the product of its shape."""

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
    """Read each position of a sequence by itself: (N, T, D) as it is, so that outputs are (N, T, C)."""

    @property
    def per_position(self) -> bool:
        """Whether a head has an output at each position: yes."""
        return True

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
    """Read the mean over positions: (N, D) of a sequence (N, T, D), or of maps (N, D, H, W)."""

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
class Normalized(View):
    """Read by another view after each position was normalised to mean 0 and deviation 1 over its D values.

    It is the layer normalisation in front of the readout of a net whose blocks add to a stream, without scale and bias,
    which are redundant before a Linear. As every head reads by the net's view, all of them read values of one size,
    while blocks, and a rule that uses their activities, have the stream as it is.

    Args:
        view: the other view; `PerPosition` by default.

    """

    eps = 1e-5

    def __init__(self, view: View | None = None):
        self.view = view or PerPosition()

    @property
    def per_position(self) -> bool:
        """Whether a head has an output at each position: as the other view has it."""
        return self.view.per_position

    def width(self, shape: tuple[int, ...]) -> int:
        """Return the other view's width."""
        return self.view.width(shape)

    def __call__(self, h: Tensor) -> Tensor:
        """Return what the other view reads of the normalised h."""
        return self.view(F.layer_norm(h, h.shape[-1:], eps=self.eps))

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return the signal without its parts along 1 and along h in each position, divided by h's deviation."""
        return self._derivative(self.view.spread(signal, h), h)

    def along(self, tangent: Tensor, h: Tensor) -> Tensor:
        """Return the derivative of what is read along tangents of h."""
        return self.view.along(self._derivative(tangent, h), h)

    def _derivative(self, v: Tensor, h: Tensor) -> Tensor:
        """Return J v, J = d normalised / d h at h, which is symmetric."""
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        variance, mean = torch.var_mean(h, -1, correction=0, keepdim=True)
        scale = (variance + self.eps).rsqrt()
        normal = (h - mean) * scale
        inner = v - v.mean(-1, keepdim=True) - normal * (normal * v).mean(-1, keepdim=True)
        return (inner * scale).to(v.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.view!r})"


@final
class LastPosition(View):
    """Read the last position of a sequence alone: (N, D) of (N, T, D)."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return D."""
        return shape[-1]

    def __call__(self, h: Tensor) -> Tensor:
        """Return (N, D)."""
        return h[:, -1]

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return the signal at the last position, and zeros before it."""
        return F.pad(signal[:, None], (0, 0, h.shape[1] - 1, 0))


@final
class Leading(View):
    """Read the first values of a row alone: (N, width) of (N, n), where the others are carried along.

    Args:
        width: the number of values.

    """

    def __init__(self, width: int):
        self._width = width

    def width(self, shape: tuple[int, ...]) -> int:
        """Return how many values are read."""
        return self._width

    def __call__(self, h: Tensor) -> Tensor:
        """Return (N, width)."""
        return h[:, : self._width]

    def spread(self, signal: Tensor, h: Tensor) -> Tensor:
        """Return the signal at the first values, and zeros after them."""
        return F.pad(signal, (0, h.shape[1] - self._width))

    def __repr__(self) -> str:
        return f"Leading({self._width})"


@final
class Head(nn.Module):
    """Compute head(view(h)) as one module.

    Args:
        view: the view.
        head: a map from what it reads to the outputs.

    """

    def __init__(self, view: View, head: nn.Module):
        super().__init__()
        self.view, self.head = view, head

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return the outputs, (N, ..., C), of h, (N, *shape)."""
        return self.head(self.view(h), *context)
