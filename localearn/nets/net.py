"""The `Net` class, blocks and a readout: the one structure that every learning rule trains.

A net is built from blocks, or cut from a user's own modules (`Net.from_sequential`, `Net.from_blocks`) or from one of
torchvision's classifiers (`Net.from_torchvision`).
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.moved import former_names
from localearn.nets.block import Block, as_blocks, merge_blocks, merge_stem, sequential_parts
from localearn.nets.checks import check_row
from localearn.nets.layers import out_of_place, preserve_modes
from localearn.nets.torchvision import torchvision_parts
from localearn.nets.views import Flattened, Pooled, View
from localearn.tasks import Classification, LanguageModelling, Task

# What layers raise at a wrong input.
WRONG_INPUT = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError)


class Net(nn.Module):
    """Map an input to logits through blocks and a readout.

        h_0 = stem(x),    h_k = block_k(h_{k-1}),    logits = readout(view(h_L))

    Args:
        blocks: L blocks, first to last, at least one.
        readout: a map from the view of h_L, (N, n_L) where that is flattened, to the logits, (N, C).
        input_shape: the shape of one row of x, without the batch dimension, for a net of values.
        stem: what is applied to x before the first block, without parameters (flattening, dropout of the input).
        graph: whether the blocks take `edge_index` as well as h; the rows are then a graph's nodes.
        readout_takes_context: whether the readout takes the same context as the blocks, as a graph convolution does.
        takes: an `InputSpec` of all that the net takes, instead of `input_shape` and `graph`.
        view: how the readout, and every head of a rule, reads a block's output: `Flattened` by default, `PerPosition`
            or `Pooled`.

    Attributes:
        shapes: the shape of a row of each h_k, k = 1..L, found by one dry run, as are the next four.
        widths: their sizes n_k.
        reads: the number of values of h_k that a head reads at once, n_k where the view is flattened.
        classes: C, the number of outputs, whatever they mean.
        positions: (T,) where a row has outputs at each of T positions, () where it has them as a whole.
        kind: which of a rule's recipes suits the net. A subclass sets it: "maps" where it convolves, "sequence" where
            its blocks give (N, T, D), "graph" or "dense".
        task: the meaning of the output: by default classification or, at positions, language modelling;
            set by `for_task` before a rule is built on the net, or by `fit`, from the data.
        class_names: (C,) words; set by `load_net` where the data had them.
        codec: a `localearn.data.Codec` of a net that was trained on text; set by `fit` and `load_net`.
        grouped: how many blocks of the original net are one block of this one, see `group`.
        options: the configuration group `net` that builds the net again, `_target_` and its arguments but for the
            data's shape; None where `load_net` has to be given the net.

    Raises:
        UserError: where the parts do not fit one another, saying which; for no block, a stem with parameters, and
            unless exactly one of `input_shape` and `takes` is given.

    """

    class_names: tuple[str, ...] | None = None
    codec: object = None
    grouped: int = 1
    options: Mapping[str, Any] | None = None
    positions: tuple[int, ...] = ()
    _task: Task | None = None
    _source: tuple[nn.Module, ...] = ()  # in a tuple, for as a submodule its parameters would be the net's twice
    kind: Literal["dense", "maps", "graph", "sequence"] = "dense"

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
            raise UserError("a net needs either input_shape and graph, or takes, an InputSpec; not both")
        row = () if input_shape is None else check_row("input_shape", input_shape)
        self.takes = takes or InputSpec(row, context=("edge_index",) if graph else ())
        self.view = view or Flattened()
        self.readout_takes_context = readout_takes_context
        if not self.blocks:
            raise UserError("a net needs at least one block before its readout; add a hidden layer")
        if any(True for _ in self.stem.parameters()):
            raise UserError("a net's stem must not have parameters; make such layers a block")
        self.shapes, self.classes = self.dry_run()
        self.widths = tuple(math.prod(shape) for shape in self.shapes)
        self.reads = tuple(self.view.width(shape) for shape in self.shapes)
        self.flattens = len(self.shapes[0]) == 1  # whether the first layer takes a row as a vector

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
        """The meaning of the output; classification, or language modelling at positions, unless it was set."""
        default = LanguageModelling if self.positions else Classification
        return self._task or default(self.classes)

    @task.setter
    def task(self, task: Task) -> None:
        if task.outputs != self.classes:
            raise UserError(f"{type(self).__name__} has {self.classes} outputs, and {task} needs {task.outputs}")
        self._task = task

    @property
    def source(self) -> nn.Module | None:
        """The module that the net was cut from, or None; its names are those of written weights, see `save_weights`."""
        return self._source[0] if self._source else None

    def own_names(self) -> dict[str, str]:
        """Return a dict from each tensor's name in the net's state to its name in the source module.

        The source module is what the net was cut from by `from_sequential`, `from_torchvision` or `from_blocks`; for a
        grouped net that of the ungrouped one. Without one, and where it lacks a tensor of the net, each name maps to
        itself.
        """
        state = self.state_dict(keep_vars=True)
        if self.source is not None:
            names = {id(tensor): name for name, tensor in reversed(self.source.state_dict(keep_vars=True).items())}
            if all(id(tensor) in names for tensor in state.values()):
                return {name: names[id(tensor)] for name, tensor in state.items()}
        return {name: name for name in state}

    def own_weights(self) -> dict[str, Tensor]:
        """Return the state by the source module's names, including what that module has and the net has not.

        See `own_names`.
        """
        if self.source is None or all(name == own for name, own in self.own_names().items()):
            return self.state_dict()
        return self.source.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state under the net's names, as of any module, or under those of the module that it was cut from.

        Args:
            state_dict: tensors by name.
            strict: as of `torch.nn.Module.load_state_dict`, whose result is returned.
            assign: likewise.

        """
        names = self.own_names()
        if not names.keys() <= state_dict.keys() and all(own in state_dict for own in names.values()):
            state_dict = {name: state_dict[own] for name, own in names.items()}
        return super().load_state_dict(state_dict, strict, assign)

    def for_task(self, task: Task) -> Self:
        """Set the task, that is the meaning of the output, and return the net.

        Args:
            task: a task of as many outputs as the net has.

        Raises:
            UserError: where the numbers of outputs differ.

        Example:
            net = MLP(10, 1).for_task(Regression())

        """
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
        """Compute the logits, (N, C).

        Args:
            x: (N, *input_shape).
            context: what every block takes as well as h: `edge_index`, (2, E), of a graph.

        """
        return self.logits(self.hidden(x, *context), *context)

    def logits(self, h: Tensor, *context: Tensor) -> Tensor:
        """Apply the readout.

        Args:
            h: h_L, (N, *shapes[-1]).
            context: as of `forward`.

        Returns:
            The logits, (N, C).

        """
        return self.readout(self.view(h), *(context if self.readout_takes_context else ()))

    def hidden(self, x: Tensor, *context: Tensor, depth: int | None = None) -> Tensor:
        """Compute the output of a block, (N, *shapes[depth - 1]).

        Args:
            x: (N, *input_shape).
            context: as of `forward`.
            depth: which h_k: 0 for the stem's output, None for h_L.

        """
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
        """Return whether, in its present mode, a row of the output depends on other rows of the input.

        Edges couple rows, and so does batch normalisation. Layer, group and instance normalisation stay within a row.
        """
        return self.graph or self.normalises_batch()

    def normalises_batch(self) -> bool:
        """Return whether, in its present mode, batch normalisation uses the batch's statistics."""
        return any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and (m.training or m.running_mean is None)
            for m in self.modules()
        )

    def looks_ahead(self) -> bool:
        """Return whether an output at a position depends on later positions of the row.

        It is tested on a trial input; False where that cannot be done, on the meta device or with a vocabulary of one
        token.
        """
        x, *context = self.trial()
        if x.is_meta or self.takes.vocabulary == 1:
            return False  # as far as is known
        changed = x.clone()
        changed[:, -1] += 1
        with preserve_modes(self), torch.no_grad():
            self.eval()
            before, after = (self(rows, *context)[:, :-1] for rows in (x, changed))
        return not torch.allclose(before, after, rtol=1e-4, atol=1e-5)

    @staticmethod
    def from_sequential(model: nn.Sequential, input_shape: tuple[int, ...] | None = None) -> "Net":
        """Cut a user's own `nn.Sequential` into a Net that shares its layers: training the one trains the other.

        Each layer with parameters, except normalisation, starts a block; what follows it is that block's post; what
        comes before the first is the stem; and the last layer, a Linear, is the readout.

        Args:
            model: the layers, with one hidden layer with parameters at least.
            input_shape: a row's shape; needed unless the first layer with parameters is a Linear.

        Raises:
            UserError: for a model that cannot be cut so.

        Example:
            model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
            net = Net.from_sequential(model)

        """
        net = Net(**sequential_parts(model, input_shape))
        net._source = (model,)
        return net

    @staticmethod
    def from_blocks(
        stem: nn.Module | None,
        blocks: Iterable[nn.Module],
        readout: nn.Module,
        *,
        input_shape: tuple[int, ...] | None = None,
        takes: InputSpec | None = None,
        view: View | None = None,
        readout_takes_context: bool = False,
        module: nn.Module | None = None,
    ) -> "Net":
        """Build a Net of a user's own modules, sharing their parameters: training the one trains the other.

        Layers that write over their input (`inplace=True`) are set not to, since rules hold what comes before them.

        Args:
            stem: what is applied to x before the first block, or None. One with parameters becomes a part of the first
                block, and learns with it.
            blocks: any modules, first to last, each from one tensor to one tensor; a `Block`, or a Sequential of one
                layer with parameters and what follows it, exposes its pre-activation. The shapes of their outputs
                decide `kind`.
            readout: a map from the view of the last block's output to the outputs; most rules ask for a Linear.
            input_shape: the shape of a row of x, without the batch dimension.
            takes: an `InputSpec`, of a graph or of token ids, instead of `input_shape`.
            view: how heads read a block's output: flattened unless it is given, `PerPosition()` or `Pooled()`.
            readout_takes_context: as of `Net`.
            module: the module that the stem, the blocks and the readout are parts of; weights are written under its
                names, so that its own class loads them, see `save_weights`. Without it they are `stem`, `blocks.0`, ...
                and `readout`, followed by the parts' own names.

        Raises:
            UserError: where the modules do not fit one another, saying which, and where a part is not of the module.

        Example:
            stages = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 16, 3, stride=2)]
            net = Net.from_blocks(None, stages, nn.Linear(16, 10), input_shape=(3, 32, 32), view=Pooled())

        """
        blocks = list(blocks)
        source = module or _parts(stem, blocks, readout)
        stem, merged = merge_stem(stem, as_blocks(blocks))
        for module in filter(None, (stem, *merged, readout)):
            out_of_place(module)
        net = Net(
            merged,
            readout,
            input_shape=input_shape,
            stem=stem,
            takes=takes,
            view=view,
            readout_takes_context=readout_takes_context,
        )
        net.kind = _kind(net)
        net._source = (source,)
        known = {id(tensor) for tensor in source.state_dict(keep_vars=True).values()}
        unknown = [name for name, tensor in net.state_dict(keep_vars=True).items() if id(tensor) not in known]
        if unknown:
            raise UserError(f"the net's {unknown[0]} is no parameter or buffer of module=, a {type(source).__name__}")
        return net

    @staticmethod
    def from_torchvision(
        model: nn.Module | str,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        classes: int | None = None,
        *,
        view: View | None = None,
    ) -> "Net":
        """Cut one of torchvision's classifiers into blocks and a readout, with its own parameters and the same output.

        A residual, inverted residual or encoder block is a block each, and so is every other layer with parameters,
        with what follows it; the last Linear is the readout.

        Args:
            model: a classifier, say `torchvision.models.resnet18(weights="DEFAULT")`, or the name of one that is built
                with new weights, which `load_net` can build again: "resnet18", "vit_b_16", ...
            input_shape: (channels, height, width) of an image. A net that is built by name takes any channels.
            classes: the number of classes of a net that is built by name; 1000 by default.
            view: how heads read a block's output: pooled over a map's positions by default.

        Raises:
            UserError: for a model that cannot be cut, saying what can, or one that does not take such images.

        Example:
            net = Net.from_torchvision("resnet18", (3, 64, 64), classes=10)

        """
        found = torchvision_parts(model, input_shape, classes)
        kind, options, source = (found.pop(name) for name in ("kind", "options", "source"))
        net = Net(**found, view=view or Pooled())
        net.kind = kind
        net.options = options if view is None else None
        net._source = (source,)
        return net

    def group(self, n: int) -> Self:
        """Merge each n consecutive blocks into one, within which autograd runs; return a net of ceil(L / n) blocks.

        Layers and parameters are shared, and the output is the same to the bit. n = 1 is every block alone; at n >= L,
        all blocks in one, a rule that trains each block by a head of its own has backprop's gradient of that head.

        Args:
            n: how many blocks are merged, 1 or more.

        Raises:
            UserError: where n is less than 1.

        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise UserError(f"group must be the number of blocks to merge into one, 1 or more, not {n!r}")
        if n == 1:
            return self
        net = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):  # of modules, parameters, buffers, hooks
                vars(net)[name] = copy.copy(value)
        starts = range(0, self.depth, n)
        net.blocks = nn.ModuleList(merge_blocks([self.block(j) for j in range(self.depth)[k : k + n]]) for k in starts)
        net.blocks.training = self.training
        last = [min(k + n, self.depth) - 1 for k in starts]
        net.shapes, net.widths, net.reads = (
            tuple(of_block[k] for k in last) for of_block in (self.shapes, self.widths, self.reads)
        )
        net.grouped = self.grouped * n
        net.options = self.options and {**self.options, "group": net.grouped}
        net._source = self._source or (self,)
        return net

    def trial(self) -> tuple[Tensor, ...]:
        """Return the smallest valid input, see `InputSpec.trial`."""
        return self.takes.trial(next(self.parameters(), torch.empty(0)))

    def dry_run(self) -> tuple[tuple[tuple[int, ...], ...], int]:
        """Send the trial input through the net in evaluation mode; return `shapes` and `classes`.

        Forward hooks see every layer.

        Raises:
            UserError: at the first part that does not fit what comes before it.

        """
        shapes: list[tuple[int, ...]] = []
        with preserve_modes(self), torch.no_grad():
            self.eval()  # so that no running statistic moves and no dropout draws
            x, *context = self.trial()
            h = self._run_part("the stem", "", self.stem, x)
            name = f"{self.input_shape}"
            for k, block in enumerate(self.blocks):
                gives = f"given rows of shape {tuple(h.shape[1:])}" + (f" by block {k}" if k else "")
                name = f"block {k + 1} ({_name(block)})"
                h = self._run_part(name, gives, block, h, *context)
                shapes.append(tuple(h.shape[1:]))
            gives = f"given what {self.view} reads of block {len(shapes)}'s rows of shape {shapes[-1]}"
            logits = self._run_part(f"the readout ({type(self.readout).__name__})", gives, self.logits, h, *context)
        self.positions = tuple(logits.shape[1:-1])
        return tuple(shapes), logits.shape[-1]

    def _run_part(self, name: str, given: str, part: Callable[..., Any], h: Tensor, *context: Tensor) -> Tensor:
        """Return a part's output for two rows; raise UserError, naming the part, where it is not valid."""
        before = None if h.is_inference() else h._version
        try:
            out = part(h, *context)
        except WRONG_INPUT as error:
            what = ", ".join(filter(None, (name, given)))
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the net cannot take rows of shape {self.input_shape}: {what}: {why:.160}; {_remedy(why)}"
            ) from error
        if before is not None and h._version != before:
            raise UserError(
                f"{name} modifies its input in place, which rules need unchanged; write h = h * 2 for h *= 2, and "
                "torch.relu(h) for torch.relu_(h)"
            )
        if not isinstance(out, Tensor):
            raise UserError(
                f"{name} returns a {type(out).__name__}, and a part of a net returns one tensor, (N, ...); "
                "wrap it in a module that returns that alone"
            )
        if out.dim() < 2 or len(out) != len(h):
            raise UserError(
                f"{name} returns the shape {tuple(out.shape)} for an input of shape {tuple(h.shape)}; the batch "
                f"dimension must stay first, ({len(h)}, ...)"
            )
        return out


def _parts(stem: nn.Module | None, blocks: list[nn.Module], readout: nn.Module) -> nn.Module:
    """Return a module of these parts, under whose names a net's weights are written where no module is given."""
    parts = nn.Module()
    if isinstance(stem, nn.Module):
        parts.stem = stem
    parts.blocks = nn.ModuleList(block for block in blocks if isinstance(block, nn.Module))
    parts.readout = readout
    return parts


def _kind(net: Net) -> Literal["dense", "maps", "graph", "sequence"]:
    """Return the kind of recipe that suits a net of a user's own modules, by the shapes of its blocks' rows."""
    if net.graph:
        return "graph"
    sizes = {len(shape) for shape in net.shapes}
    return "maps" if 3 in sizes else "sequence" if 2 in sizes else "dense"


def _name(block: nn.Module) -> str:
    return type(block.op if type(block) is Block else block).__name__


def _remedy(why: str) -> str:
    small = ("too small", "greater than actual", "smaller than kernel", "Output size", "non-zero")
    if any(sign in why for sign in small):
        return "the image is too small for it; use larger ones, or a net that halves them less often"
    return "build it for such rows, or change their shape before it (nn.Flatten, a pooling)"


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
