"""Data larger than memory, `LoaderData`: batches of loaders, read in every pass and never held."""

import copy
import functools
import hashlib
import math
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from localearn.data.base import Batch, Data, Split, drops_last
from localearn.data.checks import Layout, as_array, as_pair, checked_rows, same_classes
from localearn.data.labels import flat_labels, numbered
from localearn.data.partition import channels_first
from localearn.data.targets import Moments, checked_targets, targets_are_labels
from localearn.data.transforms import Scaling
from localearn.errors import UserError
from localearn.printing import log_notes
from localearn.tasks import Autoencoding, Classification, Task

_END = object()
_NUMPY_SEEDS, _EPOCHS = 2**32, 2**31  # what NumPy's seeds and samplers' epochs stay below


class LoaderData(Data):
    """Stream three loaders of (x, y) batches, re-batched to the batch size that `batches` is given.

    Memory holds the current batches and no more. The price: rows are not normalised (uint8 is divided by 255), no
    features are cached between stages, the fingerprint does not cover the rows, workers start again in every pass, and
    a resumed epoch reads again what it had read.

    A pass has random numbers of its own, seeded from its generator: those that torch's CPU generator, NumPy's and
    Python's global ones give while the loader works, and those of the `generator` of the loader, its sampler and its
    dataset. So an order or an augmentation that is drawn from them, in worker processes too, depends on nothing else,
    disturbs nothing else and can be repeated. A dataset that has a generator elsewhere, or draws on a GPU, continues
    from the state of that one, and its run does not resume bit for bit.
    """

    _row: tuple[tuple[int, ...], torch.dtype] | None = None  # the shape and the type of the first one
    _units: Scaling | None = None  # of a regression's targets

    def __init__(
        self,
        train: Iterable[Any],
        val: Iterable[Any],
        test: Iterable[Any],
        *,
        name: str = "loader",
        task: Task | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Read one pass of each loader, which is checked and learned from but not stored.

        Args:
            train: a DataLoader, or anything that gives (x, y) batches each time it is iterated over: x (N, C, H, W)
                torch tensors or (N, H, W, C) NumPy arrays, (N, H, W), or (N, D); labels y of every kind that
                `from_arrays` takes. Each epoch has the loader's order: let it shuffle.
            val: the validation part.
            test: the test part.
            name: the data set's name in records.
            task: the meaning of y, where it is no label, as of `from_arrays`; where the target is x a batch may be x
                alone.
            layout: where images have their channels, or that rows are sequences, "ntd", as of `from_arrays`.

        Raises:
            UserError: as `from_arrays` for values and labels, and for what is no loader, gives no batch, or gives
                batches that are not (x, y) or whose rows have different shapes or types.

        """
        self.name = name
        self.augmented = True  # unknown from outside
        self.sizes = {}
        self._device = torch.device("cpu")
        self._loaders: dict[Split, Iterable[Any]] = {
            "train": _loader(f"{name}: train", train),
            "val": _loader(f"{name}: val", val),
            "test": _loader(f"{name}: test", test),
        }
        self._layout: Layout | None = layout
        self._task = None if type(task) is Classification else task
        self._valued = None if targets_are_labels(task) else task  # whose targets are no labels
        self._moments: dict[Split, Moments] = {}
        labels: dict[Split, np.ndarray] = {}
        digests: dict[Split, str] = {}
        for split in self._loaders:
            labels[split], digests[split] = self._inspect(split)
        assert self._row is not None
        self.input_shape, dtype = self._row
        self.kind = "image" if len(self.input_shape) == 3 else "sequence" if len(self.input_shape) == 2 else "vector"
        if self._valued is None:
            self._number_classes(name, labels)
        else:
            self._fit_task(name, self._valued, dtype)
        seen = [name, str(self.class_names), f"{self.input_shape} {dtype}"]
        seen += [f"{split} {size} {digests[split]}" for split, size in self.sizes.items()]
        seen += [str(self._task)] if self._task is not None else []
        self._fingerprint = hashlib.sha256("\n".join(seen).encode()).hexdigest()
        scaled = "divided by 255" if dtype == torch.uint8 else "as the loaders give it"
        unshuffled = ("the training loader does not shuffle: every epoch has the same order",)
        seen_of = "labels" if self._valued is None else "targets"
        self.notes = (
            f"streamed, not held: every pass reads the loaders again; x is {scaled}",
            f"the fingerprint is that of names, shapes and {seen_of}; rows are not hashed",
            *(unshuffled if _in_order(train) else ()),
        )
        log_notes(name, self.notes[2:])

    def _number_classes(self, name: str, labels: dict[Split, np.ndarray]) -> None:
        """Give the labels of all splits their numbers, 0..classes - 1."""
        # The distinct labels as they were given, ascending, and the number of each.
        parts, self.class_names = numbered(name, {f"y_{split}": found for split, found in labels.items()})
        for part in parts.values():
            same_classes(name, parts["y_train"], part, self.class_names)
        self._labels, places = np.unique(np.concatenate(list(labels.values())), return_index=True)
        self._numbers = np.concatenate(list(parts.values()))[places]
        self.classes = int(self._numbers.max()) + 1

    def _fit_task(self, name: str, task: Task, dtype: torch.dtype) -> None:
        """Give the task its outputs and its unit, as the training split has them; see `targets.fitted`."""
        self.classes = 0
        if isinstance(task, Autoencoding):
            levels = {"center": (0.0,), "scale": (255.0,), "peak": task.peak or 255.0} if dtype == torch.uint8 else {}
            task = replace(task, outputs=math.prod(self.input_shape), **levels)
            self._units = None
        else:
            task, self._units = self._moments["train"].fit(f"{name}: y_train", task)
        for split, moments in self._moments.items():
            letter = "x" if task.target_is_input else "y"
            extremes = moments.extremes if self._units is None else self._units(moments.extremes)
            task.check_target(f"{name}: {letter}_{split}", extremes)
            if split == "train" or (split == "val" and task.needs_whole):
                task.check_learnable(f"{name}: {letter}_{split}", extremes)
        self._task = self._valued = task

    def to(self, device: torch.device | str) -> "LoaderData":
        """Return the same data, whose batches are moved to `device` as they are made."""
        moved = copy.copy(self)
        moved._device = torch.device(device)
        return moved

    def batches(
        self, split: Split, batch_size: int, *, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Return the batches of one pass over `split`; see `Data.batches`.

        The order is the loader's; the generator, on any device, gives one number, which seeds the pass's draws. Without
        a generator the seed is 0.

        Args:
            split: train, val or test.
            batch_size: rows a batch, 1 or more.
            generator: of the seed; see above.
            skip: how many first batches to leave out; they are read all the same.

        Raises:
            UserError: for a batch size below 1 and, during iteration, where a pass gives other rows, labels or numbers
                of rows than the first did.

        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if split not in self._loaders:
            raise ValueError(f"{self.name} has no {split} split, only {', '.join(self._loaders)}")
        seed, rows = 0, self.sizes[split]
        if generator is not None:
            seed = int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device))
            if split == "train" and drops_last(rows, batch_size):
                rows -= 1
        return self._rebatched(split, batch_size, seed, skip * batch_size, rows)

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> Data:
        """Refuse: two passes may differ, and the rows of a pass are too large to be cached.

        Raises:
            ValueError: always.

        """
        raise ValueError(f"{self.name} is streamed: its features cannot be cached")

    def part(self, rank: int, ranks: int, least: int = 2) -> "LoaderData":
        """Return the same data where there is one rank.

        Raises:
            UserError: where there are several.

        """
        if ranks > 1:
            raise UserError(
                f"{self.name} is streamed from loaders, which cannot be divided over ranks; use parallel=none, or hold "
                f"the data whole (from_loader with stream=False)"
            )
        return self

    def fingerprint(self) -> str:
        """Return a SHA-256 of the names, the shapes and the labels in the order of the first pass, not of the rows."""
        return self._fingerprint

    def _inspect(self, split: Split) -> tuple[np.ndarray, str]:
        """Record a split's size; return its distinct labels as given, and a SHA-256 of all of them in order."""
        if self._valued is not None:
            return self._inspect_values(split, self._valued)
        found: np.ndarray | None = None
        digest, rows = hashlib.sha256(), 0
        for _, y in self._read(split, 0):
            if found is not None and _has_words(found) != _has_words(y):
                raise UserError(f"{self.name}: y_{split} has words in one batch and numbers in another")
            found = np.unique(y) if found is None else np.union1d(found, y)
            digest.update("\n".join([*y.tolist(), ""]).encode() if _has_words(y) else y.astype(np.int64).tobytes())
            rows += len(y)
        if found is None:
            raise UserError(f"{self.name}: {split} gives no batch")
        self.sizes[split] = rows
        return found, digest.hexdigest()

    def _inspect_values(self, split: Split, task: Task) -> tuple[np.ndarray, str]:
        """Record a split's size and its targets' moments; return no labels, and a SHA-256 of the targets."""
        moments, digest = Moments(), hashlib.sha256()
        for x, y in self._read(split, 0):
            digest.update(y.tobytes())
            target = _scaled(x).flatten(1) if task.target_is_input else torch.from_numpy(y)
            if moments.rows and target.shape[1:] != moments.extremes.shape[1:]:
                width, first = target.shape[1], moments.extremes.shape[1]
                raise UserError(
                    f"{self.name}: rows of y_{split} have {width} values in one batch and {first} in another"
                )
            moments.add(target)
        if not moments.rows:
            raise UserError(f"{self.name}: {split} gives no batch")
        self.sizes[split], self._moments[split] = moments.rows, moments
        return np.zeros(0), digest.hexdigest()

    def _read(self, split: Split, seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Return the loader's batches: x (N, ...), uint8 or float32 with channels first, and y.

        y is (N,) labels as they are given or, with a task, its targets, (N, D); (N, 0) where the target is x.
        """
        x_is_target = self._valued is not None and self._valued.target_is_input
        for number, batch in enumerate(_isolated(self._loaders[split], seed)):
            if x_is_target and not isinstance(batch, tuple | list):
                batch = (batch, None)
            x, y = as_pair(f"{self.name}: {split} batch {number}", batch)
            where_x, where_y = (f"{self.name}: {part}_{split} of batch {number}" for part in "xy")
            layout = self._layout or _layout_of(x)
            values = checked_rows(where_x, as_array(where_x, x), layout)
            rows = torch.tensor(values) if layout == "ntd" else channels_first(values)
            if x_is_target:
                labels = np.zeros((len(rows), 0), np.float32)
            elif self._valued is None:
                labels = flat_labels(where_y, as_array(where_y, y))
            else:
                labels = checked_targets(
                    self.name, {f"y_{split} of batch {number}": as_array(where_y, y)}, self._valued
                )
                labels = next(iter(labels.values()))
            if len(rows) != len(labels):
                raise UserError(f"{where_x} has {len(rows)} rows and y {len(labels)} labels")
            row = (tuple(rows.shape[1:]), rows.dtype)
            self._row = self._row or row
            if row != self._row:
                (shape, dtype), (first, first_dtype) = row, self._row
                raise UserError(
                    f"{where_x} has {dtype} rows of shape {shape}, the first training batch {first_dtype} ones of "
                    f"shape {first}; all must be alike"
                )
            yield rows, labels

    def _numbered(self, split: Split, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the loader's batches with labels 0..classes - 1, as many rows as in the first pass."""
        size, rows = self.sizes[split], 0
        for x, y in self._read(split, seed):
            rows += len(y)
            if rows > size:
                raise UserError(f"{self.name}: {split} gives more than the {size} rows that its first pass gave")
            yield x, torch.from_numpy(self._number(split, y)) if self._valued is None else self._target(y)
        if rows < size:
            raise UserError(f"{self.name}: {split} gives {rows} rows in a pass, and its first pass gave {size}")

    def _target(self, y: np.ndarray) -> Tensor:
        target = torch.from_numpy(y)
        return target if self._units is None else self._units(target)

    def _number(self, split: Split, y: np.ndarray) -> np.ndarray:
        unknown = y
        if _has_words(y) == _has_words(self._labels):
            places = np.searchsorted(self._labels, y).clip(max=len(self._labels) - 1)
            unknown = y[self._labels[places] != y]
            if not len(unknown):
                return self._numbers[places]
        raise UserError(f"{self.name}: y_{split} holds {unknown[0]}, which no loader gave in its first pass")

    def _rebatched(self, split: Split, batch_size: int, seed: int, first: int, rows: int) -> Iterator[Batch]:
        """Return the rows from `first` to `rows` of a pass, in batches of `batch_size` and what is left."""
        pending: list[tuple[Tensor, Tensor]] = []
        missing, end = batch_size, 0
        for x, y in self._numbered(split, seed):
            start, end = end, end + len(y)
            x, y = (part[max(first - start, 0) : max(rows - start, 0)] for part in (x, y))
            while len(y) >= missing:
                yield self._batch([*pending, (x[:missing], y[:missing])])
                x, y = x[missing:], y[missing:]
                pending, missing = [], batch_size
            if len(y):
                pending.append((x.clone(), y))  # for a loader may write its next batch into the same memory
                missing -= len(y)
        if pending:
            yield self._batch(pending)

    def _batch(self, pieces: list[tuple[Tensor, Tensor]]) -> Batch:
        x, y = pieces[0] if len(pieces) == 1 else (torch.cat([piece[i] for piece in pieces]) for i in (0, 1))
        x = _scaled(x.to(self._device))  # where bytes are bytes yet
        x_is_target = self._valued is not None and self._valued.target_is_input
        return Batch(x, x.flatten(1) if x_is_target else y.to(self._device))


def _layout_of(x: Any) -> Layout:
    return "nchw" if isinstance(x, Tensor) else "nhwc"


def _scaled(x: Tensor) -> Tensor:
    """Return rows as a net takes them: bytes divided by 255."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


class _IsolatedDraws:
    """Continue random numbers, while entered, from where the last time left them, the first time from a seed.

    Draws outside continue as if there had been none of it.

    Args:
        seed: of torch's CPU generator, of NumPy's and Python's global ones, and of `generators`.
        generators: others whose states are its own.

    """

    def __init__(self, seed: int, generators: list[torch.Generator]) -> None:
        self._seed = seed
        self._generators = [torch.default_generator, *generators]
        self._own: Any = None
        self._others: Any = None

    def __enter__(self) -> None:
        self._others = self._states()
        if self._own is not None:
            self._set(self._own)
            return
        random.seed(self._seed)
        np.random.seed(self._seed % _NUMPY_SEEDS)
        for generator in self._generators:
            generator.manual_seed(self._seed)

    def __exit__(self, *exc: object) -> None:
        self._own = self._states()
        self._set(self._others)

    def _states(self) -> tuple[Any, Any, list[Tensor]]:
        return random.getstate(), np.random.get_state(), [generator.get_state() for generator in self._generators]

    def _set(self, states: tuple[Any, Any, list[Tensor]]) -> None:
        of_python, of_numpy, of_torch = states
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        for generator, state in zip(self._generators, of_torch, strict=True):
            generator.set_state(state)


def _isolated(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Return a pass of a loader that draws from random numbers of its own."""
    drawers = [loader, *(getattr(loader, name, None) for name in ("dataset", "sampler", "batch_sampler"))]
    drawers.append(getattr(drawers[-1], "sampler", None))
    found = (getattr(drawer, "generator", None) for drawer in drawers)
    generators = {id(one): one for one in found if isinstance(one, torch.Generator)}
    draws = _IsolatedDraws(seed, [one for one in generators.values() if one is not torch.default_generator])
    for drawer in {id(one): one for one in drawers}.values():
        if callable(set_epoch := getattr(drawer, "set_epoch", None)):  # say, of a DistributedSampler
            set_epoch(seed % _EPOCHS)
    if isinstance(loader, DataLoader) and loader.num_workers:
        loader = copy.copy(loader)
        loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
        # Persistent workers would continue with the random numbers of the last pass; torch has no way to change that.
        vars(loader)["persistent_workers"] = False
    with draws:
        batches = iter(loader)
    while True:
        with draws:
            batch = next(batches, _END)
        if batch is _END:
            return
        yield batch


def _start_worker(init: Callable[[int], None] | None, number: int) -> None:
    # Ctrl-C, which every process of a terminal gets, is handled by the run: it ends after a batch, and is saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if init is not None:
        init(number)


def _loader(what: str, loader: Any) -> Iterable[Any]:
    if isinstance(loader, Iterator) or not isinstance(loader, Iterable):
        once = ", which gives its batches once" if isinstance(loader, Iterator) else ""
        raise UserError(f"{what} is {type(loader).__name__}{once}; a DataLoader is expected")
    return loader


def _in_order(loader: Iterable[Any]) -> bool:
    """Return whether a loader gives its items in order."""
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is None:
        sampler = getattr(loader, "sampler", None)
    return isinstance(sampler.sampler if type(sampler) is BatchSampler else sampler, SequentialSampler)


def _has_words(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U"
