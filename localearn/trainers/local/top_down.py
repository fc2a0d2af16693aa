"""Top-down signals from the blocks above, as ForwardGNN's blocks read them: in their input, or in their loss."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from localearn.errors import Unsupported
from localearn.extras import torch_geometric
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.gnn import Aggregation, aggregation

BURN_IN = 2  # passes of a prediction that do not count, as in the authors' code


@dataclass(frozen=True)
class MergedInput:
    """Compute a graph block as a function of the signals from above it: h_k = post(op([h_{k-1}; u])), (N, n_k).

    A convolution that is a sum and a linear map is split in two, so that what h_{k-1} gives is computed once for all u.

    Args:
        block: with its linear map of h_{k-1}.
        columns: U, (n_k, times * n_{k+1}), the same map's of u.
        split: the convolution's two halves; None for a GAT, whose attention is of both.
        edges: (2, E).
        own: what h_{k-1} alone gives, (N, n_k); for a GAT h_{k-1} itself.

    """

    block: Any
    columns: Tensor
    split: Aggregation | None
    edges: Tensor
    own: Tensor

    def __call__(self, above: Tensor | None) -> Tensor:
        """Return h_k.

        Args:
            above: u, (N, n_{k+1}), or None.

        """
        op, post = self.block.op, self.block.post
        if self.split is not None:
            z = self.own if above is None else self.own + F.linear(self.split.gather(above, self.edges), self.columns)
        elif above is None:
            z = op(self.own, self.edges)
        else:
            wide = {"lin.weight": torch.cat([op.lin.weight, self.columns], dim=1)}
            z = functional_call(op, wide, (torch.cat([self.own, above], dim=1), self.edges))
        return post(z)


class TopDown(nn.Module):
    """Store each block's output of the pass before, in unit rows, and the columns by which the block below reads it.

    Args:
        net: of graph blocks.
        merges_input: whether signals enter a block's input, and not its loss alone; it has `columns` then,
            (n_k, times * n_{k+1}) of block k, of the last block for the classes.

    Raises:
        Unsupported: when a block's linear map cannot be widened, or a loss is of blocks of several widths.

    """

    former_tensors: ClassVar[dict[str, str]] = {"told_": "stored_"}  # in checkpoints of earlier releases

    def __init__(self, net: Net, *, merges_input: bool):
        super().__init__()
        if not merges_input and len(set(net.widths)) > 1:
            raise Unsupported(
                f"top_down=loss is of blocks of one width, and these have {net.widths}; use top_down=input"
            )
        self.columns = nn.ParameterList(_columns(net, k) for k in range(net.depth) if merges_input)
        like = next(net.parameters())
        for k in range(net.depth):
            empty = torch.zeros(0, net.widths[k], device=like.device, dtype=like.dtype)
            self.register_buffer(f"stored_{k + 1}", empty)
        self._summed: tuple[Any, ...] = ()  # of which rows and edges, in which state, and what block 1 sums of them

    @property
    def stored(self) -> list[Tensor]:
        """Each block's stored output, (N, n_k); without rows until `initialize`."""
        return [self.get_buffer(f"stored_{k + 1}") for k in range(len(self._buffers))]

    def is_empty(self, h: Tensor) -> bool:
        """Return whether no outputs are stored yet of a graph of as many rows.

        Args:
            h: the rows of the graph's nodes, (N, ...).

        """
        return len(self.stored[0]) != len(h)

    def initialize(self, outputs: Iterable[Tensor]) -> None:
        """Store the blocks' outputs in a pass without signals.

        Args:
            outputs: (N, n_k) each.

        """
        for k, out in enumerate(outputs):
            setattr(self, f"stored_{k + 1}", out.to(self.stored[k].dtype))

    def store(self, k: int, h: Tensor) -> None:
        """Store a block's output for the pass after this one.

        Args:
            k: the block.
            h: its output, (N, n_k).

        """
        self.stored[k].copy_(h)

    def with_above(self, k: int, h: Tensor, stored: Sequence[Tensor]) -> Tensor:
        """Return the mean of block k's output and of the stored outputs above it, (N, n_k).

        Args:
            k: the block.
            h: its output, (N, n_k).
            stored: the blocks' stored outputs.

        """
        return torch.stack([h, *(t.to(h.dtype) for t in stored[k + 1 :])]).mean(0)

    def block(self, block: Any, k: int, h: Tensor, edges: Tensor, of: Tensor | None = None) -> MergedInput:
        """Return block k with its input ready for signals.

        Args:
            block: the net's block k.
            k: its number.
            h: its input, (N, n_{k-1}).
            edges: (2, E).
            of: a tensor that h is always the same function of, so that its sum over neighbours is computed once.

        """
        split = aggregation(block.op)
        if split is None:
            return MergedInput(block, self.columns[k], None, edges, h)
        return MergedInput(block, self.columns[k], split, edges, split.combine(self._sum(split, h, edges, of)))

    def size_as(self, state: Mapping[str, Any], prefix: str) -> None:
        """Take as many rows as a saved state has, and drop the cached sum over neighbours.

        Args:
            state: the saved state.
            prefix: of this module's names in it.

        """
        self._summed = ()
        for k, stored in enumerate(self.stored):
            saved = state.get(f"{prefix}stored_{k + 1}")
            if isinstance(saved, Tensor):
                setattr(self, f"stored_{k + 1}", stored.new_empty(saved.shape))

    def _sum(self, split: Aggregation, h: Tensor, edges: Tensor, of: Tensor | None) -> Tensor:
        if of is None or of.is_inference() or torch.is_inference_mode_enabled():
            return split.gather(h, edges)
        tensors, rest = (of, edges), (of._version, h.dtype)
        known = self._summed
        if not known or known[1] != rest or any(a is not b for a, b in zip(known[0], tensors, strict=True)):
            with torch.no_grad():
                self._summed = known = tensors, rest, split.gather(h, edges)
        return known[2]


def _columns(net: Net, k: int) -> nn.Parameter:
    """Return block k's columns for what is above it, drawn as a linear map of both inputs would be (Glorot)."""
    op: Any = net.block(k).op
    split = aggregation(op)
    attends = type(op) is torch_geometric("nn").GATConv and op.lin is not None and op.res is None
    if split is None and not attends:
        raise Unsupported(
            f"top_down=input widens a convolution's linear map, and {type(op).__name__} is none that is known here; "
            "use net=gcn, sage or gat with net.group=1, or top_down=loss"
        )
    above = net.widths[k + 1] if k < net.depth - 1 else net.classes
    below = net.widths[k - 1] if k else net.input_shape[0]
    like = next(op.parameters())
    columns = torch.empty(net.widths[k], above * (split.times if split else 1), device=like.device, dtype=like.dtype)
    limit = (6 / (below + above + net.widths[k])) ** 0.5
    return nn.Parameter(columns.uniform_(-limit, limit))


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
