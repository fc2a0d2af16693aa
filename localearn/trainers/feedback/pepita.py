"""PEPITA, with the mirrored weights that may take the place of its random input projection."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Block, Net
from localearn.tasks import Task
from localearn.trainers.base import Trainer, accumulate_grad, linear_readout
from localearn.trainers.feedback.passes import (
    DROPOUTS,
    Passes,
    Site,
    layers,
    no_autocast,
    preserve_buffers,
    without_autocast,
)
from localearn.trainers.phases import Descent, Metrics, Parts, completed

Form = Literal["difference", "time_local", "hebbian"]


class Pepita(Trainer):
    """Train by PEPITA: the error, added to the input, makes a second pass, and the activities' difference teaches.

        first pass     h_k, p = softmax(o); e = p - Y, per row, (N, C); of values e = d loss / d o, and p = e + Y
        second pass    from x' = x + e F^T, with the same dropout masks: h'_k, p', e' = p' - Y
        dW_k = (h_k - h'_k)^T h'_{k-1},   h'_0 = x';        dW_o = e'^T h'_L

    averaged over the batch; the update goes against them. No derivative of an activation is taken. F is (D, C), fixed,
    uniform within scale sqrt(6 / D).

    As the authors' code has it: in a convolution h_k is taken before pooling and the product is also averaged over
    positions, as in a Linear of a sequence's; where the net's outputs are of positions each is a row, whose error is
    added to its own values, F then being (D, C) of one; where the readout is the only Linear layer, its error is the
    first pass's. Ours: biases and normalisations follow the same differences, running statistics are the first pass's,
    a graph's products run along its edges, and autocast, whose rounding is as large as the differences, is disabled.

    Dellaferrera, Kreiman, arXiv 2201.11665, algorithm 1; Srinivasan et al., arXiv 2302.05440.

    Known weakness: depth; convolutions, which a mean over positions hardly moves, LeNet-5's not at all; learning rates
    just above those by which it learns diverge. The time-local form's two steps nearly undo each other: it wants SGD,
    for Adam divides by the size of both.

    Args:
        net: a net of plain blocks, whose op is a linear map, with a Linear readout.
        scale: of F, positive.
        form: "difference", as above. "time_local": dW_k = h_k^T h_{k-1}, dW_o = p^T h_L, and a step of the optimizer
            after the first pass; with the stepped weights then dW_k = -h'_k^T h'_{k-1}, dW_o = -Y^T h'_L, and another
            step: no product needs the other pass's activities (PEPITA-TL). "hebbian": the sum of both products, of the
            same weights, in one step (PEPITA-Hebbian).
        mirror: whether F learns the weights from noise, in nets of Linear layers alone, see `WeightMirror`; it has each
            step, too.

    Raises:
        UserError: when `scale` is not positive, or a mirror's noise would have to be of all of a row where the first
            layer takes its parts.

    """

    needs_derivatives = False
    autocasts = False
    feedback: Tensor

    def __init__(self, net: Net, scale: float = 0.05, form: Form = "difference", mirror: bool = False):
        super().__init__(net)
        if scale <= 0:
            raise UserError(f"scale must be positive, not {scale}: the blocks learn through F alone")
        self.form = form
        # Of positions that have outputs each, the error of one is added to its own values.
        self._by_position = net.view.per_position
        size = net.input_shape[-1] if self._by_position else math.prod(net.input_shape)
        like = next(net.parameters())
        self.mirror = WeightMirror(net, scale * math.sqrt(2 / size)) if mirror else None
        if self.mirror is not None and len(self.mirror.factors[0]) != size:
            raise UserError(
                "a mirror sends noise from all of a row, and the first layer takes its parts; use mirror=false"
            )
        if self.mirror is None:
            feedback = torch.empty(size, net.classes, device=like.device, dtype=like.dtype)
            self.register_buffer("feedback", feedback.uniform_(-1, 1).mul_(scale * math.sqrt(6 / size)))

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its blocks are plain, with a linear map for an op, and its readout is Linear."""
        super().supports(net, data)
        if net.takes.vocabulary is not None:
            raise Unsupported(
                f"pepita adds the error to the input, and {type(net).__name__} takes token ids, which are no values "
                "that it could be added to; use algo=direct_feedback_alignment or mono_forward"
            )
        for k, block in enumerate(net.blocks):
            wrong = block if type(block) is not Block else block.op
            if not isinstance(wrong, _linear_maps(net)):
                _refuse(net, f"block {k + 1} is a {type(wrong).__name__}, not one linear map and what follows it")
        if not isinstance(net.readout, nn.Linear):
            _refuse(net, f"the readout is a {type(net.readout).__name__}, not a Linear{linear_readout(net)}")
        reached = {layer for part in (net.stem, *net.blocks) for layer in layers(part)}
        if any(isinstance(layer, DROPOUTS) and layer not in reached for layer in net.modules()):
            _refuse(net, "a layer has dropout inside, whose mask a second pass cannot repeat")

    def check_task(self, task: Task) -> None:
        """Check the task: forms that step towards a target refuse outputs that have none of their own."""
        super().check_task(task)
        if task.pools_positions and self.form != "difference":
            raise Unsupported(
                f"form={self.form} steps towards the target of each output, and {task} has one for all positions of a "
                "row; use form=difference"
            )

    def gradients(self, batch: Batch) -> Parts:
        """Fill `.grad` with the products; return the first pass's loss. The time-local form yields after each pass."""
        if self.form == "time_local":
            return without_autocast(batch.x.device, self._pass_by_pass(batch))
        with no_autocast(batch.x.device):
            return completed(self._pass_by_pass(batch) if self.form == "hebbian" else self._by_difference(batch))

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` as `gradients` does; by differences it pauses after each layer."""
        if self.form == "difference":
            return without_autocast(batch.x.device, self._by_difference(batch))
        return self.gradients(batch)

    def phases(self) -> Sequence[Descent]:
        """Return one phase, in which each batch has two steps where the form is time-local."""
        return [self.descent("all", self.parameters(), steps=2 if self.form == "time_local" else 1)]

    def _by_difference(self, batch: Batch) -> Iterator[Metrics]:
        passes = Passes(self.net)
        with torch.no_grad():
            first, logits = passes.run(batch.x, *batch.context)
        loss, error = self.task.error(logits, batch)  # e / N
        rows = self._elements(error, batch)
        with preserve_buffers(self.net):  # to the end, for the graph of a normalisation holds them
            second, logits = passes.run(self._second_input(batch, error, rows), *batch.context)
            self._learn_mirror(batch)  # by the weights of before the step
            for site, later in zip(first, second, strict=True):
                self._follow(later, site.activity - later.activity, rows)
                yield {}
            accumulate_grad(logits, self.task.error(logits, batch)[1] if self._has_linear_block() else error)
        yield {"loss": loss}

    def _pass_by_pass(self, batch: Batch) -> Iterator[Metrics]:
        passes = Passes(self.net)
        sites, logits = passes.run(batch.x, *batch.context)
        loss, error = self.task.error(logits, batch)
        rows = self._elements(error, batch)
        target, x = self._target(error, batch, rows), self._second_input(batch, error, rows)
        for site in sites:
            self._follow(site, site.activity, rows)
        accumulate_grad(logits, error + target)
        if self.form == "time_local":  # whose every step has a gradient of every parameter
            self._learn_mirror(batch)
        yield {"loss": loss}
        with preserve_buffers(self.net):
            sites, logits = passes.run(x, *batch.context)
            for site in sites:
                self._follow(site, -site.activity, rows)
            accumulate_grad(logits, -target)
        self._learn_mirror(batch)
        yield {}

    def _elements(self, error: Tensor, batch: Batch) -> Tensor | int:
        """Return of how many errors the loss is a mean: of rows with a target, or of their positions that count."""
        counted = self.task.counted(batch.target)
        if counted is not None:
            return counted.sum().clamp_min(1)
        return len(batch.target) * (1 if self.task.pools_positions else math.prod(error.shape[1:-1]))

    def _second_input(self, batch: Batch, error: Tensor, rows: Tensor | int) -> Tensor:
        """Return x' = x + e F^T, shaped as x, from e / N."""
        feedback = self.feedback if self.mirror is None else self.mirror()
        return batch.x + (rows * error @ feedback.T).view_as(batch.x)

    def _learn_mirror(self, batch: Batch) -> None:
        if self.mirror is not None:
            self.mirror.gradients(self.net, len(batch.target))

    def _target(self, error: Tensor, batch: Batch, rows: Tensor | int) -> Tensor:
        """Return Y / N, (N, C), zero in rows without a target."""
        return batch.scatter(self.task.encode(batch.target).to(error.dtype) * (1 / rows))

    def _follow(self, site: Site, activity: Tensor, rows: Tensor | int) -> None:
        """Add an activity's product with the layer's input to `.grad`: the mean over rows, and over their positions."""
        accumulate_grad(site.output, activity / (rows * (1 if self._by_position else site.positions)))

    def _has_linear_block(self) -> bool:
        return any(isinstance(self.net.block(k).op, nn.Linear) for k in range(self.net.depth))


def _linear_maps(net: Net) -> tuple[type, ...]:
    if not net.graph:
        return nn.Linear, nn.modules.conv._ConvNd
    from torch_geometric.nn import GCNConv, SAGEConv

    return nn.Linear, GCNConv, SAGEConv


def _refuse(net: Net, why: str) -> None:
    alone = ", with net.group=1" if net.grouped > 1 else ""
    use = f"use net=mlp, cnn, gcn or sage{alone}, or algo=direct_feedback_alignment for this net"
    raise Unsupported(f"pepita cannot train this {type(net).__name__}: {why}; {use}")


class WeightMirror(nn.Module):
    """Learn a feedback matrix from the logits to the input from noise, without reading the net's weights.

        F = -s B_1 B_2 ... B_{L+1} / std(B_1 ... B_{L+1})      (D, C); B_k is (n_{k-1}, n_k), the readout's the last
        dB_k = -xi^T (W_k xi), xi ~ N(0, 1), (N, n_{k-1})      E[xi xi^T] = 1, so B_k grows along W_k^T

    The minus makes x + F e a step down the loss.

    Akrout et al., arXiv 1904.05391; for PEPITA: Srinivasan et al., arXiv 2302.05440. Ours: the B_k follow the net's
    optimizer from the first batch on (theirs one of their own, and two epochs before the weights move), F is normalised
    where it is used, and the noise goes through a layer's linear map alone, not its activation.

    Args:
        net: a net of Linear layers alone.
        deviation: s, at which F's entries are held.

    """

    def __init__(self, net: Net, deviation: float):
        super().__init__()
        maps = _maps(net)
        if not all(isinstance(layer, nn.Linear) for layer in maps):
            what = f"mirroring sends noise through Linear layers, and this {type(net).__name__} has others"
            raise Unsupported(f"{what}; use net=mlp, or mirror=false")
        self.deviation = deviation
        inner = math.prod(layer.in_features for layer in maps[1:])
        start = (deviation / math.sqrt(inner)) ** (1 / len(maps))  # the product then has this deviation
        self.factors = nn.ParameterList(torch.randn_like(layer.weight.T).mul_(start) for layer in maps)

    def forward(self) -> Tensor:
        """Return F, (D, C)."""
        product = self.factors[-1]
        for factor in reversed(list(self.factors)[:-1]):
            product = factor @ product
        return product.detach() * (-self.deviation / product.detach().std())

    @torch.no_grad()
    def gradients(self, net: Net, rows: int) -> None:
        """Fill the factors' `.grad` from noise through each of the net's layers.

        Args:
            net: the net.
            rows: N, the rows of noise.

        """
        for factor, layer in zip(self.factors, _maps(net), strict=True):
            noise = torch.randn(rows, layer.in_features, device=factor.device, dtype=factor.dtype)
            factor.grad = noise.T @ nn.functional.linear(noise, layer.weight) / -rows


def _maps(net: Net) -> list[nn.Linear]:
    layers: list[nn.Module] = [*(net.block(k).op for k in range(net.depth)), net.readout]
    return layers  # pyright: ignore[reportReturnType] - checked when a mirror is built
