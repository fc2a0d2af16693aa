"""Partition of rows into training, validation and test, and the data set that is built of the parts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.checks import same_classes
from localearn.data.targets import check_targets, fitted, strata, targets_are_labels
from localearn.data.transforms import Augment, Normalize, Scaling, standard, unit
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.tasks import Task

_TEST_SEED = 0  # of a test part where none was given: it is the same for everyone, whatever the seed of the validation


def array_data(
    name: str,
    parts: Mapping[str, np.ndarray],
    *,
    levels: tuple[int, int] | None = None,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    seed: int = 0,
    normalize: Normalize = "standard",
    augment: Augment = "none",
    train_size: int | None = None,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
    task: Task | None = None,
    sequences: bool = False,
    vocabulary: int | None = None,
    where: str | None = None,
    leave_out: Sequence[int | str] = (),
) -> ArrayData:
    """Build the data set of checked parts: x_train, y_train, x_test, y_test and, where there are, x_val and y_val.

    Args:
        name: the data set's name in records.
        parts: the arrays; where the target is the row itself y may be lacking, or labels by which the rows are split.
        levels: the lowest and highest value that x can take, for normalize=unit; None takes the training part's.
        val_fraction: as of `load`.
        val_size: as of `load`.
        seed: the split_seed of `load`.
        normalize: as of `load`.
        augment: as of `load`.
        train_size: as of `load`.
        class_names: the names of the classes.
        notes: lines for `Data.notes`.
        task: the meaning of y, where it is no label; see `targets.fitted`.
        sequences: whether three dimensions are (N, T, D), and not grey images.
        vocabulary: the number of tokens where x is their ids.
        where: the source, for error messages; its name by default.
        leave_out: classes, by number or name, that the training and validation parts have no row of.

    Raises:
        UserError: for an option that these parts cannot meet.

    """
    labels = strata(parts, task)
    if "x_val" in parts:
        if val_size is not None:
            raise UserError(f"{name} has a validation part of its own: val_size does not apply")
        train, val = np.arange(len(labels)), np.arange(len(parts["x_val"]))
    else:
        train, val = hold_out(labels, held_out_size("val", len(labels), val_fraction, val_size), seed)
    classes = int(labels.max()) + 1 if targets_are_labels(task) else 0
    unseen = _left_out(where or name, leave_out, classes, class_names)
    if unseen:  # after the draw of the validation part, so that the other classes' rows are where they are without it
        train = train[~np.isin(labels[train], unseen)]
        val = val[~np.isin(parts["y_val"] if "x_val" in parts else labels[val], unseen)]
        note = f"no row of {', '.join(_called(k, class_names) for k in unseen)} is in the training or validation part"
        notes = (*notes, f"{note}, which the test part has")
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(labels[train], train_size, seed)[1]]
    as_rows = torch.from_numpy if sequences or vocabulary is not None else channels_first
    rows, test_rows = as_rows(parts["x_train"]), as_rows(parts["x_test"])
    held_out = as_rows(parts["x_val"]) if "x_val" in parts else rows
    if augment != "none" and rows.ndim != 4:
        raise UserError(f"{name} holds {'sequences' if rows.ndim == 3 else 'vectors'}: augment={augment} needs images")
    x: dict[Split, torch.Tensor] = {
        "train": rows.index_select(0, torch.from_numpy(train)),
        "val": held_out.index_select(0, torch.from_numpy(val)),
        "test": test_rows,
    }
    if vocabulary is not None and normalize not in ("none", "standard"):
        raise UserError(f"{name} holds token ids, which are not normalised: normalize={normalize} does not apply")
    scaling = None if vocabulary is not None else _scaling(name, x["train"], levels, normalize)
    y: dict[Split, torch.Tensor] = {}
    if task is None or not task.target_is_input:
        targets = parts["y_train"]
        y = {
            "train": torch.from_numpy(targets[train]),
            "val": torch.from_numpy(parts.get("y_val", targets)[val]),
            "test": torch.from_numpy(parts["y_test"]),
        }
    if task is not None:
        task, y = fitted(where or name, task, x, y, scaling, levels)
        if where is not None and not task.has_classes:
            check_targets(where, task, x, y, scaling)
    data = ArrayData(
        name, x, y, classes, scaling=scaling, augment=augment, class_names=class_names, task=task, vocabulary=vocabulary
    )
    data.continues = vocabulary is not None and task is not None and _continues(task, x["train"], y.get("train"))
    data.notes, data.unseen = notes, unseen
    return data


def _left_out(
    where: str, leave_out: Sequence[int | str], classes: int, class_names: Sequence[str] | None
) -> tuple[int, ...]:
    """Return the numbers of the classes that are named by number or by name, in order; raise UserError otherwise."""
    known = {str(k): k for k in range(classes)} | {name: k for k, name in enumerate(class_names or ())}
    for name in leave_out:
        if str(name) not in known:
            choices = ", ".join(class_names) if class_names else f"0 to {classes - 1}"
            raise UserError(f"{where}: leave_out has {name!r}, which is none of its classes ({choices})")
    unseen = tuple(sorted({known[str(name)] for name in leave_out}))
    if classes - len(unseen) < 2 and unseen:
        raise UserError(f"{where}: leave_out leaves {classes - len(unseen)} of {classes} classes; two are needed")
    return unseen


def _called(number: int, class_names: Sequence[str] | None) -> str:
    return f"class {number}" if class_names is None else f"class {number} ({class_names[number]})"


def _continues(task: Task, x: torch.Tensor, target: torch.Tensor | None) -> bool:
    """Return whether every position's target is the next token of the row, so that a net that looks ahead sees it."""
    if target is None or not task.per_position or target.shape != x.shape or x.shape[1] < 2:
        return False
    following, predicted = x[:, 1:], target[:, :-1]
    counted = task.counted(target)
    return bool(((following == predicted) | (False if counted is None else ~counted[:, :-1])).all())


def _scaling(name: str, train: torch.Tensor, levels: tuple[int, int] | None, normalize: Normalize) -> Scaling | None:
    if normalize == "rows":
        raise UserError(f"normalize=rows belongs to graphs; for {name} there are standard, unit and none")
    if normalize == "standard":
        return standard(train)
    return unit(train, levels) if normalize == "unit" else None


def channels_first(x: np.ndarray) -> torch.Tensor:
    """Return rows as a contiguous tensor, images with their channels first.

    Args:
        x: (N, H, W) or (N, H, W, C) images, or (N, D) vectors.

    Returns:
        (N, C, H, W) images; vectors as they are.

    """
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    if not x.flags.writeable or min(x.strides, default=0) < 0:  # neither of which torch takes
        x = x.copy()
    tensor = torch.from_numpy(x).contiguous()
    return tensor.unsqueeze(1) if x.ndim == 3 else tensor


def with_test(
    where: str,
    parts: Mapping[str, np.ndarray],
    fraction: float,
    class_names: Sequence[str] | None = None,
    task: Task | None = None,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the parts with a test part, always the same rows, every class in proportion, and notes of what was drawn.

    Args:
        where: the source, for error messages.
        parts: x_train, y_train and others; a test part that there is stays.
        fraction: the share of the training rows that is drawn.
        class_names: the names of the classes.
        task: the meaning of y, where it is no label.

    Raises:
        UserError: where the fraction leaves one side, or a class of the training part, without a row.

    """
    if "x_test" in parts:
        return dict(parts), ()
    labels = strata(parts, task)
    rest, held_out = hold_out(labels, held_out_size("test", len(labels), fraction), _TEST_SEED)
    if targets_are_labels(task):
        same_classes(where, labels[rest], labels[held_out], class_names)
    drawn = {}
    for letter in "xy":
        if f"{letter}_train" in parts:
            values = parts[f"{letter}_train"]
            drawn |= {f"{letter}_train": values[rest], f"{letter}_test": values[held_out]}
    note = f"no test part was given: {len(held_out)} of {len(labels)} rows were drawn (test_fraction={fraction})"
    return {**parts, **drawn}, (note,)


def levels_of(parts: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """Return the lowest and highest level of x's dtype where it is a picture's, 8 or 16 bits; else None.

    Args:
        parts: x_train, and others.

    """
    dtype = parts["x_train"].dtype
    return (0, int(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None


def duplicates(parts: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return a note of how many test rows are also in the training or validation part; none where there are none.

    Args:
        parts: x_train, x_test and, where there is one, x_val.

    """
    tested = Counter(row.tobytes() for row in parts["x_test"])
    others = [parts[f"x_{part}"] for part in ("train", "val") if f"x_{part}" in parts]
    known = {row for rows in others for row in map(np.ndarray.tobytes, rows) if row in tested}
    found = sum(tested[row] for row in known)
    return (f"{found} of {len(parts['x_test'])} test rows are also among the other rows",) if found else ()


def hold_out(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two by their labels, every class in proportion.

    Each class gives its share, to the nearest row: within a class of n rows in random order, row r has the rank
    (r + 1/2) / n, and the `size` rows of the lowest rank over all classes are held out.

    Args:
        labels: (N,).
        size: how many rows to hold out.
        seed: of the order.

    Returns:
        The indices of the rest, (N - size,), and of the rows held out, (size,), both ascending.

    """
    # RandomState, because its stream is frozen for good while that of default_rng may change with numpy's version.
    order = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    ranked = order[np.argsort(place[order], kind="stable")]
    return np.sort(ranked[size:]), np.sort(ranked[:size])


FOLDS = 5


def fold_of(rows: int, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the training, validation and test rows of one of five folds, (M,) each, ascending: 64, 16 and 20 %.

    Whatever their labels, rows are drawn as ForwardGNN's authors draw a graph's nodes (arXiv 2403.11004), to the row:
    by scikit-learn's `KFold(5, shuffle=True, random_state=101)`, and of what a fold leaves a fifth for validation by
    `train_test_split(test_size=0.2, random_state=127 * fold)`.

    Args:
        rows: their number, 10 or more.
        fold: 0..4.

    Raises:
        UserError: for another fold, and for fewer rows.

    """
    if not 0 <= fold < FOLDS:
        raise UserError(f"fold is {fold}; it must lie between 0 and {FOLDS - 1}")
    if rows < 2 * FOLDS:
        raise UserError(f"{rows} nodes are too few for {FOLDS} folds; leave fold out")
    order = np.arange(rows)
    np.random.RandomState(101).shuffle(order)
    sizes = np.full(FOLDS, rows // FOLDS)
    sizes[: rows % FOLDS] += 1
    start = int(sizes[:fold].sum())
    tested = np.zeros(rows, dtype=bool)
    tested[order[start : start + sizes[fold]]] = True
    rest = np.flatnonzero(~tested)
    drawn = np.random.RandomState(127 * fold).permutation(len(rest))
    held_out = -(-len(rest) // FOLDS)
    return np.sort(rest[drawn[held_out:]]), np.sort(rest[drawn[:held_out]]), np.flatnonzero(tested)


def held_out_size(name: str, rows: int, fraction: float, size: int | None = None, where: str = "") -> int:
    """Return how many rows to hold out: `size` where it is given, else the fraction to the nearest row.

    Args:
        name: the option's stem in error messages ("val" for val_fraction and val_size).
        rows: the number of all rows.
        fraction: 0 to 1, both excluded.
        size: takes precedence over the fraction.
        where: the rows' source, for error messages.

    Raises:
        UserError: where the fraction is out of its range or one side would be empty.

    """
    check_fraction(name, fraction)
    option = f"{name}_fraction={fraction}" if size is None else f"{name}_size={size}"
    source = f"{where}: " if where else ""
    held_out = round(rows * fraction) if size is None else size
    if not 1 <= held_out < rows:
        raise UserError(
            f"{source}{option} holds out {held_out} of {rows} training rows; between 1 and {rows - 1} must be held out"
            if rows > 1
            else f"{source}{option} cannot split {rows} training row in two; at least 2 rows are needed"
        )
    return held_out


def check_fraction(name: str, fraction: float) -> None:
    """Check that a fraction lies between 0 and 1, both excluded.

    Args:
        name: the stem of the option `<name>_fraction` in the error message.
        fraction: the fraction.

    Raises:
        UserError: where it does not.

    """
    if not 0 < fraction < 1:
        raise UserError(f"{name}_fraction is {fraction}; it must lie between 0 and 1, both excluded")


_SEEDS = 2**32  # numpy's seeds end there


def check_seed(option: str, seed: int) -> None:
    """Check that a seed is valid for NumPy.

    Args:
        option: the option's name in the error message.
        seed: the seed.

    Raises:
        UserError: where it is not.

    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"{option} is {seed}; it must lie between 0 and {_SEEDS - 1}")


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
