"""A rule's workload on random rows: the whole update of one batch, as the training loop makes it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from localearn.data import ArrayData, Batch
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.tasks import LanguageModelling
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Solve
from localearn.training.building import build_net_for, build_rule, optimizer_factory, rule_class
from localearn.training.capture import captured
from localearn.training.distributed import Ranks
from localearn.training.layout import apply_memory_format
from localearn.training.memory import live_tensor_bytes, out_of_memory_error
from localearn.training.runtime import autocast
from localearn.training.settings import Settings
from localearn.training.step import UPDATES, Step

CLASSES = 10
BATCHES = 4  # that a step is given in turn, so that no rule lives off one batch in the cache


@dataclass(frozen=True)
class Size:
    """A net's and a batch's size.

    Args:
        width: of the MLP's blocks, None for another net.
        depth: the number of the MLP's blocks, None for another net.
        batch: rows a step.

    """

    width: int | None
    depth: int | None
    batch: int


@dataclass(frozen=True)
class Point:
    """The point at which rules are measured: a batch of rows through a net, at a precision on a device.

    Args:
        net: its name.
        input_shape: a row's shape.
        batch: rows a step.
        precision: as in `localearn.training.Settings`.
        device: where all is computed.
        step: as in `Settings`.
        capture: as in `Settings`.
        memory_format: as in `Settings`.
        vocabulary: the number of tokens whose ids rows are, (T,), so that the net models a language; None: rows
            are values, of classes.
        categories: the numbers of categories of the first columns of a row, (F,), which hold codes; none: all are
            values.

    """

    net: str
    input_shape: tuple[int, ...]
    batch: int
    precision: str
    device: torch.device
    step: Literal["all", "block"] = "all"
    capture: Literal["auto", "graph", "compile", "off"] = "off"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    vocabulary: int | None = None
    categories: tuple[int, ...] = ()


class Workload:
    """One rule with its net, its optimizers and a few batches.

    A rule that trains blocks one after another makes a step in each of its phases, since each of them sees each batch:
    each has a copy of it. What it solves once a pass is left out.

    Args:
        algo: the rule's name.
        config: a run's configuration, of which `net`, `algo` and `optim` are taken.
        point: what is measured.

    Raises:
        UserError: when the rule does not serve the net.

    """

    def __init__(self, algo: str, config: Any, point: Point):
        self.algo, self.point = algo, point
        self.batches = random_batches(point)
        data = as_data(self.batches, point)
        with out_of_memory_error(f"{algo} on {point.net} with batch={point.batch}", "smaller ones"):
            trainer = build_rule_on_data(algo, config, data).to(point.device)
            apply_memory_format(trainer, point.memory_format, point.precision)
            phases = range(len(trainer.phases()))
            copies = [trainer if k == 0 else copy.deepcopy(trainer) for k in phases]
            self.parts = [_Part(copies[k], k, config["optim"], point) for k in phases]
        self._turn = 0

    @property
    def net(self) -> Net:
        """The net, as the first phase has it."""
        return self.parts[0].trainer.net

    @property
    def one_pass(self) -> bool:
        """Whether the rule gathers statistics in single passes instead of descending."""
        return all(part.update is None for part in self.parts)

    def capture(self) -> None:
        """Capture the updates from here on, by `Point.capture`.

        Count multiply-adds and live bytes before: a replayed graph shows neither.
        """
        for part in self.parts:
            part.capture()

    @property
    def captured(self) -> str:
        """Return how the updates are captured, "off" where one of them is not; to be called after some steps."""
        kinds = {part.update.kind for part in self.parts if part.update is not None}
        return kinds.pop() if len(kinds) == 1 else "off"

    def step(self) -> None:
        """Make the whole update of the next batch: gradients and optimizer, in every phase."""
        batch = self.batches[self._turn % len(self.batches)]
        self._turn += 1
        for part in self.parts:
            part.step(batch)

    def multiply_adds(self) -> int:
        """Return the multiplications (each with its addition) of matrix products and convolutions in a step."""
        with _Products() as products:
            self.step()
        return products.flops // 2

    def live_bytes(self) -> int:
        """Return the most bytes of tensors made in a step that lived at once: activations, gradients, no weights."""
        self.step()  # the optimizer's state is made in the first one
        for part in self.parts:
            if part.update is not None:
                part.trainer.zero_grad(set_to_none=True)
        with live_tensor_bytes() as live:
            self.step()
        return live.peak_bytes


class _Products(TorchDispatchMode):
    """Count the floating-point operations of matrix products and convolutions, by torch's own formulas.

    torch.utils.flop_counter.FlopCounterMode also follows modules, by hooks on their inputs, and these refuse
    `torch.autograd.grad` with regard to such an input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add what it costs."""
        from torch.utils.flop_counter import flop_registry

        out = func(*args, **(kwargs or {}))
        cost = flop_registry.get(func._overloadpacket)
        self.flops += 0 if cost is None else cost(*args, **(kwargs or {}), out_val=out)
        return out


class _Part:
    """A rule in one of its phases, with that phase's update; None where the phase is a single pass."""

    def __init__(self, trainer: Trainer, index: int, optim: dict[str, Any], point: Point):
        self.trainer, self.point = trainer, point
        self.phase = trainer.phases()[index]
        trainer.train()
        self.phase.freeze()
        self.autocast = autocast(point.device, point.precision)
        self.update: Step | None = None
        if isinstance(self.phase, Descent):
            optimizer = optimizer_factory(optim)(self.phase.optimizer_groups())
            kind, settings = UPDATES[point.step], Settings(step=point.step)
            self.update = self._plain = kind(trainer, self.phase, optimizer, settings, self.autocast, Ranks())

    def capture(self) -> None:
        """Capture the update."""
        if self.update is not None:
            self.update = captured(self._plain, self.point.capture, self.point.device)

    def step(self, batch: Batch) -> None:
        """Make the phase's update of a batch."""
        with torch.no_grad(), self.autocast:
            if self.phase.width is not None:
                batch = replace(batch, x=self.phase.input(batch.x, *batch.context))
            if isinstance(self.phase, Solve):
                self.phase.accumulate(batch)
        if self.update is not None:
            self.update(batch)


def random_batches(point: Point) -> list[Batch]:
    """Return batches of standard normal rows, (batch, *input_shape), and labels; or of token ids, and the next ones.

    Labels, tokens and the codes of categories are drawn uniformly.

    Args:
        point: what is measured.

    """
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(BATCHES):
        if point.vocabulary is not None:
            length = point.input_shape[0] + 1
            tokens = torch.randint(point.vocabulary, (point.batch, length), generator=generator).to(point.device)
            batches.append(Batch(tokens[:, :-1], tokens[:, 1:]))
            continue
        x = torch.randn(point.batch, *point.input_shape, generator=generator).to(point.device)
        for column, size in enumerate(point.categories):
            x[:, column] = torch.randint(size, (point.batch,), generator=generator).to(x)
        y = torch.randint(CLASSES, (point.batch,), generator=generator).to(point.device)
        batches.append(Batch(x, y))
    return batches


def as_data(batches: Sequence[Batch], point: Point) -> ArrayData:
    """Return data whose splits are all the first batch, from which nets and rules take their shapes.

    Args:
        batches: what `random_batches` returned.
        point: what is measured.

    """
    rows, labels = batches[0].x, batches[0].y
    x: dict[Any, Tensor] = dict.fromkeys(("train", "val", "test"), rows)
    y: dict[Any, Tensor] = dict.fromkeys(("train", "val", "test"), labels)
    if point.vocabulary is not None:
        task = LanguageModelling(point.vocabulary)
        return ArrayData("made up", x, y, 0, task=task, vocabulary=point.vocabulary)
    return ArrayData("made up", x, y, CLASSES, categories=point.categories)


def build_rule_on_data(algo: str, config: Any, data: ArrayData) -> Trainer:
    """Return the rule of a configuration on its net, as a run on such data builds them; always the same weights.

    Args:
        algo: the rule's name.
        config: a run's configuration.
        data: what the net and the rule are built for.

    Raises:
        UserError: when the net is of graphs.
        Unsupported: when the rule does not serve the net.

    """
    torch.manual_seed(0)
    rule = rule_class(config["algo"])
    net = build_net_for(rule, config["net"], data)
    if net.graph:
        raise UserError("graphs are one batch of nodes, which this bench does not make up; choose net=mlp, cnn, ...")
    rule.supports(net, data)
    return build_rule(config["algo"], net, algo)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
