"""Interactions of users with items, for recommenders: rated or clicked pairs, or each user's items."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.csvfile import Column, CsvFile
from localearn.data.partition import check_seed, hold_out
from localearn.data.targets import check_targets
from localearn.errors import UserError
from localearn.options import checked_call
from localearn.printing import log_notes
from localearn.tasks import Criterion, MultiLabel, Regression, Task

Form = Literal["pairs", "users"]

_TARGETS = ("rating", "click")  # columns that are taken for the target where none is named
_TIMES = ("timestamp", "time")
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_LEAST = 3  # interactions of a user of whom some are held out: one each to train on, to choose by and to test
_BYTES = 4 * 2**30  # the most that the rows of form=users may take
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@checked_call
def interactions(
    path: str | Path | None = None,
    *,
    user: str = "user",
    item: str = "item",
    target: str | None = None,
    timestamp: str | None = None,
    form: Form = "pairs",
    least: float | None = None,
    prefixes: int = 10,
    k: int = 10,
    separator: str = "auto",
    encoding: str = "utf-8",
    train_size: int | None = None,
    split_seed: int = 0,
    criterion: Criterion = "squared",
) -> ArrayData:
    """Load the interactions of a csv file as a data set, each user's last ones held out, on the CPU.

    Of a user with 3 interactions or more the last one is a test row and the one before it a validation row; of others
    all are training rows. "pairs" are rows (user, item) of codes, for a net that embeds them (`net=deepfm`), whose
    target is a rating (a regression) or a click, 0 or 1 (`MultiLabel` of one output, AUC). "users" are multi-hot rows,
    (items,), of what a user has had so far, whose target is the item that comes next (`MultiLabel` of all items,
    recall@k and ndcg@k): implicit feedback. An item that no training row has is the last code of pairs; by users it is
    none of the outputs, and a held-out interaction with it is left out.

    Args:
        path: the file; its first line names the columns.
        user: the column of users, words or numbers.
        item: the column of items, words or numbers.
        target: the column of ratings or clicks; "rating" or "click" by default, where there is one.
        timestamp: the column that orders a user's interactions, numbers or ISO 8601; "timestamp" or "time" by default,
            where there is one, else the file's order.
        form: "pairs" or "users", see above.
        least: of form=users, the least rating of an item that counts; by default all but clicks of 0.
        prefixes: of form=users, how many of a user's last training items are each predicted from those before it.
        k: of form=users, the number of items that are recommended.
        separator: as of `table`.
        encoding: as of `table`.
        train_size: the number of training rows to use, drawn by split_seed.
        split_seed: of train_size's draw; the split itself is deterministic.
        criterion: the loss of ratings, "squared", "absolute" or "huber".

    Raises:
        UserError: which names the file and the line, or the column, for what cannot be learned from.

    Example:
        data = localearn.data.interactions("ratings.csv", form="users", least=4)

    """
    for option, number in (("prefixes", prefixes), ("k", k)):
        if number < 1:
            raise UserError(f"{option} is {number}; it must be 1 or more")
    if least is not None and form == "pairs":
        raise UserError("least says which items of form=users count; form=pairs predicts every rating")
    check_seed("split_seed", split_seed)
    if path is None:
        raise UserError("interactions needs a path; give path=x.csv, with columns user, item and, say, rating")
    file = CsvFile(Path(path).expanduser(), separator=separator, encoding=encoding)
    log, notes = _read(file, user, item, target, timestamp, form, least)
    split, short = _leave_last_out(log)
    if short:
        notes.append(f"{short:,} of {log.users:,} users have fewer than {_LEAST} interactions: all are training rows")
    x, y, task, categories, more = (
        _pairs(file, log, split, criterion) if form == "pairs" else _users(file, log, split, prefixes, k)
    )
    notes += more
    if train_size is not None:
        rows = len(x["train"])
        if not 1 <= train_size <= rows:
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {rows}, the training split")
        drawn = torch.from_numpy(hold_out(np.zeros(rows, dtype=np.int64), train_size, split_seed)[1])
        x["train"], y["train"] = x["train"][drawn], y["train"][drawn]
    check_targets(str(file.path), task, x, y, None)
    data = ArrayData("interactions", x, y, 0, task=task, categories=categories)
    if form == "pairs":
        data.feature_names, data.target_names = (user, item), (log.target or "",)
    else:
        data.feature_names = data.target_names = log.item_names
    data.notes = (f"{file.rows:,} interactions of {log.users:,} users with {len(log.item_names):,} items", *notes)
    log_notes(str(file.path), notes)
    return data


@dataclass
class _Log:
    """Hold interactions, a user's all together and in order: the codes of users and items, and the targets, if any."""

    user: np.ndarray
    item: np.ndarray
    value: np.ndarray | None
    users: int
    item_names: tuple[str, ...]
    target: str | None

    def select(self, rows: np.ndarray) -> "_Log":
        """Return some of the interactions."""
        value = None if self.value is None else self.value[rows]
        return _Log(self.user[rows], self.item[rows], value, self.users, self.item_names, self.target)


def _read(
    file: CsvFile, user: str, item: str, target: str | None, timestamp: str | None, form: Form, least: float | None
) -> tuple[_Log, list[str]]:
    """Return the interactions of a file, and what was decided about them."""
    file.check_names("user", [user])
    file.check_names("item", [item])
    notes = []
    for option, name, usual in (("target", target, _TARGETS), ("timestamp", timestamp, _TIMES)):
        if name is not None:
            file.check_names(option, [name])
            continue
        found = next((other for other in usual if other in file.names and other not in (user, item)), None)
        if option == "target":
            target = found
        else:
            timestamp = found
            order = f"column {found}" if found else "the file's own order, for it has no column timestamp"
            notes.append(f"a user's interactions are in order by {order}")
    used = [name for name in (user, item, target, timestamp) if name is not None]
    if len(set(used)) < len(used):
        raise UserError(
            f"{file.path}: user, item, target and timestamp must be different columns, not {', '.join(used)}"
        )
    read = file.columns(used, words=(user, item))
    for name, column in read.items():
        if len(column.absent):
            raise UserError(
                f"{file.path}: column {name!r} has no value in {file.lines(column.absent)}; remove those rows"
            )
    users, items = read[user], read[item]
    assert users.codes is not None and items.codes is not None
    value = None
    if target is not None:
        value = read[target].numbers
        if value is None:
            raise UserError(
                f"{file.where(0)}: the target {target!r} holds {read[target].words[0]!r}, a word; ratings are numbers "
                "and clicks 0 or 1"
            )
    elif form == "pairs" or least is not None:
        raise UserError(
            f"{file.path} has no column rating or click, which form=pairs predicts and least looks at; give target= "
            "with the column that it is, or form=users, which predicts the item that comes next"
        )
    rank = np.arange(file.rows) if timestamp is None else _times(file, timestamp, read[timestamp])
    order = np.lexsort((np.arange(file.rows), rank, users.codes))
    log = _Log(users.codes[order], items.codes[order], None if value is None else value[order], len(users.words),
               items.words, target)  # fmt: skip
    if form == "users":
        log, more = _positive(file, log, least)
        notes += more
    return log, notes


def _times(file: CsvFile, name: str, column: Column) -> np.ndarray:
    """Return the values that rows are sorted by: numbers, or the rank of ISO 8601 times, whose texts sort by time."""
    if column.numbers is not None:
        return column.numbers
    assert column.codes is not None
    wrong = next((place for place, word in enumerate(column.words) if not _ISO.fullmatch(word)), None)
    if wrong is not None:
        row = int(np.flatnonzero(column.codes == wrong)[0])
        raise UserError(
            f"{file.where(row)}: {column.words[wrong]!r} in column {name!r} is no time; write numbers, or dates as "
            "2026-11-28 or 2026-11-28 12:00:00"
        )
    return column.codes


def _positive(file: CsvFile, log: _Log, least: float | None) -> tuple[_Log, list[str]]:
    """Return the interactions with items that a user has had, each item of a user once, and notes."""
    notes = []
    if log.value is not None:
        clicks = bool(np.isin(log.value, (0, 1)).all())
        floor = least if least is not None else 1.0 if clicks else None
        if floor is not None:
            counts = log.value >= floor
            notes.append(
                f"{int(counts.sum()):,} of {file.rows:,} interactions have a {log.target} of {floor:g} or more"
            )
            if not counts.any():
                raise UserError(f"{file.path}: no {log.target} is {floor:g} or more; give a smaller least")
            log = log.select(counts)
    # The last time that a user has had an item counts.
    pairs = log.user.astype(np.int64) * len(log.item_names) + log.item
    _, last = np.unique(pairs[::-1], return_index=True)
    latest = np.sort(len(pairs) - 1 - last)
    if len(latest) < len(pairs):
        earlier = len(pairs) - len(latest)
        notes.append(f"{earlier:,} interactions with an item that comes again for the user are left out")
    return log.select(latest), notes


def _leave_last_out(log: _Log) -> tuple[dict[Split, np.ndarray], int]:
    """Return the rows of each split, and how many users have too few to be held out."""
    starts, sizes = np.unique(log.user, return_index=True, return_counts=True)[1:]
    ends = (starts + sizes)[sizes >= _LEAST]
    held_out = {"test": ends - 1, "val": ends - 2}
    train = np.setdiff1d(np.arange(len(log.user)), np.concatenate(list(held_out.values())))
    rows = {"train": train, **held_out}
    return {split: rows[split] for split in _SPLITS}, int((sizes < _LEAST).sum())


Parts = tuple[dict[Split, torch.Tensor], dict[Split, torch.Tensor], Task, tuple[int, ...], list[str]]


def _pairs(file: CsvFile, log: _Log, split: dict[Split, np.ndarray], criterion: Criterion) -> Parts:
    """Return rows (user, item) of codes and their ratings or clicks."""
    _check_held(file, split)
    assert log.value is not None
    known = np.unique(log.item[split["train"]])
    codes = np.full(len(log.item_names), len(known))
    codes[known] = np.arange(len(known))
    both = np.stack([log.user, codes[log.item]], 1).astype(np.float32)
    x: dict[Split, torch.Tensor] = {name: torch.from_numpy(both[rows]) for name, rows in split.items()}
    notes = []
    unseen = sum(int((codes[log.item[split[name]]] == len(known)).sum()) for name in ("val", "test"))
    if unseen:
        held_out = len(split["val"]) + len(split["test"])
        notes.append(
            f"{unseen:,} of {held_out:,} held-out rows have an item that no training row has, code {len(known)}"
        )
    train = log.value[split["train"]]
    center, scale = float(train.mean()), float(train.std())
    if train.min() == train.max() or not scale > 0:  # which is zero too where values differ by next to nothing
        raise UserError(
            f"{file.path}: the target {log.target!r} is {train[0]:g} in every training row, so there is nothing to "
            "predict; form=users predicts the item that comes next"
        )
    sizes = (log.users, len(known) + 1)
    if np.isin(log.value, (0, 1)).all():
        y: dict[Split, torch.Tensor] = {
            name: torch.from_numpy(log.value[rows, None]).float() for name, rows in split.items()
        }
        return x, y, MultiLabel(outputs=1), sizes, notes
    task = Regression(outputs=1, criterion=criterion, center=(center,), scale=(scale,))
    y = {name: torch.from_numpy((log.value[rows, None] - center) / scale).float() for name, rows in split.items()}
    return x, y, task, sizes, notes


def _users(file: CsvFile, log: _Log, split: dict[Split, np.ndarray], prefixes: int, k: int) -> Parts:
    """Return multi-hot rows of what a user has had, uint8, and the item that comes next."""
    _check_held(file, split)
    known = np.unique(log.item[split["train"]])
    codes = np.full(len(log.item_names), -1)
    codes[known] = np.arange(len(known))
    item = codes[log.item]
    log.item_names = tuple(log.item_names[place] for place in known)
    if len(known) < 2:
        raise UserError(f"{file.path}: the training rows have one item alone, so there is nothing to predict")
    start = np.searchsorted(log.user, log.user, side="left")  # where a user's interactions begin
    places = {name: rows[item[rows] >= 0] for name, rows in split.items()}
    notes = []
    lost = sum(len(split[name]) - len(places[name]) for name in _SPLITS)
    if lost:
        notes.append(f"{lost:,} held-out interactions with an item that no training row has are left out")
    # Of the training rows those that something comes before, and of each user the last of them.
    after = places["train"][places["train"] > start[places["train"]]]
    from_end = np.searchsorted(log.user[after], log.user[after], side="right") - np.arange(len(after))
    places["train"] = after[from_end <= prefixes]
    if not len(places["train"]):
        raise UserError(f"{file.path}: no user has 4 interactions, 2 to train on and 2 that are held out")
    for name, rows in places.items():
        if not len(rows):
            raise UserError(f"{file.path}: no {name} row has an item that a training row has, so none can be predicted")
    total = sum(len(rows) for rows in places.values())
    if total * len(known) * 5 > _BYTES:
        raise UserError(
            f"{file.path}: {total:,} rows of {len(known):,} items take {total * len(known) * 5 / 2**30:,.1f} GiB; give "
            "prefixes=1, or form=pairs"
        )
    x, y = {}, {}
    for name, rows in places.items():
        seen = np.zeros((len(rows), len(known)), dtype=np.uint8)
        for number, row in enumerate(rows):
            before = item[start[row] : row]
            seen[number, before[before >= 0]] = 1
        x[name] = torch.from_numpy(seen)
        y[name] = torch.zeros(len(rows), len(known))
        y[name][torch.arange(len(rows)), torch.from_numpy(item[rows])] = 1
    return x, y, MultiLabel(outputs=len(known), k=min(k, len(known) - 1)), (), notes


def _check_held(file: CsvFile, split: dict[Split, np.ndarray]) -> None:
    if not len(split["test"]):
        raise UserError(
            f"{file.path}: no user has {_LEAST} interactions, so none can be held out; a table of one row a user is "
            "dataset=table"
        )
