"""A net is blocks and a readout: the one shape that every learning rule works on."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.nets.block import Block
from localearn.nets.sequential import parts
from localearn.nets.views import Flattened, View
from localearn.tasks import Classification, LanguageModelling, Task

WRONG_INPUT = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)  # what layers raise at one


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Put every submodule back into its own mode, training or evaluation, at the end."""
    modes = {m: m.training for m in module.modules()}
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


class Net(nn.Module):
    """h_0 = stem(x); h_k = block_k(h_{k-1}); logits = readout(view(h_L)).

    blocks: one at least, first to last.
    readout: a map from what `view` reads of h_L, (N, n_L) where that is flattened, to the logits, (N, C).
    input_shape: the shape of one row of x, without the batch dimension, of a net that takes values.
    takes: in place of that, and of `graph`, all that the net takes, as an `InputSpec`.
    stem: what happens to x before the first block; it has no parameters (flattening, dropout of the input).
    graph: whether the blocks take `edge_index` beside h; the rows are then a graph's nodes.
    view: how the readout, and every head of a rule's, reads a block's output: flattened, `PerPosition` or `Pooled`.
    readout_takes_context: whether the readout takes what the blocks take beside h, as a graph convolution does.

    kind: which of a rule's recipes such a net takes; a class of your own says it, "maps" where it convolves, "sequence"
        where its blocks give (N, T, D).

    Attributes set from one dry run: `shapes`, the shape of a row of each h_k; `widths`, their sizes n_k;
    `reads`, how many values of h_k a head reads at once, n_k where the view is flattened;
    `classes`, C, the number of outputs, whatever they mean; `positions`, how many of a row have outputs of their own,
    (T,), or () where the row has them as a whole. `class_names`, (C,) words, is set by `load_net` where the
    data had them; so is `codec`, a `localearn.data.Codec`, of a net that was trained on text, and by `fit`. `task` says
    what the output means: to tell C classes apart, or at positions which of C tokens follows, unless it is set, by
    `for_task` before a rule is built on the net, or by `fit`, which takes that of the data.
    """

    class_names: tuple[str, ...] | None = None
    codec: object = None
    positions: tuple[int, ...] = ()
    _task: Task | None = None
    kind: ClassVar[Literal["dense", "maps", "graph", "sequence"]] = "dense"

    def __init__(
        self,
        blocks: Iterable[Block],
        readout: nn.Module,
        *,
        input_shape: tuple[int, ...] | None = None,
        stem: nn.Module | None = None,
        graph: bool = False,
        readout_takes_context: bool = False,
        takes: InputSpec | None = None,
        view: View | None = None,
    ):
        super().__init__()
        self.stem = nn.Identity() if stem is None else stem
        self.blocks = nn.ModuleList(blocks)
        self.readout = readout
        if (takes is None) == (input_shape is None) or (takes is not None and graph):
            raise UserError("a net is given input_shape, and graph, or takes, an InputSpec; not both, and not neither")
        self.takes = takes or InputSpec(tuple(input_shape or ()), context=("edge_index",) if graph else ())
        self.view = view or Flattened()
        self.readout_takes_context = readout_takes_context
        if not self.blocks:
            raise UserError("a net needs at least one block beside its readout; add a hidden layer")
        if any(True for _ in self.stem.parameters()):
            raise UserError("a net's stem has no parameters; make what has them a block")
        self.shapes, self.classes = self.dry_run()
        self.widths = tuple(math.prod(shape) for shape in self.shapes)
        self.reads = tuple(self.view.width(shape) for shape in self.shapes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row of x."""
        return self.takes.shape

    @property
    def graph(self) -> bool:
        """Whether the rows are a graph's nodes."""
        return self.takes.graph

    @property
    def task(self) -> Task:
        """What the output means."""
        by_itself = LanguageModelling if self.positions else Classification
        return self._task or by_itself(self.classes)

    @task.setter
    def task(self, task: Task) -> None:
        if task.outputs != self.classes:
            raise UserError(f"{type(self).__name__} has {self.classes} outputs, and {task} needs {task.outputs}")
        self._task = task

    def for_task(self, task: Task) -> Self:
        """Set what the output means, and return the net: `MLP(10, 1).for_task(Regression())`."""
        self.task = task
        return self

    @property
    def depth(self) -> int:
        """The number L of blocks; the readout is not counted."""
        return len(self.blocks)

    def block(self, k: int) -> Block:
        """Return the block that computes h_{k+1} from h_k, k = 0..L-1."""
        block = self.blocks[k]
        assert isinstance(block, Block)
        return block

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Map x, (N, *input_shape), to logits, (N, C)."""
        return self.logits(self.hidden(x, *context), *context)

    def logits(self, h: Tensor, *context: Tensor) -> Tensor:
        """Map h_L, (N, *shapes[-1]), to logits, (N, C), by the readout."""
        return self.readout(self.view(h), *(context if self.readout_takes_context else ()))

    def hidden(self, x: Tensor, *context: Tensor, depth: int | None = None) -> Tensor:
        """Return h_depth, (N, *shapes[depth - 1]); h_L where depth is None, h_0 where it is 0."""
        h = self.stem(x)
        for block in list(self.blocks)[:depth]:
            h = block(h, *context)
        return h

    def outputs(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_L, each (N, *shapes[k])."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, *context)
            yield h

    def couples_rows(self) -> bool:
        """Whether, as things are, a row of the output depends on other rows of the input.

        Edges couple rows, and so does batch normalisation. Layer, group and instance normalisation stay within a row.
        """
        return self.graph or self.normalises_batch()

    def normalises_batch(self) -> bool:
        """Whether, as things are, batch normalisation takes the batch's statistics."""
        return any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and (m.training or m.running_mean is None)
            for m in self.modules()
        )

    def looks_ahead(self) -> bool:
        """Whether an output at a position depends on what stands after it in the row."""
        x, *context = self.trial()
        if x.is_meta or self.takes.vocabulary == 1:
            return False  # as far as can be told
        changed = x.clone()
        changed[:, -1] += 1
        with modes_kept(self), torch.no_grad():
            self.eval()
            before, after = (self(rows, *context)[:, :-1] for rows in (x, changed))
        return not torch.allclose(before, after, rtol=1e-4, atol=1e-5)

    @staticmethod
    def from_sequential(model: nn.Sequential, input_shape: tuple[int, ...] | None = None) -> "Net":
        """Turn a user's own `nn.Sequential` into a Net of the same layers: training the one trains the other.

        Each parametric layer but normalisation starts a block, what follows it is that block's post, what comes before
        the first is the stem, and the last layer, a Linear, is the readout.
        input_shape: a row's shape; needed unless the first parametric layer is a Linear.
        """
        return Net(**parts(model, input_shape))

    def trial(self) -> tuple[Tensor, ...]:
        """Return the smallest input that every net takes, see `InputSpec.trial`."""
        return self.takes.trial(next(self.parameters(), torch.empty(0)))

    def dry_run(self) -> tuple[tuple[tuple[int, ...], ...], int]:
        """Send the trial input through the net as evaluated; return `shapes` and `classes`. Hooks see every layer."""
        with modes_kept(self):
            self.eval()  # so that no running statistic moves and no dropout draws
            try:
                with torch.no_grad():
                    rows, *context = self.trial()
                    outputs = list(self.outputs(rows, *context))
                    logits = self.logits(outputs[-1], *context)
            except WRONG_INPUT as error:
                raise UserError(f"the net cannot take rows of shape {self.input_shape}: {error}") from error
        self.positions = tuple(logits.shape[1:-1])
        return tuple(tuple(h.shape[1:]) for h in outputs), logits.shape[-1]
