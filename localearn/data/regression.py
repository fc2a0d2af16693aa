"""Rows whose targets are values: split at random, a regression's standardised on the training split."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.normalization import Normalize, standard, unit
from localearn.data.splits import held_size, hold_out
from localearn.errors import UserError
from localearn.tasks import Regression, Task

_TEST_SEED = 0  # of a test part where none was given: it is the same for everyone, whatever the seed of the validation


def checked_values(name: str, arrays: Mapping[str, np.ndarray], test_fraction: float) -> dict[str, np.ndarray]:
    """Return a user's vectors and their values as the parts of `value_data`, a test part drawn if there is none.

    Args:
        name: what messages call them.
        arrays: x_train, (N, n), and y_train, (N,) or (N, D), and, where there are, those of val and test.
        test_fraction: how much of the training part is drawn where there is no test part.

    Raises:
        UserError: for a wrong type, shape or length, and for values that are not finite.

    """
    parts: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        wanted = "(N, n)" if key.startswith("x") else "(N,) or (N, D)"
        if array.dtype.kind not in "uifb" or array.ndim not in ((2,) if key.startswith("x") else (1, 2)):
            raise UserError(
                f"{name}: {key} is {array.dtype} with shape {array.shape}; real numbers, {wanted}, are needed"
            )
        parts[key] = array.astype(np.float32).reshape(len(array), -1)
        other = parts.get(key.replace("y_", "x_"))
        if other is not None and len(other) != len(array):
            raise UserError(
                f"{name}: {key.replace('y_', 'x_')} has {len(other)} rows and {key} has {len(array)} targets"
            )
        if not np.isfinite(parts[key]).all():
            raise UserError(f"{name}: {key} holds values that are NaN or infinite")
        same = parts[f"{key[0]}_train"].shape[1]
        if parts[key].shape[1] != same:
            raise UserError(f"{name}: rows of {key} have {parts[key].shape[1]} values, those of {key[0]}_train {same}")
    if "x_test" not in parts:
        every = np.zeros(len(parts["x_train"]), dtype=np.int64)
        rest, held = hold_out(every, held_size("test", len(every), test_fraction), _TEST_SEED)
        for letter in "xy":
            whole = parts[f"{letter}_train"]
            parts[f"{letter}_train"], parts[f"{letter}_test"] = whole[rest], whole[held]
    return parts


def value_data(
    name: str,
    parts: Mapping[str, np.ndarray],
    task: Task,
    *,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    seed: int = 0,
    normalize: Normalize = "standard",
    train_size: int | None = None,
) -> ArrayData:
    """Return a data set of values; those of a regression have mean 0 and deviation 1 in the training split.

    Args:
        name: what records call it.
        parts: x_train, x_test, (N, n), and y_train, y_test, (N, D), finite; and x_val, y_val where there are.
        task: what the targets are. A `Regression` is given their number, center and scale; another task stays as it is.
        val_fraction: how much of the training part is held out for validation.
        val_size: how many rows are, which goes before the fraction.
        seed: of the rows that are held out, and of train_size's.
        normalize: "standard", "unit" or "none", for x, as of `localearn.load`.
        train_size: how many training rows to use, drawn by `seed`.

    Raises:
        UserError: for an option that these parts cannot meet.

    """
    parts = dict(parts)
    every = np.zeros(len(parts["y_train"]), dtype=np.int64)  # one class, so that rows are drawn from all alike
    train = np.arange(len(every))
    if "x_val" not in parts:
        train, val = hold_out(every, held_size("val", len(every), val_fraction, val_size), seed)
        parts["x_val"], parts["y_val"] = parts["x_train"][val], parts["y_train"][val]
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(every[train], train_size, seed)[1]]
    parts["x_train"], parts["y_train"] = parts["x_train"][train], parts["y_train"][train]
    splits: tuple[Split, ...] = ("train", "val", "test")
    x: dict[Split, Tensor] = {split: torch.from_numpy(parts[f"x_{split}"]).float() for split in splits}
    y: dict[Split, Tensor] = {split: torch.from_numpy(parts[f"y_{split}"]).float() for split in splits}
    if normalize == "rows":
        raise UserError(f"normalize=rows belongs to graphs; for {name} there are standard, unit and none")
    scaling = standard(x["train"]) if normalize == "standard" else unit(x["train"]) if normalize == "unit" else None
    if isinstance(task, Regression):
        targets = standard(y["train"])
        center, scale = targets.center.tolist(), targets.scale.reciprocal().tolist()
        task = replace(task, outputs=len(center), center=tuple(center), scale=tuple(scale))
        y = {split: targets(values) for split, values in y.items()}
    return ArrayData(name, x, y, 0, scaling=scaling, task=task)
