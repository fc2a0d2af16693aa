"""Batch normalisation by the statistics of all ranks' rows."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from localearn.trainers.base import Trainer


class Adds(Protocol):
    """The interface of an all-reduce."""

    def add_up(self, tensor: Tensor) -> None:
        """All-reduce a tensor by its sum, in place."""
        ...


def normalises_jointly(trainer: Trainer) -> bool:
    """Return whether batch normalisation of the rule takes the statistics of all ranks' rows.

    It does where there is any, except where `Trainer.couples_ranks` forbids it.
    """
    return bool(_layers(trainer)) and trainer.couples_ranks


def normalise_jointly(trainer: Trainer, ranks: Adds) -> Callable[[], None]:
    """Make the rule's batch normalisations take the statistics of all ranks' rows.

    Every rank must have a row of every batch, for each waits for the others.

    Args:
        trainer: The rule, whose layers' `forward` is replaced.
        ranks: The ranks' all-reduce.

    Returns:
        A function that restores the layers.

    """
    layers = _layers(trainer)
    for layer in layers:
        vars(layer)["forward"] = partial(_forward, layer, type(layer).forward, ranks)

    def undo() -> None:
        for layer in layers:
            del vars(layer)["forward"]

    return undo


def _layers(trainer: Trainer) -> list[_BatchNorm]:
    return [m for m in trainer.modules() if isinstance(m, _BatchNorm)]


def _forward(layer: _BatchNorm, alone: Callable[..., Tensor], ranks: Adds, x: Tensor) -> Tensor:
    if not layer.training:
        return alone(layer, x)
    layer._check_input_dim(x)
    out, mean, variance, count = _JointBatchNorm.apply(x, layer.weight, layer.bias, layer.eps, ranks)
    if layer.running_mean is not None:
        with torch.no_grad():
            _follow(layer, mean, variance * (count / (count - 1).clamp_(min=1)))
    return out


def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch does, towards an unbiased variance."""
    assert layer.num_batches_tracked is not None and layer.running_mean is not None and layer.running_var is not None
    layer.num_batches_tracked.add_(1)
    for running, found in ((layer.running_mean, mean), (layer.running_var, variance)):
        share = layer.momentum if layer.momentum is not None else layer.num_batches_tracked.to(running).reciprocal()
        running.lerp_(found.to(running), share)


class _JointBatchNorm(torch.autograd.Function):
    """y = weight * xhat + bias, xhat = (x - mean) / sqrt(variance + eps), of each channel over the values of all ranks.

    A rank's gradients are those of the mean loss over its own rows, and `DataRanks.reduce` weighs them by these. So
    that the sum is the gradient of the mean over all rows, with m_r values a channel at rank r and M at all ranks:

        dx_r = weight / sqrt(variance + eps) * (dy_r - sum_q m_q S_q / (M m_r) - xhat * sum_q m_q P_q / (M m_r))

    S_q being the sum of dy_q over the values of rank q, and P_q that of dy_q xhat_q. It is the derivative of the batch
    normalisation of Ioffe, Szegedy, arXiv 1502.03167, over the whole batch.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Adds
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with _as_it_is(x):
            values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            over = [0, *range(2, x.dim())]
            own = x.numel() // x.shape[1]
            sums = torch.cat([values.sum(over), values.new_full((1,), own)])
            ranks.add_up(sums)
            mean, count = sums[:-1] / sums[-1], sums[-1]
            centred = values - _wide(mean, x)
            # In a pass of its own, for the difference of two large sums would lose digits.
            variance = centred.square().sum(over)
            ranks.add_up(variance)
            variance = variance / count
            scale = torch.rsqrt(variance + eps)
            normalised = centred.mul_(_wide(scale, x))
            out = normalised if weight is None else normalised * _wide(weight, x)
            out = out if bias is None else out + _wide(bias, x)
        ctx.save_for_backward(normalised, scale, weight, count)
        ctx.ranks, ctx.own, ctx.over = ranks, own, over
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, weight, count = ctx.saved_tensors
        given = gradients[0]
        with _as_it_is(given):
            dy = given.to(normalised.dtype)
            db, dw = dy.sum(ctx.over), (dy * normalised).sum(ctx.over)
            dx = None
            if ctx.needs_input_grad[0]:
                sums = torch.stack([db, dw]) * ctx.own
                ctx.ranks.add_up(sums)
                shift, tilt = (sums / (count * ctx.own)).unbind()
                dx = dy - _wide(shift, dy) - normalised * _wide(tilt, dy)
                dx = dx.mul_(_wide(scale if weight is None else scale * weight, dy)).to(given.dtype)
        return dx, dw if ctx.needs_input_grad[1] else None, db if ctx.needs_input_grad[2] else None, None, None


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (like.dim() - 2))


def _as_it_is(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off."""
    return torch.autocast(x.device.type, enabled=False)
