"""Checks of a checkpoint's content, before any of it reaches the optimizer or the loop."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.trainers.former_names import present_names

_FACTORED = ("row_var", "col_var")  # Adafactor's, each with one side of its parameter's shape
_DAMAGED = "it is damaged, or was written by something else"


def check_optimizer_state(where: object, state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that a state fits the optimizer: its groups, its options, and each tensor's shape and dtype.

    A fused optimizer writes to these tensors without checking their shapes: a smaller one would make it write past the
    end of the tensor.

    Args:
        where: The checkpoint, for the error message.
        state: The `optimizer.state_dict()` in the checkpoint.
        optimizer: The optimizer that is about to load it.

    Raises:
        UserError: Where it does not fit.

    """
    own = optimizer.state_dict()
    try:
        groups, tensors = list(state["param_groups"]), dict(state["state"])
        shapes = [list(group["params"]) for group in groups]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: its optimizer's state is invalid; {_DAMAGED}") from None
    if shapes != [list(group["params"]) for group in own["param_groups"]]:
        raise UserError(f"{where}: its optimizer's state is not of these parameters; {_DAMAGED}")
    for index, (saved, present) in enumerate(zip(groups, own["param_groups"], strict=True)):
        _check_group(where, index, saved, present)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in own["param_groups"] for n in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    for number, entries in tensors.items():
        if number not in by_number or not isinstance(entries, Mapping):
            raise UserError(
                f"{where}: its optimizer has a state for parameter {number!r}, which does not exist; {_DAMAGED}"
            )
        for name, value in entries.items():
            _check_tensor(where, f"{name} of parameter {number}", value, by_number[number])


def _check_group(where: object, index: int, saved: Any, own: Mapping[str, Any]) -> None:
    # A schedule adds entries of its own (initial_lr) and changes lr and weight_decay; the others are constant.
    for name, value in own.items():
        if name not in saved:
            raise UserError(f"{where}: its optimizer's group {index} has no {name}; {_DAMAGED}")
        loaded = saved[name]
        if isinstance(value, bool) or value is None or isinstance(value, str):
            same = loaded == value and type(loaded) is type(value)
        elif isinstance(value, float | int):
            same = isinstance(loaded, float | int) and not isinstance(loaded, bool) and math.isfinite(loaded)
        else:
            same = True
        if not same:
            raise UserError(f"{where}: its optimizer's {name} is {loaded!r} where this one has {value!r}; {_DAMAGED}")


def _check_tensor(where: object, name: str, value: Any, parameter: Tensor) -> None:
    if not isinstance(value, Tensor):
        if value is None or isinstance(value, bool | int | float):
            return
        raise UserError(f"{where}: its optimizer's {name} is {type(value).__name__}; {_DAMAGED}")
    if value.dim() == 0 or name.startswith(_FACTORED):
        return
    if value.shape != parameter.shape or value.dtype not in (parameter.dtype, torch.float32):
        raise UserError(
            f"{where}: its optimizer's {name} is {value.dtype} of shape {tuple(value.shape)} where the parameter is "
            f"{parameter.dtype} of {tuple(parameter.shape)}; {_DAMAGED}"
        )
    if value.layout != torch.strided or not (
        value.is_contiguous() or (value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last))
    ):
        raise UserError(f"{where}: its optimizer's {name} has another memory layout than when written; {_DAMAGED}")


def saved_once(weights: Any, module: nn.Module) -> Any:
    """Return saved weights without duplicates of shared tensors, which older checkpoints saved under each name.

    Tensors that had other names in an earlier release have their present ones.

    Args:
        weights: The saved weights; anything but a mapping is returned as it is.
        module: The module that is about to load them.

    """
    if not isinstance(weights, Mapping):
        return weights
    tensors = itertools.chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    duplicates = {name for name, _ in tensors} - module.state_dict().keys()
    return present_names({name: value for name, value in weights.items() if name not in duplicates}, module)


def check_weights(where: object, weights: Any, own: Mapping[str, Any]) -> None:
    """Check that saved weights have the names and shapes of a module's `state_dict()`.

    Args:
        where: The file, for the error message.
        weights: The saved weights.
        own: The module's `state_dict()`.

    Raises:
        UserError: Where they do not, naming the tensor.

    """
    if not isinstance(weights, Mapping):
        raise UserError(f"{where}: its weights are {type(weights).__name__}; {_DAMAGED}")
    for name in own.keys() | weights.keys():
        if name not in own or name not in weights:
            raise UserError(f"{where}: {'it lacks' if name in own else 'it has'} the tensor {name!r}, unlike the net")
        if isinstance(own[name], Tensor) and getattr(weights[name], "shape", None) != own[name].shape:
            shape = tuple(getattr(weights[name], "shape", ()))
            raise UserError(f"{where}: {name} has the shape {shape} where the net's has {tuple(own[name].shape)}")


def check_part(where: object, name: str, state: Any, part: Any) -> None:
    """Check that the saved state of a schedule or of early stopping has the entries and types of its own.

    Both set all that they load as their attributes, even over methods. Private entries may differ, since they differ
    between versions of torch.

    Args:
        where: The checkpoint, for the error message.
        name: The name of the part in error messages.
        state: Its `state_dict()` in the checkpoint.
        part: The schedule, or the early stopping.

    Raises:
        UserError: Where it has other entries or types.

    """
    own = part.state_dict()
    if not isinstance(state, Mapping):
        raise UserError(f"{where}: the state of its {name} is invalid; {_DAMAGED}")
    missing = [entry for entry in own if entry not in state and not entry.startswith("_")]
    foreign = [entry for entry in state if entry not in own and (entry[:1] != "_" or hasattr(type(part), entry))]
    if missing or foreign:
        raise UserError(f"{where}: the state of its {name} has other entries ({(missing + foreign)[0]}); {_DAMAGED}")
    for entry, value in own.items():
        if entry not in state:
            continue
        saved = state[entry]
        same_type = (
            isinstance(saved, type(value))
            or value is None
            or saved is None
            or (_is_number(saved) and _is_number(value))
        )
        if not same_type or (isinstance(value, list) and (not isinstance(saved, list) or len(saved) != len(value))):
            raise UserError(f"{where}: {entry} of its {name} is {saved!r:.60}; {_DAMAGED}")
        if saved is not None and value is None and not isinstance(saved, bool | int | float | str | Mapping | list):
            raise UserError(f"{where}: {entry} of its {name} is {type(saved).__name__}; {_DAMAGED}")


def check_middle(where: object, state: Mapping[str, Any], batches: int) -> None:
    """Check what a checkpoint in the middle of an epoch stores, so that training can resume from it.

    Args:
        where: The checkpoint, for the error message.
        state: The content of the checkpoint.
        batches: The batches in an epoch.

    Raises:
        UserError: Where its sums, rows, batch or random states are not those of such a checkpoint.

    """
    sums, rows, batch, middle = state["sums"], state["rows_seen"], state["position"]["batch"], state["middle"]
    if not isinstance(sums, Mapping) or not all(isinstance(v, Tensor) and v.dim() == 0 for v in sums.values()):
        raise UserError(f"{where}: its sums of metrics are invalid; {_DAMAGED}")
    if not _is_count(rows) or batch >= max(batches, 1) or (batch and ("loss" not in sums or not rows)):
        raise UserError(f"{where}: it is after batch {batch} of {batches} with {rows!r} rows seen; {_DAMAGED}")
    if not batch:
        return
    try:
        cpu = torch.Generator()
        cpu.set_state(middle["random"]["cpu"].cpu())
        order = middle["order"].cpu()
        if order.shape == cpu.get_state().shape:
            cpu.set_state(order)
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{where}: the states of its random generators are invalid; {_DAMAGED}") from error


def check_position(where: object, state: Mapping[str, Any], stages: int) -> None:
    """Check that a checkpoint's position, durations and history are consistent.

    Args:
        where: The checkpoint, for the error message.
        state: The content of the checkpoint.
        stages: The phases that the rule trains.

    Raises:
        UserError: Where they are not.

    """
    for name, seconds in {**state["meter"]["durations_s"], "setup": state["session"]["setup_s"]}.items():
        if not _is_number(seconds) or not math.isfinite(seconds) or seconds < 0:
            raise UserError(f"{where}: its seconds of {name} are {seconds!r}; {_DAMAGED}")
    position, history = state["position"], state["history"]
    if not isinstance(position, Mapping) or not isinstance(history, Sequence):
        raise UserError(f"{where}: its position or its history is invalid; {_DAMAGED}")
    for name in ("stage", "epoch", "batch"):
        if not _is_count(position.get(name)):
            raise UserError(f"{where}: its position has {name}={position.get(name)!r}; {_DAMAGED}")
    if position["stage"] >= stages:
        raise UserError(f"{where}: it is in stage {position['stage'] + 1} of {stages}; {_DAMAGED}")
    lines = [line for line in history if isinstance(line, Mapping)]
    of_stage = [line.get("epoch") for line in lines if line.get("stage") == position["stage"]]
    in_order = of_stage == list(range(1, len(of_stage) + 1)) and len(of_stage) == position["epoch"]
    passes = position.get("passes")
    if len(lines) != len(history) or not in_order or passes != len(history):
        raise UserError(
            f"{where}: it has completed {position['epoch']} epochs and {passes} passes, and its history has "
            f"{len(history)}; {_DAMAGED}"
        )
    before = 0.0
    for line in history:
        seconds = line.get("train_s")
        if not isinstance(seconds, float | int) or not math.isfinite(seconds) or seconds < before:
            raise UserError(f"{where}: its history has train_s={seconds!r} after {before!r} seconds; {_DAMAGED}")
        before = float(seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
