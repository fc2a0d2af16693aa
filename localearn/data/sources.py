"""Loading of data sets by name, `load`: found or downloaded, checked, split and normalised."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np
import torch

from localearn import registry
from localearn.data import files
from localearn.data.base import Data, Split
from localearn.data.checks import Layout, checked_arrays, checked_graph, checked_parts
from localearn.data.conversion import from_graph
from localearn.data.embedded import DIGITS_TOP, FEATURES, TUMOURS, breast_cancer, diabetes, digits, karate, wine
from localearn.data.graphs import GraphData
from localearn.data.imagefolder import image_folder
from localearn.data.npz_graphs import NPZ_GRAPHS, npz_graph
from localearn.data.partition import array_data, check_fraction, check_seed, duplicates, fold_of, levels_of, with_test
from localearn.data.planetoid import PLANETOID, planetoid
from localearn.data.table import FILE_OPTIONS, task_of_file
from localearn.data.transforms import Augment, Normalize, row_shares
from localearn.data.vision import CLASSES, VISION, vision
from localearn.errors import UserError, suggestion
from localearn.options import check_call
from localearn.printing import log_notes
from localearn.tasks import NAMED, Autoencoding, Classification, Criterion, MultiLabel, Reconstruction, Regression, Task

GRAPHS = ("karate", *PLANETOID, *NPZ_GRAPHS)
FILES = ("npz", "imagefolder", "graph")
REGRESSIONS = ("diabetes",)
TABLES = ("breast_cancer", "wine")

# Of these no row has one class, whatever the options.
VALUES = ("adding", "copy_memory", "coordinates", "interactions", "links", "photo", "text", "views")

NAMES = ("digits", *VISION, *GRAPHS, *REGRESSIONS, *TABLES, *FILES, *registry.DATA)

TaskName = Literal["classification", "regression", "multilabel", "binary", "autoencoding"]


def task_named(options: Mapping[str, Any]) -> Any:
    """Return the task of the data that a configuration describes, by name or as it is given, before they are read.

    The file of a table whose task is "auto" is inspected; where that fails, building the data says why.

    Args:
        options: the group `dataset` of a configuration.

    """
    kind = str(options.get("_target_")).rpartition(".")[2]
    if kind in VALUES:
        return "regression"
    if kind != "table" or options.get("task") != "auto":
        return options.get("task")
    try:
        return task_of_file(**{str(name): value for name, value in options.items() if name in FILE_OPTIONS})
    except UserError:
        return None


def _or_by_function(other: Callable[..., Data]) -> Callable[..., Data]:
    """Wrap `load` so that it takes the names of `registry.DATA` too, under the signature of `other`."""

    @functools.wraps(other)
    def loading(name: str, **options: Any) -> Data:
        if name not in registry.DATA:
            return other(name, **options)
        function = registry.member("localearn.data", name)
        check_call("", function, options)
        return function(**options)

    return loading


@_or_by_function
def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    path: str | Path | None = None,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    split_seed: int = 0,
    normalize: Normalize = "standard",
    augment: Augment = "none",
    image_size: int | None = None,
    test_fraction: float = 0.2,
    train_size: int | None = None,
    fold: int | None = None,
    layout: Layout = "nhwc",
    task: TaskName | Task | None = None,
    criterion: Criterion | Reconstruction = "squared",
    leave_out: Sequence[int | str] = (),
) -> Data:
    """Load one of the data sets in `NAMES`, split in three, on the CPU (`.to` moves it).

    Args:
        name: the data set. A name of `registry.DATA` stands for the function of that name in `localearn.data`, which
            has options of its own.
        data_dir: the folder of prepared sets and downloads; default LOCALEARN_DATA, else ~/.cache/localearn.
        path: the file of "graph" (x, edge_index, y and, where there are, the nodes or masks train, val, test), the file
            of "npz" (x_train, y_train and, where there are, x_val, y_val, x_test, y_test; or x, y) or the folder of
            "imagefolder". Labels of "npz" may be numbers from 0 or from 1, words, booleans or one-hot rows.
        val_fraction: the share of the training part that is held out for validation, every class in proportion. The
            test part does not depend on it. Graphs have fixed splits.
        val_size: the number of rows held out, which takes precedence over the fraction.
        split_seed: of these draws.
        normalize: "standard" (mean 0, deviation 1, per channel of images and per feature of vectors, statistics of the
            training split alone), "unit" (0 to 1) or "none"; graphs: "rows", which is their "standard", or "none".
        augment: "none", "crop" (random crops after 4 pixels of zero padding) or "crop_flip" (and mirror images).
        image_size: pixels to which "imagefolder" scales and crops.
        test_fraction: the share that "imagefolder" and "npz" hold out where there is no test part, the same rows for
            every split_seed.
        train_size: the number of training rows to use, drawn by split_seed, every class in proportion, for quick
            trials.
        fold: of a graph, which of five folds is the test, 0..4, as ForwardGNN's authors draw them (see `fold_of`): 64 %
            of the nodes to train on, 16 % to validate, 20 % to test, in place of the split that it has.
        layout: whether images of "npz" come as (N, H, W, C), "nhwc", or as (N, C, H, W), "nchw"; "ntd": its x are
            sequences, (N, T, D), and not grey images.
        task: "classification", but "regression" of "diabetes" and "binary" of "breast_cancer", by one output, which
            takes "classification" too; "autoencoding", the rows themselves, of all sets but graphs; "regression",
            "multilabel" or "binary" of "npz" too, whose y are numbers, (N,) or (N, D), or zeros and ones; or a
            `localearn.tasks.Task` with its options, such as MultiLabel(k=5).
        criterion: the training loss of a task given by name: "squared", "absolute" or "huber" of a regression, whose
            targets are standardised as x is by "standard", with metrics in the unit that they had; "squared" or "bce"
            of an autoencoding.
        leave_out: classes, by number or by name, no row of which is in the training or the validation part, while the
            test part stays whole, to see a net's response to a class that it never saw. The classes keep their numbers
            and outputs, and the other classes' rows are in the parts where they are without the option; see
            `Data.unseen`.

    Returns:
        The data set.

    Raises:
        UserError: in one or two lines, for an unknown name or option, a value out of its range, and data that are
            missing, damaged or cannot be learned from.

    Example:
        data = localearn.load("digits", val_fraction=0.2, split_seed=1)

    """
    for option, value, known in (
        ("data set", name, NAMES),
        ("normalize", normalize, get_args(Normalize)),
        ("augment", augment, get_args(Augment)),
        ("layout", layout, get_args(Layout)),
        ("criterion", criterion, (*get_args(Criterion), "bce")),
        ("task", task if isinstance(task, str) else None, (*NAMED, None)),
    ):
        if value not in known:
            known = [choice for choice in known if choice is not None]
            raise UserError(f"unknown {option} {value!r}{suggestion(str(value), known)} (known: {', '.join(known)})")
    if (path is not None) != (name in FILES):
        raise UserError(
            f"{name} needs a path" if path is None else f"path belongs to npz, imagefolder and graph, not {name}"
        )
    if image_size is not None and name != "imagefolder":
        raise UserError(f"image_size belongs to imagefolder; {name} has its own size")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size is {image_size}; it must be at least 1")
    if layout != "nhwc" and name != "npz":
        raise UserError(f"layout belongs to npz, whose images may come either way, not to {name}")
    binary = task == "binary"
    task = _task(name, task, criterion)
    if leave_out and (name in GRAPHS or name == "graph" or task is not None):
        what = (
            "is one graph, whose nodes are all there at once" if task is None else f"is for {type(task).__name__} here"
        )
        raise UserError(f"leave_out is of rows that have one class each; {name} {what}")
    check_seed("split_seed", split_seed)
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    folder = files.data_folder(data_dir)
    if name in GRAPHS or name == "graph":
        if augment != "none" or val_size is not None or train_size is not None:
            raise UserError(f"{name} is one graph with a fixed split: augment, val_size and train_size do not apply")
        if name in NPZ_GRAPHS:
            _checked_normalize(name, normalize)
            graph = npz_graph(name, folder)
            return from_graph(
                SimpleNamespace(**graph, **({} if fold is None else _fold_masks(len(graph["y"]), fold))),
                test_fraction=test_fraction,
                val_fraction=val_fraction,
                seed=split_seed,
                normalize="none" if normalize == "none" else "rows",
                name=name,
            )
        if name == "graph":
            own = Path(path or "").expanduser()
            return _own_graph(own, normalize, test_fraction, val_fraction, split_seed, fold)
        graph = planetoid(name, folder) if name in PLANETOID else checked_graph(name, karate())
        if fold is not None:
            graph = {**graph, **dict(zip(("train", "val", "test"), fold_of(len(graph["y"]), fold), strict=True))}
        return _graph_data(name, graph, normalize)
    if fold is not None:
        raise UserError(f"fold belongs to graphs; {name} is split by val_fraction and split_seed")
    place = Path(path or "").expanduser()
    parts, levels, class_names, notes = _parts(name, folder, place, image_size, test_fraction, layout, task)
    if binary and parts["y_train"].shape[1] > 1:
        raise UserError(
            f"{place}: y_train has {parts['y_train'].shape[1]} columns, and binary one; use task=multilabel"
        )
    data = array_data(
        name,
        parts,
        levels=levels,
        val_fraction=val_fraction,
        val_size=val_size,
        seed=split_seed,
        normalize=normalize,
        augment=augment,
        train_size=train_size,
        class_names=class_names,
        notes=notes,
        task=task,
        sequences=layout == "ntd",
        where=str(place) if name in FILES else None,
        leave_out=leave_out,
    )
    data.feature_names = FEATURES.get(name)
    return data


def _task(name: str, task: TaskName | Task | None, criterion: Criterion | Reconstruction) -> Task | None:
    """Return the task of a set, None for classification of its classes; raise UserError for one that does not fit."""
    if task is None:
        task = "regression" if name in REGRESSIONS else "binary" if name == "breast_cancer" else "classification"
    if type(task) is Classification:
        task = "classification"
    kind = NAMED[task] if isinstance(task, str) else type(task)
    named = task if isinstance(task, str) else kind.__name__
    graph = name in GRAPHS or name == "graph"
    if kind is Classification or kind.has_classes:
        fits = name not in REGRESSIONS
    elif kind.target_is_input:
        fits = not graph
    else:
        fits = name in ("npz", *REGRESSIONS) or (name == "breast_cancer" and kind is MultiLabel)
    if not fits:
        has = "values" if name in REGRESSIONS else "labels"
        raise UserError(f"task={named} does not fit {name}, which has {has}" + ("" if graph else "; autoencoding does"))
    if isinstance(task, Task):
        if criterion != "squared":
            raise UserError(f"criterion={criterion} is an option of a task that is named; give it to {kind.__name__}")
        return task
    choices = {Regression: get_args(Criterion), Autoencoding: get_args(Reconstruction)}.get(kind, ("squared",))
    if criterion not in choices:
        of = f"there are {', '.join(choices)}" if len(choices) > 1 else "its loss is a cross-entropy"
        raise UserError(f"criterion={criterion} is none of task={named} ({name}); {of}")
    chosen: Any = {} if kind not in (Regression, Autoencoding) else {"criterion": criterion}
    return None if kind is Classification else kind(**chosen)


def _parts(
    name: str,
    data_dir: Path,
    path: Path,
    image_size: int | None,
    test_fraction: float,
    layout: Layout,
    task: Task | None,
) -> tuple[dict[str, np.ndarray], tuple[int, int] | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Return a set's checked parts, a test part among them, and what is known of it.

    That is the lowest and highest level that its values can take, the names of its classes, and notes of what was
    decided. Where the target is the row itself, labels, if there are any, are included all the same, since rows are
    split by them.
    """
    if name == "digits":
        return checked_arrays(name, digits()), (0, DIGITS_TOP), None, ()
    if name in VISION:
        parts = vision(name, data_dir)
        return parts, levels_of(parts), CLASSES.get(name), ()
    if name in REGRESSIONS:
        parts, _ = checked_parts(name, diabetes(), task=task)
        return parts, None, None, ()
    if name in TABLES:
        arrays = breast_cancer() if name == "breast_cancer" else wine()
        parts, _ = checked_parts(name, arrays, task=task)
        if task is None:
            return parts, None, TUMOURS if name == "breast_cancer" else tuple(f"grower {k + 1}" for k in range(3)), ()
        note = f"the output is the evidence for {TUMOURS[1]!r}, against {TUMOURS[0]!r}"
        return parts, None, None, () if task.target_is_input or name == "wine" else (note,)
    found: tuple[str, ...] = ()
    if name == "npz":
        own = _own_archive(path, labelled=task is None or not task.target_is_input)
        parts, class_names = checked_parts(str(path), own, layout, task=task)
        levels = levels_of(parts)
    else:
        arrays, folders, found = image_folder(path, image_size)
        levels = levels_of(arrays)
        parts, class_names = checked_parts(str(path), arrays, class_names=folders)
    parts, drawn = with_test(str(path), parts, test_fraction, class_names, task)
    warnings = (*found, *duplicates(parts))
    log_notes(str(path), warnings)
    return parts, levels, class_names if task is None else None, (*drawn, *warnings)


def _own_archive(path: Path, *, labelled: bool = True) -> dict[str, np.ndarray]:
    """Return the arrays x_train, y_train and the held-out parts of a user's archive; x and y are a training part.

    Args:
        path: the archive.
        labelled: whether y is needed; else it may be lacking.

    """
    present = files.array_names(path)
    letters = "xy" if labelled else "x"
    if "edge_index" in present:
        raise UserError(f"{path} holds edge_index, a graph; use dataset=graph, localearn.load('graph', path=...)")
    if not {"x_train", "y_train"} & present and set(letters) <= present:
        arrays = files.read(path, letters)
        return {f"{letter}_train": arrays[letter] for letter in letters}
    held = [part for part in ("val", "test") if {f"{letter}_{part}" for letter in letters} & present]
    return files.read(path, [f"{letter}_{part}" for part in ("train", *held) for letter in letters])


def _graph_data(name: str, arrays: Mapping[str, np.ndarray], normalize: Normalize) -> GraphData:
    _checked_normalize(name, normalize)
    graph = {key: torch.from_numpy(array) for key, array in arrays.items()}
    x = graph["x"] if normalize == "none" else row_shares(graph["x"])
    nodes: dict[Split, torch.Tensor] = {"train": graph["train"], "val": graph["val"], "test": graph["test"]}
    classes = int(graph["y"].max()) + 1
    note = "none" if normalize == "none" else "rows"
    return GraphData(name, x, graph["edge_index"], graph["y"], nodes, classes, note=note)


def _own_graph(
    path: Path, normalize: Normalize, test_fraction: float, val_fraction: float, split_seed: int, fold: int | None
) -> GraphData:
    """Return the graph of a user's archive, whose splits may be lists of nodes, masks, or lacking."""
    present = files.array_names(path)
    splits = get_args(Split) if fold is None else ()
    named = {split: [key for key in (split, f"{split}_mask") if key in present][:1] for split in splits}
    stored = [key for keys in named.values() for key in keys]
    arrays = files.read(path, ("x", "edge_index", "y", *stored))
    nodes = len(np.atleast_1d(arrays["y"]))
    masks = {
        f"{split}_mask": _mask(f"{path}: {keys[0]}", arrays[keys[0]], nodes) for split, keys in named.items() if keys
    }
    if fold is not None:
        masks = _fold_masks(nodes, fold)
    graph = SimpleNamespace(x=arrays["x"], edge_index=arrays["edge_index"], y=arrays["y"], **masks)
    _checked_normalize("graph", normalize)
    return from_graph(
        graph,
        test_fraction=test_fraction,
        val_fraction=val_fraction,
        seed=split_seed,
        normalize="none" if normalize == "none" else "rows",
        name="graph",
        where=str(path),
    )


def _fold_masks(nodes: int, fold: int) -> dict[str, np.ndarray]:
    """Return masks of a fold's nodes, (nodes,) booleans each, by the names that a graph has them under."""
    parts = zip(("train", "val", "test"), fold_of(nodes, fold), strict=True)
    return {f"{split}_mask": np.isin(np.arange(nodes), index) for split, index in parts}


def _mask(what: str, nodes: np.ndarray, count: int) -> np.ndarray:
    """Return a mask of nodes, (count,) booleans, as it is, or of a list of them, (M,) integers."""
    if nodes.dtype == bool or nodes.dtype.kind not in "ui":
        return nodes
    if nodes.size and (nodes.min() < 0 or nodes.max() >= count):
        raise UserError(f"{what} holds {nodes.min()} to {nodes.max()}; nodes run from 0 to {count - 1}")
    return np.isin(np.arange(count), nodes)


def _checked_normalize(name: str, normalize: Normalize) -> None:
    if normalize == "unit":
        raise UserError(f"normalize=unit belongs to images and vectors; for {name} there are standard, rows and none")
