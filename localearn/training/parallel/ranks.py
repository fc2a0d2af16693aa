"""What a process does in training on behalf of all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from localearn.data import Batch, Data
from localearn.energy import Meter
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase

T = TypeVar("T")


class Ranks:
    """The processes that train one net together, seen from one of them; this class is a process alone.

    rank: this one's number, 0..size-1; only the first one keeps a folder and shows progress. Every method but `first`
    is called by all of them at the same point of the run.
    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def divide(self, trainer: Trainer, data: Data) -> Data:
        """Give this process its share: of the rule's blocks, or of each batch; return the data to train on."""
        return data

    def share(self, phase: Phase) -> Phase:
        """Return what this process does of a phase of the rule that was divided."""
        return phase

    def release(self, trainer: Trainer) -> None:
        """Take back what `divide` has set, so that the rule is whole again."""

    def seed(self, seed: int) -> int:
        """Return the seed of what this process's share of the rule draws; the first one has that of a process alone."""
        return seed

    def inputs(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Return an epoch's batches as this process's share of the rule takes them."""
        return batches

    def reduce(self, parameters: Sequence[Tensor], rows: int) -> None:
        """Turn each `.grad`, the mean over this process's rows, into the mean over the rows of all."""

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Turn each tensor, a sum over this process's rows, into the sum over the rows of all, in place."""

    def joined(self, rows: Tensor) -> Tensor:
        """Return the (M, ...) rows of all, one process's after another's; they may have different numbers of them."""
        return rows

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return the mean of each metric over the rows that all have seen, from sums over one's own, and their number.

        It is the epoch's one read of the device.
        """
        totals = torch.stack(list(sums.values())).tolist()
        return {name: total / rows for name, total in zip(sums, totals, strict=True)}, rows

    def unite(self, trainer: Trainer) -> None:
        """Give every process the weights and running statistics of all, at the end of an epoch."""

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state_dict with what other processes have of it, to the first of them."""
        return state

    def drop_others(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the state of what other processes step."""

    def signalled(self, signum: int | None) -> int | None:
        """Return a signal that came to any of them."""
        return signum

    def largest(self, values: dict[str, int | None]) -> dict[str, int | None]:
        """Return the largest that any of them has, by name."""
        return values

    def gathered(self, value: T) -> list[T]:
        """Return every process's plain value, in their order."""
        return [value]

    def add_joules(self, meter: Meter) -> None:
        """Add what all of them have spent so far to the first one's meter."""

    def from_first(self, work: Callable[[], T]) -> T:
        """Return what the first process's `work` returns, or raise its UserError, in all of them."""
        return work()

    def together(self, work: Callable[[], T]) -> T:
        """Return what one's own `work` returns, or raise the UserError of whoever had one, in all of them."""
        return work()
