"""One graph whose nodes are classified: every batch is the whole graph."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from localearn.data.base import Batch, Data, Split
from localearn.data.fingerprint import sha256
from localearn.errors import UserError


class GraphData(Data):
    """A graph held whole on one device; the splits are sets of its nodes, all seen by every pass (transductive)."""

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
        fingerprint: str | None = None,
    ) -> None:
        """Take x (N, D) float32, edge_index (2, E), y (N,) and each split's nodes (M,), int64, all on one device.

        note: how x was normalised, for the fingerprint. fingerprint: where it is known.
        """
        self.name = name
        self.classes = classes
        self.input_shape = tuple(x.shape[1:])
        self.sizes = {split: len(index) for split, index in nodes.items()}
        self._x, self._edge_index, self._y, self._nodes = x, edge_index, y, dict(nodes)
        self._labels = {split: y.index_select(0, index) for split, index in nodes.items()}
        self._note, self._fingerprint = note, fingerprint

    def to(self, device: torch.device | str) -> "GraphData":
        """Return the same graph on `device`; what is there already is shared, not copied."""
        return GraphData(
            self.name,
            self._x.to(device),
            self._edge_index.to(device),
            self._y.to(device),
            {split: index.to(device) for split, index in self._nodes.items()},
            self.classes,
            note=self._note,
            fingerprint=self._fingerprint,
        )

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
        return GraphData(name, x, self._edge_index, self._y, nodes, self.classes)

    def fingerprint(self) -> str:
        """Return a SHA-256 of nodes, edges, labels, splits and normalisation; computed once, then kept."""
        if self._fingerprint is None:
            graph = [("x", self._x), ("edge_index", self._edge_index), ("y", self._y)]
            self._fingerprint = sha256([*graph, *self._nodes.items()], self._note)
        return self._fingerprint
