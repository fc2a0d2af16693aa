"""What a trainer learns from: batches, and the data sets that give them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from localearn.errors import UserError

Split = Literal["train", "val", "test"]
Kind = Literal["image", "vector", "graph"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input.

    x: (N, *input_shape) float. For a graph the rows are all its nodes. It may be a view of the data set itself, so
        nobody changes it in place.
    y: (M,) int64 labels, 0..C-1, of the rows that count.
    context: what every block needs beside h: nothing for images, `(edge_index,)` for a graph.
    nodes: (M,) int64 indices of the rows that y labels; None where y labels all N rows in order.
    """

    x: Tensor
    y: Tensor
    context: tuple[Tensor, ...] = ()
    nodes: Tensor | None = None

    def rows(self, per_row: Tensor) -> Tensor:
        """Return the rows of an (N, ...) tensor that `y` labels, (M, ...)."""
        return per_row if self.nodes is None else per_row.index_select(0, self.nodes)


class Data(ABC):
    """A data set, split in three, whose batches are on one device."""

    name: str
    kind: Kind
    classes: int
    input_shape: tuple[int, ...]  # of one row, without the batch dimension
    sizes: dict[Split, int]  # labelled rows in each split
    augmented: bool  # whether two passes over the training split may differ
    class_names: tuple[str, ...] | None = None  # in the order of the labels; None where classes are their numbers
    notes: tuple[str, ...] = ()  # what was decided or left out while the data were read, a line each

    @abstractmethod
    def to(self, device: torch.device | str) -> "Data":
        """Return the same data on `device`."""

    @abstractmethod
    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return the batches of one pass over `split`.

        With a generator the rows are shuffled and, in the training split, augmented; every random number comes from
        it: the order at once, before the first batch is asked for, and each batch's augmentation when that batch is
        made. Without one they come in order, as they are, and nothing is random.

        `skip` leaves out the first batches of the pass without drawing their augmentation. So an interrupted pass
        goes on bit for bit: call this with the generator as it stood when the pass began, then set the generator to
        its state at the interruption, then take the batches.

        A shuffled training pass leaves out a last batch of a single row, whose variance batch normalisation could
        not take. Raises UserError for a batch size below 1.
        """

    @abstractmethod
    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "Data":
        """Return data of that name whose training and validation x are `fn(x, *context)`, computed once.

        Greedy schedules use it where the input of a stage is fixed. There is no test split in it: the test set is
        read once, through the whole net. Raises ValueError where two passes differ (`augmented`).
        """

    def part(self, rank: int, ranks: int, least: int = 2) -> "Data":
        """Return the same data, whose batches are this rank's rows of each: all ranks' together are the whole batch.

        A batch's rows are shared out in order and evenly; where there are fewer than `least` for each, the last ranks
        have none. `sizes` and random numbers stay those of the whole. Raises UserError for data that cannot be divided.
        """
        raise UserError(f"{self.name} is one batch that cannot be divided over ranks; use parallel=none")

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 of the arrays, the split and the normalisation: equal for equal data alone.

        Data that are not held may leave the arrays out, which their notes tell.
        """

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {size}" for split, size in self.sizes.items())
        return f"<{self.name}: {self.kind} {self.input_shape}, {self.classes} classes, {sizes}>"
