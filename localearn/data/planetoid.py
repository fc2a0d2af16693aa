"""Planetoid's citation graphs, Cora, CiteSeer and PubMed, read from their published pickles without running code."""

import pickle
import shutil
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from localearn.data import files
from localearn.data.checks import GRAPH_ARRAYS, checked_graph
from localearn.data.downloads import FAILURES, TIMEOUT_S, download_folder, downloading, unavailable
from localearn.errors import UserError
from localearn.extras import torch_geometric

PLANETOID = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}  # our name: torch_geometric's

_URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
_SOURCE = "github.com/kimiyoung/planetoid"
_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")

# The published files are pickles. These are all the types in them; a file that names another is not read.
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
            raise unavailable(name, _SOURCE, (prepared, raw / f"ind.{name}.*"), error) from error
    checked = checked_graph(name, arrays)
    files.store(prepared, arrays)
    return checked


def _files(name: str) -> list[str]:
    return [f"ind.{name}.{part}" for part in _PARTS]


def _downloaded(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    # Not by torch_geometric's own download, which neither checks certificates nor times out.
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
            listed, rows = int(graph.test_mask.sum()), pickled["tx"].shape[0]
            if listed != rows:
                raise ValueError(f"test.index lists {listed} nodes and tx holds {rows}")
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
    """Unpickle the types of the published files and no others, so that no file runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _TYPES:
            raise UserError(f"it names {module}.{name}, which the published file does not")
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
