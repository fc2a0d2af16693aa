"""Checks of arrays from outside: whatever cannot be learned from is named in a one-line error message."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from localearn.data.labels import numbered
from localearn.data.targets import checked_targets, targets_are_labels
from localearn.errors import UserError
from localearn.tasks import Task

Layout = Literal["nhwc", "nchw", "ntd"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
GRAPH_ARRAYS = ("x", "edge_index", "y", "train", "val", "test")

_CHANNELS = (1, 3, 4)  # what the last dimension of a colour image may plausibly be


def checked_arrays(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the four `ARRAYS` with x as uint8 or float32 and y as int64, 0..C-1.

    Args:
        where: the source, for error messages.
        arrays: by name; x are (N, H, W) or (N, H, W, C) images or (N, D) vectors.

    Raises:
        UserError: for a wrong type, shape, length or label, for an empty array and for values that are not finite.

    """
    return checked_parts(where, arrays)[0]


def checked_parts(
    where: str,
    arrays: Mapping[str, np.ndarray],
    layout: Layout = "nhwc",
    class_names: Sequence[str] | None = None,
    task: Task | None = None,
    vocabulary: int | None = None,
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Return x and y of every part that there is, as `checked_arrays` does, and the names of the classes.

    Args:
        where: the source, for error messages.
        arrays: x_train and y_train and, where there are, x_val and y_val, x_test and y_test. Labels may be of every
            kind that `labels.numbered` takes.
        layout: where images of 4 dimensions have their channels: last, or first. What is returned has them last. Of
            "ntd" rows are sequences, (N, T, D), and stay so.
        class_names: the names of the classes, where the source knows them.
        task: the meaning of y, where it is no label; none is needed of a task whose target is the row itself.
        vocabulary: the number of tokens, where x is their ids.

    Returns:
        The arrays, and the classes' names; None where labels were numbers from 0, or there are none.

    Raises:
        UserError: as `checked_arrays`.

    """
    checked = {}
    parts = [part for part in ("train", "val", "test") if f"x_{part}" in arrays]
    for part in parts:
        what, x = f"{where}: x_{part}", arrays[f"x_{part}"]
        rows = checked_rows(what, x, layout) if vocabulary is None else checked_tokens(what, x, vocabulary)
        checked[f"x_{part}"] = rows
    names = [f"y_{part}" for part in parts if f"y_{part}" in arrays]
    classes = targets_are_labels(task)
    if task is None or classes:
        targets, class_names = numbered(where, {name: arrays[name] for name in names}, class_names)
    elif task.target_is_input:
        targets = {}
    else:
        targets = checked_targets(where, {name: arrays[name] for name in names}, task)
    for part in parts:
        x, y = checked[f"x_{part}"], targets.get(f"y_{part}")
        if y is not None and len(x) != len(y):
            kind = "labels" if classes else "targets"
            raise UserError(f"{where}: x_{part} has {len(x)} rows and y_{part} has {len(y)} {kind}")
        train = checked["x_train"]
        if train.shape[1:] != x.shape[1:]:
            raise UserError(f"{where}: rows of x_train have shape {train.shape[1:]}, those of x_{part} {x.shape[1:]}")
        if train.dtype != x.dtype:
            raise UserError(f"{where}: x_train is {arrays['x_train'].dtype} and x_{part} {arrays[f'x_{part}'].dtype}")
        if part != "train" and classes:
            same_classes(where, targets["y_train"], targets[f"y_{part}"], class_names)
    if classes:
        same_classes(where, targets["y_train"], targets["y_train"], class_names)
    return checked | targets, None if class_names is None else tuple(class_names)


def checked_graph(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the `GRAPH_ARRAYS` with x (N, D) as float32 and all others as int64.

    Args:
        where: the source, for error messages.
        arrays: by name; edge_index is (2, E) node indices, y (N,) labels, and train, val and test are node indices, no
            node in two.

    Raises:
        UserError: for a wrong type, shape, label or node.

    """
    x = checked_rows(f"{where}: x", arrays["x"])
    if x.ndim != 2:
        raise UserError(f"{where}: x has shape {x.shape}; a row of features for each node, (N, D), is expected")
    labels = numbered(where, {"y": arrays["y"]})[0]["y"]
    if len(x) != len(labels):
        raise UserError(f"{where}: x has {len(x)} rows and y has {len(labels)} labels")
    checked = {"x": x.astype(np.float32), "y": labels}
    edges = arrays["edge_index"]
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise UserError(f"{where}: edge_index has shape {edges.shape}; (2, E) is expected")
    checked["edge_index"] = _nodes(f"{where}: edge_index", edges, len(x))
    for split in ("train", "val", "test"):
        index = arrays[split]
        if index.ndim != 1 or not len(index):
            raise UserError(f"{where}: {split} has shape {index.shape}; a list of nodes, (M,), is expected")
        checked[split] = _nodes(f"{where}: {split}", index, len(x))
    members = np.concatenate([checked[split] for split in ("train", "val", "test")])
    if len(np.unique(members)) < len(members):
        raise UserError(f"{where}: a node is listed twice in train, val and test, which must not overlap")
    same_classes(where, labels[checked["train"]], labels[np.concatenate([checked["val"], checked["test"]])])
    return checked


def checked_rows(what: str, x: np.ndarray, layout: Layout = "nhwc") -> np.ndarray:
    """Return rows as uint8 or float32, with their channels, if they have any, last.

    Args:
        what: the rows' name in error messages.
        x: as of `checked_parts`.
        layout: as of `checked_parts`.

    Raises:
        UserError: for another type or shape, for no rows and for values that are not finite.

    """
    if x.dtype.kind not in "uifb":
        raise UserError(f"{what} is {x.dtype}; integers or real numbers are expected")
    if layout == "ntd" and x.ndim != 3:
        raise UserError(f"{what} has shape {x.shape}; sequences, (N, T, D), are expected by layout=ntd")
    if x.ndim not in (2, 3, 4):
        raise UserError(f"{what} has shape {x.shape}; (N, H, W) or (N, H, W, C) images or (N, D) vectors are expected")
    if not x.size:
        raise UserError(f"{what} is empty, with shape {x.shape}")
    if x.ndim == 4:
        own, other = (3, 1) if layout == "nhwc" else (1, 3)
        shapes = ("(N, C, H, W)", "(N, H, W, C)")
        if x.shape[own] not in _CHANNELS and x.shape[other] in _CHANNELS:
            looks, expected = shapes if layout == "nhwc" else reversed(shapes)
            right = "nchw" if layout == "nhwc" else "nhwc"
            raise UserError(
                f"{what} has shape {x.shape}, which looks like {looks}; {expected} is expected, or give layout={right}"
            )
        x = x if layout == "nhwc" else x.transpose(0, 2, 3, 1)
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise UserError(f"{what} holds {bad} of {values.size} values that are NaN or infinite in float32")
    return values


def checked_tokens(what: str, x: np.ndarray, vocabulary: int) -> np.ndarray:
    """Return token ids, (N, T) int64.

    Args:
        what: the ids' name in error messages.
        x: the ids.
        vocabulary: the number of tokens.

    Raises:
        UserError: for another type or shape, for no rows, or an id out of range.

    """
    if x.dtype.kind not in "ui" or x.ndim != 2:
        raise UserError(f"{what} is {x.dtype} with shape {x.shape}; token ids, integers (N, T), are expected")
    if not x.size:
        raise UserError(f"{what} is empty, with shape {x.shape}")
    low, high = int(x.min()), int(x.max())
    if low < 0 or high >= vocabulary:
        raise UserError(f"{what} holds {low if low < 0 else high}; token ids run from 0 to {vocabulary - 1}")
    return x.astype(np.int64)


def _nodes(what: str, index: np.ndarray, nodes: int) -> np.ndarray:
    if index.dtype.kind not in "ui":
        raise UserError(f"{what} is {index.dtype}; indices of nodes must be integers")
    if index.size and (index.min() < 0 or index.max() >= nodes):
        raise UserError(f"{what} holds {index.min()} to {index.max()}; nodes run from 0 to {nodes - 1}")
    return index.astype(np.int64)


def same_classes(where: str, train: np.ndarray, held_out: np.ndarray, class_names: Sequence[str] | None = None) -> None:
    """Check that the training labels, (N,), are all of 0..C-1, C > 1, and the held-out ones among them.

    Args:
        where: the source, for error messages.
        train: the training labels.
        held_out: the held-out labels.
        class_names: the labels' names in error messages; their numbers by default.

    Raises:
        UserError: where they are not.

    """

    def name(label: int) -> str:
        return str(label) if class_names is None else class_names[label]

    present = np.unique(train)
    if len(present) < 2:
        raise UserError(f"{where}: the training labels are all {name(present[0])}; at least 2 classes are needed")
    if present[-1] != len(present) - 1:
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise UserError(
            f"{where}: the training labels reach {name(present[-1])} but none is {name(gap)}; they must be "
            f"{'0 to classes - 1' if class_names is None else 'of every class'}, and values need a task, regression"
        )
    if held_out.max() > present[-1]:
        raise UserError(
            f"{where}: a held-out label is {name(held_out.max())}; the training labels end at {name(present[-1])}"
        )


def as_array(what: str, value: Any) -> np.ndarray:
    """Convert a tensor, an array, or what NumPy makes one of, to an array.

    Args:
        what: the value's name in error messages.
        value: the value.

    Raises:
        UserError: where no array can be made, and for sparse tensors and masked values.

    """
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise UserError(f"{what} is a sparse tensor; give value.to_dense()")
        value = value.detach().cpu()
        if value.is_quantized or (value.is_floating_point() and value.dtype != torch.float64):
            value = value.float() if not value.is_quantized else value.dequantize()
        return value.resolve_conj().resolve_neg().numpy()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} is {type(value).__name__}, of which no array can be made ({error})") from error
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise UserError(f"{what} has masked values; fill them in, or leave their rows out")
    return array


def as_pair(what: str, item: Any) -> tuple[Any, Any]:
    """Return x and y of an item or a batch.

    Args:
        what: the item's name in error messages.
        item: a tuple or list of two.

    Raises:
        UserError: unless it is such a pair.

    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise UserError(f"{what} is {found}; a pair (x, y) is expected")
    return item[0], item[1]
