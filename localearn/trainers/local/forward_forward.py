"""Forward-Forward, with its length normalisation and the peer normalisation of its units."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.layers import preserve_modes
from localearn.tasks import Task
from localearn.trainers.base import accumulate_grad
from localearn.trainers.local import labels
from localearn.trainers.local.base import LocalTrainer, Schedule
from localearn.trainers.local.normalization import MOMENTUM, PeerNormalization, length_normalized, share_off
from localearn.trainers.phases import Descent, Metrics

Goodness = Literal["sum", "mean"]
Negatives = Literal["uniform", "hard"]
Collaboration = Literal["none", "all", "previous"]
Prediction = Literal["softmax", "goodness"]
PeerScale = Literal["hinton", "port"]


class ForwardForward(LocalTrainer):
    """Train by Forward-Forward: each block's activity separates rows with their true label from rows with a wrong one.

        x+, x- = x with its true label, x with a wrong label       one pass over both, (2N, ...)
        h_k = block_k(h_{k-1} / (RMS(h_{k-1}) + eps))               RMS of a row: the next block cannot see g_{k-1}
        g_k = sum or mean of the squares of h_k                     goodness, (2N,); its threshold t_k is n_k or 2
        loss_k = (mean softplus(t_k - g_k(x+)) + mean softplus(g_k(x-) - t_k)) / 2

    The label is one-hot, written after the stem over the first C entries of a row, pixels of an image; or appended, as
    C features or constant channels, where the net takes so many more than the data have: `localearn.run` builds such a
    net, of `input_shape_for`, for vectors, graphs and convolutions, most of whose places would never see C pixels. On a
    graph each labelled node carries its label and every other the neutral one, 1/C: of the labels only the batch's are
    read, and a node's neighbours see what it carries.

    Of a table's row whose first columns are codes only the values and the label behind them are normalised.

    Tokens have no entries to write a label into, so x is their ids and the label's embedding, a row of E (C, D), which
    learns with block 1, is added to what block 1's op gives, at all positions; the neutral label is the mean of E.
    Where outputs are of positions (`PerPosition`, a language model: the label is the next token), a position is what a
    row is above: it carries its own label, appended to its features or by E, its goodness and length are of its D
    values, and padding counts nowhere. Attention and recurrence would see by the labels before a position whether a
    pass is one of true labels; so each of the two passes has the true one at half of the positions, redrawn, and
    the other pass at the other half, and what was drawn elsewhere says nothing about a position's own. The sequences'
    form is ours; among published ones arXiv 2609.33240 has a head for each block instead.

    Each step reports `off_k`, the share of block k's units (of maps, channels) that no row turns on. Such units learn
    by their peers alone: the gradient of a square is proportional to the activity. A step turns them off when it throws
    a unit below zero for every row, the likelier the larger lr times width times the rows' mean cosine.

    Hinton, arXiv 2212.13345, sections 2 and 3; the mean over 2N and the readout are those of the PyTorch port, whose
    recipe is recipe=paper. Collaboration: Lorberbom et al., arXiv 2305.12393. Graphs: Park et al., arXiv 2403.11004,
    who give the training nodes their true labels at prediction too; `predict` does not know these. The net alone
    normalises no lengths, so predict with this class.

    Known weakness: 4 to 6 times backprop's energy, and more where it takes long to converge (arXiv 2509.19063 has 14.3
    against 1.5 Wh), for less accuracy beyond MNIST.

    Args:
        net: a net whose input has room for a label.
        schedule: "joint", or "greedy", which trains the readout last, on features computed once. A block's input
            carries labels drawn again in each step, so it is not cached, and goes through the frozen blocks again.
        goodness: g_k, the "sum" or the "mean" of the squares.
        threshold: t_k, positive, the same for every block; None: n_k for the sum, 2 for the mean.
        negatives: wrong labels drawn "uniform", or "hard", as the readout finds them likely.
        peer_normalization: how strongly a unit's mean activity m_i over x+ is drawn to its block's, whether the unit is
            on or off, so that one that is always off is revived, 0 or more; see `PeerNormalization`. 0: none.
        peer_scale: the unit of that strength. "hinton": it is added to each row's gradient, strength (m_i - mean_j
            m_j), as in Hinton's own code, and divided by n_k where the goodness is a mean; "port": strength times the
            mean over the units of (m_i - mean_j m_j)^2 is the loss, as in the PyTorch port, which pulls 5 n_k times as
            weakly.
        collaboration: to g_k in loss_k the goodness of "all" other blocks is added, or of the "previous" ones,
            detached, or of "none"; of one block there is none. "all" holds every block's graph until the last is there:
            memory grows with depth.
        prediction: "softmax", one pass with the neutral label and a linear readout of the normalised h_2..h_L, trained
            by cross-entropy; it sends no gradient back but holds what it reads, and its part for h_L is the net's
            readout. "goodness", C passes, and not for positions: the label with the largest sum of g_2..g_L. On a graph
            all nodes carry it at once, unlike in training, and the readout is far better. The first block predicts too
            where blocks collaborate, since it is the sum of all goodness that learns then, and where it is alone, as in
            a greedy schedule's first phase.
        readout_lr: the readout's own learning rate, 0 or more; None leaves the optimizer's. There is a readout where it
            predicts or draws hard negatives, and elsewhere this and `readout_weight_decay` say nothing.
        readout_weight_decay: the readout's own, 0 or more; None leaves the optimizer's.

    Raises:
        UserError: when an option is out of its range, or options contradict each other: hard negatives or collaboration
            of all in a greedy schedule, collaboration in a net of one block.
        Unsupported: when goodness is to predict positions, or the net cannot carry the labels.

    """

    def __init__(
        self,
        net: Net,
        schedule: Schedule = "joint",
        goodness: Goodness = "sum",
        threshold: float | None = None,
        negatives: Negatives = "uniform",
        peer_normalization: float = 0.03,
        peer_scale: PeerScale = "hinton",
        collaboration: Collaboration = "none",
        prediction: Prediction = "softmax",
        readout_lr: float | None = 0.003,
        readout_weight_decay: float | None = None,
    ):
        super().__init__(net, schedule)
        if schedule == "greedy" and negatives == "hard":
            raise UserError("hard negatives need the readout, which greedy trains last; use negatives=uniform or joint")
        if schedule == "greedy" and collaboration == "all":
            raise UserError("greedy has no later blocks to collaborate with; use collaboration=previous or joint")
        if collaboration != "none" and net.depth == 1:
            raise UserError(f"collaboration={collaboration} needs other blocks, and the net has one; use none")
        if threshold is not None and threshold <= 0:
            raise UserError(f"threshold must be positive, or null for n_k (sum) or 2 (mean), not {threshold}")
        if peer_normalization < 0:
            raise UserError(f"peer_normalization must be 0 (none) or more, not {peer_normalization}")
        self.by_position = net.view.per_position
        if self.by_position and prediction == "goodness":
            raise Unsupported("goodness would need each label at each position by itself; use prediction=softmax")
        if self.by_position and schedule == "greedy":
            raise Unsupported(
                "a greedy block is judged by the goodness of each label, which at positions would be one at a time; "
                "use schedule=joint"
            )
        self.negatives, self.collaboration, self.prediction = negatives, collaboration, prediction
        self.mean_goodness, self.threshold = goodness == "mean", threshold
        options = {"lr": readout_lr, "weight_decay": readout_weight_decay}
        for name, value in options.items():
            if value is not None and value < 0:
                raise UserError(f"readout_{name} must be 0 or more, or null for the optimizer's, not {value}")
        self.readout_options = {name: value for name, value in options.items() if value is not None}
        self.has_readout = prediction == "softmax" or negatives == "hard"
        self.predicting = range(self._first(net.depth), net.depth)
        like = next(net.parameters())
        placed: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        others = self.predicting[:-1] if self.has_readout else ()
        self.projections = nn.ModuleList(nn.Linear(net.reads[k], net.classes, bias=False, **placed) for k in others)
        with preserve_modes(net), torch.no_grad():
            net.eval()  # so that a stem's dropout draws nothing
            h, *context = net.trial()
            h = net.stem(h)
            self._taken = tuple(h.shape[1:])  # of a row as the first block takes it
            self.tokens = (
                None if net.takes.vocabulary is None else _embedding(net.block(0).op(h, *context), net.classes)
            )
        self.units = net.reads if self.by_position else net.widths  # that a goodness is of
        peers = [peer_normalization * self._peer_scale(n, peer_scale) for n in self.units if peer_normalization]
        self.peers = nn.ModuleList(
            PeerNormalization(like, n, strength) for n, strength in zip(self.units, peers, strict=bool(peers))
        )
        self._shown: Tensor | None = None  # the labels of this step's 2N rows, where block 1 adds them as embeddings
        self._true_first: Tensor | None = None  # which positions, (N, T), carry the true label in the first N rows

    @classmethod
    def input_shape_for(cls, data: Data, kind: str) -> tuple[int, ...]:
        """Return the data's shape, with C features or channels more but for images that dense blocks flatten."""
        return cls._labelled(data, flattens=kind == "dense")

    @classmethod
    def input_shape(cls, net: Net, data: Data) -> tuple[int, ...]:
        """Return the data's shape, with C features or channels more but for images that the first block flattens."""
        return cls._labelled(data, flattens=net.flattens)

    @classmethod
    def _labelled(cls, data: Data, *, flattens: bool) -> tuple[int, ...]:
        _refuse_without_classes(data.task, data.name)
        if data.vocabulary is not None:
            return tuple(data.input_shape)  # labels are embedded
        if data.kind == "sequence" and not flattens:
            return (*data.input_shape[:-1], data.input_shape[-1] + data.task.outputs)
        channels, *places = data.input_shape
        return (channels if places and flattens else channels + data.classes, *places)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its input has room for a label."""
        super().supports(net, data)
        task = net.task if data is None else data.task
        _refuse_without_classes(task, type(net).__name__)
        if task.per_position and not net.view.per_position:
            raise Unsupported(
                f"{type(net).__name__} has one output a row, and {task} one a position; use view=PerPosition()"
            )
        if net.readout_takes_context:
            raise Unsupported("forward_forward's readout reads every block, a Linear each; use net.readout=linear")
        name = type(net).__name__
        size = net.input_shape[-1] if net.view.per_position else math.prod(net.input_shape)
        if size <= net.classes and net.takes.vocabulary is None:
            raise Unsupported(
                f"forward_forward writes {net.classes} labels into the input, and {name} takes {size} values; "
                f"build it for {net.classes} more than the data have"
            )
        if data is not None and data.categories and net.input_shape == data.input_shape:
            raise Unsupported(
                f"forward_forward would write its labels over {data.name}'s codes; build {name} for {net.classes} "
                "columns more than the data have, as input_shape_for(data, net.kind) says"
            )

    def goodness(self, h: Tensor) -> Tensor:
        """Return g, (N,), in float32 at least; (N, T) where it is of positions.

        Args:
            h: a block's output, (N, ...).

        """
        squares = h.flatten(self._axes).to(torch.promote_types(h.dtype, torch.float32)).square()
        return squares.mean(-1) if self.mean_goodness else squares.sum(-1)

    def block_loss(self, k: int, h: Tensor, batch: Batch, others: Tensor | float = 0.0) -> Tensor:
        """Return the loss of block k.

        Args:
            k: the block, 0..L-1.
            h: its output for the rows with true and then with wrong labels, (2N, ...).
            batch: the step's batch.
            others: the other blocks' goodness, (2N,), where blocks collaborate.

        """
        default = 2.0 if self.mean_goodness else float(self.units[k])
        logits = self.goodness(h) + others - (default if self.threshold is None else self.threshold)
        true, wrong = self._true_and_wrong(logits)
        counted = self._counted(batch)
        if counted is not None:
            return (F.softplus(-true) + F.softplus(wrong)).mul(counted).sum() / (2 * counted.sum().clamp_min(1))
        return (F.softplus(-batch.rows(true)).mean() + F.softplus(batch.rows(wrong)).mean()) / 2

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W, b of block k; for the first one also the labels' embedding, where there is one."""
        labels_too = () if k or self.tokens is None else self.tokens.parameters()
        return [p for p in (*self.net.block(k).parameters(), *labels_too) if p.requires_grad]

    def readout_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the softmax prediction trains, the net's readout among them; none without it."""
        modules = (*self.projections, self.net.readout) if self.has_readout else ()
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return h_0 with true and then with wrong labels, (2N, ...); train the readout, too, where there is one.

        Not in a greedy schedule, which trains the readout last.
        """
        h, y, classes = self.net.stem(batch.x), batch.target, self.net.classes
        counted = self._counted(batch)
        y = y if counted is None else torch.where(counted, y, 0)
        wrong, input_losses = labels.uniform_wrong_labels(y, classes), {}
        if self.has_readout and self.schedule == "joint":
            input_losses["loss_readout"], logits = self._learn_readout(self._features(h, *batch.context), batch)
            if self.negatives == "hard":
                wrong = labels.hard_wrong_labels(y, batch.rows(logits))
        one, other = y, wrong
        if self.by_position:
            self._true_first = first = torch.rand(y.shape, device=y.device) < 0.5
            one, other = torch.where(first, y, wrong), torch.where(first, wrong, y)
        if self.tokens is not None:
            self._shown = torch.cat([one, other])
            return torch.cat([h, h]), input_losses
        both = [self._embed(h, labels.label_rows(batch, shown, classes, h.dtype)) for shown in (one, other)]
        return torch.cat(both), input_losses

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return block k's output for rows with true and with wrong labels, (2N, ...), its loss and `off_k`."""
        z, h = self._through(k, h, _twice(batch), self._shown)
        return h, self._loss(k, z, h, batch), {f"off_{k + 1}": share_off(h.detach())}

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after the readout and after each block."""
        if self.collaboration == "none":
            yield from super().by_block(batch)
        else:
            yield from self._collaborate(range(self.net.depth), *self.first_input(batch), batch)

    def check_pipeline(self) -> None:
        """Check that every block's loss is of its own output alone.

        Raises:
            UserError: when it is not.

        """
        super().check_pipeline()
        if self.has_readout:
            raise UserError(
                "forward_forward's readout reads every block, so blocks cannot learn alone; "
                "use prediction=goodness with negatives=uniform, or parallel=data"
            )
        if self.tokens is not None:
            raise UserError(
                "forward_forward adds a label to token ids in block 1, which draws it for all blocks, so they cannot "
                "learn alone; use parallel=data"
            )
        if self.collaboration != "none":
            raise UserError(
                f"collaboration={self.collaboration} needs other blocks' goodness, so blocks cannot learn alone; "
                "use collaboration=none, or parallel=data"
            )

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return the tensors that training block k changes, its peers' running means among them."""
        return [*super().block_tensors(k), *(self.peers[k].buffers() if self.peers else ())]

    def predict(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the readout's logits or the summed goodness of every label, (N, C)."""
        if self.prediction == "softmax":
            return self._read(self._features(self.net.stem(x), *context))
        return self.block_scores(self.net.stem(x), *context, start=0, stop=self.net.depth)

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_L with the neutral label, by which the readout predicts, or the label of most goodness.

        They have their own lengths, which a block's goodness is of; the next block and the readout normalise them.
        """
        h = self.net.stem(x)
        if self.prediction == "softmax":
            return self._outputs(self._with_neutral(h), context, self.net.depth)
        best = self.block_scores(h, *context, start=0, stop=self.net.depth).argmax(1)
        if self.tokens is not None:
            return self._outputs(h, context, self.net.depth, best)
        shown = labels.one_hot(best, self.net.classes).to(h.dtype)
        return self._outputs(self._embed(h, shown), context, self.net.depth)

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return the goodness of each label, (N, C), summed over the predicting blocks: a pass for each, from h_0."""
        if start:
            raise ValueError("a label enters at h_0, so scores start there")
        totals = []
        for label in range(self.net.classes):
            shown = None
            if self.tokens is None:
                rows = labels.neutral_rows(len(h), h, self.net.classes).zero_()
                rows[:, label] = 1
            else:
                shown = torch.full((len(h),), label, device=h.device)
            h_0 = self._embed(h, rows) if shown is None else h
            outputs = enumerate(self._outputs(h_0, context, stop, shown))
            goodness = [self.goodness(h_k) for k, h_k in outputs if k >= self._first(stop)]
            totals.append(torch.stack(goodness).sum(0))
        return torch.stack(totals, dim=1)

    def phases(self) -> Sequence[Descent]:
        """Return one phase, or one a block and then the readout's where the schedule is greedy."""
        readout = self.readout_parameters()
        groups = [{"params": readout, **self.readout_options}] if readout and self.readout_options else []
        first, *rest = super().phases()
        if self.schedule == "joint":
            return [self.descent(first.name, (*first.parameters, *readout), groups=groups)]
        last = Descent(
            "readout",
            readout,
            lambda batch: {"loss": self._learn_readout(batch.x, batch)[0]},
            groups=groups,
            predict=lambda h, *context: self._read(h),
            features=lambda x, *context: self._features(self.net.stem(x), *context),
            width=sum(self.net.widths[k] if self.by_position else self.net.reads[k] for k in self.predicting),
            frozen=(self.net.stem, *self.net.blocks),
        )
        return [first, *rest, last] if readout else [first, *rest]

    def greedy_descent(self, k: int) -> Descent:
        """Return the phase that trains block k alone; labels are redrawn in each step, so it starts from x."""

        def gradients(batch: Batch) -> Iterator[Metrics]:
            h, input_losses = self.first_input(batch)
            known = []
            with torch.no_grad():
                for j in range(k):
                    _, h = self._through(j, h, _twice(batch), self._shown)
                    if self.collaboration != "none":
                        known.append(self.goodness(h))
            learn = self.learn_blocks if self.collaboration == "none" else partial(self._collaborate, known=known)
            yield from learn(range(k, k + 1), h, input_losses=input_losses, batch=batch)

        def predict(x: Tensor, *context: Tensor) -> Tensor:
            return self.block_scores(self.net.stem(x), *context, start=0, stop=k + 1)

        frozen = [self.net.stem, *list(self.net.blocks)[:k]] if k else ()
        return Descent(f"block {k + 1}", self.block_parameters(k), gradients, predict=predict, frozen=frozen)

    def _peer_scale(self, n: int, scale: PeerScale) -> float:
        """Return by what a block's strength is multiplied: Hinton's pull is on each unit, as its goodness is."""
        if scale == "port":
            return 1.0
        return (1.0 if self.mean_goodness else n) / (2 * (1 - MOMENTUM))

    def _first(self, stop: int) -> int:
        """Return the first of the blocks 0..stop-1 that predicts."""
        return min(1, stop - 1) if self.collaboration == "none" else 0

    def _embed(self, h: Tensor, rows: Tensor) -> Tensor:
        return labels.embed(h, rows, self._taken)

    @property
    def _axes(self) -> int:
        """The number of axes before those that a goodness is of: a row's, or a position's too."""
        return 2 if self.by_position else 1

    def _counted(self, batch: Batch) -> Tensor | None:
        """Return which positions of a batch are no padding, (N, T) bool; None where there is none."""
        return self.task.counted(batch.target) if self.by_position else None

    def _true_and_wrong(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is of true labels and what is of wrong ones, (N, ...) each, of both passes' rows, (2N, ...)."""
        one, other = both.chunk(2)
        if self._true_first is None:
            return one, other
        first = self._true_first.view(*self._true_first.shape, *(1,) * (one.dim() - 2))
        return torch.where(first, one, other), torch.where(first, other, one)

    def _through(
        self, k: int, h: Tensor, context: tuple[Tensor, ...], shown: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return z_k and h_k of a block from h_{k-1}, whose history is left behind.

        shown: the labels, (N,) or (N, T), that block 1 adds as embeddings, where it does; None: the neutral one.
        """
        block = self.net.block(k)
        if k or self.tokens is None:
            codes = 0 if k else len(self.net.takes.categories)
            rest = length_normalized(h.detach()[:, codes:] if codes else h.detach(), self._axes)
            z = block.op(torch.cat([h[:, :codes], rest], dim=1) if codes else rest, *context)
        else:
            z = block.op(h, *context)
            label = self.tokens.weight.mean(0) if shown is None else self.tokens(shown)
            z = z + (label if shown is None or self.by_position else label.unsqueeze(1)).to(z.dtype)
        return z, block.post(z)

    def _outputs(
        self, h: Tensor, context: tuple[Tensor, ...], stop: int, shown: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield h_1..h_stop from h_0; no gradient passes from one to another."""
        for k in range(stop):
            _, h = self._through(k, h, context, shown)
            yield h

    def _loss(self, k: int, z: Tensor, h: Tensor, batch: Batch, others: Tensor | float = 0.0) -> Tensor:
        """Return the loss of block k and of its peers."""
        loss = self.block_loss(k, h, batch, others)
        if self.peers and self.by_position:
            counted = self._counted(batch)
            true = [self._true_and_wrong(value)[0].flatten(0, 1) for value in (z, h)]
            loss = loss + self.peers[k](*true, None if counted is None else counted.flatten())
        elif self.peers:
            true = slice(len(z) // 2)
            loss = loss + self.peers[k](batch.rows(z[true]), batch.rows(h[true]))
        return loss

    def _collaborate(
        self, blocks: range, h: Tensor, input_losses: Metrics, batch: Batch, known: Sequence[Tensor] = ()
    ) -> Iterator[Metrics]:
        """Do what `learn_blocks` does where a block's loss has other blocks' goodness in it.

        known: the goodness of the blocks before.
        """
        losses, goodness = list[Tensor](), list(known)
        if input_losses:
            yield input_losses
        run = self._run(blocks, h, _twice(batch))
        if self.collaboration == "all":
            run = list(run)
            goodness = [self.goodness(h.detach()) for _, h in run]
        for k, (z, h) in zip(blocks, run, strict=True):
            off = share_off(h.detach())
            others = sum(g for j, g in enumerate(goodness) if j != k)
            loss = self._loss(k, z, h, batch, others)
            accumulate_grad(loss)
            losses.append(loss.detach())
            yield {f"loss_{k + 1}": loss.detach(), f"off_{k + 1}": off}
            if self.collaboration == "previous":
                goodness.append(self.goodness(h.detach()))
        yield {"loss": self.total(input_losses, losses)}

    def _run(self, blocks: range, h: Tensor, context: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        for k in blocks:
            z, h = self._through(k, h, context, self._shown)
            yield z, h

    @torch.no_grad()
    def _features(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return the normalised outputs of the blocks that predict, with the neutral label, (N, sum of n_k)."""
        outputs = enumerate(self._outputs(self._with_neutral(h), context, self.net.depth))
        read = [self.net.view(length_normalized(h, self._axes)) for k, h in outputs if k in self.predicting]
        features = torch.cat(read, dim=-1)
        # Before torch 2.11, autocast keeps the weights that it cast here, without a graph, for the pass that needs one.
        torch.clear_autocast_cache()
        return features

    def _with_neutral(self, h: Tensor) -> Tensor:
        """Return h_0 with the neutral label; tokens as they are, to which block 1 adds it."""
        if self.tokens is not None:
            return h
        places = h.shape[1:-1] if self.by_position else ()
        return self._embed(h, labels.neutral_rows(len(h), h, self.net.classes, *places))

    def _read(self, features: Tensor) -> Tensor:
        parts = features.split([self.net.reads[k] for k in self.predicting], dim=-1)
        logits = self.net.readout(parts[-1])
        for projection, part in zip(self.projections, parts[:-1], strict=True):
            logits = logits + projection(part)
        return logits

    def _learn_readout(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Fill the readout's `.grad`; return its loss and its logits, (N, C), both detached."""
        logits = self._read(features)
        loss = self.task.loss(logits, batch)
        accumulate_grad(loss)
        return loss.detach(), logits.detach()


def _embedding(z: Tensor, classes: int) -> nn.Embedding:
    """Return a label's embedding, as large as what it is added to, (N, T, D)."""
    embedding = nn.Embedding(classes, z.shape[-1], device=z.device, dtype=z.dtype)
    with torch.no_grad():
        embedding.weight.mul_(z.square().mean().sqrt())
    return embedding


def _twice(batch: Batch) -> tuple[Tensor, ...]:
    """Return the context of a batch's rows with true and with wrong labels, one upon the other."""
    return labels.duplicate_context(batch.context, len(batch.x))


def _refuse_without_classes(task: Task, name: str) -> None:
    """Raise `Unsupported` where there are no wrong labels to contrast the right one with."""
    if not task.exclusive:
        raise Unsupported(
            f"forward_forward contrasts right labels with wrong ones, and {name} is for {type(task).__name__}; use "
            "algo=mono_forward, or another rule"
        )


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
