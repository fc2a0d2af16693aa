"""Batches and data sets: the `Batch` of one training step, and `Data`, the base class of what gives them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from localearn.data.tokens import Codec
from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.moved import former_names
from localearn.tasks import Classification, Task

Split = Literal["train", "val", "test"]
Kind = Literal["image", "vector", "graph", "sequence", "text"]


@dataclass(frozen=True, slots=True, init=False)
class Batch:
    """Hold the input, the targets and the context of one training step.

    `y`, `nodes` and `rows` are the deprecated names of `target`, `index` and `select`, to be removed in the next
    release. As keyword arguments they take precedence over the new names, so that `dataclasses.replace` accepts them.

    Attributes:
        x: (N, *input_shape) float, or (N, T) int64 of token ids. For a graph the rows are all its nodes. It may be a
            view of the data set itself, so do not modify it in place.
        target: (M, ...) the targets of the rows that count: int64 labels, 0..C-1, (M,), or values, (M, D).
        context: what every block needs in addition to h: nothing for images, `(edge_index,)` for a graph.
        index: (M,) int64, the rows that the targets are of, or (M, 2), pairs of rows; None where they are of all N rows
            in order.

    """

    x: Tensor
    target: Tensor
    context: tuple[Tensor, ...] = ()
    index: Tensor | None = None

    def __init__(
        self,
        x: Tensor,
        target: Tensor | None = None,
        context: tuple[Tensor, ...] = (),
        index: Tensor | None = None,
        *,
        y: Tensor | None = None,
        nodes: Tensor | None = None,
    ):
        target = target if y is None else y
        if target is None:
            raise TypeError("a Batch needs its target")
        values = {"x": x, "target": target, "context": context, "index": index if nodes is None else nodes}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as dataclasses do where they are frozen

    def select(self, per_row: Tensor) -> Tensor:
        """Return the rows of an (N, ...) tensor that have a target, (M, ...); of pairs both ends', (M, 2, ...)."""
        if self.index is None or self.index.dim() == 1:
            return per_row if self.index is None else per_row.index_select(0, self.index)
        return per_row.index_select(0, self.index.flatten()).unflatten(0, self.index.shape)

    def scatter(self, per_target: Tensor) -> Tensor:
        """Return an (N, ...) tensor with `per_target`, (M, ...), in the rows that have a target, zeros elsewhere."""
        if self.index is None:
            return per_target
        rows = per_target.new_zeros(len(self.x), *per_target.shape[1:])
        return rows.index_copy(0, self.index, per_target)

    @property
    def y(self) -> Tensor:
        """The deprecated name of `target`."""
        return self.target

    @property
    def nodes(self) -> Tensor | None:
        """The deprecated name of `index`."""
        return self.index

    def rows(self, per_row: Tensor) -> Tensor:
        """Return `select(per_row)`; a deprecated name."""
        return self.select(per_row)


class Data(ABC):
    """Define a data set, split into training, validation and test, whose batches are on one device.

    Attributes:
        name: the data set's name in records.
        kind: image, vector, graph, sequence or text.
        classes: the number of classes; 0 where the task has none.
        input_shape: the shape of a row of x, without the batch dimension.
        sizes: the number of rows with a target in each split.
        augmented: whether two passes over the training split may differ.
        class_names: in the order of the labels; None where classes are their numbers.
        feature_names: the names of a row's values, in order, or None.
        target_names: the names of a target's values, in order, or None.
        unseen: the classes that only the test part has rows of, see `load(leave_out=)`.
        notes: what was decided or left out while the data were read, a line each.
        vocabulary: the number of tokens, where rows are their ids.
        codec: the map from text to such ids and back.
        continues: whether a position's target is the token after it in x, so that no net may look ahead.
        categories: the numbers of categories of the first columns of a table, which hold codes.

    """

    name: str
    kind: Kind
    classes: int  # 0 where the task has none
    input_shape: tuple[int, ...]  # of one row, without the batch dimension
    sizes: dict[Split, int]  # labelled rows in each split
    augmented: bool  # whether two passes over the training split may differ
    class_names: tuple[str, ...] | None = None  # in the order of the labels; None where classes are their numbers
    feature_names: tuple[str, ...] | None = None  # of a row's values, in their order, where they have names
    target_names: tuple[str, ...] | None = None  # of a target's values, likewise
    unseen: tuple[int, ...] = ()  # classes that the test part alone has rows of, see `load(leave_out=)`
    notes: tuple[str, ...] = ()  # what was decided or left out while the data were read, a line each
    vocabulary: int | None = None  # of token ids
    codec: Codec | None = None  # what turns text into such ids and back
    continues: bool = False  # whether a position's target is the token after it in x, so that no net may look ahead
    categories: tuple[int, ...] = ()  # of the first columns of a table that hold codes
    _task: Task | None = None

    @property
    def takes(self) -> InputSpec:
        """The `InputSpec` that a net for these data needs, unless a rule adds to the rows."""
        context = ("edge_index",) if self.kind == "graph" else ()
        return InputSpec(tuple(self.input_shape), self.vocabulary, context, self.categories)

    @property
    def task(self) -> Task:
        """The task of these data: classification, unless the data say otherwise."""
        return self._task or Classification(self.classes)

    def num_batches(self, split: Split, batch_size: int) -> int:
        """Return the number of batches of a pass, shuffled where it is over the training split.

        Args:
            split: train, val or test.
            batch_size: rows a batch.

        """
        if self.kind == "graph":
            return 1
        rows = self.sizes[split]
        return -(-rows // batch_size) - (split == "train" and drops_last(rows, batch_size))

    @abstractmethod
    def to(self, device: torch.device | str) -> "Data":
        """Return the same data on `device`."""

    @abstractmethod
    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return the batches of one pass over a split.

        A shuffled training pass leaves out a last batch of a single row, whose variance batch normalisation could not
        take.

        To resume an interrupted pass bit for bit, call this with the generator as it stood when the pass began, then
        set the generator to its state at the interruption, then take the batches.

        Args:
            split: train, val or test.
            batch_size: rows a batch, 1 or more.
            generator: shuffles the rows and, in the training split, augments them; every random number comes from it:
                the order at once, before the first batch is made, and each batch's augmentation when that batch is
                made. Without one rows come in order and unchanged, and nothing is random.
            skip: how many first batches of the pass to leave out, without drawing their augmentation.

        Raises:
            UserError: for a batch size below 1.

        """

    @abstractmethod
    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "Data":
        """Return data whose training and validation x are `fn(x, *context)`, computed once.

        Greedy schedules use it where the input of a stage is fixed. The result has no test split: the test set is read
        once, through the whole net.

        Args:
            name: the name of the new data.
            fn: maps x and its context to the features, the rows in the same order.
            batch_size: the rows that are computed at a time.

        Raises:
            ValueError: where two passes differ (`augmented`).

        """

    def part(self, rank: int, ranks: int, least: int = 2) -> "Data":
        """Return the same data, whose batches are this rank's rows of each: those of all ranks form the whole batch.

        A batch's rows are divided in order and evenly. `sizes` and random numbers remain those of the whole.

        Args:
            rank: this process, 0..ranks-1.
            ranks: the number of processes.
            least: the fewest rows of a rank; where there are fewer for each, the last ranks have none.

        Raises:
            UserError: for data that cannot be divided.

        """
        raise UserError(f"{self.name} is one batch that cannot be divided over ranks; use parallel=none")

    def illustrate(self, predict: Callable[..., Tensor], folder: Path) -> tuple[str, ...]:
        """Write a picture or a sample of what a net has learned; by default nothing.

        `python -m localearn.run` calls it once for a completed run, outside of what is metered.

        Args:
            predict: maps x, and its context, to the rule's outputs, on the data's device, as in evaluation.
            folder: the folder of the run's record, which the files are written into.

        Returns:
            Lines to print, each naming a file and what it holds.

        """
        return ()

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 of the arrays, the split and the normalisation: equal for equal data alone.

        Data that are not held in memory may leave the arrays out, which their notes then say.
        """

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {size}" for split, size in self.sizes.items())
        means = f"{self.classes} classes" if self.task.has_classes else str(self.task)
        return f"<{self.name}: {self.kind} {self.input_shape}, {means}, {sizes}>"


def drops_last(rows: int, batch_size: int) -> bool:
    """Return whether a shuffled training pass leaves out its last batch, because it has a single row.

    Args:
        rows: the rows of the training split.
        batch_size: rows a batch.

    """
    return batch_size > 1 and rows > 1 and rows % batch_size == 1


def sha256(tensors: Iterable[tuple[str, Tensor]], note: str) -> str:
    """Return the SHA-256 of named tensors, in hexadecimal.

    Args:
        tensors: names and tensors, whose types, shapes and values are hashed.
        note: a text that is hashed first.

    """
    digest = hashlib.sha256(note.encode())
    for name, tensor in tensors:
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
