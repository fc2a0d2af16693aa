"""Pipeline parallelism (`parallel=layers`): every rank trains some of the blocks, and activations only go forward."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.nets import Net
from localearn.trainers.base import Pipelined, Trainer
from localearn.trainers.phases import Descent, Metrics, Phase
from localearn.training.distributed.ranks import JoinedRanks

AHEAD = 2  # batches whose activations a rank may have sent before the next rank has taken them
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MOST_DIMENSIONS = 6


class LayerRanks(JoinedRanks):
    """Ranks in a row, each of which trains some blocks of a local rule and sends its last one's output to the next.

    There is no backward communication, so no rank waits for the backward pass of another: while rank r learns from
    batch t, rank r - 1 is at batch t + 1. Rank r receives the output of block k before its own step on batch t, just as
    in the joint schedule on one process. So the weights are those of that schedule, with no delay, bit for bit where
    the arithmetic is; only what a rule draws at random, such as dropout's masks, is drawn on each rank for itself. A
    batch need not be cut into micro-batches: those that follow keep the ranks busy, all but for the first and the last
    size - 1 of an epoch. Blocks of a rule that is not `chained` need nothing of each other, and ranks send nothing
    while they learn. Every rank holds the whole net, and receives the others' blocks at the end of each epoch, for
    validation, whose rows are split among the ranks, and for the checkpoint.

    Args:
        device: This rank's device.
        timeout_s: Seconds that a rank is waited for, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        super().__init__(device, timeout_s)
        self._rule: Pipelined | None = None
        self._spans: list[range] = []
        self._sent: deque[tuple[Any, Tensor]] = deque()
        self._form: tuple[torch.dtype, int, tuple[int, ...]] | None = None  # of what comes: dtype, rows a row, the rest
        self._told_form = False
        self._taken: Tensor | None = None  # the activations that the previous rank has sent for the present batch
        self._asked = 0  # batches so far
        self._buffers: list[Tensor | None] = [None, None]

    def divide(self, trainer: Trainer, data: Data) -> Data:
        """Assign this rank its blocks; return the data, of which all but validation goes whole to every rank.

        Raises:
            UserError: Where the rule's blocks cannot learn on so many ranks.

        """
        self._rule = self.together(lambda: self._pipelined(trainer))
        self._spans = balanced(block_costs(trainer.net), self.size)
        for tensor in (*trainer.parameters(), *trainer.buffers()):
            self.broadcast(tensor.data, 0)
        return data

    def _pipelined(self, trainer: Trainer) -> Pipelined:
        """Return the rule, or raise UserError where its blocks cannot learn on so many ranks."""
        rule = trainer.pipelined()
        depth = trainer.net.depth
        if self.size > depth:
            raise UserError(f"{self.size} ranks are more than the net's {depth} blocks; use {depth} ranks or fewer")
        return rule

    def share(self, phase: Phase) -> Phase:
        """Return the phase in which this rank's blocks learn; its parameters, for the optimizer, are all blocks'."""
        assert isinstance(phase, Descent)
        return Descent(phase.name, phase.parameters, self._learn, groups=phase.groups, predict=phase.predict)

    def _learn(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` of this rank's blocks and send the last one's output to the next rank, yielding after each."""
        rule, span, told = self._rule, self._spans[self.rank], dict[str, Tensor]()
        assert rule is not None
        if self._alone:
            h, told = rule.first_input(batch)
        else:
            assert self._taken is not None
            h = self._taken
        yield told
        losses: list[Tensor] = []
        for k in span:
            ends = k == span[-1] and self.rank < self.size - 1 and rule.chained
            h, found = rule.learn_block(k, h, batch, self._send if ends else None)
            losses.append(found[f"loss_{k + 1}"])
            yield found
        yield {"loss": rule.total(told, losses)}

    def seed(self, seed: int) -> int:
        """Return a seed for this rank, or the same on all where blocks are not chained and share their input."""
        return super().seed(seed) if self._rule is None or self._rule.chained else seed

    def release(self, trainer: Trainer) -> None:
        """Drop the reference to the rule."""
        self._rule = self._taken = None

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; the activations of the previous rank are prefetched by one batch."""
        yield from batches if self._alone else self._received(batches)
        self._flush()

    def _received(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        asked: deque[tuple[Batch, Any, Tensor]] = deque()
        for batch in batches:
            asked.append((batch, *self._ask(len(batch.x))))
            if len(asked) > 1:
                yield self._arrived(*asked.popleft())
        while asked:
            yield self._arrived(*asked.popleft())

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return each block's loss from its rank, their sum as the loss, and the number of rows."""
        own, _ = super().means(sums, rows)
        found = self.gathered(own)
        names = dict.fromkeys(name for means in found for name in means)
        return {name: sum(means.get(name, 0.0) for means in found) for name in names}, rows

    def unite(self, trainer: Trainer) -> None:
        """Broadcast every rank's blocks to all."""
        for source, span in enumerate(self._spans):
            for tensor in self._owned(span):
                self.broadcast(tensor.detach(), source)

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the optimizer's state_dict with every rank's part of the state, on the CPU."""
        states = self.gathered({key: _to_cpu(value) for key, value in state["state"].items()})
        merged = {key: value for part in states for key, value in part.items()}
        return {**state, "state": dict(sorted(merged.items()))}

    def drop_others(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the state of other ranks' blocks, which a checkpoint has too."""
        own = set(self._owned(self._spans[self.rank]))
        for parameter in list(optimizer.state):
            if parameter not in own:
                del optimizer.state[parameter]

    @property
    def _alone(self) -> bool:
        """Return whether this rank computes its first block's input itself: the stem's output, or a fixed input."""
        return self.first or (self._rule is not None and not self._rule.chained)

    def _owned(self, span: range) -> list[Tensor]:
        assert self._rule is not None
        return list(dict.fromkeys(tensor for k in span for tensor in self._rule.block_tensors(k)))

    def _send(self, h: Tensor) -> None:
        h = h.detach().contiguous()
        with self.waiting(self.rank + 1):
            if not self._told_form:
                dist.send(_described(h), self.rank + 1)
                self._told_form = True
            work = dist.isend(h, self.rank + 1)
            self._sent.append((work, h))  # referenced until it was sent
            while len(self._sent) > AHEAD:
                self._sent.popleft()[0].wait()

    def _flush(self) -> None:
        with self.waiting(self.rank + 1):
            while self._sent:
                self._sent.popleft()[0].wait()

    def _ask(self, rows: int) -> tuple[Any, Tensor]:
        """Start to receive the previous rank's output for so many rows."""
        with self.waiting(self.rank - 1):
            if self._form is None:
                described = torch.empty(2 + MOST_DIMENSIONS, dtype=torch.int64)
                dist.recv(described, self.rank - 1)
                dtype, dimensions, *shape = described.tolist()
                self._form = DTYPES[dtype], shape[0] // rows, tuple(shape[1:dimensions])
            dtype, copies, rest = self._form
            # Two batches are about at a time, the one in work and the next, so two buffers take turns.
            kept = self._buffers[self._asked % 2]
            if kept is None or len(kept) < copies * rows:
                kept = torch.empty(copies * rows, *rest, dtype=dtype, device=self.device)
                self._buffers[self._asked % 2] = kept
            self._asked += 1
            h = kept[: copies * rows]
            return dist.irecv(h, self.rank - 1), h

    def _arrived(self, batch: Batch, work: Any, h: Tensor) -> Batch:
        with self.waiting(self.rank - 1):
            work.wait()
        self._taken = h
        return batch


def _described(h: Tensor) -> Tensor:
    """Return dtype, number of dimensions and shape of a tensor as a tensor of known size."""
    shape = [*h.shape, *[0] * (MOST_DIMENSIONS - h.dim())]
    return torch.tensor([DTYPES.index(h.dtype), h.dim(), *shape])


def _to_cpu(value: Any) -> Any:
    return {name: part.cpu() if isinstance(part, Tensor) else part for name, part in value.items()}


def block_costs(net: Net) -> list[int]:
    """Return the multiply-adds of each block for a row.

    Args:
        net: The net, run once in evaluation mode on trial rows.

    """
    from torch.utils.flop_counter import FlopCounterMode

    costs = []
    with torch.no_grad():
        h, *context = net.trial()
        training = net.training
        net.eval()
        h = net.stem(h)
        for block in net.blocks:
            with FlopCounterMode(display=False) as counter:
                h = block(h, *context)
            costs.append(counter.get_total_flops() // 2 // len(h))
        net.train(training)
    return costs


def balanced(costs: list[int], parts: int) -> list[range]:
    """Return the partition of blocks into runs of neighbours whose costliest run costs the least.

    Args:
        costs: The cost of each block.
        parts: The number of runs, 1..len(costs); none is empty.

    Returns:
        The range of blocks of each run, in order.

    """
    count = len(costs)
    # least[p][n]: the cost of the costliest of p + 1 runs over the first n; cut[p][n]: where the last of them begins.
    least = [[float("inf")] + [float(sum(costs[:n])) for n in range(1, count + 1)]]
    cuts = [[0] * (count + 1)]
    for _ in range(1, parts):
        before, row, cut = least[-1], [float("inf")] * (count + 1), [0] * (count + 1)
        for n in range(1, count + 1):
            for begin in range(1, n):
                worst = max(before[begin], float(sum(costs[begin:n])))
                if worst < row[n]:
                    row[n], cut[n] = worst, begin
        least.append(row)
        cuts.append(cut)
    spans, stop = [], count
    for cut in reversed(cuts):
        spans.append(range(cut[stop], stop))
        stop = cut[stop]
    return spans[::-1]
