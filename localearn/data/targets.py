"""Targets as a task takes them: values checked and standardised, and the task fitted to them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from localearn.data.base import Split
from localearn.data.transforms import Scaling, standard
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.tasks import Autoencoding, MultiLabel, Regression, Task

_NUMBERS = {torch.float32: ("buif", np.float32), torch.int64: ("bui", np.int64)}


def checked_targets(where: str, arrays: Mapping[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Return the targets of every part as numbers of the task's own type, (N, D), those of tokens as they come.

    Args:
        where: the source, for error messages.
        arrays: by name, y_train first: (N,) or (N, D).
        task: the task that they belong to.

    Raises:
        UserError: for words, Python objects, and parts whose rows have different widths, and as `Task.check_target`
            for numbers that are not the task's.

    """
    kinds, dtype = _NUMBERS[task.target_dtype]
    checked: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        kind = type(task).__name__
        if array.dtype.kind not in kinds or not array.ndim:
            words = array.dtype.kind in "USO"
            wanted = "real numbers, (N,) or (N, D)," if dtype is np.float32 else "integers"
            raise UserError(
                f"{where}: {key} is {array.dtype} with shape {array.shape}; {wanted} are needed for {kind}"
                + ("; words are the labels of classes, which need no task" if words else "")
            )
        with np.errstate(over="ignore"):
            values = array.astype(dtype)
        checked[key] = values.reshape(len(array), -1) if dtype is np.float32 else values
        if dtype is np.float32 and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(checked[key]).all(1))[0])
            raise UserError(
                f"{where}: {key} holds values that are NaN or infinite, the first in row {row}; fill them in, or leave "
                "their rows out"
            )
        first = next(iter(checked))
        if checked[key].shape[1:] != checked[first].shape[1:]:
            raise UserError(
                f"{where}: rows of {key} have {checked[key].shape[1:]} values, those of {first} "
                f"{checked[first].shape[1:]}"
            )
    tensors = {key: torch.from_numpy(values) for key, values in checked.items()}
    if tensors:  # before rows are drawn from them, so that a message names the source's row
        task = _widened(f"{where}: y_train", task, next(iter(tensors.values())))
    for key, values in tensors.items():
        task.check_target(f"{where}: {key}", values)
    return checked


def targets_are_labels(task: Task | None) -> bool:
    """Return whether targets are class labels.

    Args:
        task: the task; None: classification.

    """
    return task is None or task.has_classes


def strata(parts: Mapping[str, np.ndarray], task: Task | None) -> np.ndarray:
    """Return a stratum for each training row, (N,) whole numbers: parts are drawn from the rows of each in proportion.

    The stratum is the label, where there are labels, and the target of a single output of zeros and ones; else all rows
    are in one.

    Args:
        parts: x_train and, where there is one, y_train.
        task: the meaning of y, where it is no label.

    """
    y = parts.get("y_train")
    if y is not None and (task is None or targets_are_labels(task) or task.target_is_input) and y.ndim == 1:
        return y.astype(np.int64, copy=False)
    if y is not None and isinstance(task, MultiLabel) and task.outputs == 1 == y.size // len(y):
        return (y.reshape(-1) > 0.5).astype(np.int64)
    return np.zeros(len(parts["x_train"]), dtype=np.int64)


def check_targets(
    where: str, task: Task, x: Mapping[Split, Tensor], y: Mapping[Split, Tensor], scaling: Scaling | None
) -> None:
    """Check that every split has valid targets, and the training split something to learn from.

    Args:
        where: the source, for error messages.
        task: the task.
        x: of each split, before it is scaled.
        y: likewise the targets; empty of a task whose target is the row.
        scaling: the normalisation of x.

    Raises:
        UserError: where they have not.

    """
    for split, rows in x.items():
        what, target = f"{where}: y_{split}", y.get(split)
        if task.target_is_input:  # scaling preserves which values are the extremes
            extremes = torch.stack([rows.amin(0), rows.amax(0)])
            what, target = f"{where}: x_{split}", (scaling(extremes) if scaling else extremes).float().flatten(1)
        if target is None:
            continue
        task.check_target(what, target)
        if split == "train" or (split == "val" and task.needs_whole):  # of a figure that needs targets that vary
            task.check_learnable(what, target)


def fitted(
    name: str,
    task: Task,
    x: Mapping[Split, Tensor],
    y: Mapping[Split, Tensor],
    scaling: Scaling | None,
    levels: tuple[int, int] | None,
) -> tuple[Task, dict[Split, Tensor]]:
    """Return the task fitted to the training split, and the targets in its unit.

    A `Regression` is given the mean and deviation of its targets, which are standardised; an `Autoencoding` the scaling
    of x and the range of its levels; both, and a `MultiLabel`, the number of outputs where it was left at one. Another
    task, and its targets, stay as they are.

    Args:
        name: the data set's name, for error messages.
        task: the task as it was given.
        x: of each split, before it is scaled.
        y: likewise the targets.
        scaling: the normalisation of x.
        levels: the lowest and highest value that x can take, where they are known.

    Raises:
        UserError: for targets of another width than the task's.

    """
    if isinstance(task, Autoencoding):
        return _reconstructing(task, x["train"], scaling, levels), {}
    targets: dict[Split, Tensor] = dict(y)
    if task.has_classes:
        classes = int(targets["train"].max()) + 1
        if task.outputs != classes:
            raise UserError(f"{name}: there are {classes} classes of labels, and {task} has {task.outputs}")
        return task, targets
    task = _widened(f"{name}: y_train", task, targets["train"])
    if isinstance(task, Regression):
        task.check_target(f"{name}: y_train", targets["train"])  # before its statistics are taken
        task.check_learnable(f"{name}: y_train", targets["train"])
        units = standard(targets["train"])
        task = _in_units(task, units)
        targets = {split: units(values) for split, values in targets.items()}
    return task, targets


def _widened(what: str, task: Task, train: Tensor) -> Task:
    """Return the task for as many outputs as its targets have values, where it was left at one."""
    if not isinstance(task, Regression | MultiLabel):
        return task
    width = train.shape[-1]
    if task.outputs not in (1, width):
        raise UserError(f"{what} has {width} values a row, and {type(task).__name__} has {task.outputs} outputs")
    return replace(task, outputs=width)


def _in_units(task: Regression, units: Scaling) -> Regression:
    center, scale = units.center.tolist(), units.scale.reciprocal().tolist()
    return replace(task, center=tuple(center), scale=tuple(scale))


class Moments:
    """Accumulate number, mean, variance and extremes of values that come in parts, (N, D) each.

    By the update of Chan, Golub, LeVeque (1983).

    Attributes:
        rows: the number of rows so far.
        extremes: (2, D), the least and the largest of each column.

    """

    def __init__(self) -> None:
        self.rows = 0
        self.extremes = torch.empty(2, 0)
        self._mean, self._squares = torch.zeros(0).double(), torch.zeros(0).double()

    def add(self, values: Tensor) -> None:
        """Add rows, (N, D)."""
        rows, wide = len(values), values.double()
        mean = wide.mean(0)
        squares, extremes = (wide - mean).square().sum(0), torch.stack([values.amin(0), values.amax(0)])
        if not self.rows:
            self.rows, self._mean, self._squares, self.extremes = rows, mean, squares, extremes
            return
        total, delta = self.rows + rows, mean - self._mean
        self._squares = self._squares + squares + delta.square() * (self.rows * rows / total)
        self._mean = self._mean + delta * (rows / total)
        self.rows = total
        self.extremes = torch.stack(
            [torch.minimum(self.extremes[0], extremes[0]), torch.maximum(self.extremes[1], extremes[1])]
        )

    def fit(self, what: str, task: Task) -> tuple[Task, Scaling | None]:
        """Return the task fitted to such training targets, and the scaling to its unit; see `fitted`.

        Args:
            what: the targets' name in error messages.
            task: the task as it was given.

        """
        task = _widened(what, task, self.extremes)
        if not isinstance(task, Regression):
            return task, None
        task.check_learnable(what, self.extremes)
        deviation = (self._squares / self.rows).sqrt()
        varies = deviation > torch.finfo(torch.float32).eps * self._mean.abs()
        scale = torch.where(varies, deviation, 1.0).reciprocal().float()
        units = Scaling(self._mean.float(), scale, "standard")
        return _in_units(task, units), units


def _reconstructing(
    task: Autoencoding, train: Tensor, scaling: Scaling | None, levels: tuple[int, int] | None
) -> Autoencoding:
    row = train.shape[1:]
    if task.outputs not in (1, row.numel()):
        raise UserError(f"a row has {row.numel()} values, and {type(task).__name__} has {task.outputs} outputs")
    found: dict[str, Any] = {"outputs": row.numel()}
    if task.peak is None and levels is not None:
        found["peak"] = float(levels[1] - levels[0])
    if scaling is not None:
        # One for all values, or for each channel of an image; of a sequence the features lie innermost.
        each = [part.expand(row) if len(row) == 2 and part.ndim else part for part in (scaling.center, scaling.scale)]
        found["center"] = tuple(each[0].flatten().tolist())
        found["scale"] = tuple(each[1].flatten().reciprocal().tolist())
    return replace(task, **found)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
