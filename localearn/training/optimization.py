"""Optimizers and schedules: whether they can be built, and how a schedule steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from localearn.errors import UserError

_WRONG = (TypeError, ValueError, ArithmeticError, RuntimeError)  # what torch raises for options that it cannot use


def check_optimization(optim: Callable[..., Any], schedule: Callable[..., Any] | None, device: torch.device) -> None:
    """Raise UserError unless an optimizer and a schedule can be built and stepped, on a parameter of one value."""
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer = optim([parameter])
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"optim gives a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    except _WRONG as error:
        raise UserError(f"optim: {_first_line(error)}") from error
    try:
        stepped = schedule(optimizer) if schedule else None
    except _WRONG as error:
        raise UserError(f"schedule: {_first_line(error)}") from error
    if stepped is not None and not isinstance(stepped, LRScheduler):
        raise UserError(f"schedule gives a {type(stepped).__name__}, not a torch.optim.lr_scheduler.LRScheduler")
    try:
        optimizer.step()
    except _WRONG as error:
        raise UserError(f"optim: {_first_line(error)}") from error
    try:
        if stepped is not None:
            step_schedule(stepped, {"val_loss": 1.0})
    except _WRONG as error:
        raise UserError(f"schedule: {_first_line(error)}") from error


def step_schedule(schedule: Any, metrics: dict[str, Any]) -> None:
    """Step a schedule at the end of an epoch; one that waits for a plateau is shown the validation loss."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(metrics["val_loss"])
    else:
        schedule.step()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
