"""InputSpec: the input of a net, as a row's shape, a vocabulary for token ids, and the context of every block."""

from dataclasses import dataclass

import torch
from torch import Tensor

from localearn.errors import UserError, suggestion

CONTEXTS = ("edge_index", "mask")


@dataclass(frozen=True)
class InputSpec:
    """The input of a net: what the data provide and the net takes.

    Args:
        shape: The shape of a row of x, without the batch dimension; for token ids (T,), the positions.
        vocabulary: The number of tokens, for rows of ids 0..vocabulary-1, int64; None for rows of values.
        context: The names of the arguments that every block takes after h, in their order: "edge_index" of a graph,
            whose nodes are the rows, (2, E) int64; "mask", true at the positions of a row that count, (N, T) bool.
        categories: The numbers of categories of the first n columns of a row, which are codes 0..categories-1 in
            floating point; the other columns are values. Empty where all are values.

    Raises:
        UserError: For an unknown context, and for a vocabulary or categories out of range.

    """

    shape: tuple[int, ...]
    vocabulary: int | None = None
    context: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in self.context:
            if name not in CONTEXTS:
                raise UserError(f"no context {name!r}{suggestion(name, CONTEXTS)}; there are {', '.join(CONTEXTS)}")
        if self.vocabulary is not None and self.vocabulary < 1:
            raise UserError(f"vocabulary must be 1 or more, or None where rows are values, not {self.vocabulary}")
        if self.categories and (len(self.shape) != 1 or len(self.categories) > self.shape[0]):
            raise UserError(f"{len(self.categories)} categories need as many columns, and a row is {self.shape}")
        if not all(size > 0 for size in self.categories):
            raise UserError(f"categories must be 1 or more of each column, not {self.categories}")

    @property
    def graph(self) -> bool:
        """Return whether the rows are a graph's nodes."""
        return "edge_index" in self.context

    def trial(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return the smallest input that every net takes: two rows of zeros and their context.

        Two rows, because one has no batch statistics; a graph has one edge; a mask is true everywhere.

        Args:
            like: A tensor of the dtype and device of the rows; token ids are int64.

        """
        dtype = like.dtype if self.vocabulary is None else torch.long
        x = torch.zeros(2, *self.shape, device=like.device, dtype=dtype)
        make = {
            "edge_index": lambda: torch.zeros(2, 1, dtype=torch.long, device=like.device),
            "mask": lambda: torch.ones(2, self.shape[0], dtype=torch.bool, device=like.device),
        }
        return (x, *(make[name]() for name in self.context))
