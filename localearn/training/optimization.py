"""Optimizers and schedules: whether they can be built, and how a schedule steps."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from localearn.errors import UserError

TRIED_EPOCHS = 10_000  # of a schedule; what is longer than that takes seconds to try


def check_optimization(
    optim: Callable[..., Any], schedule: Callable[..., Any] | None, device: torch.device, epochs: int = 1
) -> None:
    """Raise UserError unless an optimizer and a schedule can be built and stepped, on a parameter of one value.

    Args:
        optim: a torch.optim class with its options bound.
        schedule: a torch.optim.lr_scheduler class with its options bound, or None.
        device: where the parameter is.
        epochs: how often the schedule will be stepped.

    """
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    with _told("optim"):
        optimizer = optim([parameter])
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"optim gives a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    with _told("schedule"):
        stepped = schedule(optimizer) if schedule else None
        if schedule and not isinstance(stepped, LRScheduler):
            raise UserError(f"schedule gives a {type(stepped).__name__}, not a torch.optim.lr_scheduler.LRScheduler")
    with _told("optim"):
        optimizer.step()
    if stepped is None:
        return
    for epoch in range(min(epochs, TRIED_EPOCHS)):
        with _told("schedule", f" in epoch {epoch + 1} of {epochs}" if epoch else ""):
            step_schedule(stepped, {"val_loss": 1.0})


def step_schedule(schedule: LRScheduler, metrics: dict[str, Any]) -> None:
    """Step a schedule at the end of an epoch; one that waits for a plateau is shown the validation loss."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(metrics["val_loss"])
    else:
        schedule.step()


@contextlib.contextmanager
def _told(what: str, when: str = "") -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # torch's ways to refuse an option
        raise UserError(f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}{when}") from error


class CoolDown(LRScheduler):
    """Keeps each group's rate for a part of the epochs, then lets it fall along a line that meets 0 after the last one.

    epochs: how many there are. start: the part of them, in [0, 1), after which the rate falls.
    Stepped once an epoch: the rate of epoch e, counted from 0, is lr * min(1, (epochs - e) / (epochs * (1 - start))).
    """

    def __init__(self, optimizer: Optimizer, epochs: int, start: float = 0.5):
        if epochs < 1 or not 0 <= start < 1:
            raise UserError(f"cool_down needs epochs >= 1 and a start in [0, 1), not {epochs} and {start}")
        self.epochs, self.start = epochs, start
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group in the epoch that begins."""
        left = max(self.epochs - self.last_epoch, 0) / (self.epochs * (1 - self.start))
        return [rate * min(1.0, left) for rate in self.base_lrs]


class FractionSteps(MultiStepLR):
    """The rate is multiplied by gamma after each of some fractions of the epochs, rounded to whole ones.

    epochs: how many there are. fractions: parts of them, in (0, 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        fractions: Sequence[float] = (0.5, 0.75, 0.875, 0.9375),
        gamma: float = 0.25,
    ):
        if epochs < 1 or not all(0 < part < 1 for part in fractions):
            raise UserError(
                f"fractions needs epochs >= 1 and fractions between 0 and 1, not {epochs} and {list(fractions)}"
            )
        # After the first epoch at the earliest, for a milestone at 0 would multiply the rate that training begins with.
        super().__init__(optimizer, [max(1, math.floor(epochs * part + 0.5)) for part in fractions], gamma)


class StepWithDecay(MultiStepLR):
    """The rate is multiplied by gamma at each milestone, and the weight decay once by decay_gamma, after decay_epochs.

    Product feedback alignment begins with a strong decay, which makes its matrices forget how they were drawn. The
    decay stands in the optimizer's parameter groups and is saved and resumed with them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        decay_gamma: float = 0.02,
        decay_epochs: int = 1,
    ):
        if decay_epochs < 1:
            raise UserError(f"decay_epochs must be 1 or more, not {decay_epochs}")
        self.decay_gamma, self.decay_epochs = decay_gamma, decay_epochs
        super().__init__(optimizer, list(milestones), gamma)

    def step(self, epoch: int | None = None) -> None:
        """End an epoch."""
        super().step(epoch)
        if self.last_epoch == self.decay_epochs:
            for group in self.optimizer.param_groups:
                group["weight_decay"] *= self.decay_gamma
