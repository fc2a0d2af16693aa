"""Rows whose targets are values: split at random, standardised on the training split."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.normalization import Normalize, standard, unit
from localearn.data.splits import held_size, hold_out
from localearn.errors import UserError
from localearn.tasks import Criterion, Regression


def regression_data(
    name: str,
    parts: Mapping[str, np.ndarray],
    *,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    seed: int = 0,
    normalize: Normalize = "standard",
    train_size: int | None = None,
    criterion: Criterion = "squared",
) -> ArrayData:
    """Return a data set for a regression; its targets have mean 0 and deviation 1 in the training split.

    Args:
        name: what records call it.
        parts: x_train, x_test, (N, n), and y_train, y_test, (N, D); floating-point and finite.
        val_fraction: how much of the training part is held out for validation.
        val_size: how many rows are, which goes before the fraction.
        seed: of the rows that are held out, and of train_size's.
        normalize: "standard", "unit" or "none", for x, as of `localearn.load`.
        train_size: how many training rows to use, drawn by `seed`.
        criterion: the loss that is trained for; see `Regression`.

    Raises:
        UserError: for an option that these parts cannot meet.

    """
    every = np.zeros(len(parts["y_train"]), dtype=np.int64)  # one class, so that rows are drawn from all alike
    train, val = hold_out(every, held_size("val", len(every), val_fraction, val_size), seed)
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(every[train], train_size, seed)[1]]
    x_train, y_train = (torch.from_numpy(parts[key]).float() for key in ("x_train", "y_train"))
    x_test, y_test = (torch.from_numpy(parts[key]).float() for key in ("x_test", "y_test"))
    x: dict[Split, Tensor] = {"train": x_train[train], "val": x_train[val], "test": x_test}
    y: dict[Split, Tensor] = {"train": y_train[train], "val": y_train[val], "test": y_test}
    if normalize == "rows":
        raise UserError(f"normalize=rows belongs to graphs; for {name} there are standard, unit and none")
    scaling = standard(x["train"]) if normalize == "standard" else unit(x["train"]) if normalize == "unit" else None
    targets = standard(y["train"])
    center, scale = targets.center.tolist(), targets.scale.reciprocal().tolist()
    task = Regression(y_train.shape[1], criterion, center=tuple(center), scale=tuple(scale))
    standardised: dict[Split, Tensor] = {split: targets(values) for split, values in y.items()}
    return ArrayData(name, x, standardised, 0, scaling=scaling, task=task)
