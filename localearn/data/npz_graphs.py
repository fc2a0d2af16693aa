"""Graphs that are published as one npz archive each: citation, co-purchase and follower graphs."""

import shutil
import urllib.request
from pathlib import Path

import numpy as np

from localearn.data import files
from localearn.data.downloads import FAILURES, TIMEOUT_S, download_folder, downloading, unavailable
from localearn.errors import UserError

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

_ARRAYS = ("x", "edge_index", "y")
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
        return files.read(prepared, _ARRAYS)
    url, layout = NPZ_GRAPHS[name]
    published = data_dir / layout
    if published.is_file():
        arrays = _read(name, published)
    else:
        source = url.rpartition("/raw/")[0] or url.partition("/")[0]
        try:
            with download_folder(data_dir) as folder, downloading(name, source, data_dir):
                file = folder / f"{name}.npz"
                with urllib.request.urlopen(f"https://{url}", timeout=TIMEOUT_S) as answer, file.open("wb") as to:
                    shutil.copyfileobj(answer, to)
                arrays = _read(name, file)
        except (*FAILURES, UserError) as error:
            raise unavailable(name, source, (prepared, published), error) from error
    files.store(prepared, arrays)
    return arrays


def _read(name: str, path: Path) -> dict[str, np.ndarray]:
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
