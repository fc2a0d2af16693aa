"""Tasks: what a net's output means, how far it is from the target, and by which metrics it is judged.

A rule, the loop, a record and a search ask the task; none of them names a class or a loss. A task of your own:

    @dataclass(frozen=True)
    class Poisson(Task):
        outputs: int = 1
        metrics = (Metric("deviance", "min", "value"),)

        def losses(self, output, target):
            return F.poisson_nll_loss(output, target, reduction="none").mean(-1)

        def encode(self, target):
            return target

        def measure(self, output, target):
            losses = self.losses(output, target).double()
            return {"loss": losses.sum(), "deviance": losses.sum()}, losses.new_tensor(len(losses))
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from localearn.errors import UserError

Direction = Literal["max", "min"]
Unit = Literal["fraction", "value"]
Means = Mapping[str, Tensor]


class Targets(Protocol):
    """What a task needs of a batch: its targets, and which rows of an output they are of."""

    @property
    def target(self) -> Tensor:
        """The targets, (M, ...)."""
        ...

    def select(self, per_row: Tensor) -> Tensor:
        """Return the rows of an (N, ...) tensor that have a target, (M, ...)."""
        ...


@dataclass(frozen=True)
class Metric:
    """A figure by which outputs are judged.

    Args:
        name: what records call it: `val_<name>`, `test_<name>`.
        direction: whether more ("max") or less ("min") is better.
        unit: "fraction", 0 to 1 and shown in per cent, or "value", in the target's own unit or in none.
        finish: makes the figure, a scalar, of the means over the elements of what `Task.measure` summed; by default it
            is the mean of the metric's own name.

    """

    name: str
    direction: Direction
    unit: Unit
    finish: Callable[[Means], Tensor] | None = None

    def of(self, means: Means) -> Tensor:
        """Return the figure, a scalar, from the means over the elements."""
        return means[self.name] if self.finish is None else self.finish(means)


class Task(ABC):
    """What the output of a net means.

    outputs: the readout's width: classes, or values to be predicted.
    metrics: the figures by which it is judged, the first one being what a run is watched by.
    adds_up: whether outputs of several predictors are evidence that adds up (logits), or predictions to be averaged.
    has_classes: whether the target is one of `outputs` classes, so that there are wrong ones to be told from it.
    per_position: whether there is an output and a target at each position of a sequence, (N, T, outputs).

    An element is what has a loss of its own: a row with a target, or where `per_position` each of its positions. A task
    is compared by its options and holds no tensor; it is frozen.
    """

    outputs: int
    metrics: tuple[Metric, ...]
    adds_up: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    per_position: ClassVar[bool] = False

    @property
    def exclusive(self) -> bool:
        """Whether an element's target is the number of one of the outputs, class or token, all others being wrong."""
        return self.has_classes

    @abstractmethod
    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, (..., M), of outputs (..., M, outputs) and their targets, (M, ...).

        Of positions (..., M, T), of outputs (..., M, T, outputs).
        """

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """Return the targets in the output's space, (M, ..., outputs), floating-point; zeros for what does not count."""

    @abstractmethod
    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return sums over the elements by name, `loss` among them, and the number of elements, a scalar.

        Args:
            output: (M, outputs).
            target: (M, ...); there may be none, and the sums are zero then.

        Returns:
            The sums, each a scalar or a vector, and their number, all on the output's device; nothing waits for it.

        """

    def check_target(self, what: str, target: Tensor) -> None:
        """Raise UserError unless targets are what the task takes: by default finite values, (N, outputs).

        what: names them in messages.
        """
        if not target.is_floating_point() or target.ndim != 2 or target.shape[1] != self.outputs:
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; floating-point (N, {self.outputs}) is expected for {self}")
        bad = target.numel() - int(torch.isfinite(target).sum())
        if bad:
            raise UserError(f"{what} holds {bad} of {target.numel()} values that are NaN or infinite")

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `losses`, a scalar; a task overrides it where one kernel does both."""
        return self.losses(output, target).mean()

    def counted(self, target: Tensor) -> Tensor | None:
        """Return which elements count, bool, for targets (M, ...) whose elements do not all; None: all of them do.

        A task of positions, some of which are padding, returns (M, T). What does not count has a loss of zero.
        """
        return None

    def row_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return each row's loss for several outputs of the same rows, (S, M); their mean over the rows is `mean_loss`.

        Of a row of many elements it is the sum of what they have in the mean of all, times M.

        Args:
            outputs: (S, M, ..., outputs).
            target: (M, ...).

        """
        losses, counted = self.losses(outputs, target), self.counted(target)
        if losses.dim() == 2:
            return losses
        if counted is None:
            return losses.flatten(2).mean(2)
        return losses.flatten(2).sum(2) * (len(target) / counted.sum().clamp_min(1))

    def loss(self, output: Tensor, batch: Targets) -> Tensor:
        """Return the mean loss, a scalar, of (N, outputs) outputs over the rows of a batch that have a target."""
        return self.mean_loss(batch.select(output), batch.target)

    def error(self, output: Tensor, batch: Targets) -> tuple[Tensor, Tensor]:
        """Return the mean loss, a detached scalar, and the error e = d loss / d output, (N, outputs).

        e is zero in rows without a target.
        """
        output = output.detach().requires_grad_()
        loss = self.loss(output, batch)
        (error,) = torch.autograd.grad(loss, output)
        return loss.detach(), error

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return what several predictors' outputs, each (N, outputs), say together: by default their mean."""
        return torch.stack(list(outputs)).mean(0)

    def finish(self, means: Means) -> dict[str, Tensor]:
        """Return the loss and each metric, scalars by name, from the means over all elements."""
        return {"loss": means["loss"], **{metric.name: metric.of(means) for metric in self.metrics}}

    def describe(self) -> dict[str, Any]:
        """Return the task's kind and its options, as plain values, from which `read_task` makes it again."""
        options: Any = self  # which a task has as a dataclass
        return {"kind": type(self).__name__, **{field.name: getattr(self, field.name) for field in fields(options)}}

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name; None where there is no such metric."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def direction(self, name: str) -> Direction:
        """Return whether more or less of a figure, `loss` or a metric, is better."""
        metric = self.metric(name)
        return "min" if metric is None else metric.direction


def better(direction: Direction, one: Any, other: Any) -> bool:
    """Whether one figure is better than another."""
    return one > other if direction == "max" else one < other
