"""Ranks: the collective operations of the processes that train one net together."""

import contextlib
import time
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.data import Batch, Data
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.printing import one_line
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
from localearn.training.runtime import derived_seed

T = TypeVar("T")


class Ranks:
    """The processes that train one net together, as one of them sees them; this class is a single process.

    All methods are collective: every rank calls them at the same point of the run.

    Attributes:
        rank: The number of this process, 0..size - 1; only rank 0 writes a folder and shows progress.
        size: The number of processes.

    """

    rank = 0
    size = 1

    @property
    def is_rank_0(self) -> bool:
        """Return whether this is rank 0, which writes files, shows progress and prints errors."""
        return self.rank == 0

    def setup(self, trainer: Trainer, data: Data) -> Data:
        """Broadcast the rule from rank 0, and assign this process its blocks, or its rows of each batch.

        Args:
            trainer: The rule on its net.
            data: The full data set.

        Returns:
            The data to train on.

        """
        return data

    def setup_phase(self, phase: Phase) -> Phase:
        """Return this process's part of a phase of the rule that was set up.

        Args:
            phase: One of `Trainer.phases()`.

        """
        return phase

    def teardown(self, trainer: Trainer) -> None:
        """Undo `setup`: the rule trains on one process again.

        Args:
            trainer: The rule that was set up.

        """

    def seed(self, seed: int) -> int:
        """Return this process's seed; that of rank 0 is that of a single process.

        Args:
            seed: The seed of a single process.

        """
        return seed

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Return an epoch's batches as this process trains on them.

        Args:
            batches: The batches of the data that `setup` returned.

        """
        return batches

    def reduce_gradients(self, parameters: Sequence[Tensor], rows: int) -> None:
        """Replace each `.grad`, a mean over this process's rows, by the mean over the rows of all processes.

        Args:
            parameters: The parameters of the phase.
            rows: The rows of this process in the batch.

        """

    def all_reduce_each(self, tensors: Iterable[Tensor]) -> None:
        """All-reduce each tensor, a sum over this process's rows, by its sum, in place.

        Args:
            tensors: Of the same shapes and dtypes in all processes.

        """

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of ranks.

        Args:
            rows: The (M, ...) rows of this process, whose number M may differ from rank to rank.

        """
        return rows

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return the mean of each metric over the rows of all processes, and the number of rows.

        It is the only read of the device in an epoch.

        Args:
            sums: The sums over this process's rows, by metric.
            rows: The number of this process's rows.

        """
        totals = torch.stack(list(sums.values())).tolist()
        return {name: total / rows for name, total in zip(sums, totals, strict=True)}, rows

    def synchronize(self, trainer: Trainer) -> None:
        """Synchronise weights and running statistics over all processes, at the end of an epoch.

        Args:
            trainer: The rule that was set up.

        """

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return, on rank 0, the state_dict of an optimizer with the state that other processes hold.

        Args:
            state: This process's `optimizer.state_dict()`.

        """
        return state

    def drop_remote_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the state of the parameters that other processes step.

        Args:
            optimizer: This process's optimizer, changed in place.

        """

    def signalled(self, signum: int | None) -> int | None:
        """Return the number of a signal that any process has received, else None.

        Args:
            signum: The number of the signal that this process has received, or None.

        """
        return signum

    def all_reduce_max(self, values: dict[str, int | None]) -> dict[str, int | None]:
        """Return the largest of all processes' values, by name; None where none has one.

        Args:
            values: This process's values, of the same names in all processes.

        """
        return values

    def all_gather_object(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of ranks.

        Args:
            value: This process's value, of plain Python types.

        """
        return [value]

    def add_joules(self, meter: Meter) -> None:
        """Add the joules of all processes so far to the meter of rank 0.

        Args:
            meter: This process's meter.

        """

    def broadcast_from_rank_0(self, work: Callable[[], T]) -> T:
        """Call a function on rank 0 alone, and broadcast what it returns, or the UserError that it raises.

        Args:
            work: The function, whose result is of plain Python types.

        """
        return work()

    def run_on_all_ranks(self, work: Callable[[], T]) -> T:
        """Call a function on every rank; return this rank's result, or raise the UserError of any rank on all of them.

        Args:
            work: The function.

        """
        return work()


LOST_RANK_GRACE_S = 3.0  # that a rank which lost another waits for the rest to report that they have, too


class ProcessGroupRanks(Ranks, ABC):
    """The ranks of torch.distributed's default process group.

    A collective raises UserError where a rank is lost, naming it.

    Args:
        device: This rank's device.
        timeout_s: The timeout of the process group in seconds, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout_s = device, timeout_s

    def seed(self, seed: int) -> int:
        """Return a seed of this rank's own, so that no two rows share a dropout mask or noise."""
        return derived_seed(seed, self.rank) if self.rank else seed

    def all_reduce(self, tensor: Tensor) -> None:
        """All-reduce a tensor by its sum, in place."""
        with self.waiting():
            dist.all_reduce(tensor)

    def all_reduce_each(self, tensors: Iterable[Tensor]) -> None:
        """All-reduce each tensor by its sum, in place."""
        for tensor in tensors:
            self.all_reduce(tensor)

    def all_gather(self, rows: Tensor) -> Tensor:
        """All-gather the (M, ...) rows, in the order of ranks, padded to the largest M on the way."""
        counts = self.all_gather_object(len(rows))
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        with self.waiting():
            dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def all_gather_object(self, value: T) -> list[T]:
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
        """Return the number of a signal that any rank has received, else None; called once an epoch."""
        return next((found for found in self.all_gather_object(signum) if found is not None), None)

    def all_reduce_max(self, values: dict[str, int | None]) -> dict[str, int | None]:
        """Return the largest of all ranks' values, by name; None where none has one."""
        found = self.all_gather_object(values)
        present = {name: [v for values in found if (v := values[name]) is not None] for name in values}
        return {name: max(numbers, default=None) for name, numbers in present.items()}

    def add_joules(self, meter: Meter) -> None:
        """Add the joules of all ranks so far to the meter of rank 0."""
        states = self.all_gather_object(meter.state())
        if self.is_rank_0:
            meter.add_ranks(states[1:])

    def broadcast_from_rank_0(self, work: Callable[[], T]) -> T:
        """Call a function on rank 0 alone, and broadcast what it returns, or the UserError that it raises."""
        answer: list[Any] = [None, None]
        if self.is_rank_0:
            answer = list(_result_or_error(work))
        with self.waiting():
            dist.broadcast_object_list(answer, 0)
        if answer[1] is not None:
            raise shared_error(answer[1], self.rank)
        return answer[0]

    def run_on_all_ranks(self, work: Callable[[], T]) -> T:
        """Call a function on every rank; return this rank's result, or raise the lowest rank's UserError on all."""
        value, error = _result_or_error(work)
        errors = self.all_gather_object(error)
        for rank, error in enumerate(errors):
            if error is not None:
                raise shared_error(error if rank == 0 else f"rank {rank}: {error}", self.rank)
        return value

    @contextlib.contextmanager
    def waiting(self, peer: int | None = None) -> Iterator[None]:
        """Convert a failure of a collective inside the block into a UserError that names the rank that was lost.

        Args:
            peer: The rank that this one waits for; None is all of them.

        Raises:
            UserError: Where a collective operation fails.

        """
        try:
            yield
        except RuntimeError as error:
            raise self._lost_rank_error(peer, error) from error

    def _lost_rank_error(self, peer: int | None, error: RuntimeError) -> UserError:
        unresponsive = [peer] if peer is not None else self._unresponsive()
        if unresponsive:
            names = f"rank{'s' if len(unresponsive) > 1 else ''} {', '.join(map(str, unresponsive))}"
            text = f"{names} ended or did not answer within {self.timeout_s:g} s, and rank {self.rank} waited for it"
        else:
            text = f"rank {self.rank} lost its connection to the other ranks: {str(error).splitlines()[0]}"
        lost = UserError(f"{text}; resume= continues from the last checkpoint")
        lost.print_on_this_rank = self.rank == next((rank for rank in range(self.size) if rank not in unresponsive), 0)
        return lost

    def _unresponsive(self) -> list[int]:
        """Return the ranks that do not report, within LOST_RANK_GRACE_S, that they have lost a rank, too."""
        store = dist.distributed_c10d._get_default_store()
        others = [rank for rank in range(self.size) if rank != self.rank]
        try:
            store.set(f"lost/{self.rank}", "1")
            deadline = time.monotonic() + LOST_RANK_GRACE_S
            while others and time.monotonic() < deadline:
                others = [rank for rank in others if not store.check([f"lost/{rank}"])]
                time.sleep(0.1)
        except RuntimeError:  # the store ended with the rank that hosted it
            return [0] if self.rank else others
        return others


def shared_error(text: str, rank: int) -> UserError:
    """Return an error that all ranks raise and only rank 0 prints.

    Args:
        text: The lines of its message.
        rank: This rank.

    """
    error = UserError(*text.split("\n"))
    error.print_on_this_rank = rank == 0
    return error


def _result_or_error(work: Callable[[], T]) -> tuple[Any, str | None]:
    try:
        return work(), None
    except UserError as error:
        return None, "\n".join(map(one_line, error.args))


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
