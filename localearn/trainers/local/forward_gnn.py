"""ForwardGNN, the pass that reads its labelled nodes, and the unit rows that its blocks take."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.gnn import aggregation
from localearn.tasks import Task
from localearn.trainers.base import accumulate_grad
from localearn.trainers.local.base import LocalTrainer, Schedule
from localearn.trainers.local.top_down import BURN_IN, MergedInput, TopDown
from localearn.trainers.phases import Descent, Metrics, Phase, Solve

EPS = 1e-8


class ForwardGNN(LocalTrainer):
    """Train by ForwardGNN: each graph block draws a node to the virtual node of its class, in one forward pass.

        x' = [x; V]                                      (N + C, D); V, (C, D), fixed random features, one row a class
        E' = E, and v_c <-> i for each training node i of class c, both ways
        h_k = block_k(h_{k-1} / (|h_{k-1}| + eps), E')   (N + C, n_k); |.| of each row
        G_k = h_k[:N] h_k[N:]^T / temperature            (N, C): a node's product with each class's virtual node
        loss_k = CE(G_k, y) over the training nodes      trains block k alone                             (6)
        prediction = argmax sum_k softmax(G_k)           of the blocks trained so far

    So there are no negatives, no label in the features and no readout: the classes take part in the graph. The net's
    own readout is left as it was drawn, and the net alone predicts nothing; predict with this class, which holds V and
    the training nodes with their labels, `known_nodes` and `known_labels`, (M,), in its state.

    Link prediction (`LinkPrediction`: a target is of two nodes u, v) needs no virtual nodes, and a block's rows are

        o_k = sum_j h_kuj h_kvj                          loss_k = BCE(sigmoid(o_k), y) over the pairs     (9)
        prediction = mean_k sigmoid(o_k)

    so that `predict` returns the blocks' vectors side by side, (N, L, max n), which the task takes.

    Where `top_down` is not "none", all blocks learn in each pass t, first to last, and see the outputs of the blocks
    above in the pass before, constants; at t = 0 they see those of a pass without signals:

        input     block k's linear map reads [unit(h_{k-1,t}); unit(h_{k+1,t-1})], over columns of its own      (7)
                  h_{L+1} = labels of training nodes and of V, one-hot, and 1/C elsewhere; of pairs there is none
                  prediction: `passes` passes from t = 0, probabilities summed (of pairs: averaged) from the third on
        loss      G_k of the mean of h_{k,t} and unit(h_{n,t-1}), n = k+1..L, in place of h_k                    (8)
                  prediction: the same means after one pass; blocks of one width alone

    Park et al., "Forward Learning of Graph Neural Networks", arXiv 2403.11004 (ICLR 2024), equations 6 to 9, and the
    authors' code (facebookresearch/forwardgnn), where patience counts validations, every second epoch, and ours counts
    epochs. Top-down follows the paper's Algorithm 3. In the authors' code every second block learns first, from both
    its neighbours, which with two blocks is the same, and with top_down=loss a block reads h_{k-1,t-1}; it clips there.
    Our columns for signals are drawn next to a map that was drawn for its own width. Nodes held out are never joined to
    a class, so their labels are not seen.

    Known weakness: a virtual node brings all training nodes of a class within two steps of one another, so more blocks
    smooth over the classes' difference sooner; and the virtual node of a class without training nodes says nothing. A
    prediction with top_down=input costs `passes` times as much.

    Args:
        net: a graph net whose blocks give a row for each node.
        schedule: "greedy", the published one, after a pass that reads which nodes are labelled, trains one block after
            another. Its input being fixed, what a convolution sums over neighbours, A h of (A h) W^T, is computed once
            (`localearn.nets.gnn`), and a step is a linear map of the training nodes and the C virtual ones; a GAT,
            whose sums are weighted by what it learns, goes through the graph in each step. "joint" steps all blocks on
            each pass. There the input's dropout is as in any net; greedy has none on the features that it computed
            once.
        temperature: of the softmax, positive.
        top_down: "none", which is single-forward, or signals from the blocks above to a block's "input" or "loss", as
            above.
        passes: of a prediction with top_down=input.

    Raises:
        UserError: when an option is out of its range, or the schedule is greedy where blocks read those above them.

    """

    serves_pairs = True
    virtual: Tensor
    known_nodes: Tensor
    known_labels: Tensor

    def __init__(
        self,
        net: Net,
        schedule: Schedule = "greedy",
        temperature: float = 1.0,
        top_down: Literal["none", "input", "loss"] = "none",
        passes: int = 10,
    ):
        super().__init__(net, schedule)
        if temperature <= 0:
            raise UserError(f"temperature must be positive, not {temperature}; try 1")
        if passes <= BURN_IN:
            raise UserError(f"passes must be more than the {BURN_IN} that do not count, not {passes}; try 10")
        if top_down != "none" and schedule == "greedy":
            raise UserError(
                f"greedy trains a block before those above it, and top_down={top_down} reads these; use schedule=joint"
            )
        self.temperature, self.top_down, self.passes = temperature, top_down, passes
        like = next(net.parameters())
        self.register_buffer(
            "virtual", torch.randn(net.classes, *net.input_shape, device=like.device, dtype=like.dtype)
        )
        for name in ("known_nodes", "known_labels"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64, device=like.device))
        self.signals = None if top_down == "none" else TopDown(net, merges_input=top_down == "input")
        self.check_task(net.task)
        self.register_load_state_dict_pre_hook(_sized_as_saved)
        self._read: tuple[Tensor | None, Tensor] | None = None  # whose nodes and labels are known
        self._joined: tuple[Tensor, ...] = ()  # edges, what was known, and the edges that were made of these

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: it is of a graph, and its blocks give a row for each node."""
        super().supports(net, data)
        name = type(net).__name__
        if not net.graph:
            raise Unsupported(
                f"forward_gnn joins classes to a graph as nodes, and {name} takes no edges; use algo=mono_forward, "
                "or a graph with net=gcn, sage or gat"
            )
        if any(len(shape) != 1 for shape in net.shapes):
            raise Unsupported(f"forward_gnn multiplies nodes' rows, (N, n), and {name} gives others; use net=gcn")
        _refuse_without_classes(net.task if data is None else data.task, name)

    def check_task(self, task: Task) -> None:
        """Check the task: it has classes, which the virtual nodes are of, or is of pairs."""
        super().check_task(task)
        _refuse_without_classes(task, type(self.net).__name__)
        if self.top_down != "none" and self.net.depth == 1 and (self.top_down == "loss" or task.of_pairs):
            raise Unsupported(
                f"top_down={self.top_down} needs a block above another, and {type(self.net).__name__} has one; use "
                "net.widths=[64,64], or top_down=none"
            )

    def check_pipeline(self) -> None:
        """Check that no block reads those above it, which another process has.

        Raises:
            UserError: when one does.

        """
        super().check_pipeline()
        if self.signals is not None:
            raise UserError(f"top_down={self.top_down} has blocks read those above them; use top_down=none")

    @property
    def joins(self) -> int:
        """The number of virtual nodes: C, or none where a target is of two nodes."""
        return self.net.classes if self.task.has_classes else 0

    def know(self, nodes: Tensor | None, labels: Tensor) -> None:
        """Join the virtual nodes to the training nodes of their classes.

        Args:
            nodes: the training nodes, (M,), or None for all in order.
            labels: their labels, (M,).

        """
        if not self.joins:
            return
        if self._read is None or self._read[0] is not nodes or self._read[1] is not labels:
            self.known_nodes = torch.arange(len(labels), device=labels.device) if nodes is None else nodes.clone()
            self.known_labels = labels.clone()
            self._read = nodes, labels

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return h_0 with the virtual nodes after the graph's own, (N + C, D)."""
        h = self._with_virtual(self.net.stem(batch.x))
        if self.signals is not None and self.signals.is_empty(h):
            self.know(batch.index, batch.target)
            with torch.no_grad():
                outputs = self._outputs(self.net.stem(batch.x), batch.context[0], self.net.depth)
                self.signals.initialize(unit_rows(out) for out in outputs)
        return h, {}

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return block k's output, (N + C, n_k), from the one before it, and its loss."""
        self.know(batch.index, batch.target)
        edges = self._edges(batch.context[0], len(h) - self.joins)
        if self.signals is None:
            h = self.net.block(k)(unit_rows(h), edges)
            return h, self.block_loss(k, h, batch), {}
        if self.top_down == "input":
            reads = batch.x if k == 0 and not self._draws_input() else None
            h = merged = self._merged_input(k, h, edges, reads)(self._above(k, len(h), self.signals.stored))
        else:
            h = self.net.block(k)(unit_rows(h), edges)
            merged = self.signals.with_above(k, h, self.signals.stored)
        self.signals.store(k, unit_rows(h.detach()))
        return h, self.block_loss(k, merged, batch), {}

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of G_{k+1} over the nodes that have a target, or of o_{k+1} over the pairs, a scalar."""
        nodes, virtual = self._halves(h)
        return self._loss(batch.select(nodes), virtual, batch.target)

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W, b of block k and its columns for what is above it; the readout is not used."""
        own = [p for p in self.net.block(k).parameters() if p.requires_grad]
        if self.signals is None or self.top_down != "input" or (k == self.net.depth - 1 and not self.joins):
            return own
        return [*own, self.signals.columns[k]]

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return the log of the sum of the blocks' class probabilities, (N, C), from h_0, (N, D).

        Of pairs it is the blocks' vectors, (N, L, max n).
        """
        if start:
            raise ValueError("the virtual nodes enter at h_0, so scores start there")
        if self.top_down == "input":
            return self._pooled(self._outputs_after_burn_in(h, context[0]))
        outputs = self._outputs(h, context[0], stop)
        if self.signals is not None:
            found = list(outputs)
            units = [unit_rows(out) for out in found]
            outputs = (self.signals.with_above(k, out, units) for k, out in enumerate(found))
        return self._pooled(outputs)

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield the nodes' own rows of the blocks' outputs, the virtual nodes being joined to the graph."""
        h = self.net.stem(x)
        if self.top_down == "input":
            outputs = iter(list(self._outputs_after_burn_in(h, context[0]))[-self.net.depth :])
        else:
            outputs = self._outputs(h, context[0], self.net.depth)
        for h in outputs:
            yield self._halves(h)[0]

    def phases(self) -> Sequence[Phase]:
        """Return one phase for all blocks, or that which reads the labelled nodes and then one a block."""
        first, *rest = super().phases()
        return [Labels(self), first, *rest] if self.schedule == "greedy" and self.joins else [first, *rest]

    def greedy_descent(self, k: int) -> Descent:
        """Return the phase that trains block k alone, on sums over neighbours that are computed once."""
        block, joins, widths = self.net.block(k), self.joins, self.net.widths
        split = aggregation(block.op)
        # Of classes the training nodes and the virtual ones are all that a step needs, where no statistics are of more.
        selects = joins and split and not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules())
        entries = (self.net.input_shape[0] if k == 0 else widths[k - 1]) * (split.times if split else 1)

        def features(x: Tensor, edge_index: Tensor) -> Tensor:
            """Return block k's input, (N + C, entries), next to what is known of the blocks before it."""
            h = self._with_virtual(self.net.stem(x))
            edges, outputs = self._edges(edge_index, len(x)), list[Tensor]()
            for before in list(self.net.blocks)[:k]:
                h = before(unit_rows(h), edges)
                outputs.append(h)
            h = unit_rows(h).to(self.virtual.dtype)
            h = h if split is None else split.gather(h, edges)
            if not k:
                return h
            known = F.pad(self._pooled(outputs), (0, 0, 0, joins)) if joins else torch.cat(outputs, dim=1)
            return torch.cat([h, known], dim=1)

        def output(h: Tensor, edge_index: Tensor) -> Tensor:
            if split is None:
                return block(h, self._edges(edge_index, len(h) - joins))
            return block.post(split.combine(h))

        def gradients(batch: Batch) -> Metrics:
            h = batch.x[:, :entries]
            if selects:
                nodes, virtual = self._halves(h)
                ends = output(torch.cat([batch.select(nodes), virtual]), batch.context[0])
                loss = self._loss(*self._halves(ends), batch.target)
            else:
                loss = self.block_loss(k, output(h, batch.context[0]), batch)
            accumulate_grad(loss)
            return {"loss": loss.detach(), f"loss_{k + 1}": loss.detach()}

        def predict(h: Tensor, edge_index: Tensor) -> Tensor:
            own, known = output(h[:, :entries], edge_index), h[:, entries:]
            if joins == 0:
                return self._pooled([*known.split(widths[:k], dim=1), own])
            scores = self._pooled([own])
            return torch.logaddexp(scores, self._halves(known)[0].to(scores.dtype)) if k else scores

        return Descent(
            f"block {k + 1}",
            self.block_parameters(k),
            gradients,
            predict=predict,
            features=features,
            width=entries + (0 if k == 0 else joins or sum(widths[:k])),
            frozen=[self.net.stem, *list(self.net.blocks)[:k]],
        )

    def _halves(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the graph's own nodes and those of the virtual ones, (N, ...) and (C, ...)."""
        n = len(h) - self.joins
        return h[:n], h[n:]

    def _loss(self, nodes: Tensor, virtual: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of what was selected of the nodes' rows, (M, n), or of pairs, (M, 2, n)."""
        return self.task.mean_loss(nodes @ virtual.T / self.temperature if self.joins else nodes, target)

    def _pooled(self, outputs: Iterable[Tensor]) -> Tensor:
        """Return the log of the sum of class probabilities, (N, C), of blocks' outputs, each (N + C, n_k).

        Of pairs these outputs side by side, (N, L, max n).
        """
        if not self.joins:
            return self.task.pool(list(outputs))
        halves = map(self._halves, outputs)
        dtype = torch.promote_types(self.virtual.dtype, torch.float32)  # also where autocast has narrower products
        logs = [(nodes @ virtual.T / self.temperature).to(dtype).log_softmax(1) for nodes, virtual in halves]
        return torch.stack(logs).logsumexp(0) if len(logs) > 1 else logs[0]

    def _outputs(self, h: Tensor, edge_index: Tensor, stop: int) -> Iterator[Tensor]:
        """Yield h_1..h_stop, (N + C, n_k) each, from the graph's own h_0, (N, D)."""
        edges, h = self._edges(edge_index, len(h)), self._with_virtual(h)
        for block in list(self.net.blocks)[:stop]:
            h = block(unit_rows(h.detach()), edges)
            yield h

    def _outputs_after_burn_in(self, h: Tensor, edge_index: Tensor) -> Iterator[Tensor]:
        """Yield the blocks' outputs, (N + C, n_k) each, of each pass of a top-down prediction that counts."""
        edges, x = self._edges(edge_index, len(h)), self._with_virtual(h.detach())
        first = self._merged_input(0, x, edges, h)
        stored = [unit_rows(first(None).detach())]
        for block in list(self.net.blocks)[1:]:
            stored.append(unit_rows(block(stored[-1], edges).detach()))
        for t in range(self.passes):
            h = x
            for k in range(self.net.depth):
                h = (first if k == 0 else self._merged_input(k, h.detach(), edges))(self._above(k, len(x), stored))
                stored[k] = unit_rows(h.detach())
                if t >= BURN_IN:
                    yield h

    def _merged_input(self, k: int, h: Tensor, edges: Tensor, of: Tensor | None = None) -> MergedInput:
        """Return block k as a function of the signals from above it, its input h_{k-1}, (N + C, n_{k-1}), being given.

        of: the graph's own rows, where what block 1 sums of them may be computed once for as long as they are there.
        """
        assert self.signals is not None
        return self.signals.block(self.net.block(k), k, unit_rows(h), edges, of)

    def _above(self, k: int, rows: int, stored: Sequence[Tensor]) -> Tensor | None:
        """Return unit rows of the output of block k + 1, (N + C, n_{k+1}): of `stored`, or at the top the labels'."""
        if k < self.net.depth - 1:
            return stored[k + 1]
        if not self.joins:
            return None
        n, c = rows - self.joins, self.joins
        labels = self.virtual.new_full((rows, c), 1 / c)
        labels[n:] = torch.eye(c, dtype=labels.dtype, device=labels.device)
        labels[self.known_nodes] = labels[n:].index_select(0, self.known_labels)
        return unit_rows(labels)

    def _draws_input(self) -> bool:
        """Whether h_0 is another one in each pass."""
        return any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in self.net.stem.modules())

    def _with_virtual(self, h: Tensor) -> Tensor:
        return torch.cat([h, self.virtual[: self.joins].to(h.dtype)])

    def _edges(self, edge_index: Tensor, nodes: int) -> Tensor:
        """Return the edges of a graph of so many nodes and those to the virtual ones; made once for as long as can be.

        For a convolution prepares what it is given by which tensor that is, see `localearn.nets.gnn.cached`.
        """
        if not self.joins:
            return edge_index
        sources = edge_index, self.known_nodes, self.known_labels
        if not self._joined or any(a is not b for a, b in zip(sources, self._joined, strict=False)):
            there = torch.stack([self.known_nodes, self.known_labels + nodes])
            self._joined = (*sources, torch.cat([edge_index, there, there.flip(0)], dim=1))
        return self._joined[-1]


@final
class Labels(Solve):
    """Read which nodes are labelled, so that virtual nodes are joined to them before features are computed.

    Args:
        trainer: the rule.

    """

    def __init__(self, trainer: ForwardGNN):
        super().__init__("labels", (), predict=trainer.predict)
        self.trainer = trainer
        self._parts: list[tuple[Tensor | None, Tensor]] = []

    def accumulate(self, batch: Batch) -> None:
        """Add a batch's labelled nodes to those that were read before."""
        self._parts.append((batch.index, batch.target))
        nodes, labels = zip(*self._parts, strict=True)
        if len(labels) == 1:
            self.trainer.know(nodes[0], labels[0])
        else:
            self.trainer.know(torch.cat([n for n in nodes if n is not None]), torch.cat(labels))

    def sums(self) -> list[Tensor]:
        """Return nothing: there is one graph, and each process reads it."""
        return []

    def solve(self) -> Metrics:
        """Return the loss without knowledge, log C."""
        self._parts = []
        return {"loss": torch.tensor(float(self.trainer.net.classes), device=self.trainer.virtual.device).log()}


def unit_rows(h: Tensor) -> Tensor:
    """Return h / (|h| + 1e-8) of each row.

    Args:
        h: (N, n).

    """
    return h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + EPS)


def _sized_as_saved(trainer: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the labelled nodes in the number in which they were saved, which is the data's."""
    for name in ("known_nodes", "known_labels"):
        saved = state.get(f"{prefix}{name}")
        if isinstance(saved, Tensor):
            setattr(trainer, name, getattr(trainer, name).new_empty(saved.shape))
    if trainer.signals is not None:
        trainer.signals.size_as(state, f"{prefix}signals.")
    trainer._read, trainer._joined = None, ()


def _refuse_without_classes(task: Task, name: str) -> None:
    if not (task.has_classes or task.of_pairs):
        raise Unsupported(
            f"forward_gnn has a virtual node for each class, and {name} is for {type(task).__name__}; use "
            "algo=mono_forward"
        )
