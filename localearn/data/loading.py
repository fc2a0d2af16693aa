"""From a data set's name to a `Data`: found or fetched, checked, split and normalised."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from localearn.data import archive
from localearn.data.arrays import ArrayData
from localearn.data.augmentation import Augment
from localearn.data.base import Data, Split
from localearn.data.checks import ARRAYS, checked_arrays, checked_graph
from localearn.data.embedded import DIGITS_TOP, digits, karate
from localearn.data.graphs import GraphData
from localearn.data.imagefolder import image_folder
from localearn.data.normalization import Normalize, Scaling, row_shares, standard, unit
from localearn.data.planetoid import PLANETOID, planetoid
from localearn.data.splits import check_fraction, held_size, hold_out
from localearn.data.vision import VISION, vision
from localearn.errors import UserError, suggestion

GRAPHS = ("karate", *PLANETOID)
FILES = ("npz", "imagefolder")
NAMES = ("digits", *VISION, *GRAPHS, *FILES)

_SEEDS = 2**32  # numpy's seeds end there


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
) -> Data:
    """Return the data set of one of `NAMES`, split in three, on the CPU (`.to` moves it).

    data_dir: where prepared sets lie and downloads go; default LOCALEARN_DATA, else ~/.cache/localearn.
    path: the file of "npz" (x_train, y_train, x_test, y_test) or the folder of "imagefolder".
    val_fraction, val_size, split_seed: what is held out of the training part for validation, every class in
        proportion; a size goes before the fraction. The test part never depends on them. Graphs have fixed splits.
    normalize: "standard" (mean 0, deviation 1, per channel of images and per feature of vectors, statistics of the
        training split alone), "unit" (0 to 1) or "none"; graphs: "rows", which is their "standard", or "none".
    augment: "none", "crop" (random crops after 4 pixels of zero padding) or "crop_flip" (and mirror images).
    image_size: pixels to which "imagefolder" scales and crops. test_fraction: what it holds out without a test folder.
    train_size: how many training rows to use, drawn by split_seed, every class in proportion, for quick trials.

    Raises UserError, in one or two lines, for an unknown name or option, a value out of its range, and data that are
    missing, damaged or cannot be learned from.
    """
    for option, value, known in (
        ("data set", name, NAMES),
        ("normalize", normalize, get_args(Normalize)),
        ("augment", augment, get_args(Augment)),
    ):
        if value not in known:
            raise UserError(f"unknown {option} {value!r}{suggestion(str(value), known)} (known: {', '.join(known)})")
    if (path is not None) != (name in FILES):
        raise UserError(f"{name} needs a path" if path is None else f"path belongs to npz and imagefolder, not {name}")
    if image_size is not None and name != "imagefolder":
        raise UserError(f"image_size belongs to imagefolder; {name} has its own size")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size is {image_size}; it must be at least 1")
    if not 0 <= split_seed < _SEEDS:
        raise UserError(f"split_seed is {split_seed}; it must lie between 0 and {_SEEDS - 1}")
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    folder = _data_dir(data_dir)
    if name in GRAPHS:
        if augment != "none" or val_size is not None or train_size is not None:
            raise UserError(f"{name} is one graph with a fixed split: augment, val_size and train_size do not apply")
        graph = planetoid(name, folder) if name in PLANETOID else checked_graph(name, karate())
        return _graph_data(name, graph, normalize)
    arrays, levels = _arrays(name, folder, Path(path or "").expanduser(), image_size, test_fraction)
    held = held_size("val", len(arrays["y_train"]), val_fraction, val_size)
    return _array_data(name, arrays, levels, held, split_seed, normalize, augment, train_size)


def _data_dir(data_dir: str | Path | None) -> Path:
    return Path(data_dir or os.environ.get("LOCALEARN_DATA") or "~/.cache/localearn").expanduser()


def _arrays(
    name: str, data_dir: Path, path: Path, image_size: int | None, test_fraction: float
) -> tuple[dict[str, np.ndarray], tuple[int, int] | None]:
    """Return the four checked arrays of a set and the lowest and highest level that its values can take, if known."""
    if name == "digits":
        return checked_arrays(name, digits()), (0, DIGITS_TOP)
    if name == "npz":
        arrays = checked_arrays(str(path), archive.read(path, ARRAYS))
    elif name == "imagefolder":
        arrays = checked_arrays(str(path), image_folder(path, image_size, test_fraction))
    else:
        arrays = vision(name, data_dir)
    return arrays, (0, 255) if arrays["x_train"].dtype == np.uint8 else None


def _array_data(
    name: str,
    arrays: Mapping[str, np.ndarray],
    levels: tuple[int, int] | None,
    held: int,
    split_seed: int,
    normalize: Normalize,
    augment: Augment,
    train_size: int | None,
) -> ArrayData:
    labels = arrays["y_train"]
    train, val = hold_out(labels, held, split_seed)
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(labels[train], train_size, split_seed)[1]]
    rows, test_rows = _channels_first(arrays["x_train"]), _channels_first(arrays["x_test"])
    if augment != "none" and rows.ndim != 4:
        raise UserError(f"{name} holds vectors: augment={augment} needs images")
    x: dict[Split, torch.Tensor] = {
        "train": rows.index_select(0, torch.from_numpy(train)),
        "val": rows.index_select(0, torch.from_numpy(val)),
        "test": test_rows,
    }
    y: dict[Split, torch.Tensor] = {
        "train": torch.from_numpy(labels[train]),
        "val": torch.from_numpy(labels[val]),
        "test": torch.from_numpy(arrays["y_test"]),
    }
    scaling = _scaling(name, x["train"], levels, normalize)
    return ArrayData(name, x, y, int(labels.max()) + 1, scaling=scaling, augment=augment)


def _scaling(name: str, train: torch.Tensor, levels: tuple[int, int] | None, normalize: Normalize) -> Scaling | None:
    if normalize == "rows":
        raise UserError(f"normalize=rows belongs to graphs; for {name} there are standard, unit and none")
    if normalize == "standard":
        return standard(train)
    return unit(train, levels) if normalize == "unit" else None


def _channels_first(x: np.ndarray) -> torch.Tensor:
    """Return (N, C, H, W) images in one piece of memory, or (N, D) vectors as they are."""
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    if x.ndim == 3:
        return tensor.unsqueeze(1)
    return tensor.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else tensor


def _graph_data(name: str, arrays: Mapping[str, np.ndarray], normalize: Normalize) -> GraphData:
    if normalize == "unit":
        raise UserError(f"normalize=unit belongs to images and vectors; for {name} there are standard, rows and none")
    graph = {key: torch.from_numpy(array) for key, array in arrays.items()}
    x = graph["x"] if normalize == "none" else row_shares(graph["x"])
    nodes: dict[Split, torch.Tensor] = {"train": graph["train"], "val": graph["val"], "test": graph["test"]}
    classes = int(graph["y"].max()) + 1
    note = "none" if normalize == "none" else "rows"
    return GraphData(name, x, graph["edge_index"], graph["y"], nodes, classes, note=note)
