"""Tasks and metrics: the meaning of a net's output, its loss, and the figures by which it is judged.

`Task` is the base class, `Metric` a figure that it reports, `Targets` the part of a batch that it reads; `exact` and
`better` are helpers for sums and for comparing figures. A rule, the training loop, a record and a search all ask the
task; none of them names a class or a loss.

Example:
    A task of your own:

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
    """Describe the part of a batch that a task reads: its targets, and the rows of an output that they belong to."""

    @property
    def target(self) -> Tensor:
        """The targets, (M, ...)."""
        ...

    def select(self, per_row: Tensor) -> Tensor:
        """Return the rows of an (N, ...) tensor that have a target, (M, ...)."""
        ...


@dataclass(frozen=True)
class Metric:
    """Describe a figure by which outputs are judged.

    Args:
        name: the metric's name in records: `val_<name>`, `test_<name>`.
        direction: whether more ("max") or less ("min") is better.
        unit: "fraction", 0 to 1 and shown in per cent, or "value", in the target's own unit or in none.
        finish: computes the figure, a scalar, from the means over the elements of the sums of `Task.measure`; by
            default the figure is the mean of the metric's own name.
        whole: computes the figure, a scalar, from the outputs (M, outputs) and the targets (M, ...) of a whole split,
            in any order of the rows and on their device: for a figure that is no mean over elements, such as the area
            under a ROC curve. Outputs and targets are held until the split is through, so prefer sums where they
            suffice.

    """

    name: str
    direction: Direction
    unit: Unit
    finish: Callable[[Means], Tensor] | None = None
    whole: Whole | None = None

    def of(self, means: Means) -> Tensor:
        """Compute the figure, a scalar, from the means over the elements."""
        return means[self.name] if self.finish is None else self.finish(means)


class Task(ABC):
    """Define the meaning of a net's output: its loss, its metrics, and the encoding of its targets.

    An element is what has a loss of its own: a row with a target or, where `per_position` and not `pools_positions`,
    each of its positions. A task is frozen, is compared by its options and holds no tensor.

    Attributes:
        outputs: the readout's width: classes, or values to be predicted.
        metrics: the figures by which the output is judged; a run is watched by the first one.
        adds_up: whether the outputs of several predictors are evidence that adds up (logits), or predictions to
            average.
        has_classes: whether the target is one of `outputs` classes, so that all others are wrong ones.
        per_position: whether there is an output and a target at each position of a sequence, (N, T, outputs).
        pools_positions: whether the outputs at a row's positions have one target and one loss together, as the points
            of a ray have a pixel; a position then has no target of its own, and nothing to `encode`.
        target_is_input: whether the target is the row itself as the net is given it, (M, outputs), so that the data
            hold no targets.
        of_pairs: whether an element is a pair of rows, so that the selected part of an output is (M, 2, outputs).
        target_dtype: the dtype of the targets: torch.float32, or torch.int64 of ids.

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
        """Whether an element's target is the index of one output, a class or a token, all others being wrong."""
        return self.has_classes

    @abstractmethod
    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each element, without reducing over elements.

        Args:
            output: (..., M, outputs); of positions (..., M, T, outputs). Leading dimensions are copies of the same
                rows.
            target: (M, ...).

        Returns:
            The losses, (..., M); of positions (..., M, T).

        """

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """Return the targets in the output's space, (M, ..., outputs), floating-point; zeros where none counts."""

    def regressand(self, target: Tensor) -> Tensor:
        """Return the values that an output fitted by least squares should have, (M, outputs): `encode` by default.

        For logits of independent labels they are 4 (y - 1/2), whose sigmoid is y to first order about 1/2.
        """
        return self.encode(target)

    @abstractmethod
    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the loss and the metrics over the elements of a batch.

        Args:
            output: (M, outputs).
            target: (M, ...); M may be 0, and the sums are zero then.

        Returns:
            The sums by name, `loss` among them, each a scalar or a vector, and the number of elements, a scalar; all on
            the output's device, without a host synchronisation.

        """

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are valid: by default finite values, (N, outputs), or (N,) of a single output.

        Args:
            what: the name of the targets in error messages.
            target: the targets.

        Raises:
            UserError: for another dtype or shape, and for values that are NaN or infinite.

        """
        fits = (target.ndim == 2 and target.shape[1] == self.outputs) or (target.ndim == 1 and self.outputs == 1)
        if not (target.is_floating_point() and fits):
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; floating-point (N, {self.outputs}) is expected for {self}")
        bad = target.numel() - int(torch.isfinite(target).sum())
        if bad:
            raise UserError(f"{what} holds {bad} of {target.numel()} values that are NaN or infinite")

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Check that training targets are not all the same, so that there is something to learn.

        Args:
            what: the name of the targets in error messages.
            target: targets that `check_target` has passed; a single row is not yet a constant.

        Raises:
            UserError: where the target is the same in every row.

        """
        if len(target) > 1 and bool((target.amin(0) == target.amax(0)).all()):
            constant = self.decode(target[:1]).flatten()
            value = f"{constant[0].item():.6g}" if len(constant) == 1 else "the same"
            raise UserError(f"{what} is {value} in every row, so there is nothing to learn")

    def decode(self, output: Tensor) -> Tensor:
        """Return outputs, (N, outputs), in the unit that the targets were given in: by default unchanged."""
        return output

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `losses`, a scalar; overridden where one fused kernel computes both."""
        return self.losses(output, target).mean()

    def counted(self, target: Tensor) -> Tensor | None:
        """Return a mask of the elements that count, for targets (M, ...), or None where all of them do.

        A task of positions, some of which are padding, returns (M, T) bool. An element that does not count has loss
        zero.
        """
        return None

    def row_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute each row's loss for several outputs of the same rows; its mean over the rows is `mean_loss`.

        The loss of a row of many elements is M times the sum of their shares in the mean over all elements.

        Args:
            outputs: (S, M, ..., outputs).
            target: (M, ...).

        Returns:
            The losses, (S, M).

        """
        losses, counted = self.losses(outputs, target), self.counted(target)
        if losses.dim() == 2:
            return losses
        if counted is None:
            return losses.flatten(2).mean(2)
        return losses.flatten(2).sum(2) * (len(target) / counted.sum().clamp_min(1))

    def loss(self, output: Tensor, batch: Targets) -> Tensor:
        """Return the mean loss, a scalar, over the rows of a batch that have a target.

        Args:
            output: (N, outputs).
            batch: the batch, which selects the rows and holds their targets.

        """
        return self.mean_loss(batch.select(output), batch.target)

    def error(self, output: Tensor, batch: Targets) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient with respect to the output.

        Args:
            output: (N, outputs); it is detached.
            batch: the batch, which selects the rows and holds their targets.

        Returns:
            The mean loss, a detached scalar, and the error e = d loss / d output, (N, outputs), zero in rows without a
            target.

        """
        output = output.detach().requires_grad_()
        loss = self.loss(output, batch)
        (error,) = torch.autograd.grad(loss, output)
        return loss.detach(), error

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Combine the outputs of several predictors, each (N, outputs), into one: by default their mean."""
        return torch.stack(list(outputs)).mean(0)

    @property
    def needs_whole(self) -> bool:
        """Whether a metric is computed from all outputs and targets of a split at once."""
        return any(metric.whole is not None for metric in self.metrics)

    def finish(self, means: Means, output: Tensor | None = None, target: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss and each metric, scalars by name.

        Args:
            means: the sums of `measure` divided by the number of elements, over all of a split.
            output: (M, outputs), of the whole split, where `needs_whole`.
            target: (M, ...), likewise.

        Raises:
            ValueError: where a metric needs the whole split and it is not given.

        """
        found = {"loss": means["loss"]}
        for metric in self.metrics:
            if metric.whole is None:
                found[metric.name] = metric.of(means)
            elif output is None or target is None:
                raise ValueError(f"{metric.name} needs all outputs and targets of a split, which are missing")
            else:
                found[metric.name] = metric.whole(output, target)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the task's kind and options as plain values, from which `read_task` builds it again."""
        options: Any = self  # which a task has as a dataclass
        return {"kind": type(self).__name__, **{field.name: getattr(self, field.name) for field in fields(options)}}

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name, or None where there is none."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def direction(self, name: str) -> Direction:
        """Return whether more ("max") or less ("min") of a figure, `loss` or a metric, is better."""
        metric = self.metric(name)
        return "min" if metric is None else metric.direction


def exact(*values: Tensor) -> tuple[Tensor, ...]:
    """Convert tensors to float64, so that sums over a split lose nothing that is shown; to float32 on MPS."""
    return tuple(value.to(torch.float32 if value.device.type == "mps" else torch.float64) for value in values)


def better(direction: Direction, one: Any, other: Any) -> bool:
    """Return whether one figure is better than another.

    Args:
        direction: "max" where more is better, "min" where less is.
        one: a figure.
        other: the figure that it is compared with.

    """
    return one > other if direction == "max" else one < other
