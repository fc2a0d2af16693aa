"""NoProp, and the pass that sets a class's embedding to a prototype."""

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.denoiser import Denoiser, Denoising, DiscreteStep, snr
from localearn.tasks import Task
from localearn.trainers.local.base import LocalTrainer
from localearn.trainers.phases import Metrics, Phase, Solve

Bar = float | Tensor  # abar, a number of the fixed schedule or what the learned one gives


class NoProp(LocalTrainer):
    """Train by NoProp: each block learns to find the label's embedding in a noisy one, given x, from no other block.

    u_y, (N, d), is row y of the net's embeddings W, (C, d); abar_0 < ... < abar_T, SNR(t) = abar_t / (1 - abar_t), and
    every z_t is drawn from the label, eps_t ~ N(0, 1), (N, d), and not computed by the blocks before:

        z_t = sqrt(abar_t) u_y + sqrt(1 - abar_t) eps_t                                          eq. 6
        dt: loss_t = eta / 2 (SNR(t) - SNR(t-1)) |uhat_t(z_{t-1}, x) - u_y|^2                    eq. 8, t = 1..T
        ct: loss   = eta / 2 SNR'(t) |uhat(z_t, x, t) - u_y|^2,  t ~ U(0, 1) a row               eq. 9
            and in both, once a step: CE(out(z_T), y) + KL(N(sqrt(abar_0) u_y, 1 - abar_0) || N(0, 1))
        fm: loss   = |v(z_t, x, t) - (u_y - z_0)|^2,  t ~ U(0, 1),  z_0 ~ N(0, 1)                eq. 10, 11
            z_t = t u_y + (1 - t) z_0 + sigma eps
            and, where W learns: CE(out(z_t + (1 - t) v), y)                                     eq. 12, 13

    each a mean over the rows. The form, the embeddings and the number of steps are the net's, see `Denoiser`, which
    predicts by itself: the chain of blocks and its noise. Block t of dt learns from x, y and a noise of its own alone,
    so blocks have no order, and on ranks (`parallel=layers`) they send each other nothing. That needs embeddings that
    are fixed, for those that learn (and the schedule of ct) do so from every block's loss. The gradient goes through
    z_t to them as the equations say. Prototypes begin, in a phase of their own, as the image of their class whose
    median distance to the others is the least; all images of the training set are held for that.

    The random draws of a prediction have seeds of their own. Validation and the trained net have the first; final
    figures are means over as many runs (5, as published), each one's in the record's diagnostics. The noise of the
    cosine schedule is `cosine_alpha_bar`'s; SNR(T) is 6,400 by it, and only shared parameters feel it, since AdamW
    steps a block alike whatever its loss is multiplied by.

    Li, Teh, Pascanu, "NoProp", arXiv 2503.24322, algorithms 1 to 3. Knowing differences: a step trains all blocks of dt
    on one batch, as eq. 8's expectation over t in full, where algorithm 1 passes over the data for each block in turn,
    so that `out` and W step once a batch and not T times; so `out` begins as the map to the nearest embedding, from
    which it has less far to go. Neither the constants of the schedules nor sigma are published, and ours stand next to
    them. The form of probabilities by distances (eq. 16) is left out, for it made no difference (figure 4).

    Known weakness: it takes a block's own embedding of x for each of T blocks, in training and in prediction; nothing
    is learned on top of what another block has learned. ct and fm fall behind, by 4 to 14 points on CIFAR-10.

    Args:
        net: a `Denoiser`, whose blocks take a noisy label next to x.
        eta: positive; None is the published 0.1 of dt and 1 of ct.
        sigma: of fm, 0 or more; the paper does not give it.
        inference_seed: the first seed of the predictions' draws, 0 or more.
        inference_runs: the number of such seeds, 1 or more.

    Raises:
        UserError: when an option is out of its range.

    """

    chained = False

    def __init__(
        self,
        net: Net,
        eta: float | None = None,
        sigma: float = 0.0,
        inference_seed: int = 0,
        inference_runs: int = 5,
    ):
        super().__init__(net)
        assert isinstance(net, Denoiser)
        if eta is not None and eta <= 0:
            raise UserError(f"eta must be positive, or null for 0.1 (dt) or 1 (ct), not {eta}")
        if sigma < 0:
            raise UserError(f"sigma must be 0 or more, not {sigma}")
        if inference_runs < 1 or inference_seed < 0:
            raise UserError("inference_runs must be 1 or more, and inference_seed 0 or more")
        self.eta = (0.1 if net.form == "dt" else 1.0) if eta is None else eta
        self.sigma = sigma
        self.inference_seeds = tuple(range(inference_seed, inference_seed + inference_runs))
        self.redraw(inference_seed)
        self.anchor = net.embedding.nearest() if net.form == "fm" and net.embedding.learned else None

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its blocks take a noisy label next to x."""
        super().supports(net, data)
        name = type(net).__name__
        if not isinstance(net, Denoiser):
            raise Unsupported(
                f"noprop's blocks take a noisy label next to x, and {name}'s do not; use net=noprop_mlp, "
                "net=noprop_cnn or, with this net, algo=mono_forward"
            )
        if not all(isinstance(block.op, Denoising) for block in net.blocks):
            raise Unsupported(f"noprop trains every block of {name} by itself; use net.group=1")
        _refuse_without_classes(net.task if data is None else data.task, name)

    def check_task(self, task: Task) -> None:
        """Check the task: it has labels to embed."""
        super().check_task(task)
        _refuse_without_classes(task, type(self.net).__name__)

    def redraw(self, seed: int) -> None:
        """Predict with the noise of another seed from now on.

        Args:
            seed: one of `inference_seeds`.

        """
        self._net.redraw(seed)

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield the label's z after each block, (N, d), without x, which stands next to it."""
        for h in self.net.outputs(x, *context):
            yield h[:, : self._net.embedding.weight.shape[1]]

    def check_pipeline(self) -> None:
        """Check that nothing learns from every block's loss.

        Raises:
            UserError: when something does.

        """
        super().check_pipeline()
        if self._net.embedding.learned:
            raise UserError(
                "embeddings that learn do so from every block's loss, so blocks cannot learn alone; use "
                "net.embedding=onehot, or parallel=data"
            )

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return the block's parameters and those that all blocks' losses train; with the last one's, `out`'s too."""
        last = self._heads if k == self.net.depth - 1 else ()
        modules = (self.net.block(k), self._net.embedding, self._net.schedule, *last)
        return [p for module in modules if module is not None for p in module.parameters()]

    def phases(self) -> Sequence[Phase]:
        """Return one phase for all blocks, and before it the prototypes' where the embeddings are such."""
        return [*([Prototypes(self._net, self._heads)] if self._net.prototypes else []), *super().phases()]

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return every block's noise, (N, L + 1, d); no block changes it."""
        x, width = batch.x, self._net.embedding.weight.shape[1]
        return torch.randn(len(x), self.net.depth + 1, width, device=x.device, dtype=x.dtype), {}

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return the noise h, (N, L + 1, d), as it came, and block k's loss."""
        block = self.net.block(k).op
        assert isinstance(block, Denoising)
        u = self._net.embedding(batch.target)
        features = block.network.encode(batch.x)
        learn = {"dt": self._step, "ct": self._diffusion, "fm": self._flow}[self._net.form]
        return h, learn(k, block, features, u, h, batch), {}

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Refuse: no block learns by its output."""
        raise NotImplementedError("noprop's blocks learn in run_block(), from no block's output")

    @property
    def _heads(self) -> list[nn.Linear]:
        """The map from z to the logits of a cross-entropy: the readout, or the anchor of a flow's embeddings."""
        return [head for head in (self.net.readout, self.anchor) if isinstance(head, nn.Linear)]

    @property
    def _net(self) -> Denoiser:
        assert isinstance(self.net, Denoiser)
        return self.net

    def _step(self, k: int, block: Denoising, features: Tensor, u: Tensor, noise: Tensor, batch: Batch) -> Tensor:
        assert isinstance(block, DiscreteStep)
        before, after = block.alpha_bar[k : k + 2]
        estimate = block.estimate(features, _noisy(u, before, noise[:, k]))
        loss = self.eta / 2 * (snr(after) - snr(before)) * _squared(estimate - u).mean()
        if k < self.net.depth - 1:
            return loss
        return loss + self._of_ends(u, block.alpha_bar[0], after, noise[:, k + 1], batch)

    def _diffusion(self, k: int, block: Denoising, features: Tensor, u: Tensor, noise: Tensor, batch: Batch) -> Tensor:
        schedule = self._net.schedule
        assert schedule is not None
        t = torch.rand(len(u), device=u.device, dtype=u.dtype)
        estimate = block.estimate(features, _noisy(u, schedule.alpha_bar(t).unsqueeze(1), noise[:, 0]), t)
        loss = self.eta / 2 * (schedule.snr_slope(t) * _squared(estimate - u)).mean()
        first, last = schedule.alpha_bar(torch.arange(2, device=u.device, dtype=u.dtype))
        return loss + self._of_ends(u, first, last, noise[:, 1], batch)

    def _flow(self, k: int, block: Denoising, features: Tensor, u: Tensor, noise: Tensor, batch: Batch) -> Tensor:
        t = torch.rand(len(u), device=u.device, dtype=u.dtype)
        start, time = noise[:, 0], t.unsqueeze(1)
        z = time * u + (1 - time) * start + self.sigma * noise[:, 1]
        velocity = block.estimate(features, z, t)
        loss = _squared(velocity - (u - start)).mean()
        if self.anchor is None:
            return loss
        return loss + F.cross_entropy(self.anchor(z + (1 - time) * velocity), batch.target)

    def _of_ends(self, u: Tensor, first: Bar, last: Bar, noise: Tensor, batch: Batch) -> Tensor:
        """Return CE(out(z_T), y) + KL(q(z_0 | y) || N(0, 1)), with abar at the two ends of time."""
        readout_loss = F.cross_entropy(self.net.readout(_noisy(u, last, noise)), batch.target)
        width, rest = u.shape[1], 1 - first
        log = rest.log() if isinstance(rest, Tensor) else math.log(rest)
        return readout_loss + 0.5 * (first * _squared(u).mean() - width * first - width * log)


@final
class Prototypes(Solve):
    """Set a class's embedding to the training image with the least median distance to its class's others.

    Images are compared within a class, in blocks of rows; a class without rows keeps the embedding that it has. Then
    the maps from z to logits begin again, by the nearest embedding.

    Args:
        net: the net whose embeddings are set.
        heads: the maps from z to logits.

    """

    rows = 1024  # whose distances to all of their class are held at once

    def __init__(self, net: Denoiser, heads: Sequence[nn.Linear]):
        parameters = [p for module in (net.embedding, *heads) for p in module.parameters()]
        super().__init__("prototypes", parameters, predict=net, frozen=[net])
        self.net, self.heads = net, heads
        self._batches: list[tuple[Tensor, Tensor]] = []

    def accumulate(self, batch: Batch) -> None:
        """Store a batch's images and labels."""
        self._batches.append((batch.x.flatten(1), batch.target))

    def solve(self) -> Metrics:
        """Set the embeddings and return the mean over classes of the least median distance."""
        x, y = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        self._batches = []
        least = []
        for label in range(self.net.classes):
            of_class = x[y == label]
            if not len(of_class):
                continue
            medians = torch.cat([_median_to_others(part, of_class) for part in of_class.split(self.rows)])
            self.net.embedding.weight[label] = of_class[medians.argmin()]
            least.append(medians.min())
        for head in self.heads:
            self.net.embedding.set_nearest(head)
        return {"loss": torch.stack(least).mean()}


def _median_to_others(part: Tensor, rows: Tensor) -> Tensor:
    """Return of each of some rows the (lower) median of its distances to all others."""
    if len(rows) == 1:
        return rows.new_zeros(1)
    # Of the distances to all, the least is a row's to itself.
    return torch.cdist(part, rows).kthvalue((len(rows) - 2) // 2 + 2, dim=1).values


def _noisy(u: Tensor, alpha_bar: Bar, noise: Tensor) -> Tensor:
    """Return sqrt(abar) u + sqrt(1 - abar) eps, (N, d)."""
    return alpha_bar**0.5 * u + (1 - alpha_bar) ** 0.5 * noise


def _squared(rows: Tensor) -> Tensor:
    """Return |row|^2, (N,)."""
    return rows.square().sum(1)


def _refuse_without_classes(task: Task, name: str) -> None:
    if not task.exclusive or task.per_position:
        raise Unsupported(
            f"noprop embeds a row's label, and {name} is for {type(task).__name__}, which has none; use "
            "algo=mono_forward, or another rule"
        )
