"""parallel=layers: every rank trains some of the blocks, and activations go forward only."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.nets import Net
from localearn.trainers.base import Trainer
from localearn.trainers.local.base import LocalTrainer
from localearn.training.parallel.joined_ranks import JoinedRanks

AHEAD = 2  # batches whose activations a rank may have sent before the next rank has taken them
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MOST_DIMENSIONS = 6


class LayerRanks(JoinedRanks):
    """Ranks in a row, each of which trains some blocks of a local rule and hands its last one's output to the next.

    Nothing comes back, so nobody waits for the backward pass of another: while rank r learns from batch t, rank r - 1
    is at batch t + 1. What rank r gets is what block k has put out before its own step by batch t, just as in the joint
    schedule on one process. So the weights are those of that schedule, with no delay, bit for bit where the arithmetic
    is; only what a rule draws at random, such as dropout's masks, is drawn on each rank for itself. A batch need not be
    cut into micro-batches: those that follow keep the ranks busy, all but for the first and the last size - 1 of an
    epoch. Every rank holds the whole net, and has the others' blocks as they are at the end of each epoch, for
    validation, whose rows are shared out, and for the checkpoint.
    """

    def __init__(self, device: torch.device, timeout_s: float):
        super().__init__(device, timeout_s)
        self._trainer: LocalTrainer | None = None
        self._spans: list[range] = []
        self._sent: deque[tuple[Any, Tensor]] = deque()
        self._form: tuple[torch.dtype, int, tuple[int, ...]] | None = None  # of what comes: dtype, rows a row, the rest
        self._told_form = False
        self._handed_on = self._asked = 0  # batches so far
        self._buffers: list[Tensor | None] = [None, None]

    def divide(self, trainer: Trainer, data: Data) -> Data:
        """Give this rank its blocks; return the data, of which all but validation goes whole to every rank."""
        trainer = self.together(lambda: self._local(trainer))
        self._trainer, self._spans = trainer, balanced(block_costs(trainer.net), self.size)
        for tensor in (*trainer.parameters(), *trainer.buffers()):
            self.broadcast(tensor.data, 0)
        trainer.span = self._spans[self.rank]
        trainer.hand_on = self._send if self.rank < self.size - 1 else None
        return data

    def _local(self, trainer: Trainer) -> LocalTrainer:
        """Return the rule, or raise UserError where its blocks cannot learn on so many ranks."""
        if not isinstance(trainer, LocalTrainer):
            raise UserError(
                f"{type(trainer).__name__} is not local: its blocks learn from what comes back; use parallel=data"
            )
        trainer.check_pipeline()
        depth = trainer.net.depth
        if self.size > depth:
            raise UserError(f"{self.size} ranks are more than the net's {depth} blocks; use {depth} ranks or fewer")
        return trainer

    def release(self, trainer: Trainer) -> None:
        """Give the rule all blocks back."""
        if self._trainer is not None:
            self._trainer.span = self._trainer.hand_on = None

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Return the batches with what the rank before hands on as their x; the next one is asked for beforehand."""
        for batch in batches if self.first else self._received(batches):
            before = self._handed_on
            yield batch
            if self._handed_on == before and self.rank < self.size - 1:
                raise UserError(
                    f"{type(self._trainer).__name__} hands nothing on: its gradients() must call self._pass_on(k, h) "
                    "with each block's output; or use parallel=data"
                )
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
        """Return each block's loss from its rank, and their sum as the loss."""
        own, _ = super().means(sums, rows)
        found = self.gathered(own)
        names = dict.fromkeys(name for means in found for name in means)
        return {name: sum(means.get(name, 0.0) for means in found) for name in names}, rows

    def unite(self, trainer: Trainer) -> None:
        """Give every rank every other's blocks."""
        assert isinstance(trainer, LocalTrainer)
        for source, span in enumerate(self._spans):
            for tensor in self._owned(trainer, span):
                self.broadcast(tensor.detach(), source)

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the optimizer's state_dict with every rank's part of the state."""
        states = self.gathered({key: _to_cpu(value) for key, value in state["state"].items()})
        merged = {key: value for part in states for key, value in part.items()}
        return {**state, "state": dict(sorted(merged.items()))}

    def drop_others(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the state of other ranks' blocks, which a checkpoint has too."""
        assert self._trainer is not None
        own = set(self._owned(self._trainer, self._spans[self.rank]))
        for parameter in list(optimizer.state):
            if parameter not in own:
                del optimizer.state[parameter]

    @staticmethod
    def _owned(trainer: LocalTrainer, span: range) -> list[Tensor]:
        return list(dict.fromkeys(tensor for k in span for tensor in trainer.block_tensors(k)))

    def _send(self, h: Tensor) -> None:
        h = h.detach().contiguous()
        with self.waiting(self.rank + 1):
            if not self._told_form:
                dist.send(_described(h), self.rank + 1)
                self._told_form = True
            work = dist.isend(h, self.rank + 1)
            self._sent.append((work, h))  # kept until it has gone
            self._handed_on += 1
            while len(self._sent) > AHEAD:
                self._sent.popleft()[0].wait()

    def _flush(self) -> None:
        with self.waiting(self.rank + 1):
            while self._sent:
                self._sent.popleft()[0].wait()

    def _ask(self, rows: int) -> tuple[Any, Tensor]:
        """Begin to receive what the rank before makes of so many rows."""
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
        return replace(batch, x=h)


def _described(h: Tensor) -> Tensor:
    """Return dtype, number of dimensions and shape of a tensor as a tensor of known size."""
    shape = [*h.shape, *[0] * (MOST_DIMENSIONS - h.dim())]
    return torch.tensor([DTYPES.index(h.dtype), h.dim(), *shape])


def _to_cpu(value: Any) -> Any:
    return {name: part.cpu() if isinstance(part, Tensor) else part for name, part in value.items()}


def block_costs(net: Net) -> list[int]:
    """Return the multiply-adds of each block for a row."""
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
    """Return so many runs of neighbours, none of them empty, whose costliest costs the least that it can."""
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
