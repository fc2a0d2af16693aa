"""Collective operations of the processes that train one net, seen from one of them."""

import contextlib
import time
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.data import Batch, Data
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.printing import one_line
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
from localearn.training.runtime import derived_seed

T = TypeVar("T")


class Ranks:
    """The processes that train one net together, seen from one of them; this class is a single process.

    Every method but `first` is collective: all ranks call it at the same point of the run.

    Attributes:
        rank: The number of this process, 0..size - 1; only rank 0 writes a folder and shows progress.
        size: The number of processes.

    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Return whether this is rank 0, which writes, shows progress and reports errors."""
        return self.rank == 0

    def divide(self, trainer: Trainer, data: Data) -> Data:
        """Assign this process its share, of the rule's blocks or of each batch.

        Args:
            trainer: The rule, whose weights every process then has from rank 0.
            data: The whole data set.

        Returns:
            The data to train on.

        """
        return data

    def share(self, phase: Phase) -> Phase:
        """Return this process's part of a phase of the rule that was divided."""
        return phase

    def release(self, trainer: Trainer) -> None:
        """Undo `divide`, so that the rule is whole again."""

    def seed(self, seed: int) -> int:
        """Return the seed of what this process's share of the rule draws; rank 0 has that of a single process."""
        return seed

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Return an epoch's batches as this process's share of the rule takes them."""
        return batches

    def reduce(self, parameters: Sequence[Tensor], rows: int) -> None:
        """Replace each `.grad`, the mean over this process's rows, by the mean over the rows of all.

        Args:
            parameters: The parameters of the phase.
            rows: The rows of this process in the batch.

        """

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, a sum over this process's rows, by the sum over the rows of all, in place."""

    def joined(self, rows: Tensor) -> Tensor:
        """Return the (M, ...) rows of all, in the order of ranks; ranks may have different numbers of them."""
        return rows

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return the mean of each metric over the rows that all have seen, and the number of rows.

        It is the epoch's one read of the device.

        Args:
            sums: The sums over this process's rows, by metric.
            rows: The number of these.

        """
        totals = torch.stack(list(sums.values())).tolist()
        return {name: total / rows for name, total in zip(sums, totals, strict=True)}, rows

    def unite(self, trainer: Trainer) -> None:
        """Synchronise weights and running statistics over all processes, at the end of an epoch."""

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return, on rank 0, an optimizer's state_dict with the other processes' parts of it."""
        return state

    def drop_others(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the state of parameters that other processes step."""

    def signalled(self, signum: int | None) -> int | None:
        """Return the number of a signal that came to any of them, else None."""
        return signum

    def largest(self, values: dict[str, int | None]) -> dict[str, int | None]:
        """Return the largest value of any process, by name; None where none has one."""
        return values

    def gathered(self, value: T) -> list[T]:
        """Return every process's plain value, in the order of ranks."""
        return [value]

    def add_joules(self, meter: Meter) -> None:
        """Add the joules of all processes so far to the meter of rank 0."""

    def from_first(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on rank 0, or raise its UserError, in all processes."""
        return work()

    def together(self, work: Callable[[], T]) -> T:
        """Return what this process's `work` returns, or raise any process's UserError in all of them."""
        return work()


ANSWER_S = 3.0  # that a rank which lost another gives the rest to say that they are still there


class JoinedRanks(Ranks, ABC):
    """The ranks of the default process group.

    A call that waits for another rank raises UserError, naming it, if it is lost.

    Args:
        device: This rank's device.
        timeout_s: Seconds that a rank is waited for, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout_s = device, timeout_s

    def seed(self, seed: int) -> int:
        """Return a seed for this rank, so that no two rows share a dropout mask or noise."""
        return derived_seed(seed, self.rank) if self.rank else seed

    def add_up(self, tensor: Tensor) -> None:
        """All-reduce a tensor by its sum, in place."""
        with self.waiting():
            dist.all_reduce(tensor)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """All-reduce each tensor by its sum, in place."""
        for tensor in tensors:
            self.add_up(tensor)

    def joined(self, rows: Tensor) -> Tensor:
        """All-gather the (M, ...) rows, in the order of ranks; each sends as many as the rank that has the most."""
        counts = self.gathered(len(rows))
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        with self.waiting():
            dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gathered(self, value: T) -> list[T]:
        """All-gather plain values, in the order of ranks."""
        values: list[Any] = [None] * self.size
        with self.waiting():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Broadcast a tensor to all ranks, in place.

        Args:
            tensor: Of the same shape and dtype on all ranks.
            source: The rank whose values are sent.

        """
        with self.waiting():
            dist.broadcast(tensor, source)

    def signalled(self, signum: int | None) -> int | None:
        """Return the number of a signal that came to any rank, else None; they agree on it once an epoch."""
        return next((found for found in self.gathered(signum) if found is not None), None)

    def largest(self, values: dict[str, int | None]) -> dict[str, int | None]:
        """Return the largest of every rank's values, by name; None where none has one."""
        found = self.gathered(values)
        present = {name: [v for values in found if (v := values[name]) is not None] for name in values}
        return {name: max(held, default=None) for name, held in present.items()}

    def add_joules(self, meter: Meter) -> None:
        """Add the joules of all ranks so far to the meter of rank 0."""
        states = self.gathered(meter.state())
        if self.first:
            meter.add_ranks(states[1:])

    def from_first(self, work: Callable[[], T]) -> T:
        """Broadcast what `work` returns on rank 0, or raise its UserError, on all ranks."""
        answer: list[Any] = [None, None]
        if self.first:
            answer = list(_tried(work))
        with self.waiting():
            dist.broadcast_object_list(answer, 0)
        if answer[1] is not None:
            raise shared(answer[1], self.rank)
        return answer[0]

    def together(self, work: Callable[[], T]) -> T:
        """Return what this rank's `work` returns, or raise the UserError of the lowest rank that had one, on all."""
        value, error = _tried(work)
        errors = self.gathered(error)
        for rank, error in enumerate(errors):
            if error is not None:
                raise shared(error if rank == 0 else f"rank {rank}: {error}", self.rank)
        return value

    @contextlib.contextmanager
    def waiting(self, peer: int | None = None) -> Iterator[None]:
        """Convert a failure inside the block into a UserError that names the rank that was lost.

        Args:
            peer: The rank that is waited for; None where all are.

        Raises:
            UserError: Where a collective operation fails.

        """
        try:
            yield
        except RuntimeError as error:
            raise self._lost(peer, error) from error

    def _lost(self, peer: int | None, error: RuntimeError) -> UserError:
        silent = [peer] if peer is not None else self._silent()
        if silent:
            names = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}"
            text = f"{names} ended or did not answer within {self.timeout_s:g} s, and rank {self.rank} waited for it"
        else:
            text = f"rank {self.rank} lost touch with the others: {str(error).splitlines()[0]}"
        lost = UserError(f"{text}; resume= goes on from the last checkpoint")
        lost.tell = self.rank == next((rank for rank in range(self.size) if rank not in silent), 0)
        return lost

    def _silent(self) -> list[int]:
        """Return the ranks that do not report, within ANSWER_S, that they have lost a rank too."""
        store = dist.distributed_c10d._get_default_store()
        others = [rank for rank in range(self.size) if rank != self.rank]
        try:
            store.set(f"lost/{self.rank}", "1")
            deadline = time.monotonic() + ANSWER_S
            while others and time.monotonic() < deadline:
                others = [rank for rank in others if not store.check([f"lost/{rank}"])]
                time.sleep(0.1)
        except RuntimeError:  # the store ended with the rank that hosted it
            return [0] if self.rank else others
        return others


def shared(text: str, rank: int) -> UserError:
    """Return an error that all ranks raise and only rank 0 prints.

    Args:
        text: Its lines.
        rank: This rank.

    """
    error = UserError(*text.split("\n"))
    error.tell = rank == 0
    return error


def _tried(work: Callable[[], T]) -> tuple[Any, str | None]:
    try:
        return work(), None
    except UserError as error:
        return None, "\n".join(map(one_line, error.args))
