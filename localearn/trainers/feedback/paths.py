"""Paths around a linear map: what the error passes through in the backward pass in place of W^T."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from localearn.errors import UserError


class Path(nn.Module, ABC):
    """Replace W in the backward pass: W is (n_out, n_in), or (n_out, n_in, height, width) in a convolution.

    It owns its feedback matrices, as buffers or parameters, of W's dtype and on W's device.
    """

    @abstractmethod
    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return R and B: the error passes through B, (n_out, m), then through R, shaped as W but with m for n_out.

        Without B, None, it passes through R alone, and m is n_out.

        Args:
            weight: W, detached.

        """

    @torch.no_grad()
    def matrix(self, weight: Tensor) -> Tensor:
        """Return B R, shaped as W: what W is in the forward pass.

        Args:
            weight: W.

        """
        back, mix = self(weight)
        return back if mix is None else combined_matrix(mix, back)


def apply_along_path(
    path: Path, func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
) -> Tensor:
    """Return func(x, W, b, *geometry), whose error goes back by the path.

    Args:
        path: what replaces W in the backward pass.
        func: F.linear or F.conv2d.
        x: the map's input, (..., n_in) or (N, n_in, H, W).
        weight: W.
        bias: b, (n_out,), or None.
        geometry: stride, padding, dilation and groups of a convolution; empty for a Linear.

    """
    back, mix = path(weight.detach())
    rows = x.numel() // x.shape[1 if geometry else -1]  # of a convolution: the pixels of the batch
    if mix is not None and rows > len(mix):
        # (delta B) R = delta (B R), and this order multiplies fewer numbers.
        back, mix = combined_matrix(mix, back), None
    return PathFunction.apply(func, geometry, x, weight, bias, back, mix)  # pyright: ignore[reportReturnType]


class PathFunction(torch.autograd.Function):
    """Compute y = map(x, W, b), whose error goes back by a path: delta_x = (delta_y B) R, and B may be left out.

    W's and b's gradients are the map's own. R's, where it learns, is that of a map from x with the error delta_y B: the
    Hebbian product (delta_y B)^T x. Nothing of W is saved for the backward pass.
    """

    @staticmethod
    def forward(  # noqa: D102 - torch.autograd.Function's
        ctx: Any,
        func: Callable[..., Tensor],
        geometry: tuple[Any, ...],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        back: Tensor,
        mix: Tensor | None,
    ) -> Tensor:
        y = func(x, weight, bias, *geometry)
        # Under autocast the map has computed in y's precision; its gradients are taken in the same.
        ctx.save_for_backward(x.to(y.dtype), back, mix)
        ctx.geometry, ctx.shape = geometry, weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 - torch.autograd.Function's
        x, back, mix = ctx.saved_tensors
        _, _, x_needs, weight_needs, bias_needs, back_needs, _ = ctx.needs_input_grad
        pull = _conv2d_backward if ctx.geometry else _linear_backward
        back = back.to(delta.dtype)
        if mix is None:
            grad_x, product = pull(delta, x, back, ctx.geometry, x_needs, weight_needs or back_needs)
            grad_weight, grad_back = product if weight_needs else None, product if back_needs else None
        else:
            relayed = _mix_backward(delta, mix.to(delta.dtype), ctx.geometry)
            grad_x, grad_back = pull(relayed, x, back, ctx.geometry, x_needs, back_needs)
            # W's gradient does not depend on W: one number serves for all of its entries.
            blank = delta.new_zeros(()).expand(ctx.shape)
            grad_weight = pull(delta, x, blank, ctx.geometry, False, weight_needs)[1]
        grad_bias = _channel_sums(delta, bool(ctx.geometry)) if bias_needs else None
        return None, None, grad_x, grad_weight, grad_bias, grad_back, None


def _mix_backward(delta: Tensor, mix: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    """Return delta B: (..., m) of a Linear's (..., n_out), (N, m, H, W) of a convolution's (N, n_out, H, W)."""
    if not geometry:
        return delta @ mix
    return F.conv_transpose2d(delta, mix[..., None, None], groups=geometry[3])


def _linear_backward(
    delta: Tensor, x: Tensor, weight: Tensor, _: tuple[Any, ...], x_needs: bool, weight_needs: bool
) -> tuple[Tensor | None, Tensor | None]:
    grad_x = delta @ weight if x_needs else None
    grad_weight = delta.flatten(0, -2).t() @ x.flatten(0, -2) if weight_needs else None
    return grad_x, grad_weight


def _conv2d_backward(
    delta: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], x_needs: bool, weight_needs: bool
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation = (n if isinstance(n, (tuple, list)) else (n, n) for n in geometry[:3])
    # One call gives both, as in backprop: it reads the weight for the input's gradient alone.
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        delta, x, weight, None, stride, padding, dilation, False, (0, 0), geometry[3], (x_needs, weight_needs, False)
    )
    return grad_x, grad_weight


def _channel_sums(delta: Tensor, convolution: bool) -> Tensor:
    return delta.sum((0, 2, 3)) if convolution else delta.flatten(0, -2).sum(0)


def combined_matrix(mix: Tensor, back: Tensor) -> Tensor:
    """Return B R, (n_out, n_in, ...), group by group of R's m rows.

    Args:
        mix: B, (n_out, m / groups).
        back: R, (m, n_in, ...).

    """
    groups = back.shape[0] // mix.shape[1]
    by_group = mix.unflatten(0, (groups, -1)) @ back.flatten(1).unflatten(0, (groups, -1))
    return by_group.flatten(0, 1).unflatten(1, back.shape[1:])


def rms(weight: Tensor) -> Tensor:
    """Return the root mean square of W's entries, a scalar: of a net as it was initialised, the draw's deviation.

    Args:
        weight: W.

    Raises:
        UserError: when W is all zero.

    """
    if not weight.is_meta and not weight.any():
        raise UserError("a weight is all zero, so there is no scale to draw its feedback at; initialise it first")
    return weight.detach().square().mean().sqrt()


def uniform_like(weight: Tensor) -> Tensor:
    """Return a tensor shaped as W, uniform about zero with W's own deviation; torch's layers are drawn uniform too.

    Args:
        weight: W.

    Raises:
        UserError: when W is all zero.

    """
    return torch.empty_like(weight).uniform_(-math.sqrt(3), math.sqrt(3)) * rms(weight)
