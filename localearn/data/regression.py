"""Rows whose targets are values: split at random, a regression's standardised on the training split."""

from collections.abc import Mapping

import numpy as np

from localearn.data.arrays import ArrayData
from localearn.data.checks import checked_parts
from localearn.data.normalization import Normalize
from localearn.data.partition import array_data
from localearn.tasks import Task


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
    checked, _ = checked_parts(name, parts, task=task)
    return array_data(
        name,
        checked,
        task=task,
        val_fraction=val_fraction,
        val_size=val_size,
        seed=seed,
        normalize=normalize,
        train_size=train_size,
    )
