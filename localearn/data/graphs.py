"""Graphs whose nodes are classified, `GraphData`; every batch is the whole graph."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from localearn.data.base import Batch, Data, Split, sha256
from localearn.errors import UserError
from localearn.moved import former_names


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
        self._set_graph(x, edge_index, y, nodes)

    def to(self, device: torch.device | str) -> "GraphData":
        """Return the same graph on `device`; tensors that are there already are shared, not copied."""
        moved = copy.copy(self)
        nodes: dict[Split, Tensor] = {split: index.to(device) for split, index in self._nodes.items()}
        moved._set_graph(self._x.to(device), self._edge_index.to(device), self._y.to(device), nodes)
        return moved

    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return one batch, the whole graph, whatever the batch size; nothing is random in it. See `Data.batches`."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if split not in self._nodes:
            raise ValueError(f"{self.name} has no {split} split, only {', '.join(self._nodes)}")
        batch = Batch(self._x, self._labels[split], (self._edge_index,), self._nodes[split])
        return iter((batch,) if skip == 0 else ())

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "GraphData":
        """Return the graph with x replaced by `fn(x, edge_index)`; see `Data.features`."""
        with torch.no_grad():
            x = fn(self._x, self._edge_index)
        nodes: dict[Split, Tensor] = {"train": self._nodes["train"], "val": self._nodes["val"]}
        mapped = copy.copy(self)  # not checked: the training loop reports a net that diverges
        mapped.name, mapped._note, mapped._fingerprint = name, "none", None
        mapped.sizes = {split: len(index) for split, index in nodes.items()}
        mapped._set_graph(x, self._edge_index, self._y, nodes)
        return mapped

    def fingerprint(self) -> str:
        """Return a SHA-256 of nodes, edges, labels, splits and normalisation; computed once, then cached."""
        if self._fingerprint is None:
            graph = [("x", self._x), ("edge_index", self._edge_index), ("y", self._y)]
            self._fingerprint = sha256([*graph, *self._nodes.items()], self._note)
        return self._fingerprint

    def _set_graph(self, x: Tensor, edge_index: Tensor, y: Tensor, nodes: Mapping[Split, Tensor]) -> None:
        self._x, self._edge_index, self._y, self._nodes = x, edge_index, y, dict(nodes)
        self._labels = {split: y.index_select(0, index) for split, index in nodes.items()}
        self.input_shape = tuple(x.shape[1:])


def _check(name: str, x: Tensor, edge_index: Tensor, y: Tensor, nodes: Mapping[Split, Tensor], classes: int) -> None:
    """Raise UserError for tensors that would silently falsify training or an accuracy, with messages as in `checks`."""
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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
