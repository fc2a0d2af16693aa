"""Conversion to a `Data` of arrays, torch datasets and loaders, and torch_geometric graphs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from localearn.data.arrays import ArrayData
from localearn.data.base import Data, Split
from localearn.data.checks import Layout, as_array, as_pair, checked_graph, checked_parts
from localearn.data.graphs import GraphData
from localearn.data.labels import numbered
from localearn.data.partition import (
    array_data,
    check_fraction,
    check_seed,
    duplicates,
    held_out_size,
    hold_out,
    levels_of,
    with_test,
)
from localearn.data.streams import LoaderData
from localearn.data.transforms import Augment, Normalize, row_shares
from localearn.errors import UserError, suggestion
from localearn.printing import log_notes
from localearn.tasks import Classification, Task

_TEST_SEED = 0  # of a graph's test nodes where it names none
_CONVERTIBLE = (
    "a localearn.Data, say load('digits'), (x, y), (x, y, x_test, y_test), a torch Dataset or DataLoader, or a "
    "torch_geometric Data"
)


def as_data(data: Any) -> Data:
    """Convert what `fit` takes to a `Data`, with the default options of the function that does it; a Data as it is.

    Args:
        data: a Data; arrays (x, y) or (x, y, x_test, y_test), see `from_arrays`; a torch Dataset, see `from_dataset`,
            or DataLoader, see `from_loader`; or a torch_geometric Data, see `from_graph`.

    Raises:
        UserError: for anything else, and as those functions do.

    """
    if isinstance(data, Data):
        return data
    if isinstance(data, DataLoader):
        return from_loader(data)
    if isinstance(data, Dataset):
        return from_dataset(data)
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        return from_arrays(*data)
    if not isinstance(data, np.ndarray | torch.Tensor) and hasattr(data, "edge_index"):
        return from_graph(data)
    raise UserError(f"a rule learns from {_CONVERTIBLE}, not from {type(data).__name__}")


def from_arrays(
    x: Any,
    y: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    *,
    x_val: Any = None,
    y_val: Any = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    seed: int = 0,
    normalize: Normalize = "standard",
    augment: Augment = "none",
    layout: Layout | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    task: Task | None = None,
    vocabulary: int | None = None,
) -> ArrayData:
    """Convert arrays to a data set, checked, split in three and normalised, on the CPU (`.to` moves it).

    Equal arrays give equal data, whether they come from here or as an archive's through `localearn.load`.

    Args:
        x: (N, H, W) or (N, H, W, C) images or (N, D) vectors, NumPy or torch, integers or real numbers; with
            layout="ntd" (N, T, D) sequences; with a vocabulary (N, T) token ids.
        y: labels of N rows: (N,) or (N, 1) numbers from 0 or from 1, booleans or words, or (N, C) one-hot rows; with a
            task what it takes, (N,) or (N, D) numbers, and nothing for an `Autoencoding`.
        x_test: the test part; without it `test_fraction` of the rows is drawn, always the same ones.
        y_test: its labels.
        x_val: the validation part; without it `val_fraction` of the training rows is drawn by `seed`.
        y_val: its labels.
        test_fraction: see x_test.
        val_fraction: see x_val.
        seed: see x_val.
        normalize: "standard", "unit" or "none", as of `localearn.load`.
        augment: "none", "crop" or "crop_flip", as of `localearn.load`.
        layout: "nhwc" or "nchw", where 4 dimensions have their channels; by default torch tensors have them first.
            "ntd": 3 dimensions are sequences, which only this distinguishes from grey images; each of their D features
            is normalised over all rows and positions.
        class_names: the classes' names in the order of their labels, or those of a `MultiLabel`'s labels.
        name: the data set's name in records.
        task: the meaning of y, where it is no label: a `Regression`, whose values are standardised, with metrics in
            their own unit, and whose criterion and delta say for which loss to train; a `MultiLabel`, zeros and ones;
            an `Autoencoding`, for which x is the target. A task of your own has y as it is, (N, D) float32.
        vocabulary: the number of tokens, where x is their ids, 0 to vocabulary - 1; they are not normalised.

    Raises:
        UserError: for a wrong type, shape, length, label or option, for values that are not finite, and for parts
            that are too small to be split.

    Example:
        data = localearn.data.from_arrays(x, y, normalize="unit")
        localearn.MonoForward(localearn.MLP(data.input_shape, data.classes)).fit(data)

    """
    for option, value, known in (
        ("normalize", normalize, get_args(Normalize)),
        ("augment", augment, get_args(Augment)),
        ("layout", layout, (*get_args(Layout), None)),
    ):
        if value not in known:
            raise UserError(f"unknown {option} {value!r}{suggestion(str(value), map(str, known))}")
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    check_seed("seed", seed)
    passed = {"x_train": x, "y_train": y, "x_val": x_val, "y_val": y_val, "x_test": x_test, "y_test": y_test}
    if not isinstance(task, Task | None):
        raise UserError(f"{name}: task must be a localearn.tasks.Task, say Regression(), not {task!r}")
    if type(task) is Classification:
        task = None
    arrays = _present(name, passed, task)
    if layout is None:
        layout = "nchw" if isinstance(x, torch.Tensor) else "nhwc"
    if vocabulary is not None and vocabulary < 1:
        raise UserError(f"{name}: vocabulary must be 1 or more, not {vocabulary}")
    parts, names = checked_parts(name, arrays, layout, class_names, task, vocabulary)
    for part in ("val", "test"):  # the training part is copied as it is split
        for key in (f"x_{part}", f"y_{part}"):
            if key in parts:
                parts[key] = parts[key].copy()
    parts, drawn = with_test(name, parts, test_fraction, names, task)
    twice = duplicates(parts)
    log_notes(name, twice)
    return array_data(
        name,
        parts,
        levels=levels_of(parts),
        val_fraction=val_fraction,
        seed=seed,
        normalize=normalize,
        augment=augment,
        class_names=names,
        notes=(*drawn, *twice),
        task=task,
        sequences=layout == "ntd",
        vocabulary=vocabulary,
    )


def _present(name: str, passed: Mapping[str, Any], task: Task | None) -> dict[str, np.ndarray]:
    """Return the arrays that are not None; raise UserError for x without its y, or y where x is the target."""
    for part in ("train", "val", "test"):
        has_x, has_y = (passed[f"{letter}_{part}"] is not None for letter in "xy")
        if task is not None and task.target_is_input:
            if has_y:
                raise UserError(f"{name}: y_{part} is given, but {type(task).__name__}'s target is x; leave it out")
        elif has_x != has_y:
            has, lacks = "xy" if has_x else "yx"
            more = "; task=Autoencoding() has x for its target" if has_x and part == "train" else ""
            raise UserError(f"{name}: {has}_{part} is given without {lacks}_{part}{more}")
    return {key: as_array(f"{name}: {key}", value) for key, value in passed.items() if value is not None}


def from_dataset(
    dataset: Dataset,
    test: Dataset | None = None,
    *,
    val: Dataset | None = None,
    name: str | None = None,
    **options: Any,
) -> ArrayData:
    """Convert torch datasets of (x, y) items to a data set, read once and held whole; see `from_arrays`.

    A random transform is applied once to each item, not again in each epoch; use `augment` for that.

    Args:
        dataset: the training part; its `classes`, where it has them as torchvision's have, are the class names. Where
            the target is x an item may be x alone.
        test: the test part; without it one is drawn.
        val: the validation part; without it one is drawn.
        name: the data set's name in records; the dataset's class in lower case by default.
        options: those of `from_arrays`.

    Raises:
        UserError: as `from_arrays`, and for items that are not (x, y) or have different shapes.

    Example:
        train, test = torchvision.datasets.MNIST("data"), torchvision.datasets.MNIST("data", train=False)
        data = localearn.data.from_dataset(train, test, augment="crop")

    """
    name = name or type(dataset).__name__.lower()
    arrays, x_is_target = {}, _is_target(options.get("task"))
    for part, source in (("", dataset), ("_test", test), ("_val", val)):
        if source is not None:
            arrays |= _named(part, _items(f"{name}{part}", source, x_is_target))
    classes = None if x_is_target else getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple) and all(isinstance(word, str) for word in classes):
        options = {"class_names": classes} | options
    return from_arrays(**arrays, name=name, **options)


def from_loader(
    loader: DataLoader,
    test: DataLoader | None = None,
    *,
    val: DataLoader | None = None,
    stream: bool | None = None,
    **options: Any,
) -> ArrayData | LoaderData:
    """Convert loaders of batches (x, y) to a data set: streamed where that is possible, or held whole.

    Streamed data may be larger than memory: every pass reads its loader again, in the loader's own order, and rows are
    as it gives them, uint8 divided by 255; see `LoaderData`. Data held whole are one pass of each loader, normalised,
    split and shuffled as of `from_arrays`. The batch size of the training is `fit`'s in both. A loader's `drop_last`
    loses rows, of data held whole for good. Where the target is x a batch may be x alone.

    Args:
        loader: the training part.
        test: the test part; without it one is drawn, from data held whole.
        val: the validation part; without it one is drawn, from data held whole.
        stream: whether to stream; by default where test and val are given, and no option but name.
        options: those of `from_arrays`; of a stream, name, task and layout.

    Raises:
        UserError: as `from_arrays` and `LoaderData`, for batches that are not (x, y) or whose rows have different
            shapes, and for a stream without test or val, or with other options.

    Example:
        data = localearn.data.from_loader(train_loader, test_loader, val=val_loader)

    """
    if stream is None:
        stream = test is not None and val is not None and not options.keys() - {"name"}
    if stream:
        others = [option for option in options if option not in ("name", "task", "layout")]
        if test is None or val is None:
            raise UserError("stream=True needs test= and val=: nothing can be drawn from data that are not held")
        if others:
            raise UserError(f"streamed data take no {', '.join(others)}; leave it out, or give stream=False")
        return LoaderData(loader, val, test, **options)
    name = options.setdefault("name", "loader")
    arrays, x_is_target = {}, _is_target(options.get("task"))
    for part, source in (("", loader), ("_test", test), ("_val", val)):
        if source is not None:
            pairs = [_columns(f"{name}{part}: batch {i}", batch, x_is_target) for i, batch in enumerate(source)]
            joined = [
                _joined(f"{name}{part}", column, torch.cat, np.concatenate) for column in zip(*pairs, strict=True)
            ]
            if not joined:
                raise UserError(f"{name}{part} gives no batch")
            arrays |= _named(part, joined)
    return from_arrays(**arrays, **options)


def from_graph(
    graph: Any,
    *,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    seed: int = 0,
    normalize: Normalize = "none",
    class_names: Sequence[str] | None = None,
    name: str = "graph",
    where: str | None = None,
) -> GraphData:
    """Convert a torch_geometric Data, or anything with its attributes, to a data set whose nodes are classified.

    Args:
        graph: x (N, D), edge_index (2, E), y (N,) labels as of `from_arrays` and, where there are, train_mask, val_mask
            and test_mask, (N,) booleans; with a train_mask alone all other nodes are held out. Edge weights and
            features are not used, which `notes` says.
        test_fraction: the share of nodes that is drawn where there is no test_mask, always the same ones.
        val_fraction: the share of training nodes that is drawn, by `seed`, where there is no val_mask.
        seed: see val_fraction.
        normalize: "rows", which makes the features of each node sum to 1, or "none".
        class_names: the classes' names in the order of their labels.
        name: the data set's name in records.
        where: the source, for error messages; its name by default.

    Raises:
        UserError: for what is missing, has a wrong type or shape, lies out of range or cannot be split.

    Example:
        graph = torch_geometric.datasets.KarateClub()[0]
        data = localearn.data.from_graph(graph)

    """
    where = where or name
    if normalize not in ("rows", "none"):
        raise UserError(f"{where} is a graph: normalize is rows or none, not {normalize!r}")
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    check_seed("seed", seed)
    lacking = [key for key in ("x", "edge_index", "y") if getattr(graph, key, None) is None]
    if lacking:
        raise UserError(f"{where} lacks {', '.join(lacking)}; a graph needs x, edge_index and y")
    arrays = {key: as_array(f"{where}: {key}", getattr(graph, key)) for key in ("x", "edge_index", "y")}
    labels, names = numbered(where, {"y": arrays["y"]}, class_names)
    arrays["y"] = labels["y"]
    nodes, notes = _nodes(where, graph, labels["y"], test_fraction, val_fraction, seed)
    checked = checked_graph(where, arrays | nodes)
    unused = [key for key in ("edge_weight", "edge_attr") if getattr(graph, key, None) is not None]
    notes += [f"{' and '.join(unused)} not used: all edges count alike"] if unused else []
    tensors = {key: torch.from_numpy(array) for key, array in checked.items()}
    splits: dict[Split, torch.Tensor] = {"train": tensors["train"], "val": tensors["val"], "test": tensors["test"]}
    x = row_shares(tensors["x"]) if normalize == "rows" else tensors["x"]
    data = GraphData(
        name, x, tensors["edge_index"], tensors["y"], splits, int(checked["y"].max()) + 1, note=normalize,
        class_names=names,
    )  # fmt: skip
    data.notes = tuple(notes)
    return data


def _nodes(
    name: str, graph: Any, labels: np.ndarray, test_fraction: float, val_fraction: float, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the nodes of each split, by their masks or drawn, and notes of what was drawn."""
    splits: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        mask = getattr(graph, f"{split}_mask", None)
        if mask is None:
            continue
        mask = as_array(f"{name}: {split}_mask", mask)
        if mask.dtype != bool or mask.shape != labels.shape:
            raise UserError(
                f"{name}: {split}_mask is {mask.dtype} with shape {mask.shape}; booleans of shape {labels.shape} are "
                f"expected; of several splits choose one, say mask[:, 0]"
            )
        splits[split] = np.flatnonzero(mask)
    notes = []
    unnamed = np.setdiff1d(np.arange(len(labels)), np.concatenate([np.zeros(0, np.int64), *splits.values()]))
    if "train" in splits and "test" not in splits:  # what is trained on is settled: the others are held out
        if "val" not in splits:
            rest, held_out = hold_out(labels[unnamed], held_out_size("val", len(unnamed), val_fraction), seed)
            notes.append(f"no val_mask was given: {len(held_out)} of {len(unnamed)} nodes in no mask were drawn")
            unnamed, splits["val"] = unnamed[rest], unnamed[held_out]
        notes.append(f"no test_mask was given: it is the other {len(unnamed)} nodes")
        return {**splits, "test": unnamed}, notes
    rest = splits.get("train", unnamed)
    for split, fraction, drawn_by in (("test", test_fraction, _TEST_SEED), ("val", val_fraction, seed)):
        if split not in splits:
            others, held_out = hold_out(labels[rest], held_out_size(split, len(rest), fraction), drawn_by)
            notes.append(f"no {split}_mask was given: {len(held_out)} of {len(rest)} nodes were drawn")
            rest, splits[split] = rest[others], rest[held_out]
    return {**splits, "train": rest}, notes


def _is_target(task: object) -> bool:
    """Return whether x is the target, so that no y is needed."""
    return isinstance(task, Task) and task.target_is_input


def _columns(what: str, item: Any, x_is_target: bool) -> tuple[Any, ...]:
    """Return x and y of an item or a batch; x alone where it is the target, whether or not there is a y."""
    if x_is_target:
        return (item[0] if isinstance(item, tuple | list) else item,)
    return as_pair(what, item)


def _named(part: str, columns: Sequence[Any]) -> dict[str, Any]:
    return {f"{letter}{part}": column for letter, column in zip("xy", columns, strict=False)}


def _items(what: str, dataset: Dataset, x_is_target: bool) -> list[Any]:
    """Return x and y of all items of a dataset, or x alone where it is the target."""
    if isinstance(dataset, TensorDataset):
        return list(_columns(what, dataset.tensors, x_is_target))
    items: Any = dataset
    if isinstance(dataset, IterableDataset):
        source: Iterable[Any] = items
    elif hasattr(dataset, "__len__"):
        source = (items[i] for i in range(len(items)))
    else:
        raise UserError(f"{what} is {type(dataset).__name__}, which has no length; give a DataLoader over it")
    pairs = [_columns(f"{what}: item {i}", item, x_is_target) for i, item in enumerate(source)]
    if not pairs:
        raise UserError(f"{what} is empty")
    return [_joined(what, column, torch.stack, np.stack) for column in zip(*pairs, strict=True)]


def _joined(what: str, values: Sequence[Any], join_tensors: Any, join_arrays: Any) -> Any:
    """Return tensors joined as a tensor, and anything else as an array."""
    try:
        if all(isinstance(value, torch.Tensor) for value in values):
            return join_tensors([value.detach() for value in values])
        return join_arrays([np.asarray(value) for value in values])
    except (ValueError, TypeError, RuntimeError) as error:
        shapes = sorted({str(tuple(np.shape(value))) for value in values})
        raise UserError(
            f"{what} has items of different shapes, {', '.join(shapes[:3])}"
            if len(shapes) > 1
            else f"{what} has items that cannot be put into one array ({str(error).splitlines()[0]})"
        ) from error
