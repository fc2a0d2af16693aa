"""Evaluation of a split, the monitored metric, and early stopping by it."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data, Split
from localearn.errors import UserError, suggestion
from localearn.nets.physical import drifting
from localearn.tasks import Direction, Task
from localearn.training.generator import give_way

Measure = Callable[[Batch], tuple[Tensor, Tensor | None]]


def measure_of(scores: Callable[..., Tensor], autocast: torch.autocast, task: Task) -> Measure:
    """Return a function from a batch to the sums of a task's metrics.

    Args:
        scores: Returns the (N, outputs) scores of rows x and their context.
        autocast: The context of the run's precision.
        task: The task that measures the scores.

    Returns:
        A function of a batch that returns the sums and the number of elements in one vector, and the outputs
        themselves, (M, outputs), where the task needs them whole, else None.

    """

    def measure(batch: Batch) -> tuple[Tensor, Tensor | None]:
        with autocast:
            rows = batch.select(scores(batch.x, *batch.context)).float()
        return _in_a_row(*task.measure(rows, batch.target)), rows if task.needs_whole else None

    return measure


@torch.no_grad()
def evaluate(
    measure: Measure,
    task: Task,
    data: Data,
    split: Split,
    batch_size: int,
    add: Callable[[list[Tensor]], None],
    join: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, float]:
    """Return the mean `loss` and the task's metrics, by name, over a split, with one read of the device.

    Args:
        measure: The function that `measure_of` returned.
        task: The task that it measures by.
        data: The data set, or this rank's part of its rows.
        split: "train", "val" or "test".
        batch_size: Rows a step, 1 or more.
        add: Sums the tensors over the ranks, in place, where the data are one rank's part of the rows.
        join: Returns the rows of all ranks, in any order but the same for outputs and targets.

    """
    nothing: dict[str, Tensor] = {}
    totals: Tensor | None = None
    whole: list[tuple[Tensor, Tensor]] = []  # outputs and targets
    for batch in data.batches(split, batch_size):
        if totals is None:  # of no rows, for a rank may have none: the names, shapes and dtype of the task's sums
            positions = batch.target.shape[1:] if task.per_position else (2,) if task.of_pairs else ()
            positions = (1,) if task.pools_positions else positions
            empty = torch.zeros(0, *positions, task.outputs, device=batch.target.device)
            nothing, elements = task.measure(empty, batch.target[:0])
            totals = _in_a_row(nothing, elements)
            whole = [(empty, batch.target[:0])]
        if len(batch.target):
            sums, output = measure(batch)
            totals = totals + sums
            if output is not None:  # copied, for a replayed graph writes its next batch's there
                whole.append((output.clone(), batch.target))
        give_way()
    assert totals is not None
    add([totals])
    means = (totals[:-1] / totals[-1]).split([value.numel() for value in nothing.values()])
    shaped = {name: mean.view(nothing[name].shape) for name, mean in zip(nothing, means, strict=True)}
    if task.needs_whole:
        figures = task.finish(shaped, *(join(torch.cat(part)) for part in zip(*(whole[1:] or whole), strict=True)))
    else:
        figures = task.finish(shaped)
    return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))


def _in_a_row(sums: dict[str, Tensor], elements: Tensor) -> Tensor:
    return torch.cat([value.reshape(-1) for value in (*sums.values(), elements)])


FORMER_DEFAULT = "val_accuracy"


def monitored(monitor: str | None, task: Task) -> tuple[str, Direction]:
    """Return the figure of a metrics line that a run is monitored by, and which way it is better.

    Args:
        monitor: "val_" and `loss` or a metric of the task; None is its first metric. So is the validation accuracy for
            a task that has none, which is the default in files of former versions.
        task: The task that the run is trained for.

    Raises:
        UserError: For another figure, with those that there are.

    """
    if monitor is None or (monitor == FORMER_DEFAULT and task.metric("accuracy") is None):
        monitor = f"val_{task.metrics[0].name}"
    name = monitor.removeprefix("val_")
    if not monitor.startswith("val_") or (name != "loss" and task.metric(name) is None):
        known = [*(f"val_{metric.name}" for metric in task.metrics), "val_loss"]
        told = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"monitor must be {told}, not {monitor!r}{suggestion(monitor, known)}")
    return f"val_{name}", task.direction(name)


class EarlyStopping:
    """Early stopping of a phase by a validation figure, with the weights of its best epoch.

    Args:
        monitor: The figure's name in a metrics line.
        patience: Epochs in a row without an improvement after which it is `done`, 1 or more; None is never.
        min_delta: The least change, in the figure's unit, that counts as an improvement.
        keep: Whether to store the best weights, in host memory, where they do not count as the rule's.
        direction: "max" where the greatest figure is best, "min" where the least is; by default "min" for a loss and
            "max" for all else.

    """

    def __init__(
        self,
        monitor: str,
        patience: int | None,
        min_delta: float,
        *,
        keep: bool,
        direction: Direction | None = None,
    ):
        self.monitor, self.patience, self.min_delta, self.keep = monitor, patience, min_delta, keep
        direction = direction or ("min" if monitor.endswith("loss") else "max")
        self.sign = -1 if direction == "min" else 1
        self.best_score = -math.inf
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.reference = -math.inf  # what an epoch must beat by min_delta to count as an improvement
        self.stale = 0

    def update(self, metrics: dict[str, Any], epoch: int, module: nn.Module) -> None:
        """Update by the metrics of an epoch.

        Args:
            metrics: The epoch's line of metrics.
            epoch: Its number in the phase, from 1.
            module: The module as the epoch left it.

        """
        score = self.sign * metrics[self.monitor]
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            if self.keep:
                self.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}
        if score > self.reference + self.min_delta:
            self.reference, self.stale = score, 0
        else:
            self.stale += 1

    @property
    def done(self) -> bool:
        """Return whether patience has run out."""
        return self.patience is not None and self.stale >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Load the best weights into the module, if they were stored; what drifts by itself is left as it is now."""
        if self.best_weights is not None:
            now = {f"{name}.coupling": system.coupling for name, system in drifting(module).items()}
            module.load_state_dict(self.best_weights | now)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        names = ("best_score", "best_epoch", "best_weights", "reference", "stale")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned; weights go to host memory."""
        for name, value in state.items():
            setattr(self, name, value)
        if self.best_weights is not None:
            self.best_weights = {k: v.cpu() for k, v in self.best_weights.items()}
