"""Counter-current learning: two nets that run against each other learn to agree, block by block."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.checks import choose
from localearn.nets.layers import ACTIVATIONS
from localearn.tasks import Task
from localearn.trainers.base import Trainer, accumulate_grad
from localearn.trainers.paired.opposite import Opposite
from localearn.trainers.phases import Descent, Metrics, completed

Similarity = Literal["product", "cosine", "difference"]
Norm = Literal["none", "batch"]
Contrast = Literal["classes", "rows"]
EPS = 1e-8  # the least length that a vector is divided by


class CounterCurrent(Trainer):
    """Train by counter-current learning: a second net carries the target the other way; blocks of both learn to agree.

        h_k = block_k(h_{k-1}),  h_0 = x                     the net, (N, n_k); each input is a constant
        c_L = act(V_{L+1} Y),  c_{k-1} = act(V_k c_k)        the second net, see `Opposite`; c_0 = V_1 c_1, without act
        loss_k = difference of h_k and c_k, k = 0..L         trains block k and V_{k+1}, and nothing else
        loss = L(o, y)                                       the task's, of the readout's output; trains the readout

    With C classes, c_k is of the C one-hot rows, (C, n_k), for which no batch is needed, and T = [y_i = c],
    (N, C), I is (C, C). Where targets are values, each row's own go through the second net, c_k is (N, n_k), and T, and
    I in its place, say which rows have the same target, (N, N).

        product      loss_k = scale / n_k * mean (h_k c_k^T - T)^2
        cosine       loss_k = scale * mean (cos(h_k, c_k) - T)^2
                              + apart * (mean (cos(h_k, h_k) - S)^2 + mean (cos(c_k, c_k) - I)^2)
        difference   loss_k = scale * H * (mean (h_k - c_k)^2 + mean (u(h_k) - u(c_k))^2),      of values alone

    with cos(a, b) the (rows of a, rows of b) cosines, H a map's height, 1 of vectors, and u a channel's map, or a
    vector, without its mean and of length 1; of loss_0 the first term alone. In an autoencoder both ends are the input.

    Each net's gradient is clipped by a norm of its own (`clip_norm`). The second net is the rule's: saved and resumed
    with the run, and no part of what is exported or predicts.

    Kao, Hariharan, arXiv 2409.19841, section 3; the constants, and the loss of convolutions, are of their code
    (github.com/IandRover/CCL-NeurIPS24), which differs so: its contrast is "rows", by which less was learned here; its
    filter_target, 0.2, is only compared with zero, and its margin is 0.1; the CNN's warm-up begins again in each
    epoch of less than 100 batches, and an autoencoder's epoch ends after 101: neither is copied. Ours: blocks of
    several layers, biases that a block may have, and products and cosines of values.

    Known weakness: where both nets learn to agree they may agree on little, above all by differences, which shrink
    unless both nets normalise. In dense autoencoders of the digits a code varies along 3 to 4 directions, be it 16 or
    128 units wide, and its best linear readout rebuilds no more than untrained blocks' does (15.2 against 15.0 dB at 16
    units, 23.0 against 24.5 at 128; backprop 17.5, 27.8); neither the learning rate nor time nor another contrast
    changed that (results/counter_current).

    Args:
        net: a net whose blocks give vectors or maps; a graph's nodes are rows, of which those with a label count.
        similarity: "product", "cosine" or "difference", as above.
        scale: of loss_k, positive; None: 128 for products, 1 for the others.
        apart: the weight of the terms that make different rows differ, of cosines, 0 or more.
        contrast: S, (N, N): [y_i = y_j] ("classes"), or I ("rows"), by which rows of one class are to differ, too.
        margin: rows whose class the net gives a probability of more than 1 - margin say nothing to the blocks of that
            step; the means are still over all N. In [0, 1); 0: all rows count. With it the pass to the output comes
            first, and activation memory grows with depth.
        centered: whether the mean over a unit's incoming weights is taken off their gradient, in both nets.
        activation: the second net's.
        norm: the second net's, "none", or "batch" before each activation, without scale and shift.

    Raises:
        UserError: when an option is out of its range.

    """

    opposite: Opposite

    def __init__(
        self,
        net: Net,
        similarity: Similarity = "product",
        scale: float | None = None,
        apart: float = 0.5,
        contrast: Contrast = "classes",
        margin: float = 0.0,
        centered: bool = False,
        activation: str = "elu",
        norm: Norm = "none",
    ):
        super().__init__(net)
        choose("activation", activation, ACTIVATIONS)
        if scale is not None and scale <= 0:
            raise UserError(f"scale must be positive, or null for 128 (product) or 1 (cosine), not {scale}")
        if apart < 0:
            raise UserError(f"apart must be 0 (no such terms) or more, not {apart}")
        if not 0 <= margin < 1:
            raise UserError(f"margin must be 0 (all rows count) or more, and less than 1, not {margin}")
        self.similarity, self.contrast, self.scale = similarity, contrast, scale
        self.apart, self.margin, self.centered = apart, margin, centered
        self.opposite = Opposite(net, activation, norm)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its blocks give vectors or maps."""
        super().supports(net, data)
        if net.takes.vocabulary is not None or any(len(shape) not in (1, 3) for shape in net.shapes):
            raise Unsupported(
                f"counter_current's second net runs through vectors and maps, and {type(net).__name__} has others; use "
                "algo=direct_feedback_alignment, or net=mlp, cnn or resnet20"
            )

    def check_task(self, task: Task) -> None:
        """Check the task: outputs of positions are refused, and differences from one-hot rows."""
        super().check_task(task)
        if self.similarity == "difference" and task.exclusive:
            raise Unsupported(
                f"counter_current's similarity=difference is one of values, and {task} has classes; use "
                "similarity=product or cosine"
            )
        if task.per_position:
            raise Unsupported(
                f"counter_current has a target for a row as a whole, and {task} one for each position; "
                "use algo=direct_feedback_alignment or mono_forward"
            )

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` of both nets; return the readout's loss and each block's."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after each block and after the readout."""
        signals = list(self.opposite.signals(self._second_input(batch)))  # c_L first
        outputs, keep = self._outputs(batch), None
        if self.margin and self.task.exclusive:
            computed = list(outputs)  # first, for which rows count depends on the net's output
            outputs, keep = iter(computed), self._below_margin(computed[-1], batch)
        h = batch.x
        for k, h in enumerate(outputs):
            loss = self._difference(k, batch.select(h), signals.pop(), batch.target, keep)
            accumulate_grad(loss)
            self._center(self.opposite.layers[k], *([self.net.block(k - 1)] if k else []))
            yield {f"loss_{k}": loss.detach()}
        loss = self.task.loss(self.net.logits(h.detach(), *batch.context), batch)
        accumulate_grad(loss)
        self._center(self.net.readout)
        yield {"loss": loss.detach()}

    def phases(self) -> Sequence[Descent]:
        """Return one phase of both nets, each clipped by itself."""
        nets = [[p for p in net.parameters() if p.requires_grad] for net in (self.net, self.opposite)]
        return [self.descent("both nets", self.parameters(), clipped=nets)]

    def _outputs(self, batch: Batch) -> Iterator[Tensor]:
        """Yield h_0, ..., h_L, each with the graph of its own block alone."""
        h = self.net.stem(batch.x)
        yield h
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            yield h

    def _second_input(self, batch: Batch) -> Tensor:
        """Return what goes through the second net: a row for each class, (C, C), or each row's values, (M, outputs)."""
        like = next(self.opposite.parameters())
        if self.task.exclusive:
            return torch.eye(self.net.classes, device=like.device, dtype=like.dtype)
        return self.task.encode(batch.target).to(like.dtype)

    @torch.no_grad()
    def _below_margin(self, h: Tensor, batch: Batch) -> Tensor:
        """Return 1 for the rows whose class does not have a probability of more than 1 - margin yet, else 0, (M, 1)."""
        p = batch.select(self.net.logits(h, *batch.context)).float().softmax(1)
        return (p.gather(1, batch.target[:, None]) <= 1 - self.margin).to(h.dtype)

    def _difference(self, k: int, h: Tensor, c: Tensor, target: Tensor, keep: Tensor | None) -> Tensor:
        """Return loss_k, a scalar, of h_k, (M, *shape), and c_k, (C, *shape) or (M, *shape)."""
        wide = torch.promote_types(h.dtype, torch.float32)
        h, c = h.to(wide), c.to(wide)
        if self.similarity == "difference":
            return self._differences(k, h, c)
        a, b = h.flatten(1), c.flatten(1)
        a = a if keep is None else a * keep
        pairs = self.task.encode(target)
        pairs = (pairs if self.task.exclusive else _same(pairs)).to(wide)  # T
        if self.similarity == "product":
            scale = 128.0 if self.scale is None else self.scale
            return F.mse_loss((a @ b.T).to(wide), pairs) * (scale / a.shape[1])
        a, b = F.normalize(a, eps=EPS), F.normalize(b, eps=EPS)
        loss = F.mse_loss((a @ b.T).to(wide), pairs) * (1.0 if self.scale is None else self.scale)
        if not self.apart:
            return loss
        classes = pairs @ pairs.T if self.task.exclusive else pairs
        own = classes if self.contrast == "classes" else torch.eye(len(a), device=a.device, dtype=wide)
        others = torch.eye(len(b), device=b.device, dtype=wide) if self.task.exclusive else own
        return loss + self.apart * (F.mse_loss((a @ a.T).to(wide), own) + F.mse_loss((b @ b.T).to(wide), others))

    def _differences(self, k: int, h: Tensor, c: Tensor) -> Tensor:
        scale = (h.shape[2] if h.dim() == 4 else 1) * (1.0 if self.scale is None else self.scale)
        loss = F.mse_loss(h, c)
        return scale * (loss + F.mse_loss(_unit(h), _unit(c)) if k else loss)

    def _center(self, *modules: nn.Module) -> None:
        """Take the mean over a unit's incoming weights off their gradient, where `centered` is set."""
        for p in (p for module in modules for p in module.parameters()) if self.centered else ():
            if p.grad is not None and p.dim() > 1:
                p.grad.sub_(p.grad.mean(tuple(range(1, p.dim())), keepdim=True))


def _same(target: Tensor) -> Tensor:
    """Return which rows of values, (M, n), are the same, (M, M)."""
    return torch.cdist(target, target, p=float("inf"), compute_mode="donot_use_mm_for_euclid_dist") == 0


def _unit(h: Tensor) -> Tensor:
    """Return the maps of each channel, (N, n, H, W), or vectors (N, n), without their mean and of length 1."""
    flat = h.flatten(2) if h.dim() == 4 else h
    return F.normalize(flat - flat.mean(-1, keepdim=True), dim=-1, eps=EPS)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
