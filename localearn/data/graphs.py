"""Graphs whose nodes are classified, `GraphData`, and the reading of published ones; every batch is a whole graph."""

import copy
import pickle
import shutil
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from localearn.data import files
from localearn.data.base import Batch, Data, Split, sha256
from localearn.data.checks import GRAPH_ARRAYS, checked_graph
from localearn.data.files import FAILURES, TIMEOUT_S, absent, download_folder, downloading
from localearn.errors import UserError
from localearn.extras import torch_geometric


class GraphData(Data):
    """Hold a graph whole on one device; the splits are sets of its nodes, all seen by every pass (transductive)."""

    kind = "graph"
    augmented = False

    def __init__(
        self,
        name: str,
        x: Tensor,
        edge_index: Tensor,
        y: Tensor,
        nodes: Mapping[Split, Tensor],
        classes: int,
        *,
        note: str = "none",
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        """Check and hold a graph; `localearn.data.from_graph` takes torch_geometric's.

        Args:
            name: the data set's name in records.
            x: (N, D) floating-point features of the nodes; all tensors on one device.
            edge_index: (2, E) int64 nodes, the source and the target of each edge.
            y: (N,) int64 labels, 0..classes - 1.
            nodes: for each split (M,) int64 nodes.
            classes: their number.
            note: how x was normalised, for the fingerprint.
            class_names: the names of the classes, where they have any.

        Raises:
            UserError: for a wrong type, shape, label or node, and for values that are not finite.

        """
        _check(name, x, edge_index, y, nodes, classes)
        self.name = name
        self.classes = classes
        self.class_names = class_names
        self.sizes = {split: len(index) for split, index in nodes.items()}
        self._note = note
        self._fingerprint: str | None = None
        self._hold(x, edge_index, y, nodes)

    def to(self, device: torch.device | str) -> "GraphData":
        """Return the same graph on `device`; tensors that are there already are shared, not copied."""
        moved = copy.copy(self)
        nodes: dict[Split, Tensor] = {split: index.to(device) for split, index in self._nodes.items()}
        moved._hold(self._x.to(device), self._edge_index.to(device), self._y.to(device), nodes)
        return moved

    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return one batch, the whole graph, whatever the batch size; nothing is random in it. See `Data.batches`."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if split not in self._nodes:
            raise ValueError(f"{self.name} has no {split} split, only {', '.join(self._nodes)}")
        whole = Batch(self._x, self._labels[split], (self._edge_index,), self._nodes[split])
        return iter((whole,) if skip == 0 else ())

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "GraphData":
        """Return the graph with x replaced by `fn(x, edge_index)`; see `Data.features`."""
        with torch.no_grad():
            x = fn(self._x, self._edge_index)
        nodes: dict[Split, Tensor] = {"train": self._nodes["train"], "val": self._nodes["val"]}
        mapped = copy.copy(self)  # not checked: the training loop reports a net that diverges
        mapped.name, mapped._note, mapped._fingerprint = name, "none", None
        mapped.sizes = {split: len(index) for split, index in nodes.items()}
        mapped._hold(x, self._edge_index, self._y, nodes)
        return mapped

    def fingerprint(self) -> str:
        """Return a SHA-256 of nodes, edges, labels, splits and normalisation; computed once, then cached."""
        if self._fingerprint is None:
            graph = [("x", self._x), ("edge_index", self._edge_index), ("y", self._y)]
            self._fingerprint = sha256([*graph, *self._nodes.items()], self._note)
        return self._fingerprint

    def _hold(self, x: Tensor, edge_index: Tensor, y: Tensor, nodes: Mapping[Split, Tensor]) -> None:
        self._x, self._edge_index, self._y, self._nodes = x, edge_index, y, dict(nodes)
        self._labels = {split: y.index_select(0, index) for split, index in nodes.items()}
        self.input_shape = tuple(x.shape[1:])


def _check(name: str, x: Tensor, edge_index: Tensor, y: Tensor, nodes: Mapping[Split, Tensor], classes: int) -> None:
    """Raise UserError for tensors that would silently falsify training or an accuracy; worded as in `checks`."""
    of = "localearn.data.from_graph takes others"
    if not x.is_floating_point() or x.ndim != 2:
        raise UserError(f"{name}: x is {x.dtype} with shape {tuple(x.shape)}; floating-point (N, D) is expected; {of}")
    if y.dtype != torch.int64 or y.ndim != 1:
        raise UserError(f"{name}: y is {y.dtype} with shape {tuple(y.shape)}; int64 (N,) is expected; {of}")
    if len(x) != len(y):
        raise UserError(f"{name}: x has {len(x)} rows and y has {len(y)} labels")
    bad = x.numel() - int(torch.isfinite(x).sum())
    if bad:
        raise UserError(f"{name}: x holds {bad} of {x.numel()} values that are NaN or infinite")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise UserError(f"{name}: edge_index has shape {tuple(edge_index.shape)}; (2, E) is expected")
    for what, index in {"edge_index": edge_index, **nodes}.items():
        if index.dtype != torch.int64:
            raise UserError(f"{name}: {what} is {index.dtype}; int64 nodes are expected; {of}")
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(x)):
            raise UserError(
                f"{name}: {what} holds {int(index.min())} to {int(index.max())}; nodes run from 0 to {len(x) - 1}"
            )
    for split, index in nodes.items():
        labels = y.index_select(0, index)
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise UserError(f"{name}: y holds {wrong} in {split}; labels run from 0 to {classes - 1}")


PLANETOID = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}  # our name: torch_geometric's

_URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
_SOURCE = "github.com/kimiyoung/planetoid"
_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")

# The published files are pickles. These are all the types in them; a file that asks for another is not read.
_TYPES = {
    "scipy.sparse.csr.csr_matrix",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "collections.defaultdict",
    "__builtin__.list",
}


def planetoid(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    """Return a Planetoid graph's arrays, checked: x (N, D), edge_index (2, E), y (N,) and the nodes of each split.

    They are read from <data_dir>/<name>.npz, or else from torch_geometric's layout <data_dir>/<Name>/raw, or else
    downloaded; the result is stored as that archive.

    Args:
        name: the graph.
        data_dir: the folder of prepared data sets.

    Raises:
        UserError: where none of the three works.

    """
    prepared = data_dir / f"{name}.npz"
    if prepared.exists():
        return checked_graph(str(prepared), files.read(prepared, GRAPH_ARRAYS))
    title = PLANETOID[name]
    raw = data_dir / title / "raw"
    if all((raw / file).is_file() for file in _files(name)):
        arrays = _read(name, raw)
    else:
        try:
            arrays = _downloaded(name, data_dir)
        except FAILURES as error:
            raise absent(name, _SOURCE, (prepared, raw / f"ind.{name}.*"), error) from error
    checked = checked_graph(name, arrays)
    files.keep(prepared, arrays)
    return checked


def _files(name: str) -> list[str]:
    return [f"ind.{name}.{part}" for part in _PARTS]


def _downloaded(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    # Not by torch_geometric's own download, which neither checks certificates nor ends where nobody answers.
    with download_folder(data_dir) as folder, downloading(name, _SOURCE, data_dir):
        for file in _files(name):
            with (
                urllib.request.urlopen(f"{_URL}/{file}", timeout=TIMEOUT_S) as answer,
                open(f"{folder}/{file}", "wb") as to,
            ):
                shutil.copyfileobj(answer, to)
        return _read(name, folder)


def _read(name: str, raw: Path) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        # The pickles name modules that scipy and numpy have since moved.
        warnings.simplefilter("ignore")
        pickled = {part: _checked(raw / f"ind.{name}.{part}") for part in _PARTS[:-1]}
        try:
            graph: Any = torch_geometric("io").read_planetoid_data(str(raw), name)
            listed, held = int(graph.test_mask.sum()), pickled["tx"].shape[0]
            if listed != held:
                raise ValueError(f"test.index lists {listed} nodes and tx holds {held}")
        except (ValueError, IndexError, KeyError, RuntimeError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{raw}: the files of {name} do not fit together; one is damaged ({error})") from error
    x = graph.x.numpy()
    words = x.astype(np.uint8)
    return {
        "x": words if np.array_equal(words, x) else x,  # words that are there or not need a quarter of the space
        "edge_index": graph.edge_index.numpy(),
        "y": graph.y.numpy(),
        **{split: np.flatnonzero(graph[f"{split}_mask"].numpy()) for split in ("train", "val", "test")},
    }


class _Unpickler(pickle.Unpickler):
    """Unpickle the types of the published files and no others, so that a foreign file runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _TYPES:
            raise UserError(f"it asks for {module}.{name}, which the published file does not")
        return super().find_class(module, name)


def _checked(path: Path) -> Any:
    """Return a pickle's content; raise UserError unless it is whole, of known types and with consistent matrices."""
    try:
        with path.open("rb") as file:
            value = _Unpickler(file, encoding="latin1").load()
        if hasattr(value, "check_format"):  # a sparse matrix whose indices lie outside it crashes the interpreter
            value.check_format(full_check=True)
        return value
    except Exception as error:  # anything at all can come out of a damaged pickle
        raise UserError(f"{path} is not the published file, or is damaged ({error})") from error


# Our name: where the file is published, and where torch_geometric itself would store it.
NPZ_GRAPHS = {
    "cora_ml": ("github.com/abojchevski/graph2gauss/raw/master/data/cora_ml.npz", "cora_ml/raw/cora_ml.npz"),
    "citeseer_full": (
        "github.com/abojchevski/graph2gauss/raw/master/data/citeseer.npz",
        "citeseer/raw/citeseer.npz",
    ),
    "pubmed_full": ("github.com/abojchevski/graph2gauss/raw/master/data/pubmed.npz", "pubmed/raw/pubmed.npz"),
    "amazon_photo": (
        "github.com/shchur/gnn-benchmark/raw/master/data/npz/amazon_electronics_photo.npz",
        "Photo/raw/amazon_electronics_photo.npz",
    ),
    "amazon_computers": (
        "github.com/shchur/gnn-benchmark/raw/master/data/npz/amazon_electronics_computers.npz",
        "Computers/raw/amazon_electronics_computers.npz",
    ),
    "github": ("graphmining.ai/datasets/ptg/github.npz", "raw/github.npz"),
}

_KEPT = ("x", "edge_index", "y")
_SPARSE = tuple(f"{of}_{part}" for of in ("attr", "adj") for part in ("data", "indices", "indptr", "shape"))


def npz_graph(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    """Return a graph's arrays: x (N, D), edge_index (2, E) of both directions, without self-loops, and y (N,).

    They are read from <data_dir>/<name>.npz, or else from where torch_geometric stores the published file there, or
    else downloaded; the result is stored as that archive.

    Args:
        name: the graph.
        data_dir: the folder of prepared data sets.

    Raises:
        UserError: where none of the three works.

    """
    prepared = data_dir / f"{name}.npz"
    if prepared.exists():
        return files.read(prepared, _KEPT)
    url, layout = NPZ_GRAPHS[name]
    published = data_dir / layout
    if published.is_file():
        arrays = _read_npz_graphs(name, published)
    else:
        source = url.rpartition("/raw/")[0] or url.partition("/")[0]
        try:
            with download_folder(data_dir) as folder, downloading(name, source, data_dir):
                file = folder / f"{name}.npz"
                with urllib.request.urlopen(f"https://{url}", timeout=TIMEOUT_S) as answer, file.open("wb") as to:
                    shutil.copyfileobj(answer, to)
                arrays = _read_npz_graphs(name, file)
        except (*FAILURES, UserError) as error:
            raise absent(name, source, (prepared, published), error) from error
    files.keep(prepared, arrays)
    return arrays


def _read_npz_graphs(name: str, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a published file, as torch_geometric makes them of it, without unpickling."""
    if name == "github":
        found = files.read(path, ("features", "edges", "target"))
        x, edges, y = found["features"], found["edges"], found["target"]
        return {"x": x, "edge_index": _both_ways(path, edges.reshape(-1, 2).T, len(y)), "y": y}
    found = files.read(path, (*_SPARSE, "labels"))
    words, links = (_dense(path, of, found) for of in ("attr", "adj"))
    if links[2] != (len(found["labels"]),) * 2:
        raise UserError(f"{path}: its edges are of {links[2]} nodes, and it has {len(found['labels'])} labels")
    x = np.zeros(words[2], dtype=np.uint8)
    x[words[0], words[1]] = words[3] > 0  # whether a word is there
    return {"x": x, "edge_index": _both_ways(path, np.stack(links[:2]), len(x)), "y": found["labels"]}


def _dense(
    path: Path, of: str, found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int], np.ndarray]:
    """Return rows, columns, shape and values of a matrix in compressed sparse rows, checked."""
    values, columns, starts, shape = (found[f"{of}_{part}"] for part in ("data", "indices", "indptr", "shape"))
    rows, width = (int(n) for n in shape.reshape(-1)[:2])
    counts = np.diff(starts)
    sound = len(starts) == rows + 1 and (counts >= 0).all() and starts[0] == 0 and starts[-1] == len(columns)
    if not sound or len(values) != len(columns) or (len(columns) and not 0 <= columns.min() <= columns.max() < width):
        raise UserError(f"{path}: {of} is no matrix in compressed sparse rows; the file is damaged, or another one")
    return np.repeat(np.arange(rows), counts), columns.astype(np.int64), (rows, width), values


def _both_ways(path: Path, edges: np.ndarray, nodes: int) -> np.ndarray:
    """Return each edge in both directions once, self-loops left out, (2, E) int64, in order."""
    if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
        raise UserError(f"{path}: its edges lead from {edges.min()} to {edges.max()}, and it has {nodes} nodes")
    edges = edges[:, edges[0] != edges[1]].astype(np.int64)
    both = np.unique(np.concatenate([edges[0] * nodes + edges[1], edges[1] * nodes + edges[0]]))
    return np.stack([both // nodes, both % nodes])
