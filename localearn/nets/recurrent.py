"""Recurrent nets: a layer is a block, and through time its derivative is exact."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.inputs import InputSpec
from localearn.nets.block import Block
from localearn.nets.layers import check_classes, check_row, check_widths, choose, is_transforming
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.transformer import Reads, check_sequence, reading

Cell = Literal["rnn", "gru", "lstm"]


class Recurrent(Net):
    """Recurrent layers, each a block that maps (N, T, n_{k-1}) to its states at all times, (N, T, n_k).

        rnn     s_t = tanh(W x_t + b + U s_{t-1} + c)
        gru     torch.nn.GRU's, Cho et al., arXiv 1406.1078
        lstm    torch.nn.LSTM's, Hochreiter, Schmidhuber (1997)

    Rules are about what crosses blocks: within one, from a time to those before it, autograd differentiates exactly.
    The first block embeds token ids.

    Args:
        input_shape: (T,) token ids, or (T, D) values.
        classes: the readout's width: the vocabulary of a language model.
        vocabulary: the number of tokens; None where rows are values.
        cell: rnn, gru or lstm.
        widths: n_1..n_L.
        embedding: the width of a token's embedding; None: n_1.
        dropout: of a block's output.
        reads: what a head reads: "positions", each by itself, "last", "pooled", their mean; "auto" is positions of
            tokens and last of values.

    Raises:
        UserError: for options out of their range, and for rows that are no sequence.

    """

    kind = "sequence"

    def __init__(
        self,
        input_shape: tuple[int, ...] | int,
        classes: int,
        *,
        vocabulary: int | None = None,
        cell: Cell = "gru",
        widths: Sequence[int] = (128, 128),
        embedding: int | None = None,
        dropout: float = 0.0,
        reads: Reads = "auto",
    ):
        shape = check_sequence(type(self).__name__, input_shape, vocabulary)
        widths = check_widths("widths", widths)
        (first,) = check_row("embedding", widths[0] if embedding is None else embedding)
        sizes = (shape[1] if vocabulary is None else first, *widths)
        ops: list[nn.Module] = [RecurrentLayer(cell, n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)]
        if vocabulary is not None:
            ops[0] = nn.Sequential(nn.Embedding(vocabulary, first), ops[0])
        blocks = [Block(op, dropout_layer(dropout)) for op in ops]
        view = reading(reads, vocabulary)
        readout = nn.Linear(widths[-1], check_classes(classes))
        super().__init__(blocks, readout, takes=InputSpec(shape, vocabulary), view=view)


class RecurrentLayer(nn.Module):
    """One layer of torch's, by its fused kernel, or step by step under the transforms that have none for it."""

    def __init__(self, cell: Cell, n_in: int, n_out: int):
        super().__init__()
        self.step = choose("cell", cell, CELLS)
        layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.layer: Any = layer(n_in, n_out, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, n_in) to (N, T, n_out)."""
        of = self.layer
        if not is_transforming():
            return of(x)[0]
        driven = F.linear(x, of.weight_ih_l0, of.bias_ih_l0)
        state = driven.new_zeros(len(x), of.hidden_size)  # of the precision that autocast multiplies in
        states, memory = list[Tensor](), state
        for t in range(x.shape[1]):
            state, memory = self.step(driven[:, t], F.linear(state, of.weight_hh_l0, of.bias_hh_l0), state, memory)
            states.append(state)
        return torch.stack(states, dim=1)


def _rnn(driven: Tensor, recurrent: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    return (driven + recurrent).tanh(), memory


def _gru(driven: Tensor, recurrent: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    (reset, update, new), (r, z, n) = driven.chunk(3, -1), recurrent.chunk(3, -1)
    candidate = (new + (reset + r).sigmoid() * n).tanh()
    return torch.lerp(candidate, state, (update + z).sigmoid()), memory


def _lstm(driven: Tensor, recurrent: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    let_in, forget, new, out = (driven + recurrent).chunk(4, -1)
    memory = forget.sigmoid() * memory + let_in.sigmoid() * new.tanh()
    return out.sigmoid() * memory.tanh(), memory


Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
CELLS: Mapping[str, Step] = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
