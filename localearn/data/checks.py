"""Whether arrays that came from outside can be learned from; whatever cannot is named in a line."""

from collections.abc import Mapping

import numpy as np

from localearn.errors import UserError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
GRAPH_ARRAYS = ("x", "edge_index", "y", "train", "val", "test")

_CHANNELS = (1, 3, 4)  # what the last dimension of a colour image may plausibly be


def checked_arrays(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the four `ARRAYS` with x as uint8 or float32 and y as int64, 0..C-1.

    x: (N, H, W) or (N, H, W, C) images or (N, D) vectors. `where` names the source in messages. Raises UserError for
    a wrong type, shape, length or label, for an empty array and for values that are not finite.
    """
    checked = {}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        checked[x] = _values(f"{where}: {x}", arrays[x])
        checked[y] = _labels(f"{where}: {y}", arrays[y])
        if len(checked[x]) != len(checked[y]):
            raise UserError(f"{where}: {x} has {len(checked[x])} rows and {y} has {len(checked[y])} labels")
    train, test = checked["x_train"], checked["x_test"]
    if train.shape[1:] != test.shape[1:]:
        raise UserError(f"{where}: rows of x_train have shape {train.shape[1:]}, those of x_test {test.shape[1:]}")
    if train.dtype != test.dtype:
        raise UserError(f"{where}: x_train is {arrays['x_train'].dtype} and x_test {arrays['x_test'].dtype}")
    _same_classes(where, checked["y_train"], checked["y_test"])
    return checked


def checked_graph(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the `GRAPH_ARRAYS` with x (N, D) as float32 and all others as int64.

    edge_index: (2, E) node indices. y: (N,) labels. train, val, test: node indices, no node in two. Raises UserError.
    """
    x = _values(f"{where}: x", arrays["x"])
    if x.ndim != 2:
        raise UserError(f"{where}: x has shape {x.shape}; a row of features for each node, (N, D), is expected")
    labels = _labels(f"{where}: y", arrays["y"])
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
        raise UserError(f"{where}: a node stands twice in train, val and test, which must not overlap")
    _same_classes(where, labels[checked["train"]], labels[np.concatenate([checked["val"], checked["test"]])])
    return checked


def _values(what: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "uifb":
        raise UserError(f"{what} is {x.dtype}; integers or real numbers are expected")
    if x.ndim not in (2, 3, 4):
        raise UserError(f"{what} has shape {x.shape}; (N, H, W) or (N, H, W, C) images or (N, D) vectors are expected")
    if not x.size:
        raise UserError(f"{what} is empty, with shape {x.shape}")
    if x.ndim == 4 and x.shape[3] not in _CHANNELS and x.shape[1] in _CHANNELS:
        raise UserError(f"{what} has shape {x.shape}, which looks like (N, C, H, W); (N, H, W, C) is expected")
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise UserError(f"{what} holds {bad} of {values.size} values that are NaN or infinite in float32")
    return values


def _labels(what: str, y: np.ndarray) -> np.ndarray:
    if y.ndim != 1:
        raise UserError(f"{what} has shape {y.shape}; one label for each row, (N,), is expected")
    if y.dtype.kind not in "ui":
        raise UserError(f"{what} is {y.dtype}; labels must be integers, 0 to classes - 1")
    if len(y) and y.min() < 0:
        raise UserError(f"{what} holds {y.min()}; labels run from 0 to classes - 1")
    if len(y) and y.max() > np.iinfo(np.int64).max:
        raise UserError(f"{what} holds {y.max()}; labels run from 0 to classes - 1")
    return y.astype(np.int64)


def _nodes(what: str, index: np.ndarray, nodes: int) -> np.ndarray:
    if index.dtype.kind not in "ui":
        raise UserError(f"{what} is {index.dtype}; indices of nodes must be integers")
    if index.size and (index.min() < 0 or index.max() >= nodes):
        raise UserError(f"{what} holds {index.min()} to {index.max()}; nodes run from 0 to {nodes - 1}")
    return index.astype(np.int64)


def _same_classes(where: str, train: np.ndarray, held: np.ndarray) -> None:
    present = np.unique(train)
    if len(present) < 2:
        raise UserError(f"{where}: the training labels are all {present[0]}; at least 2 classes are needed")
    if present[-1] != len(present) - 1:
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise UserError(
            f"{where}: the training labels reach {present[-1]} but none is {gap}; they must be 0 to classes - 1"
        )
    if held.max() > present[-1]:
        raise UserError(f"{where}: a held-out label is {held.max()}; the training labels end at {present[-1]}")
