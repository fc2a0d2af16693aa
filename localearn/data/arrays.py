"""Images and vectors: rows of one array, held whole on one device."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from localearn.data.augmentation import Augment, augment
from localearn.data.base import Batch, Data, Split
from localearn.data.fingerprint import sha256
from localearn.data.normalization import Scaling
from localearn.errors import UserError


class ArrayData(Data):
    """Rows kept as they came, uint8 or float; a batch is gathered, augmented and normalised where they are.

    A float32 copy of what is uint8 would take four times the memory and save nothing: to gather its longer rows costs
    about what it costs to convert the short ones while they are in the cache.
    """

    def __init__(
        self,
        name: str,
        x: Mapping[Split, Tensor],
        y: Mapping[Split, Tensor],
        classes: int,
        *,
        scaling: Scaling | None = None,
        augment: Augment = "none",
        fingerprint: str | None = None,
        part: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        """Take, for each split, x (N, C, H, W) or (N, ...) and y (N,) int64, all on one device and known to be sound.

        scaling: what turns raw rows into a net's input; None leaves their values. fingerprint: where it is known.
        part: the rank, the number of ranks that a batch's rows are shared out over, and the fewest that one gets.
        """
        self.name = name
        self.kind = "image" if x["train"].ndim == 4 else "vector"
        self.classes = classes
        self.input_shape = tuple(x["train"].shape[1:])
        self.sizes = {split: len(labels) for split, labels in y.items()}
        self.augmented = augment != "none"
        self._x, self._y = dict(x), dict(y)
        self._scaling = scaling
        self._augment: Augment = augment
        self._fingerprint = fingerprint
        self._part = part

    def to(self, device: torch.device | str) -> "ArrayData":
        """Return the same data on `device`; what is there already is shared, not copied."""
        return ArrayData(
            self.name,
            {split: rows.to(device) for split, rows in self._x.items()},
            {split: labels.to(device) for split, labels in self._y.items()},
            self.classes,
            scaling=self._scaling and self._scaling.to(device),
            augment=self._augment,
            fingerprint=self._fingerprint,
            part=self._part,
        )

    def part(self, rank: int, ranks: int, least: int = 2) -> "ArrayData":
        """Return the same arrays, of whose every batch this rank has its rows; see `Data.part`."""
        return ArrayData(
            self.name,
            self._x,
            self._y,
            self.classes,
            scaling=self._scaling,
            augment=self._augment,
            fingerprint=self._fingerprint,
            part=(rank, ranks, least),
        )

    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return the batches of one pass over `split`; see `Data.batches`. A generator may be on any device."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if split not in self._y:
            raise ValueError(f"{self.name} has no {split} split, only {', '.join(self._y)}")
        if generator is None:
            return self._in_order(split, batch_size, skip)
        rows = len(self._y[split])
        order = torch.randperm(rows, generator=generator, device=generator.device).to(self._y[split].device)
        if split == "train" and batch_size > 1 and rows > 1 and rows % batch_size == 1:
            order = order[:-1]
        return self._shuffled(split, order, batch_size, skip, generator)

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "ArrayData":
        """Return data whose training and validation x are `fn(x)`, of the dtype that fn gives; see `Data.features`."""
        if self.augmented:
            raise ValueError(f"{self.name} is augmented: its features differ from pass to pass and cannot be kept")
        y: dict[Split, Tensor] = {"train": self._y["train"], "val": self._y["val"]}
        with torch.no_grad():
            whole = self.part(0, 1)
            x: dict[Split, Tensor] = {split: whole._mapped(split, fn, batch_size) for split in y}
        return ArrayData(name, x, y, self.classes, part=self._part)

    def fingerprint(self) -> str:
        """Return a SHA-256 of every split's x and y and of the normalisation; computed once, then kept."""
        if self._fingerprint is None:
            tensors = []
            for split in self._y:
                tensors += [(f"x {split}", self._x[split]), (f"y {split}", self._y[split])]
            self._fingerprint = sha256(tensors, self._scaling.note if self._scaling else "none")
        return self._fingerprint

    def _in_order(self, split: Split, batch_size: int, skip: int) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        for start in range(skip * batch_size, len(y), batch_size):
            own = self._own(min(batch_size, len(y) - start), start)
            yield Batch(self._normalised(x[own]), y[own])

    def _shuffled(
        self, split: Split, order: Tensor, batch_size: int, skip: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        how: Augment = self._augment if split == "train" else "none"
        for start in range(skip * batch_size, len(order), batch_size):
            size = min(batch_size, len(order) - start)
            chosen = order[self._own(size, start)]
            rows = augment(x.index_select(0, chosen), how, generator, self._own(size), size)
            yield Batch(self._normalised(rows), y.index_select(0, chosen))

    def _own(self, size: int, start: int = 0) -> slice:
        """Return which rows of a batch of so many, from `start` on, are this part's."""
        rank, ranks, least = self._part
        sharing = min(ranks, max(1, size // least))
        rank = min(rank, sharing)
        return slice(start + size * rank // sharing, start + size * min(rank + 1, sharing) // sharing)

    def _normalised(self, rows: Tensor) -> Tensor:
        if self._scaling is not None:
            return self._scaling(rows)
        return rows if rows.is_floating_point() else rows.float()

    def _mapped(self, split: Split, fn: Callable[..., Tensor], batch_size: int) -> Tensor:
        """`fn` over a split in order, written batch by batch into one tensor, so that memory never holds two."""
        result, start = None, 0
        for batch in self.batches(split, batch_size):
            part = fn(batch.x)
            if result is None:
                result = part.new_empty((self.sizes[split], *part.shape[1:]))
            result[start : start + len(part)] = part
            start += len(part)
        assert result is not None  # no split is empty
        return result
