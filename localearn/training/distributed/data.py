"""Data parallelism (`parallel=data`): every rank has the whole net and takes its rows of each batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from localearn.data import Data
from localearn.trainers.base import Trainer
from localearn.training.distributed.ranks import JoinedRanks


class DataRanks(JoinedRanks):
    """Ranks that split a batch's rows; one all-reduce of `.grad` gives the gradient of the whole batch.

        g = sum_r n_r g_r / sum_r n_r

    g_r is the batch mean over the n_r rows of rank r: so for every rule that fills `.grad` with batch means the step is
    that of one process with the whole batch, to rounding. Batch normalisation takes the statistics of all ranks' rows
    (`normalises_jointly`, also for the rules that cannot have that). Each rank draws for its own rows what a rule draws
    at random (dropout, wrong labels, noise).

    Args:
        device: This rank's device.
        timeout_s: Seconds that a rank is waited for, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        super().__init__(device, timeout_s)
        self._flat = torch.empty(0)
        self._undo: Callable[[], None] | None = None

    def divide(self, trainer: Trainer, data: Data) -> Data:
        """Broadcast the rule from rank 0, and return the data whose batches are this rank's rows."""
        return data.part(self.rank, self.size, least=self.join(trainer))

    def join(self, trainer: Trainer) -> int:
        """Broadcast the rule from rank 0, and join its batch normalisations; return the fewest rows of a rank."""
        for tensor in (*trainer.parameters(), *trainer.buffers()):
            self.broadcast(tensor.data, 0)
        if normalises_jointly(trainer):
            self._undo = normalise_jointly(trainer, self)
        return fewest_rows(trainer)

    def release(self, trainer: Trainer) -> None:
        """Restore batch normalisation by the statistics of one's own rows."""
        if self._undo:
            self._undo()
        self._undo = None

    def reduce(self, parameters: Sequence[Tensor], rows: int) -> None:
        """All-reduce the gradients, weighted by the rows behind them, in one call; `.grad` then views its buffer.

        Args:
            parameters: The parameters, whose `.grad` is the mean over this rank's rows, or None without rows.
            rows: This rank's rows of the batch, 0 or more.

        """
        size = sum(p.numel() for p in parameters)
        dtype = torch.promote_types(torch.float32, parameters[0].dtype)
        if self._flat.numel() != size + 1 or self._flat.dtype != dtype:
            self._flat = torch.empty(size + 1, dtype=dtype, device=self.device)
        views = self._flat[:-1].split([p.numel() for p in parameters])
        for p, view in zip(parameters, views, strict=True):
            if p.grad is None:  # this rank has no row of the batch
                view.zero_()
            else:
                torch.mul(p.grad, rows, out=view.view_as(p))
        self._flat[-1] = rows
        self.add_up(self._flat)
        self._flat[:-1].div_(self._flat[-1:])
        for p, view in zip(parameters, views, strict=True):
            p.grad = view.view_as(p).to(p.dtype)

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return the metrics' means over all ranks' rows, and the number of these rows."""
        own = torch.stack(list(sums.values())).tolist() if sums else []
        found = self.gathered((dict(zip(sums, own, strict=True)), rows))
        names = dict.fromkeys(name for totals, _ in found for name in totals)
        count = sum(seen for _, seen in found)
        return {name: sum(totals.get(name, 0.0) for totals, _ in found) / count for name in names}, count

    def unite(self, trainer: Trainer) -> None:
        """Average the floating-point buffers, such as running statistics, over the ranks; weights are equal already."""
        for buffer in trainer.buffers():
            if buffer.is_floating_point():
                self.add_up(buffer)
                buffer.div_(self.size)


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


def fewest_rows(trainer: Trainer) -> int:
    """Return the rows of a batch that a rank has at least, unless it has none; see `Data.part`."""
    return 1 if normalises_jointly(trainer) else 2


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
