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
import torch.nn.functional as F
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

    An element is what has a loss of its own: here a row with a target. A task is compared by its options and holds no
    tensor; it is frozen.
    """

    outputs: int
    metrics: tuple[Metric, ...]
    adds_up: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False

    @abstractmethod
    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each element, (..., M), of outputs (..., M, outputs) and their targets, (M, ...)."""

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """Return the targets in the output's space, (M, outputs), floating-point."""

    @abstractmethod
    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return sums over the elements by name, `loss` among them, and the number of elements, a scalar.

        Args:
            output: (M, outputs).
            target: (M, ...); there may be none, and the sums are zero then.

        Returns:
            The sums, each a scalar or a vector, and their number, all on the output's device; nothing waits for it.

        """

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `losses`, a scalar; a task overrides it where one kernel does both."""
        return self.losses(output, target).mean()

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


@dataclass(frozen=True)
class Classification(Task):
    """The output is (M, C) logits, the target a label, (M,) int64 in 0..C-1; the loss is the cross-entropy."""

    outputs: int
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "max", "fraction"),)
    adds_up: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each row, (..., M)."""
        labels = target.expand(output.shape[:-1])
        return F.cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="none").view_as(labels)

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, a scalar."""
        return F.cross_entropy(output, target)

    def encode(self, target: Tensor) -> Tensor:
        """Return the labels as one-hot rows, (M, C) float32, without waiting for the device."""
        return (target.unsqueeze(-1) == torch.arange(self.outputs, device=target.device)).float()

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sums of the cross-entropies and of the rows whose largest logit is their label's, in float32."""
        loss = F.cross_entropy(output, target, reduction="sum")
        hits = (output.argmax(1) == target).sum().to(loss.dtype)
        return {"loss": loss, "accuracy": hits}, torch.full_like(loss, len(target))

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the log of the sum of the predictors' class probabilities, (N, C)."""
        return torch.stack([logits.log_softmax(1) for logits in outputs]).logsumexp(0)


Criterion = Literal["squared", "absolute", "huber"]


@dataclass(frozen=True)
class Regression(Task):
    """The output is (M, D) values, the target the values themselves, (M, D) or, where D = 1, (M,).

        squared     L_i = mean_d (o - y)^2
        absolute    L_i = mean_d |o - y|
        huber       L_i = mean_d of (o - y)^2 / 2 where |o - y| < delta, else of delta (|o - y| - delta / 2)

    Metrics are means over the outputs: `rmse` = sqrt(mean (o - y)^2), `mae` = mean |o - y|, both in the unit that the
    targets had before they were standardised, and `r2` = 1 - mean (o - y)^2 / variance of y, which is 0 for the best
    constant (and where y does not vary, unless it is met).

    Args:
        outputs: D.
        criterion: the loss that is trained for.
        delta: where huber's loss turns from a square into a line, in the unit of the standardised targets.
        center: what was subtracted from each target, (D,); nothing where it is empty.
        scale: what each target was then divided by, (D,); nothing where it is empty.

    """

    outputs: int = 1
    criterion: Criterion = "squared"
    delta: float = 1.0
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"a regression has 1 output or more, not {self.outputs}")
        if self.criterion not in ("squared", "absolute", "huber"):
            raise UserError(f"criterion must be squared, absolute or huber, not {self.criterion!r}")
        if not self.delta > 0:
            raise UserError(f"delta must be positive, not {self.delta}")
        for name, values in (("center", self.center), ("scale", self.scale)):
            if len(values) not in (0, self.outputs):
                raise UserError(f"{name} has {len(values)} values for {self.outputs} outputs; give one for each")
        if not all(value > 0 for value in self.scale):
            raise UserError(f"scale must be positive, not {self.scale}")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; the first one is what a run is watched by."""
        return (
            Metric("rmse", "min", "value", self._rmse),
            Metric("mae", "min", "value", self._mae),
            Metric("r2", "max", "value", _r2),
        )

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (..., M), a mean over its outputs; in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        values = self.encode(target).to(output.dtype).expand_as(output)
        if self.criterion == "squared":
            return (output - values).square().mean(-1)
        if self.criterion == "absolute":
            return (output - values).abs().mean(-1)
        return F.huber_loss(output, values, reduction="none", delta=self.delta).mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Return the targets themselves, (M, D)."""
        return target if target.dim() > 1 else target.unsqueeze(-1)

    def decode(self, output: Tensor) -> Tensor:
        """Return (N, D) outputs in the unit that the targets had before they were standardised."""
        return output * self._of_outputs(self.scale, 1.0, output) + self._of_outputs(self.center, 0.0, output)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sums of the losses and, for each output, of |o - y|, (o - y)^2, y and y^2; in float64."""
        # MPS has no float64.
        dtype = torch.float32 if output.device.type == "mps" else torch.float64
        output, values = output.to(dtype), self.encode(target).to(dtype)
        error = output - values
        sums = {
            "loss": self.losses(output, target).sum(),
            "absolute": error.abs().sum(0),
            "squared": error.square().sum(0),
            "y": values.sum(0),
            "y_squared": values.square().sum(0),
        }
        return sums, torch.full_like(sums["loss"], len(target))

    def _rmse(self, means: Means) -> Tensor:
        return (means["squared"].sqrt() * self._of_outputs(self.scale, 1.0, means["squared"])).mean()

    def _mae(self, means: Means) -> Tensor:
        return (means["absolute"] * self._of_outputs(self.scale, 1.0, means["absolute"])).mean()

    def _of_outputs(self, values: tuple[float, ...], default: float, like: Tensor) -> Tensor:
        return like.new_tensor(values or (default,) * self.outputs)


def _r2(means: Means) -> Tensor:
    error, mean, square = means["squared"], means["y"], means["y_squared"]
    variance = square - mean.square()
    varies = variance > 4 * torch.finfo(square.dtype).eps * square  # else it is rounding
    constant = (error == 0).to(error.dtype)
    return torch.where(varies, 1 - error / torch.where(varies, variance, 1), constant).mean()


KINDS: Mapping[str, type[Task]] = {"Classification": Classification, "Regression": Regression}


def read_task(where: object, described: Any) -> Task:
    """Return the task that `Task.describe` described, of one of localearn's own kinds.

    Args:
        where: the file that it stands in, for messages.
        described: its kind and options, as a file gives them back.

    Raises:
        UserError: for another kind, or options that it does not have.

    """
    kind = described.get("kind") if isinstance(described, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: its task is {kind!r}; there are {', '.join(KINDS)}")
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in described.items() if name != "kind"}
    try:
        return KINDS[kind](**options)
    except TypeError as error:
        raise UserError(f"{where}: its task is no {kind}: {error}") from error


def better(direction: Direction, one: Any, other: Any) -> bool:
    """Whether one figure is better than another."""
    return one > other if direction == "max" else one < other
