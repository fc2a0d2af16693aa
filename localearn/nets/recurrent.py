"""Recurrent nets, a layer a block, with a choice of derivatives through time; see `localearn.nets.through_time`."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.inputs import InputSpec
from localearn.moved import former_names
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.layers import is_transforming
from localearn.nets.net import Net
from localearn.nets.through_time import Derivative, Feedback, ThroughTime, derivative_by_name
from localearn.nets.transformer import Reads, check_sequence, choose_view

Cell = Literal["rnn", "gru", "lstm"]


class Recurrent(Net):
    """Stack recurrent layers, each a block that maps (N, T, n_{k-1}) to its states at all times, (N, T, n_k).

        rnn     s_t = tanh(W x_t + b + U s_{t-1} + c)
        gru     torch.nn.GRU's, Cho et al., arXiv 1406.1078
        lstm    torch.nn.LSTM's, Hochreiter, Schmidhuber (1997)

    Rules are about what crosses blocks. How a block is differentiated within, from a step to those before it, is
    independent of the rule: exactly, unless `through_time` says otherwise. The forward pass does not depend on it. The
    first block embeds token ids.

    Args:
        input_shape: (T,) token ids, or (T, D) values.
        classes: the readout's width: the vocabulary of a language model.
        vocabulary: the number of tokens; None where rows are values.
        cell: rnn, gru or lstm.
        widths: n_1..n_L.
        embedding: the width of a token's embedding; None: n_1.
        dropout: the probability of dropping a value of a block's output.
        reads: what a head reads: "positions", each by itself, "last", "pooled", their mean; "auto" is positions of
            tokens and last of values.
        through_time: "exact", backpropagation through time; "truncated" to windows, see `Truncated`; "none", each step
            alone; "diagonal", by a fixed feedback in place of the Jacobian, see `Diagonal`.
        truncation: of "truncated", the steps of a window.
        feedback: of "diagonal": linear, gaussian or orthogonal.

    Raises:
        UserError: for options out of their range, and for rows that are no sequence.

    Example:
        net = Recurrent((28, 28), 10, cell="lstm", widths=(128,))

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
        through_time: Derivative = "exact",
        truncation: int = 16,
        feedback: Feedback = "linear",
    ):
        shape = check_sequence(type(self).__name__, input_shape, vocabulary)
        widths = check_widths("widths", widths)
        (first,) = check_row("embedding", widths[0] if embedding is None else embedding)
        sizes = (shape[1] if vocabulary is None else first, *widths)
        layers = [RecurrentLayer(cell, n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)]
        for layer, n in zip(layers, widths, strict=True):
            layer.through_time = derivative_by_name(through_time, n, truncation, feedback)
        ops: list[nn.Module] = [*layers]
        if vocabulary is not None:
            ops[0] = nn.Sequential(nn.Embedding(vocabulary, first), ops[0])
        blocks = [Block(op, dropout_layer(dropout)) for op in ops]
        view = choose_view(reads, vocabulary)
        readout = nn.Linear(widths[-1], check_classes(classes))
        super().__init__(blocks, readout, takes=InputSpec(shape, vocabulary), view=view)


class RecurrentLayer(nn.Module):
    """Run one of torch's layers by its fused kernel, or step by step under the transforms that have none for it.

    Args:
        cell: rnn, gru or lstm.
        n_in: the width of its input.
        n_out: n, its units.

    Attributes:
        through_time: how it is differentiated from a step to the one before it; None: exactly.

    """

    through_time: ThroughTime | None

    def __init__(self, cell: Cell, n_in: int, n_out: int):
        super().__init__()
        self.step = choose("cell", cell, CELLS)
        layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.layer: Any = layer(n_in, n_out, batch_first=True)
        self.through_time = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, n_in) to (N, T, n)."""
        if is_transforming():
            return self._step_by_step(x)
        if self.through_time is None or not torch.is_grad_enabled():
            return self.run(x)[0]
        return self.through_time.states(self, x)

    def run(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run the layer from a given state.

        Args:
            x: (N, T, n_in).
            state: the state before the first step, in the form of torch's layer; None: zeros.

        Returns:
            The states at all times, (N, T, n), and the last one in the form of torch's layer.

        """
        return self.layer(x, state)

    def parallel_states(self, x: Tensor) -> Tensor:
        """Return the states at all times, (N, T, n), each computed from the one before it as a constant.

        The states are found first, without autograd; one step for all times at once then has a graph of each by itself.
        """
        with torch.no_grad():
            states = self.run(x)[0]
        driven = self._driven(x)
        before = _shifted(states.to(driven.dtype))
        recurrent = self._recurrent(before)
        memory = before
        if self.step is _lstm:
            with torch.no_grad():
                memory = _shifted(_memories(driven, recurrent))
        return self.step(driven, recurrent, before, memory)[0]

    def _step_by_step(self, x: Tensor) -> Tensor:
        driven = self._driven(x)
        state = driven.new_zeros(len(x), self.layer.hidden_size)  # of the precision that autocast multiplies in
        states, memory, time = list[Tensor](), state, self.through_time
        for t in range(x.shape[1]):
            previous = state
            if time is not None:
                state, memory = time.before(state, t), time.before(memory, t)
            state, memory = self.step(driven[:, t], self._recurrent(state), state, memory)
            if time is not None:
                state = time.after(state, previous)
            states.append(state)
        return torch.stack(states, dim=1)

    def _driven(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layer.weight_ih_l0, self.layer.bias_ih_l0)

    def _recurrent(self, state: Tensor) -> Tensor:
        return F.linear(state, self.layer.weight_hh_l0, self.layer.bias_hh_l0)


@contextmanager
def use_derivatives(net: nn.Module, derivatives: Sequence[ThroughTime | None] = ()) -> Iterator[None]:
    """Change how graphs made within the context are differentiated through time; the net is restored on exit.

    Args:
        net: whose recurrent layers are meant, see `recurrent_layers`.
        derivatives: one for each of them; by default the exact one.

    """
    layers = recurrent_layers(net)
    before = [layer.through_time for layer in layers]
    for layer, derivative in zip(layers, derivatives or [None] * len(layers), strict=True):
        layer.through_time = derivative
    try:
        yield
    finally:
        for layer, derivative in zip(layers, before, strict=True):
            layer.through_time = derivative


def recurrent_layers(net: nn.Module) -> list[RecurrentLayer]:
    """Return a net's recurrent layers, first to last.

    Args:
        net: the net.

    """
    return [layer for layer in net.modules() if isinstance(layer, RecurrentLayer)]


def _shifted(states: Tensor) -> Tensor:
    """Return (N, T, n) states of the step before each, zeros before the first."""
    return F.pad(states[:, :-1], (0, 0, 1, 0))


def _memories(driven: Tensor, recurrent: Tensor) -> Tensor:
    """Return an LSTM's c_t = f_t c_{t-1} + i_t g_t at all times, (N, T, n), by doubling the number of steps in each."""
    let_in, forget, new, _ = (driven + recurrent).chunk(4, -1)
    decay, memory, shift = forget.sigmoid(), let_in.sigmoid() * new.tanh(), 1
    while shift < memory.shape[1]:
        more = memory.clone()
        more[:, shift:].addcmul_(decay[:, shift:], memory[:, :-shift])
        shorter = decay.clone()
        shorter[:, shift:].mul_(decay[:, :-shift])
        memory, decay, shift = more, shorter, 2 * shift
    return memory


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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
