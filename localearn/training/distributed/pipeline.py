"""Pipeline parallelism (`parallel=layers`): every rank trains some of the blocks, and activations only go forward."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.trainers.base import Pipelined, Trainer
from localearn.trainers.phases import Descent, Metrics, Phase
from localearn.training.distributed.ranks import ProcessGroupRanks

MAX_IN_FLIGHT = 2  # batches whose activations a rank may have sent before the next rank has taken them
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_DIMENSIONS = 6


class LayerRanks(ProcessGroupRanks):
    """Ranks of a pipeline, each of which trains consecutive blocks of a local rule and sends its activations on.

    There is no backward communication, so no rank waits for the backward pass of another: while rank r trains on batch
    t, rank r - 1 is at batch t + 1. Rank r receives the output of block k before its own step on batch t, just as
    in the joint schedule on one process. So the weights are those of that schedule, with no delay, bit for bit where
    the arithmetic is; only what a rule draws at random, such as dropout's masks, is drawn on each rank for itself. A
    batch need not be cut into micro-batches: those that follow keep the ranks busy, all but for the first and the last
    size - 1 of an epoch. Blocks of a rule that is not `chained` do not depend on each other, and ranks send nothing
    while they learn. Every rank has the full net, and receives the others' blocks at the end of each epoch, for
    validation, whose rows are split among the ranks, and for the checkpoint.

    Args:
        device: This rank's device.
        timeout_s: The timeout of the process group in seconds, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        super().__init__(device, timeout_s)
        self._rule: Pipelined | None = None
        self._spans: list[range] = []
        self._sent: deque[tuple[Any, Tensor]] = deque()
        # Of the activations that are received: dtype, rows for each row of the batch, the rest of the shape.
        self._format: tuple[torch.dtype, int, tuple[int, ...]] | None = None
        self._format_sent = False
        self._received_h: Tensor | None = None  # the previous rank's activations for the present batch
        self._receives = 0  # started so far
        self._buffers: list[Tensor | None] = [None, None]

    def setup(self, trainer: Trainer, data: Data) -> Data:
        """Broadcast the rule from rank 0 and assign this rank its blocks; every rank trains on the full data.

        Raises:
            UserError: Where the rule's blocks cannot learn on so many ranks.

        """
        self._rule = self.run_on_all_ranks(lambda: self._pipelined(trainer))
        self._spans = balance(block_costs(trainer.net), self.size)
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

    def setup_phase(self, phase: Phase) -> Phase:
        """Return the phase that trains this rank's blocks; its parameters, for the optimizer, are all blocks'."""
        assert isinstance(phase, Descent)
        return Descent(phase.name, phase.parameters, self._learn, groups=phase.groups, predict=phase.predict)

    def _learn(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` of this rank's blocks and send the last one's output to the next rank, yielding after each."""
        rule, span, metrics = self._rule, self._spans[self.rank], dict[str, Tensor]()
        assert rule is not None
        if self._computes_input:
            h, metrics = rule.first_input(batch)
        else:
            assert self._received_h is not None
            h = self._received_h
        yield metrics
        losses: list[Tensor] = []
        for k in span:
            ends = k == span[-1] and self.rank < self.size - 1 and rule.chained
            h, found = rule.learn_block(k, h, batch, self._send if ends else None)
            losses.append(found[f"loss_{k + 1}"])
            yield found
        yield {"loss": rule.total(metrics, losses)}

    def seed(self, seed: int) -> int:
        """Return a seed of this rank's own, or the same on all where blocks are not chained and share their input."""
        return super().seed(seed) if self._rule is None or self._rule.chained else seed

    def teardown(self, trainer: Trainer) -> None:
        """Drop the reference to the rule."""
        self._rule = self._received_h = None

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, with the previous rank's activations prefetched by one batch."""
        yield from batches if self._computes_input else self._prefetched(batches)
        self._flush()

    def _prefetched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        pending: deque[tuple[Batch, Any, Tensor]] = deque()
        for batch in batches:
            pending.append((batch, *self._start_receive(len(batch.x))))
            if len(pending) > 1:
                yield self._finish_receive(*pending.popleft())
        while pending:
            yield self._finish_receive(*pending.popleft())

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return each block's loss from its rank, their sum as the loss, and the number of rows."""
        own, _ = super().means(sums, rows)
        found = self.all_gather_object(own)
        names = dict.fromkeys(name for means in found for name in means)
        return {name: sum(means.get(name, 0.0) for means in found) for name in names}, rows

    def synchronize(self, trainer: Trainer) -> None:
        """Broadcast each rank's blocks to all the others."""
        for source, span in enumerate(self._spans):
            for tensor in self._tensors_of(span):
                self.broadcast(tensor.detach(), source)

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the optimizer's state_dict with every rank's part of the state, on the CPU."""
        states = self.all_gather_object({key: _to_cpu(value) for key, value in state["state"].items()})
        merged = {key: value for part in states for key, value in part.items()}
        return {**state, "state": dict(sorted(merged.items()))}

    def drop_remote_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the state of other ranks' blocks, which a checkpoint includes."""
        own = set(self._tensors_of(self._spans[self.rank]))
        for parameter in list(optimizer.state):
            if parameter not in own:
                del optimizer.state[parameter]

    @property
    def _computes_input(self) -> bool:
        """Return whether this rank computes its first block's input itself: the stem's output, or a fixed input."""
        return self.is_rank_0 or (self._rule is not None and not self._rule.chained)

    def _tensors_of(self, span: range) -> list[Tensor]:
        assert self._rule is not None
        return list(dict.fromkeys(tensor for k in span for tensor in self._rule.block_tensors(k)))

    def _send(self, h: Tensor) -> None:
        h = h.detach().contiguous()
        with self.waiting(self.rank + 1):
            if not self._format_sent:
                dist.send(_encoded_format(h), self.rank + 1)
                self._format_sent = True
            work = dist.isend(h, self.rank + 1)
            self._sent.append((work, h))  # a reference until it has been sent
            while len(self._sent) > MAX_IN_FLIGHT:
                self._sent.popleft()[0].wait()

    def _flush(self) -> None:
        with self.waiting(self.rank + 1):
            while self._sent:
                self._sent.popleft()[0].wait()

    def _start_receive(self, rows: int) -> tuple[Any, Tensor]:
        """Start to receive the previous rank's activations for a number of rows."""
        with self.waiting(self.rank - 1):
            if self._format is None:
                described = torch.empty(2 + MAX_DIMENSIONS, dtype=torch.int64)
                dist.recv(described, self.rank - 1)
                dtype, dimensions, *shape = described.tolist()
                self._format = DTYPES[dtype], shape[0] // rows, tuple(shape[1:dimensions])
            dtype, copies, rest = self._format
            # Two batches are in flight at a time, the present one and the next, so two buffers alternate.
            buffer = self._buffers[self._receives % 2]
            if buffer is None or len(buffer) < copies * rows:
                buffer = torch.empty(copies * rows, *rest, dtype=dtype, device=self.device)
                self._buffers[self._receives % 2] = buffer
            self._receives += 1
            h = buffer[: copies * rows]
            return dist.irecv(h, self.rank - 1), h

    def _finish_receive(self, batch: Batch, work: Any, h: Tensor) -> Batch:
        with self.waiting(self.rank - 1):
            work.wait()
        self._received_h = h
        return batch


def _encoded_format(h: Tensor) -> Tensor:
    """Return dtype, number of dimensions and shape of a tensor as a tensor of known size."""
    shape = [*h.shape, *[0] * (MAX_DIMENSIONS - h.dim())]
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


def balance(costs: list[int], parts: int) -> list[range]:
    """Partition blocks into runs of neighbours so that the costliest run costs the least.

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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
