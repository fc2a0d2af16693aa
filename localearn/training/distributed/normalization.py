"""Synchronised batch normalisation: the statistics of a batch are those of all ranks' rows."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from localearn.trainers.base import Trainer


class AllReduce(Protocol):
    """The interface of an all-reduce."""

    def all_reduce(self, tensor: Tensor) -> None:
        """All-reduce a tensor by its sum, in place."""
        ...


def uses_sync_batch_norm(trainer: Trainer) -> bool:
    """Return whether batch normalisation of the rule takes the statistics of all ranks' rows.

    It does where there is any, except where `Trainer.couples_ranks` forbids it.

    Args:
        trainer: The rule on its net.

    """
    return bool(_batch_norms(trainer)) and trainer.couples_ranks


def sync_batch_norm(trainer: Trainer, ranks: AllReduce) -> Callable[[], None]:
    """Synchronise the rule's batch normalisations, so that they take the statistics of all ranks' rows.

    Every rank must have a row of every batch, since each all-reduce waits for all of them.

    Args:
        trainer: The rule, whose layers' `forward` is replaced.
        ranks: The ranks' all-reduce.

    Returns:
        A function that restores the layers.

    """
    layers = _batch_norms(trainer)
    for layer in layers:
        vars(layer)["forward"] = partial(_forward, layer, type(layer).forward, ranks)

    def undo() -> None:
        for layer in layers:
            del vars(layer)["forward"]

    return undo


def _batch_norms(trainer: Trainer) -> list[_BatchNorm]:
    return [m for m in trainer.modules() if isinstance(m, _BatchNorm)]


def _forward(layer: _BatchNorm, forward: Callable[..., Tensor], ranks: AllReduce, x: Tensor) -> Tensor:
    if not layer.training:
        return forward(layer, x)
    layer._check_input_dim(x)
    out, mean, variance, count = _SyncBatchNorm.apply(x, layer.weight, layer.bias, layer.eps, ranks)
    if layer.running_mean is not None:
        with torch.no_grad():
            _update_running_statistics(layer, mean, variance * (count / (count - 1).clamp_(min=1)))
    return out


def _update_running_statistics(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as torch does, towards an unbiased variance."""
    assert layer.num_batches_tracked is not None and layer.running_mean is not None and layer.running_var is not None
    layer.num_batches_tracked.add_(1)
    for running, found in ((layer.running_mean, mean), (layer.running_var, variance)):
        share = layer.momentum if layer.momentum is not None else layer.num_batches_tracked.to(running).reciprocal()
        running.lerp_(found.to(running), share)


class _SyncBatchNorm(torch.autograd.Function):
    """y = weight * xhat + bias, xhat = (x - mean) / sqrt(variance + eps), of each channel over the values of all ranks.

    A rank's gradients are those of the mean loss over its own rows, and `DataRanks.reduce` weighs them by these. So
    that the sum is the gradient of the mean over all rows, with m_r values a channel at rank r and M at all ranks:

        dx_r = weight / sqrt(variance + eps) * (dy_r - sum_q m_q S_q / (M m_r) - xhat * sum_q m_q P_q / (M m_r))

    S_q being the sum of dy_q over the values of rank q, and P_q that of dy_q xhat_q. It is the derivative of the batch
    normalisation of Ioffe, Szegedy, arXiv 1502.03167, over the whole batch.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: AllReduce
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with _without_autocast(x):
            values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            over = [0, *range(2, x.dim())]
            own = x.numel() // x.shape[1]
            sums = torch.cat([values.sum(over), values.new_full((1,), own)])
            ranks.all_reduce(sums)
            mean, count = sums[:-1] / sums[-1], sums[-1]
            centred = values - _per_channel(mean, x)
            # In a second pass, since the difference of two large sums would lose digits.
            variance = centred.square().sum(over)
            ranks.all_reduce(variance)
            variance = variance / count
            scale = torch.rsqrt(variance + eps)
            normalised = centred.mul_(_per_channel(scale, x))
            out = normalised if weight is None else normalised * _per_channel(weight, x)
            out = out if bias is None else out + _per_channel(bias, x)
        ctx.save_for_backward(normalised, scale, weight, count)
        ctx.ranks, ctx.own, ctx.over = ranks, own, over
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, weight, count = ctx.saved_tensors
        grad_output = gradients[0]
        with _without_autocast(grad_output):
            dy = grad_output.to(normalised.dtype)
            db, dw = dy.sum(ctx.over), (dy * normalised).sum(ctx.over)
            dx = None
            if ctx.needs_input_grad[0]:
                sums = torch.stack([db, dw]) * ctx.own
                ctx.ranks.all_reduce(sums)
                shift, tilt = (sums / (count * ctx.own)).unbind()
                dx = dy - _per_channel(shift, dy) - normalised * _per_channel(tilt, dy)
                dx = dx.mul_(_per_channel(scale if weight is None else scale * weight, dy)).to(grad_output.dtype)
        return dx, dw if ctx.needs_input_grad[1] else None, db if ctx.needs_input_grad[2] else None, None, None


def _per_channel(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (like.dim() - 2))


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which operations run in the dtype of their inputs."""
    return torch.autocast(x.device.type, enabled=False)
