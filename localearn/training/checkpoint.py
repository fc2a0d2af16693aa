"""Checks of what a checkpoint holds, before any of it reaches the optimizer or the loop."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from localearn.errors import UserError

_FACTORED = ("row_var", "col_var")  # Adafactor's, which have one side of their parameter's shape each
_SENSE = "it is damaged, or was written by something else"


def check_optimizer_state(where: object, state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError unless a state fits the optimizer: its groups, its options, and each tensor's shape and dtype.

    A fused optimizer writes through these tensors without a look at their shapes; one of another shape would have it
    write past its end.

    Args:
        where: the checkpoint, for the message.
        state: what `optimizer.state_dict()` gave when the checkpoint was written.
        optimizer: the optimizer that is about to load it.

    """
    own = optimizer.state_dict()
    try:
        groups, tensors = list(state["param_groups"]), dict(state["state"])
        shapes = [list(group["params"]) for group in groups]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: its optimizer's state is none; {_SENSE}") from None
    if shapes != [list(group["params"]) for group in own["param_groups"]]:
        raise UserError(f"{where}: its optimizer's state is not of these parameters; {_SENSE}")
    for index, (saved, present) in enumerate(zip(groups, own["param_groups"], strict=True)):
        _check_group(where, index, saved, present)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in own["param_groups"] for n in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    for number, entries in tensors.items():
        if number not in by_number or not isinstance(entries, Mapping):
            raise UserError(
                f"{where}: its optimizer has a state for parameter {number!r}, which is not there; {_SENSE}"
            )
        for name, value in entries.items():
            _check_tensor(where, f"{name} of parameter {number}", value, by_number[number])


def _check_group(where: object, index: int, saved: Any, own: Mapping[str, Any]) -> None:
    # A schedule keeps its own entries (initial_lr) and changes lr and weight_decay; all else stays as it was built.
    for name, value in own.items():
        if name not in saved:
            raise UserError(f"{where}: its optimizer's group {index} has no {name}; {_SENSE}")
        loaded = saved[name]
        if isinstance(value, bool) or value is None or isinstance(value, str):
            same = loaded == value and type(loaded) is type(value)
        elif isinstance(value, float | int):
            same = isinstance(loaded, float | int) and not isinstance(loaded, bool) and math.isfinite(loaded)
        else:
            same = True
        if not same:
            raise UserError(f"{where}: its optimizer's {name} is {loaded!r} where this one has {value!r}; {_SENSE}")


def _check_tensor(where: object, name: str, value: Any, parameter: Tensor) -> None:
    if not isinstance(value, Tensor):
        if value is None or isinstance(value, bool | int | float):
            return
        raise UserError(f"{where}: its optimizer's {name} is {type(value).__name__}; {_SENSE}")
    if value.dim() == 0 or name.startswith(_FACTORED):
        return
    if value.shape != parameter.shape or value.dtype not in (parameter.dtype, torch.float32):
        raise UserError(
            f"{where}: its optimizer's {name} is {value.dtype} of shape {tuple(value.shape)} where the parameter is "
            f"{parameter.dtype} of {tuple(parameter.shape)}; {_SENSE}"
        )
    if value.layout != torch.strided or not (
        value.is_contiguous() or (value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last))
    ):
        raise UserError(f"{where}: its optimizer's {name} does not lie in memory as it was written; {_SENSE}")


def check_weights(where: object, weights: Any, own: Mapping[str, Any]) -> None:
    """Raise UserError unless saved weights have the names and the shapes of a module's `state_dict()`."""
    if not isinstance(weights, Mapping):
        raise UserError(f"{where}: its weights are {type(weights).__name__}; {_SENSE}")
    for name in own.keys() | weights.keys():
        if name not in own or name not in weights:
            raise UserError(f"{where}: {'it lacks' if name in own else 'it has'} the tensor {name!r}, unlike the net")
        if isinstance(own[name], Tensor) and getattr(weights[name], "shape", None) != own[name].shape:
            shape = tuple(getattr(weights[name], "shape", ()))
            raise UserError(f"{where}: {name} has the shape {shape} where the net's has {tuple(own[name].shape)}")


def check_position(where: object, state: Mapping[str, Any], stages: int) -> None:
    """Raise UserError unless a checkpoint's position, durations and history make sense together.

    Args:
        where: the checkpoint, for the message.
        state: what the checkpoint holds.
        stages: the stages that the rule trains.

    """
    position, history = state["position"], state["history"]
    if not isinstance(position, Mapping) or not isinstance(history, Sequence):
        raise UserError(f"{where}: its position or its history is none; {_SENSE}")
    for name in ("stage", "epoch", "batch"):
        if not _whole(position.get(name)):
            raise UserError(f"{where}: its position has {name}={position.get(name)!r}; {_SENSE}")
    if position["stage"] >= stages:
        raise UserError(f"{where}: it is in stage {position['stage'] + 1} of {stages}; {_SENSE}")
    lines = [line for line in history if isinstance(line, Mapping)]
    of_stage = [line.get("epoch") for line in lines if line.get("stage") == position["stage"]]
    in_order = of_stage == list(range(1, len(of_stage) + 1)) and len(of_stage) == position["epoch"]
    passes = position.get("passes")
    if len(lines) != len(history) or not in_order or passes != len(history):
        raise UserError(
            f"{where}: it has made {position['epoch']} epochs and {passes} passes, and its history has {len(history)}; "
            f"{_SENSE}"
        )
    before = 0.0
    for line in history:
        seconds = line.get("train_s")
        if not isinstance(seconds, float | int) or not math.isfinite(seconds) or seconds < before:
            raise UserError(f"{where}: its history has train_s={seconds!r} after {before!r} seconds; {_SENSE}")
        before = float(seconds)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
