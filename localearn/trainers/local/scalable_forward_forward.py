from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.tasks import Task
from localearn.trainers.local.base import LocalTrainer, Schedule
from localearn.trainers.phases import Metrics

Norm = Literal["channels", "row"]
Prediction = Literal["mean", "last"]


class ScalableForwardForward(LocalTrainer):
    """Train by Scalable Forward-Forward: a block's activity, seen by maps of each class, is its goodness; one pass.

        u_k = LN(block_k(u_{k-1})),  u_0 = stem(x)           (N, n_k, H, W); each block's input is a constant
        a_k = conv_k(u_k)                                    (N, C m, H, W): m channels for each of the C classes
        g_k[c] = mean of a_k^2 over c's channels and places  goodness, (N, C)
        loss_k = mean over the rows of logsumexp_c g_k[c] - g_k[y]        trains block k and conv_k, and nothing else
        prediction = argmax of the mean of g_k over k

    The true class is the positive of Forward-Forward and all others are the negatives, of the same pass: no label is
    written into the input. Inside a block autograd runs, so that shortcuts stay whole. LN has mean 0 and deviation 1,
    and nothing learned: where a block's output is large, the next one cannot see it.

    Of vectors conv_k is a Linear layer, and the mean is over c's m entries; of a sequence it reads each position, and
    the mean is over all, or where outputs are of positions (N, T, C), the goodness is each one's. A graph's nodes are
    rows; those with a label count.

    The net's readout is not used, and the net alone normalises nothing, so predict with this class.

    Krutsylo, arXiv 2501.03176. Of the paper its abstract and its author's summary were available, and what others say
    of it: that the auxiliary convolution reads the normalised output, that LN is over channels, the bias of conv_k, the
    optimizer and everything but maps are ours or second hand.

    Known weakness: the convolution of C m channels costs each block C m n_k products a place (1.5 to 3 times backprop's
    time with many classes, says the author), and the first blocks' goodness, which knows small windows alone, counts in
    the mean as much as the last one's.

    Args:
        net: a net of classes.
        schedule: "joint" or "greedy", see `LocalTrainer`.
        kernel_size: conv_k's, odd and positive; of maps alone.
        per_class: m, 1 or more.
        norm: what LN is over: a place's "channels", or all values of a "row", not where outputs are of positions.
        prediction: "mean" over the blocks, or the "last" one's goodness alone. A greedy phase has its own block's.

    Raises:
        UserError: when an option is out of its range.
        Unsupported: when a row's normalisation would show positions what comes later.

    """

    def __init__(
        self,
        net: Net,
        schedule: Schedule = "joint",
        kernel_size: int = 1,
        per_class: int = 1,
        norm: Norm = "channels",
        prediction: Prediction = "mean",
    ):
        super().__init__(net, schedule)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd and positive, so that padding keeps the map, not {kernel_size}")
        if per_class < 1:
            raise UserError(f"per_class must be 1 channel or more for each class, not {per_class}")
        self.by_position = net.view.per_position
        if self.by_position and norm == "row":
            raise Unsupported("a row's normalisation would let positions see later ones; use norm=channels")
        self.per_class, self.norm, self.prediction = per_class, norm, prediction
        like = next(net.parameters())
        outputs = net.classes * per_class

        def head(shape: tuple[int, ...]) -> nn.Module:
            if len(shape) == 3:
                return nn.Conv2d(shape[0], outputs, kernel_size, padding=kernel_size // 2)
            return nn.Linear(shape[-1], outputs)

        self.heads = nn.ModuleList(map(head, net.shapes)).to(device=like.device, dtype=like.dtype)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: it has classes."""
        super().supports(net, data)
        _refuse_without_classes(net.task if data is None else data.task)

    def check_task(self, task: Task) -> None:
        """Check the task: it has classes."""
        super().check_task(task)
        _refuse_without_classes(task)

    def goodness(self, k: int, u: Tensor) -> Tensor:
        """Return g_{k+1}, (N, C), or (N, T, C) of positions.

        Args:
            k: the block, 0..L-1.
            u: its normalised output, (N, *shapes[k]).

        """
        a = self.heads[k](u)
        a = a.to(torch.promote_types(a.dtype, torch.float32))
        if a.dim() == 4:
            return a.unflatten(1, (self.net.classes, self.per_class)).square().mean((2, 3, 4))
        g = a.unflatten(-1, (self.net.classes, self.per_class)).square().mean(-1)
        return g.mean(1) if g.dim() == 3 and not self.by_position else g

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return loss_{k+1} from block k's normalised output: the task's, which is a cross-entropy."""
        return self.task.loss(self.goodness(k, h), batch)

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return block k's normalised output u_{k+1} and its loss."""
        u = self._through(k, h, *batch.context)
        return u, self.block_loss(k, u, batch), {}

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W, b of block k and of its auxiliary convolution."""
        return [*self.net.block(k).parameters(), *self.heads[k].parameters()]

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return the mean of g_{start+1}, ..., g_stop, or g_stop alone, from u_start; (N, C)."""
        total, blocks = None, range(start, stop)
        for k in blocks:
            h = self._through(k, h, *context)
            if self.prediction == "mean" or k == stop - 1:
                g = self.goodness(k, h)
                total = g if total is None else total + g
        assert total is not None
        return total / len(blocks) if self.prediction == "mean" else total

    def hidden(self, x: Tensor, *context: Tensor, depth: int) -> Tensor:
        """Return u_depth, (N, *shapes[depth - 1])."""
        h = self.net.stem(x)
        for k in range(depth):
            h = self._through(k, h, *context)
        return h

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield u_1, ..., u_L, by which the goodness of each class is predicted."""
        h = self.net.stem(x)
        for k in range(self.net.depth):
            h = self._through(k, h, *context)
            yield h

    def _through(self, k: int, h: Tensor, *context: Tensor) -> Tensor:
        """Return u_{k+1} from u_k."""
        h = self.net.block(k)(h, *context)
        if self.norm == "row":
            return F.layer_norm(h, h.shape[1:])
        if h.dim() == 4:
            return F.layer_norm(h.movedim(1, -1), h.shape[1:2]).movedim(-1, 1)
        return F.layer_norm(h, h.shape[-1:])


def _refuse_without_classes(task: Task) -> None:
    if not task.exclusive:
        raise Unsupported(
            f"scalable_forward_forward has a goodness for each class, and {type(task).__name__} has none; use "
            "algo=mono_forward, or another rule"
        )
