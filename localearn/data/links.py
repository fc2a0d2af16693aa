"""Link prediction data: a graph some of whose edges are held out, to be distinguished from pairs that no edge joins."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from localearn.data import files
from localearn.data.base import Batch, Data, Split, sha256
from localearn.data.checks import checked_graph
from localearn.data.embedded import karate
from localearn.data.npz_graphs import NPZ_GRAPHS, npz_graph
from localearn.data.partition import check_fraction, check_seed
from localearn.data.planetoid import PLANETOID, planetoid
from localearn.data.transforms import row_shares
from localearn.errors import UserError, suggestion
from localearn.tasks import LinkPrediction

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class LinkData(Data):
    """Hold a graph whole on one device, whose targets are of pairs of nodes; every batch is the whole graph.

    Messages pass along the training edges, and at the test along those of validation too, as they would be known by
    then; no edge is ever judged by itself.
    """

    kind = "graph"
    augmented = False
    classes = 0

    def __init__(
        self,
        name: str,
        x: Tensor,
        edges: Mapping[Split, Tensor],
        pairs: Mapping[Split, Tensor],
        targets: Mapping[Split, Tensor],
        *,
        width: int = 128,
        note: str = "none",
    ) -> None:
        """Hold a graph.

        Args:
            name: the data set's name in records.
            x: (N, D) floating-point features of the nodes; all tensors on one device.
            edges: for each split (2, E) int64, along which messages pass.
            pairs: for each split (M, 2) int64 nodes.
            targets: for each split (M,) zeros and ones, whether an edge joins them.
            width: the length of the vector that a net computes for a node.
            note: how x was normalised, for the fingerprint.

        """
        self.name, self._note = name, note
        self._task = LinkPrediction(width)
        self._x, self._edges, self._pairs, self._targets = x, dict(edges), dict(pairs), dict(targets)
        for split, target in targets.items():
            self._task.check_target(f"{name}: the target of {split}", target)
        self.input_shape = tuple(x.shape[1:])
        self.sizes = {split: len(target) for split, target in targets.items()}

    def to(self, device: torch.device | str) -> "LinkData":
        """Return the same graph on `device`; tensors that are there already are shared, not copied."""
        moved = copy.copy(self)
        moved._x = self._x.to(device)
        moved._edges, moved._pairs, moved._targets = (
            {split: tensor.to(device) for split, tensor in of_split.items()}
            for of_split in (self._edges, self._pairs, self._targets)
        )
        if self._edges["val"] is self._edges["train"]:  # what a convolution prepared for the one serves the other
            moved._edges["val"] = moved._edges["train"]
        return moved

    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return one batch, the whole graph, whatever the batch size; nothing is random in it. See `Data.batches`."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if split not in self._pairs:
            raise ValueError(f"{self.name} has no {split} split, only {', '.join(self._pairs)}")
        batch = Batch(self._x, self._targets[split], (self._edges[split],), self._pairs[split])
        return iter((batch,) if skip == 0 else ())

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "LinkData":
        """Return the graph with x replaced by `fn(x, edge_index)` of the training edges; see `Data.features`."""
        mapped = copy.copy(self)
        with torch.no_grad():
            mapped._x = fn(self._x, self._edges["train"])
        mapped.name, mapped._note = name, "none"
        mapped._edges, mapped._pairs, mapped._targets = (
            {split: tensor for split, tensor in of_split.items() if split != "test"}
            for of_split in (self._edges, self._pairs, self._targets)
        )
        mapped.input_shape = tuple(mapped._x.shape[1:])
        mapped.sizes = {split: size for split, size in self.sizes.items() if split != "test"}
        return mapped

    def fingerprint(self) -> str:
        """Return a SHA-256 of nodes, edges, pairs, targets and normalisation."""
        named = [("x", self._x)]
        for what, of_split in (("edges", self._edges), ("pairs", self._pairs), ("targets", self._targets)):
            named += [(f"{what} {split}", tensor) for split, tensor in of_split.items()]
        return sha256(named, self._note)


def links(
    graph: str = "karate",
    *,
    data_dir: str | Path | None = None,
    val_fraction: float = 0.16,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    normalize: Literal["rows", "none"] = "rows",
    width: int = 128,
) -> LinkData:
    """Load a graph's edges split in three, with as many pairs of nodes drawn that no edge joins.

    An edge counts once, whatever its direction, and self-loops not at all. Pairs that are not joined are drawn once,
    all distinct, none of them in two splits.

    Args:
        graph: karate, or the name of a graph that `localearn.load` knows.
        data_dir: as of `localearn.load`.
        val_fraction: the share of all edges that is held out for validation.
        test_fraction: the share of all edges that is held out for the test.
        split_seed: of these draws, and of the pairs that are not joined.
        normalize: rows, each node's features summing to one, or none.
        width: the length of the vector that a net computes for a node.

    Raises:
        UserError: for an unknown graph, or one that cannot be split so.

    Example:
        data = localearn.data.links("karate", width=16)
        localearn.Backprop(localearn.GNN(data.input_shape, 16).for_task(data.task)).fit(data)

    """
    known = ("karate", *PLANETOID, *NPZ_GRAPHS)
    if graph not in known:
        raise UserError(f"unknown graph {graph!r}{suggestion(graph, known)} (known: {', '.join(known)})")
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        check_fraction(name, fraction)
    check_seed("split_seed", split_seed)
    folder = files.data_folder(data_dir)
    if graph in NPZ_GRAPHS:
        arrays = npz_graph(graph, folder)
    else:
        arrays = planetoid(graph, folder) if graph in PLANETOID else checked_graph(graph, karate())
    x = torch.from_numpy(np.asarray(arrays["x"], dtype=np.float32))
    pairs, targets, edges = split_links(
        graph, np.asarray(arrays["edge_index"]), len(x), val_fraction, test_fraction, split_seed
    )
    tensors: list[dict[Split, Tensor]] = [
        {split: torch.from_numpy(array) for split, array in of_split.items()} for of_split in (edges, pairs, targets)
    ]
    tensors[0]["val"] = tensors[0]["train"]
    x = row_shares(x) if normalize == "rows" else x
    return LinkData(f"links_{graph}", x, *tensors, width=width, note=normalize)


def split_links(
    name: str, edge_index: np.ndarray, nodes: int, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[Split, np.ndarray], dict[Split, np.ndarray], dict[Split, np.ndarray]]:
    """Split a graph's edges in three, and draw as many pairs that are not joined.

    Args:
        name: the graph's name in error messages.
        edge_index: (2, E) of both directions or of one.
        nodes: their number.
        val_fraction: the share of edges for validation.
        test_fraction: the share of edges for the test.
        seed: of the draws.

    Returns:
        For each split its pairs, (M, 2), their targets, (M,) float32, and the edges that it may see, (2, E).

    Raises:
        UserError: where a split would have no edge, or there are fewer pairs that are not joined than edges.

    """
    u, v = np.minimum(*edge_index), np.maximum(*edge_index)
    joined = np.unique((u * nodes + v)[u < v])
    held_out = {"val": int(val_fraction * len(joined)), "test": int(test_fraction * len(joined))}
    training = len(joined) - sum(held_out.values())
    if min(training, *held_out.values()) < 1:
        raise UserError(f"{name} has {len(joined)} edges, too few for val_fraction and test_fraction of them")
    if nodes * (nodes - 1) // 2 < 2 * len(joined):
        raise UserError(f"{name} joins more than half of its pairs of nodes, so as many others cannot be drawn")
    random = np.random.RandomState(seed)
    positive, negative = random.permutation(joined), _others(joined, nodes, random)
    pairs: dict[Split, np.ndarray] = {}
    targets: dict[Split, np.ndarray] = {}
    seen: dict[Split, np.ndarray] = {}
    start = 0
    for split in _SPLITS:
        stop = start + held_out.get(split, training)
        codes = np.concatenate([positive[start:stop], negative[start:stop]])
        pairs[split] = np.stack([codes // nodes, codes % nodes], axis=1)
        targets[split] = np.repeat(np.array([1, 0], dtype=np.float32), stop - start)
        known = np.sort(positive[: training if split != "test" else start])
        one = np.stack([known // nodes, known % nodes])
        seen[split] = np.concatenate([one, one[::-1]], axis=1)
        start = stop
    return pairs, targets, seen


def _others(joined: np.ndarray, nodes: int, random: "np.random.RandomState") -> np.ndarray:
    """Draw as many pairs that are not joined, u * nodes + v with u < v, all distinct."""
    found = np.zeros(0, dtype=np.int64)
    while len(found) < len(joined):
        u, v = random.randint(0, nodes, (2, 2 * len(joined)))
        drawn = np.concatenate([found, np.minimum(u, v).astype(np.int64) * nodes + np.maximum(u, v)])
        drawn = drawn[(drawn // nodes != drawn % nodes) & ~np.isin(drawn, joined)]
        found = drawn[np.sort(np.unique(drawn, return_index=True)[1])]  # the first of each, in the order drawn
    return found[: len(joined)]
