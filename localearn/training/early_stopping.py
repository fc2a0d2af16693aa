"""Early stopping of a phase by a monitored figure, and the weights of its best epoch."""

import math
from typing import Any

import torch
from torch import nn

from localearn.errors import UserError, suggestion
from localearn.nets.physical import drifting
from localearn.tasks import Direction, Task

FORMER_DEFAULT = "val_accuracy"


class EarlyStopping:
    """Early stopping of a phase by a validation figure, with the weights of its best epoch.

    Args:
        monitor: The figure's name in a metrics line.
        patience: Epochs in a row without an improvement after which it is `done`, 1 or more; None is never.
        min_delta: The least change, in the figure's unit, that counts as an improvement.
        keep: Whether to store the best weights, in host memory, so that they do not count as the rule's memory.
        direction: "max" where the largest figure is best, "min" where the smallest is; by default "min" for a loss and
            "max" for anything else.

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
        """Load the best weights into the module, if they were stored, but not into simulated systems, which drift.

        Args:
            module: The module that `update` was given.

        """
        if self.best_weights is not None:
            now = {f"{name}.coupling": system.coupling for name, system in drifting(module).items()}
            module.load_state_dict(self.best_weights | now)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        names = ("best_score", "best_epoch", "best_weights", "reference", "stale")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, its weights in host memory.

        Args:
            state: What `state_dict` returned.

        """
        for name, value in state.items():
            setattr(self, name, value)
        if self.best_weights is not None:
            self.best_weights = {k: v.cpu() for k, v in self.best_weights.items()}


def monitored(monitor: str | None, task: Task) -> tuple[str, Direction]:
    """Return the figure of a metrics line that early stopping monitors, and its direction, "max" or "min".

    Args:
        monitor: "val_" and `loss` or a metric of the task. None is the task's first metric, and so is "val_accuracy"
            for a task without an accuracy, since it was the default in files of former versions.
        task: The task that the run is trained for.

    Raises:
        UserError: For another figure, with the choices.

    """
    if monitor is None or (monitor == FORMER_DEFAULT and task.metric("accuracy") is None):
        monitor = f"val_{task.metrics[0].name}"
    name = monitor.removeprefix("val_")
    if not monitor.startswith("val_") or (name != "loss" and task.metric(name) is None):
        known = [*(f"val_{metric.name}" for metric in task.metrics), "val_loss"]
        choices = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"monitor must be {choices}, not {monitor!r}{suggestion(monitor, known)}")
    return f"val_{name}", task.direction(name)
