"""Images, vectors, sequences and tokens held whole on one device, `ArrayData`."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from localearn.data.base import Batch, Data, Split, drops_last, sha256
from localearn.data.pictures import above_each_other, predicted_against_true
from localearn.data.targets import check_targets
from localearn.data.transforms import Augment, Scaling, augment
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.tasks import Autoencoding, Regression, Task

_IMAGES = 8  # that a picture of reconstructions shows


class ArrayData(Data):
    """Hold rows as they came, uint8 or float; a batch is gathered, augmented and normalised on their device.

    A float32 copy of uint8 rows would take four times the memory and save nothing: gathering its longer rows costs
    about as much as converting the short ones while they are in the cache.
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
        class_names: tuple[str, ...] | None = None,
        task: Task | None = None,
        vocabulary: int | None = None,
        categories: tuple[int, ...] = (),
    ) -> None:
        """Check and hold the rows of each split; `localearn.data.from_arrays` takes them in other forms too.

        Args:
            name: the data set's name in records.
            x: for each split (N, C, H, W) images, (N, T, D) sequences or (N, ...) rows, uint8 or floating-point, or
                (N, T) token ids, int64; all on one device.
            y: for each split (N,) int64 labels, 0..classes - 1, or what the task takes, (N, outputs) floating-point;
                empty where the task's target is the row itself.
            classes: their number; 0 where the task has none.
            scaling: maps raw rows to a net's input; None leaves their values.
            augment: how the training split's images are augmented.
            class_names: the names of the classes, where they have any.
            task: the task; classification by default.
            vocabulary: the number of tokens, where rows are their ids.
            categories: the numbers of categories of the first columns, which hold codes; see `InputSpec`.

        Raises:
            UserError: for a wrong type, shape, length or label, and for values that are not finite.

        """
        self._target_is_input = task is not None and task.target_is_input
        if self._target_is_input and not y:
            y = {split: rows.new_empty(len(rows), 0, dtype=torch.float32) for split, rows in x.items()}
        _check(name, x, y, classes, task, vocabulary)
        _check_codes(name, x, categories)
        self.name = name
        self._task = task
        self.vocabulary, self.categories = vocabulary, categories
        self.classes = classes
        self.class_names = class_names
        self.augmented = augment != "none"
        self._scaling = scaling
        self._augment: Augment = augment
        self._fingerprint: str | None = None
        # A part's rank, the number of ranks that a batch's rows are shared out over, and the fewest that one gets.
        self._part = (0, 1, 2)
        self._set_rows(x, y)
        if task is not None and not task.has_classes:
            check_targets(name, task, x, {} if self._target_is_input else y, scaling)

    def to(self, device: torch.device | str) -> "ArrayData":
        """Return the same data on `device`; tensors that are there already are shared, not copied."""
        moved = copy.copy(self)
        moved._set_rows(
            {split: rows.to(device) for split, rows in self._x.items()},
            {split: labels.to(device) for split, labels in self._y.items()},
        )
        moved._scaling = self._scaling and self._scaling.to(device)
        return moved

    def part(self, rank: int, ranks: int, least: int = 2) -> "ArrayData":
        """Return the same arrays, of whose every batch this rank has its rows; see `Data.part`."""
        own = copy.copy(self)
        own._part = (rank, ranks, least)
        return own

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
        if split == "train" and drops_last(rows, batch_size):
            order = order[:-1]
        return self._shuffled(split, order, batch_size, skip, generator)

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> "ArrayData":
        """Return data whose training and validation x are `fn(x)`, of the dtype of its result; see `Data.features`."""
        if self.augmented:
            raise ValueError(f"{self.name} is augmented: its features differ from pass to pass and cannot be cached")
        y: dict[Split, Tensor] = {"train": self._y["train"], "val": self._y["val"]}
        with torch.no_grad():
            undivided = self.part(0, 1)
            x: dict[Split, Tensor] = {split: undivided._mapped(split, fn, batch_size) for split in y}
            if self._target_is_input:  # which the features are not
                y = {split: undivided._mapped(split, lambda rows: rows.flatten(1), batch_size) for split in y}
        mapped = copy.copy(self)  # not checked: the training loop reports a net that diverges
        mapped.name, mapped._scaling, mapped._fingerprint = name, None, None
        mapped.vocabulary, mapped.categories, mapped._target_is_input = None, (), False
        mapped._set_rows(x, y)
        return mapped

    @torch.no_grad()
    def illustrate(self, predict: Callable[..., Tensor], folder: Path) -> tuple[str, ...]:
        """Write a regression's predictions against the true values of the test split, `predicted.png`.

        For an autoencoding of images write the first images of the test split and their reconstructions,
        `reconstructed.png`.
        """
        if isinstance(self.task, Autoencoding) and self.kind == "image" and self.input_shape[0] in (1, 3):
            return self._reconstructions(self.task, predict, folder / "reconstructed.png")
        if not isinstance(self.task, Regression):
            return ()
        undivided = self.part(0, 1)
        path = folder / "predicted.png"
        return (predicted_against_true(undivided, self.task, lambda batch: predict(batch.x), "test", path),)

    def fingerprint(self) -> str:
        """Return a SHA-256 of every split's x and y and of the normalisation; computed once, then cached."""
        if self._fingerprint is None:
            tensors = []
            for split in self._y:
                tensors += [(f"x {split}", self._x[split]), (f"y {split}", self._y[split])]
            note = self._scaling.note if self._scaling else "none"
            if self.unseen:
                note += f" without {self.unseen}"
            self._fingerprint = sha256(tensors, note if self._task is None else f"{note} {self._task}")
        return self._fingerprint

    def _reconstructions(self, task: Autoencoding, predict: Callable[..., Tensor], path: Path) -> tuple[str, ...]:
        true = self._x["test"][:_IMAGES]
        output = task.decode(predict(self._normalised(true)).float()).view(true.shape)
        low, high = (0.0, task.peak) if task.peak is not None else (float(true.min()), float(true.max()))
        rows = []
        for images in (true.float(), output):
            levels = ((images - low) / ((high - low) or 1.0) * 255).clamp(0, 255).round().to(torch.uint8)
            rows.append(list(levels.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()))
        above_each_other(rows, ("true", "reconstructed"), path)
        return (f"{len(true)} test images above their reconstructions: {path}",)

    def _set_rows(self, x: Mapping[Split, Tensor], y: Mapping[Split, Tensor]) -> None:
        self._x, self._y = dict(x), dict(y)
        if self.vocabulary is not None:
            self.kind = "text"
        else:
            dimensions = x["train"].ndim
            self.kind = "image" if dimensions == 4 else "sequence" if dimensions == 3 else "vector"
        self.input_shape = tuple(x["train"].shape[1:])
        self.sizes = {split: len(labels) for split, labels in y.items()}

    def _in_order(self, split: Split, batch_size: int, skip: int) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        for start in range(skip * batch_size, len(y), batch_size):
            own = self._rank_rows(min(batch_size, len(y) - start), start)
            yield self._batch(x[own], y[own])

    def _shuffled(
        self, split: Split, order: Tensor, batch_size: int, skip: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        how: Augment = self._augment if split == "train" else "none"
        for start in range(skip * batch_size, len(order), batch_size):
            size = min(batch_size, len(order) - start)
            chosen = order[self._rank_rows(size, start)]
            rows = augment(x.index_select(0, chosen), how, generator, self._rank_rows(size), size)
            yield self._batch(rows, y.index_select(0, chosen))

    def _batch(self, rows: Tensor, target: Tensor) -> Batch:
        x = self._normalised(rows)
        return Batch(x, x.flatten(1) if self._target_is_input else target)

    def _rank_rows(self, size: int, start: int = 0) -> slice:
        """Return which rows of a batch of so many, from `start` on, are this part's."""
        rank, ranks, least = self._part
        sharing = min(ranks, max(1, size // least))
        rank = min(rank, sharing)
        return slice(start + size * rank // sharing, start + size * min(rank + 1, sharing) // sharing)

    def _normalised(self, rows: Tensor) -> Tensor:
        if self._scaling is not None:
            return self._scaling(rows)
        return rows if rows.is_floating_point() or self.vocabulary is not None else rows.float()

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


def _check(
    name: str,
    x: Mapping[Split, Tensor],
    y: Mapping[Split, Tensor],
    classes: int,
    task: Task | None,
    vocabulary: int | None,
) -> None:
    """Raise UserError for arrays that would silently falsify training or an accuracy, with messages as in `checks`."""
    if "train" not in x or x.keys() != y.keys():
        raise UserError(f"{name}: x has {', '.join(x) or 'no split'} and y {', '.join(y) or 'none'}; both need train")
    of = "localearn.data.from_arrays takes others"
    train = x["train"]
    for split in x:
        rows, labels = x[split], y[split]
        if vocabulary is not None:
            _check_tokens(f"{name}: x_{split}", rows, vocabulary)
        elif rows.dtype != torch.uint8 and not rows.is_floating_point():
            raise UserError(f"{name}: x_{split} is {rows.dtype}; uint8 or floating-point rows are expected; {of}")
        if (task is None or task.has_classes) and (labels.dtype != torch.int64 or labels.ndim != 1):
            what = f"{labels.dtype} with shape {tuple(labels.shape)}"
            raise UserError(f"{name}: y_{split} is {what}; int64 labels, (N,), are expected; {of}")
        if rows.ndim < 2 or len(rows) != len(labels):
            raise UserError(
                f"{name}: x_{split} has {len(rows) if rows.ndim else 'no'} rows and y_{split} has {len(labels)} labels"
                if rows.ndim != 1
                else f"{name}: x_{split} has shape {tuple(rows.shape)}; rows of features, (N, ...), are expected"
            )
        if rows.shape[1:] != train.shape[1:] or rows.dtype != train.dtype:
            raise UserError(
                f"{name}: rows of x_train have shape {tuple(train.shape[1:])} and are {train.dtype}, those of "
                f"x_{split} {tuple(rows.shape[1:])} and {rows.dtype}"
            )
        if rows.device != labels.device or rows.device != train.device:
            raise UserError(f"{name}: x_train is on {train.device}, y_{split} on {labels.device}; one is expected")
        if rows.is_floating_point() and rows.numel():
            bad = rows.numel() - int(torch.isfinite(rows).sum())
            if bad:
                raise UserError(f"{name}: x_{split} holds {bad} of {rows.numel()} values that are NaN or infinite")
        if not (task is None or task.has_classes) or not len(labels):
            continue
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise UserError(f"{name}: y_{split} holds {wrong}; labels run from 0 to {classes - 1}")


def _check_codes(name: str, x: Mapping[Split, Tensor], categories: tuple[int, ...]) -> None:
    """Raise UserError unless the first columns of rows hold codes of as many categories as `categories` says."""
    for split, rows in x.items():
        if categories and (rows.ndim != 2 or rows.shape[1] < len(categories)):
            shape = tuple(rows.shape)
            raise UserError(f"{name}: x_{split} has shape {shape}; categories are of {len(categories)} columns, (N, n)")
        for column, size in enumerate(categories):
            codes = rows[:, column]
            wrong = codes[(codes < 0) | (codes >= size) | (codes != codes.round())]
            if len(wrong):
                raise UserError(
                    f"{name}: x_{split} holds {wrong[0].item():g} in column {column}; codes of {size} categories are "
                    f"whole, from 0 to {size - 1}"
                )


def _check_tokens(what: str, ids: Tensor, vocabulary: int) -> None:
    """Raise UserError unless rows are token ids, (N, T) int64 in 0..vocabulary-1."""
    if ids.dtype != torch.int64 or ids.ndim != 2:
        raise UserError(f"{what} is {ids.dtype} with shape {tuple(ids.shape)}; int64 token ids, (N, T), are expected")
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise UserError(f"{what} holds {wrong}; token ids run from 0 to {vocabulary - 1}")


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
