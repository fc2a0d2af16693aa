"""Optimization: checks that optimizers and schedules can be built and stepped, and schedules of localearn's own.

`CoolDown`, `FractionSteps` and `StepWithDecay` are LRSchedulers for torch optimizers, stepped once an epoch.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from localearn.errors import UserError

MAX_TRIED_EPOCHS = 10_000  # of a schedule; trying more takes seconds


def check_optimization(
    optim: Callable[..., Any], schedule: Callable[..., Any] | None, device: torch.device, epochs: int = 1
) -> None:
    """Check that an optimizer and a schedule can be built and stepped, on a parameter of one value.

    Args:
        optim: A torch.optim class with its options bound.
        schedule: A torch.optim.lr_scheduler class with its options bound, or None.
        device: The device of the parameter.
        epochs: How often the schedule will be stepped; at most MAX_TRIED_EPOCHS are tried.

    Raises:
        UserError: Where one of them raises an error.

    """
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    with _reraised("optim"):
        optimizer = optim([parameter])
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"optim returns a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    with _reraised("schedule"):
        stepped = schedule(optimizer) if schedule else None
        if schedule and not isinstance(stepped, LRScheduler):
            raise UserError(f"schedule returns a {type(stepped).__name__}, not a torch.optim.lr_scheduler.LRScheduler")
    with _reraised("optim"):
        optimizer.step()
    if stepped is None:
        return
    for epoch in range(min(epochs, MAX_TRIED_EPOCHS)):
        with _reraised("schedule", f" in epoch {epoch + 1} of {epochs}" if epoch else ""):
            step_schedule(stepped, {"val_loss": 1.0})


def step_schedule(schedule: LRScheduler, metrics: dict[str, Any]) -> None:
    """Step a schedule at the end of an epoch.

    Args:
        schedule: The schedule.
        metrics: The epoch's metrics, of which `ReduceLROnPlateau` is passed `val_loss`.

    """
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(metrics["val_loss"])
    else:
        schedule.step()


@contextlib.contextmanager
def _reraised(what: str, when: str = "") -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # which torch raises for a wrong option
        raise UserError(f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}{when}") from error


class CoolDown(LRScheduler):
    """Keep the learning rate constant for a fraction of the epochs, then decrease it linearly to 0 after the last one.

    The learning rate of epoch e, counted from 0, is lr * min(1, (epochs - e) / (epochs * (1 - start))).

    Args:
        optimizer: The optimizer.
        epochs: The epochs of the run, 1 or more.
        start: The fraction of the epochs after which the learning rate falls, in [0, 1).

    Raises:
        UserError: For values out of these ranges.

    """

    def __init__(self, optimizer: Optimizer, epochs: int, start: float = 0.5):
        if epochs < 1 or not 0 <= start < 1:
            raise UserError(f"cool_down needs epochs >= 1 and a start in [0, 1), not {epochs} and {start}")
        self.epochs, self.start = epochs, start
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group in the epoch that begins."""
        left = max(self.epochs - self.last_epoch, 0) / (self.epochs * (1 - self.start))
        return [lr * min(1.0, left) for lr in self.base_lrs]


class FractionSteps(MultiStepLR):
    """Multiply the learning rate by gamma after each of some fractions of the epochs, rounded to whole epochs.

    Args:
        optimizer: The optimizer.
        epochs: The epochs of the run, 1 or more.
        fractions: Fractions of them, in (0, 1).
        gamma: The factor at each.

    Raises:
        UserError: For values out of these ranges.

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
        # After the first epoch at the earliest: a milestone at 0 would multiply the initial learning rate.
        super().__init__(optimizer, [max(1, math.floor(epochs * part + 0.5)) for part in fractions], gamma)


class StepWithDecay(MultiStepLR):
    """Multiply the learning rate by gamma at each milestone, and the weight decay once, after decay_epochs.

    Product feedback alignment starts with a strong decay, by which its matrices forget their initial values. The decay
    is in the optimizer's parameter groups, and so is saved and resumed with them.

    Args:
        optimizer: The optimizer.
        milestones: The epochs after which the learning rate is multiplied.
        gamma: The factor of the learning rate.
        decay_gamma: The factor of the weight decay.
        decay_epochs: The epochs after which the weight decay is multiplied, 1 or more.

    Raises:
        UserError: For fewer `decay_epochs`.

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
        """Step at the end of an epoch."""
        super().step(epoch)
        if self.last_epoch == self.decay_epochs:
            for group in self.optimizer.param_groups:
                group["weight_decay"] *= self.decay_gamma
