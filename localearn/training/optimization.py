"""Optimizers and schedules: whether they can be built, and how a schedule steps."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

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
