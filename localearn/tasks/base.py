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
Whole = Callable[[Tensor, Tensor], Tensor]


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
        whole: makes the figure, a scalar, of the outputs (M, outputs) and targets (M, ...) of a whole split at once, in
            any order of the rows and on their device: for what is no mean over elements, such as the area under a
            ROC curve. They are held until the split is through, so prefer sums where there are such.

    """

    name: str
    direction: Direction
    unit: Unit
    finish: Callable[[Means], Tensor] | None = None
    whole: Whole | None = None

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
    pools_positions: whether outputs at positions have one target and one loss a row, as points of a ray have a pixel;
        a position has then no target of its own, and nothing to `encode`.
    target_is_input: whether the target is the row itself as the net is given it, (M, outputs), so that data bring none.
    of_pairs: whether an element is a pair of rows, so that what is selected of an output is (M, 2, outputs).
    target_dtype: what numbers targets are: torch.float32, or torch.int64 of ids.

    An element is what has a loss of its own: a row with a target, or where `per_position`, and not
    `pools_positions`, each of its positions. A task
    is compared by its options and holds no tensor; it is frozen.
    """

    outputs: int
    metrics: tuple[Metric, ...]
    adds_up: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    per_position: ClassVar[bool] = False
    pools_positions: ClassVar[bool] = False
    target_is_input: ClassVar[bool] = False
    of_pairs: ClassVar[bool] = False
    target_dtype: ClassVar[torch.dtype] = torch.float32

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
        """Return the targets in the output's space, (M, ..., outputs), floating-point; zeros where none counts."""

    def regressand(self, target: Tensor) -> Tensor:
        """Return what an output that is fitted by least squares is to have, (M, outputs): `encode` by default.

        Of logits of independent labels it is 4 (y - 1/2), whose sigmoid is y to first order about 1/2.
        """
        return self.encode(target)

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

        Of a single output they may be (N,) as well. what: names them in messages.
        """
        fits = (target.ndim == 2 and target.shape[1] == self.outputs) or (target.ndim == 1 and self.outputs == 1)
        if not (target.is_floating_point() and fits):
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; floating-point (N, {self.outputs}) is expected for {self}")
        bad = target.numel() - int(torch.isfinite(target).sum())
        if bad:
            raise UserError(f"{what} holds {bad} of {target.numel()} values that are NaN or infinite")

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Raise UserError where training targets are all the same, so that there is nothing to learn.

        what: names them in messages. target: as `check_target` has passed them; one row is not yet a constant.
        """
        if len(target) > 1 and bool((target.amin(0) == target.amax(0)).all()):
            constant = self.decode(target[:1]).flatten()
            told = f"{constant[0].item():.6g}" if len(constant) == 1 else "the same"
            raise UserError(f"{what} is {told} in every row, so there is nothing to learn")

    def decode(self, output: Tensor) -> Tensor:
        """Return outputs, (N, outputs), in the unit that the targets had as they were given: by default as they are."""
        return output

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

    @property
    def needs_whole(self) -> bool:
        """Whether a metric is made of all outputs and targets of a split at once."""
        return any(metric.whole is not None for metric in self.metrics)

    def finish(self, means: Means, output: Tensor | None = None, target: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss and each metric, scalars by name.

        Args:
            means: over all elements of a split, of what `measure` summed.
            output: (M, outputs), of the whole split, where `needs_whole`.
            target: (M, ...), likewise.

        """
        found = {"loss": means["loss"]}
        for metric in self.metrics:
            if metric.whole is None:
                found[metric.name] = metric.of(means)
            elif output is None or target is None:
                raise ValueError(f"{metric.name} is made of all outputs and targets of a split, which are not given")
            else:
                found[metric.name] = metric.whole(output, target)
        return found

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


def exact(*values: Tensor) -> tuple[Tensor, ...]:
    """Return tensors in float64, in which sums over a split lose nothing that is shown; in float32 on MPS."""
    return tuple(value.to(torch.float32 if value.device.type == "mps" else torch.float64) for value in values)


def better(direction: Direction, one: Any, other: Any) -> bool:
    """Whether one figure is better than another."""
    return one > other if direction == "max" else one < other
