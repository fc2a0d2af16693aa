"""Targets as a task takes them: values checked and standardised, labels numbered, and the task fitted to them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from localearn.data.base import Split
from localearn.data.transforms import Scaling, standard
from localearn.errors import UserError
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
    whole = {key: torch.from_numpy(values) for key, values in checked.items()}
    if whole:  # before rows are drawn from them, so that a message names the source's row
        task = _widened(f"{where}: y_train", task, next(iter(whole.values())))
    for key, values in whole.items():
        task.check_target(f"{where}: {key}", values)
    return checked


def of_classes(task: Task | None) -> bool:
    """Return whether targets are labels."""
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
    if y is not None and (task is None or of_classes(task) or task.target_is_input) and y.ndim == 1:
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
        total, apart = self.rows + rows, mean - self._mean
        self._squares = self._squares + squares + apart.square() * (self.rows * rows / total)
        self._mean = self._mean + apart * (rows / total)
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


_WHOLE = 2**53  # beyond it a float64 no longer distinguishes one whole number from the next


def numbered(
    where: str, labels: Mapping[str, np.ndarray], class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Return the labels of all parts as (N,) int64, numbered alike, and the names of the classes.

    Words are numbered in their order, False and True are 0 and 1, and labels that begin at 1 in all parts and leave
    no number out begin at 0. Whether every class is among the training labels is `checks.same_classes`'s to say.

    Args:
        where: the source, for error messages.
        labels: by the part's name in error messages, training part first: (N,) or (N, 1) whole numbers of any type,
            booleans or words, or (N, C) one-hot rows.
        class_names: the names in the order of the numbers, where the source knows them.

    Returns:
        The labels, and the names of the classes; None where numbers were given that stay as they are.

    Raises:
        UserError: for labels that are NaN, negative or no whole number, and rows that are not one-hot.

    """
    parts = {name: flat_labels(f"{where}: {name}", y) for name, y in labels.items()}
    worded = [y.dtype.kind == "U" for y in parts.values()]
    if any(worded) and not all(worded):
        told = ", ".join(f"{name} {y.dtype}" for name, y in parts.items())
        raise UserError(f"{where}: labels are words in one part and numbers in another ({told})")
    names: tuple[str, ...] | None = None
    if all(worded):
        found = np.unique(np.concatenate(list(parts.values())))
        words = _given(where, class_names, found)
        numbers = {word: number for number, word in enumerate(words)}
        parts = {name: np.array([numbers[str(word)] for word in y], np.int64) for name, y in parts.items()}
        return parts, words
    if all(y.dtype.kind == "b" for y in parts.values()):
        names = ("False", "True")
    parts = {name: y.astype(np.int64) for name, y in parts.items()}
    present = np.unique(np.concatenate(list(parts.values())))
    if len(present) > 1 and present[0] == 1 and present[-1] == len(present):
        names = tuple(str(label) for label in present)
        parts = {name: y - 1 for name, y in parts.items()}
    if class_names is None:
        return parts, names
    names = tuple(str(name) for name in class_names)
    classes = 1 + max((int(y.max()) for y in parts.values() if len(y)), default=0)
    if len(names) != classes:
        raise UserError(f"{where}: there are {len(names)} class_names and {classes} classes of labels")
    return parts, names


def flat_labels(what: str, y: np.ndarray) -> np.ndarray:
    """Return the labels of one part, (N,): booleans, integers from 0 or words.

    Args:
        what: the labels' name in error messages.
        y: the labels.

    Raises:
        UserError: for another type or shape.

    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y.flat):
        y = y.astype(np.str_)
    if y.dtype.kind == "S":
        y = _decoded(what, y)
    if y.dtype.kind not in "buifU":
        raise UserError(f"{what} is {y.dtype}; labels must be integers, 0 to classes - 1, or words")
    if y.ndim == 2 and y.dtype.kind in "buif" and y.shape[1] > 1:
        return _from_one_hot(what, y)
    if y.ndim != 1:
        raise UserError(f"{what} has shape {y.shape}; one label for each row, (N,), or one-hot rows are expected")
    if y.dtype.kind == "f":
        y = _from_floats(what, y)
    if y.dtype.kind in "ui" and len(y) and (y.min() < 0 or y.max() > np.iinfo(np.int64).max):
        raise UserError(f"{what} holds {y.min() if y.min() < 0 else y.max()}; labels run from 0 to classes - 1")
    return y


def _from_floats(what: str, y: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(y)
    if bad.any():
        raise UserError(f"{what} holds {int(bad.sum())} of {len(y)} labels that are NaN or infinite")
    part = y[(y != np.round(y)) | (np.abs(y) > _WHOLE)]
    if len(part):
        raise UserError(
            f"{what} is {y.dtype} and holds {part[0]}; labels must be integers, 0 to classes - 1, and "
            "values need a task, regression"
        )
    return y.astype(np.int64)


def _from_one_hot(what: str, y: np.ndarray) -> np.ndarray:
    ones = y == 1
    wrong = np.flatnonzero((ones.sum(1) != 1) | ((y != 0) & ~ones).any(1))
    if len(wrong):
        raise UserError(
            f"{what} has shape {y.shape} and its row {wrong[0]} is not one-hot; one label for each row, (N,), or a "
            f"single 1 among zeros is expected"
        )
    return ones.argmax(1)


def _decoded(what: str, y: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(y, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} holds bytes that are no UTF-8 text") from error


def _given(where: str, class_names: Sequence[str] | None, found: np.ndarray) -> tuple[str, ...]:
    """Return the words' order: the given one, if there is one, else the alphabet's."""
    if class_names is None:
        return tuple(str(word) for word in found)
    names = tuple(str(name) for name in class_names)
    unknown = [str(word) for word in found if str(word) not in names]
    if unknown:
        raise UserError(f"{where}: a label is {unknown[0]!r}, which is not among the class_names {', '.join(names)}")
    return names
