"""Tables of a user's own: a csv file whose columns are features and targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.checks import same_classes
from localearn.data.csvfile import Column, CsvFile, Decimal, Thousands
from localearn.data.partition import check_fraction, check_seed, duplicates, held_out_size, hold_out
from localearn.data.targets import check_targets
from localearn.errors import UserError
from localearn.options import checked_call
from localearn.printing import log_notes
from localearn.tasks import Classification, Criterion, MultiLabel, Regression, Task

TableTask = Literal["auto", "regression", "classification", "binary", "multilabel"]
Categories = Literal["onehot", "codes"]
Missing = Literal["refuse", "mean", "median", "most_frequent"]

_TEST_SEED = 0  # of the test rows: they are the same for everyone, whatever the seed of the validation
_FEW = 10  # different whole numbers of a target that are taken for classes, where task=auto
_ONEHOT_BYTES = 4 * 2**30  # the most that rows of zeros and ones may take
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@checked_call
def table(
    path: str | Path | None = None,
    target: str | Sequence[str] | None = None,
    *,
    task: TableTask = "auto",
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    categories: Categories = "onehot",
    missing: Missing = "refuse",
    indicator: bool = False,
    separator: str = "auto",
    encoding: str = "utf-8",
    decimal: Decimal = "point",
    thousands: Thousands = "none",
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    split_seed: int = 0,
    train_size: int | None = None,
    normalize: Literal["standard", "unit", "none"] = "standard",
    criterion: Criterion = "squared",
) -> ArrayData:
    """Load the rows of a csv file as a data set, split in three, on the CPU (`.to` moves it).

    All statistics of the columns (means, deviations, values that replace missing ones, categories) are of the training
    split alone. What was decided is in `notes`, and what should not be overlooked is logged.

    Args:
        path: the file; its first line names the columns.
        target: the column that is predicted, or several.
        task: "regression" (numbers), "classification" (words, or whole numbers as classes), "binary" (two of
            them, by one output), "multilabel" (columns of 0 and 1), or "auto": words, and up to 10 whole numbers, are
            classes, several columns of 0 and 1 labels, and other numbers values.
        columns: the only ones that are used as features; all others by default.
        drop: columns that are left out.
        categorical: columns of numbers that are categories all the same; those of words are.
        categories: "onehot", a column of zeros and ones for each category, or "codes", whole numbers in the first
            columns, for a net that embeds them as `net=deepfm` does. A category that the training split has not is
            all zeros, or the last code.
        missing: the replacement of a missing value (an empty field, NA, NaN, null, ?): of numbers the "mean", "median"
            or "most_frequent" one of the column, of categories the most frequent one; "refuse" raises an error that
            names the lines.
        indicator: whether to add a column of zeros and ones that says where a value was missing.
        separator: the character between fields: "auto", comma, semicolon, tab, pipe, space, or any one character.
        encoding: of the text.
        decimal: "point" or "comma".
        thousands: the mark between the thousands of numbers: "none", "comma", "point", "space" or "apostrophe".
        test_fraction: the share of rows that is held out as the test, the same for every split_seed.
        val_fraction: the share of the others that is held out for validation; of classes, in both, each its share.
        val_size: the number of validation rows, which takes precedence over the fraction.
        split_seed: of the draw of these, and of train_size's.
        train_size: the number of training rows to use.
        normalize: "standard" gives columns of numbers mean 0 and deviation 1, "unit" scales each to 0..1, "none"
            leaves them. Zeros and ones of categories stay as they are. A regression's targets are always standardised,
            and its metrics are in their unit.
        criterion: the loss of a regression, "squared", "absolute" or "huber".

    Raises:
        UserError: which names the file and the line, or the column, for whatever cannot be learned from.

    Example:
        data = localearn.data.table("houses.csv", "price", drop=["id"])
        localearn.MonoForward(localearn.MLP(data.input_shape, 1).for_task(data.task)).fit(data)

    """
    if indicator and missing == "refuse":
        raise UserError("indicator says where a value was missing; give missing=median, mean or most_frequent too")
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    check_seed("split_seed", split_seed)
    if path is None:
        raise UserError("table needs a path; give path=x.csv, and target= with the name of the column to predict")
    file = CsvFile(
        Path(path).expanduser(), separator=separator, encoding=encoding, decimal=decimal, thousands=thousands
    )
    targets = [target] if isinstance(target, str) else list(target or ())
    if not targets:
        raise UserError(f"{file.path}: target is missing; give target= with one of its columns: {_listed(file.names)}")
    named = {"target": targets, "columns": columns or (), "drop": drop, "categorical": categorical}
    for option, names in named.items():
        file.check_names(option, names)
    twice = [name for name in targets if targets.count(name) > 1]
    if twice:
        raise UserError(f"{file.path}: target names {twice[0]!r} twice; give each column once")
    used = [name for name in (columns or file.names) if name not in drop and name not in targets]
    if not used:
        raise UserError(f"{file.path}: columns and drop leave no column to predict {_listed(targets)} from")
    read = file.columns([*dict.fromkeys((*used, *targets))], categorical)
    goal = _Target.of(file, [read[name] for name in targets], task, criterion)
    splits = _split(str(file.path), goal, test_fraction, val_fraction, val_size, split_seed, train_size)
    encoder = _Encoder(file, splits, categories=categories, missing=missing, indicator=indicator, normalize=normalize)
    x, sizes, names = encoder.encode([read[name] for name in used], categorical)
    data = goal.data(file, x, splits, sizes)
    data.feature_names, data.target_names = names, tuple(targets)
    left = [f"{file.unnamed} column{'s' if file.unnamed > 1 else ''} without a name left out"] if file.unnamed else []
    held = f"of {file.rows:,} rows {len(splits['test']):,} were drawn as the test part (test_fraction={test_fraction})"
    rows = {f"x_{split}": x[torch.from_numpy(splits[split])].numpy() for split in _SPLITS}
    warnings = (*goal.notes, *left, *encoder.notes, *duplicates(rows))
    data.notes = (held, *warnings)
    log_notes(str(file.path), warnings)
    return data


# What says which file is read, how, and what is predicted.
FILE_OPTIONS = ("path", "target", "categorical", "separator", "encoding", "decimal", "thousands")


def task_of_file(
    path: str | Path | None, target: str | Sequence[str] | None, categorical: Sequence[str] = (), **reading: Any
) -> str:
    """Return the task that task=auto infers from a file's target columns.

    Args:
        path: the file.
        target: the target column, or several.
        categorical: columns of numbers that are categories all the same.
        reading: separator, encoding, decimal and thousands, as of `table`.

    Raises:
        UserError: where it cannot be inferred.

    """
    if path is None or not target:
        raise UserError("a table's task is that of its target column")
    targets = [target] if isinstance(target, str) else list(target)
    file = CsvFile(Path(path).expanduser(), **reading)
    file.check_names("target", targets)
    read = file.columns(targets, [name for name in categorical if name in targets])
    return _inferred([read[name] for name in targets])[0]


@dataclass
class _Target:
    """Hold the task, y of every row, and the labels by which rows are held out."""

    task: Task
    y: np.ndarray  # (rows,) int64 labels, or (rows, outputs) float64
    class_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(file: CsvFile, columns: Sequence[Column], task: TableTask, criterion: Criterion) -> "_Target":
        """Return what the target columns are, by the task option or by their content."""
        for column in columns:
            if len(column.absent):
                raise UserError(
                    f"{file.path}: the target {column.name!r} has no value in {file.lines(column.absent)}; remove "
                    "those rows, or fill them in"
                )
        several, named = len(columns) > 1, _listed([column.name for column in columns])
        notes: list[str] = []
        if task == "auto":
            task, why = _inferred(columns)
            notes.append(f"target {named}: {why}, so task={task}")
        if several and task in ("classification", "binary"):
            raise UserError(f"{file.path}: task={task} has one target, and {named} are {len(columns)}; give one")
        if task == "regression":
            return _Target.values(file, columns, criterion, notes)
        if task == "multilabel":
            return _Target.labels(file, columns, notes)
        return _Target.classes(file, columns[0], task, notes)

    @staticmethod
    def values(file: CsvFile, columns: Sequence[Column], criterion: Criterion, notes: list[str]) -> "_Target":
        """Return numbers to be predicted."""
        for column in columns:
            if column.numbers is None:
                raise UserError(
                    f"{file.where(0)}: the target {column.name!r} holds {column.words[0]!r}, a word, and a regression "
                    "predicts numbers; give task=classification"
                )
            if column.numbers.min() == column.numbers.max():
                raise UserError(
                    f"{file.path}: the target {column.name!r} is {column.numbers[0]:g} in every row, so there is "
                    "nothing to predict; give another target"
                )
        y = np.stack([column.numbers for column in columns if column.numbers is not None], 1)
        return _Target(Regression(outputs=len(columns), criterion=criterion), y, notes=notes)

    @staticmethod
    def labels(file: CsvFile, columns: Sequence[Column], notes: list[str]) -> "_Target":
        """Return columns of zeros and ones, any of which may be true of a row."""
        for column in columns:
            other = None if column.numbers is None else column.numbers[(column.numbers != 0) & (column.numbers != 1)]
            if other is None or len(other):
                shown = repr(column.words[0]) if other is None else f"{other[0]:g}"
                raise UserError(
                    f"{file.path}: the target {column.name!r} holds {shown}, and labels of task=multilabel are 0 or 1"
                )
        y = np.stack([column.numbers for column in columns if column.numbers is not None], 1)
        constant = [c.name for c, values in zip(columns, y.T, strict=True) if values.min() == values.max()]
        if constant:
            raise UserError(
                f"{file.path}: the target {constant[0]!r} is the same in every row, so there is nothing to predict"
            )
        return _Target(MultiLabel(outputs=len(columns)), y, notes=notes)

    @staticmethod
    def classes(file: CsvFile, column: Column, task: TableTask, notes: list[str]) -> "_Target":
        """Return classes: words, or whole numbers; two of them as one output where the task is binary."""
        codes, words = column.codes, column.words
        if column.numbers is not None:
            broken = column.numbers[column.numbers != np.round(column.numbers)]
            if len(broken):
                raise UserError(
                    f"{file.path}: the target {column.name!r} holds {broken[0]:g}, and classes are words or whole "
                    "numbers; give task=regression"
                )
            present, codes = np.unique(column.numbers, return_inverse=True)
            words = tuple(f"{value:.0f}" for value in present)
        assert codes is not None
        if len(words) == 1:
            raise UserError(
                f"{file.path}: the target {column.name!r} is {words[0]!r} in every row, so there is nothing to "
                "predict; give another target"
            )
        if len(words) > max(_FEW, len(codes) // 2):
            instead = "give another target" if column.numbers is None else "give task=regression"
            raise UserError(
                f"{file.path}: the target {column.name!r} has {len(words):,} classes in {len(codes):,} rows, fewer "
                f"than two rows for most; {instead}"
            )
        if task == "binary":
            if len(words) != 2:
                raise UserError(
                    f"{file.path}: the target {column.name!r} has {len(words)} classes, {_listed(words)}, and "
                    "task=binary two; give task=classification"
                )
            notes.append(f"target {column.name}: the output is the evidence for {words[1]!r}, against {words[0]!r}")
            return _Target(MultiLabel(outputs=1), codes[:, None].astype(np.float64), notes=notes)
        return _Target(Classification(len(words)), codes.astype(np.int64), words, notes)

    def data(
        self, file: CsvFile, x: torch.Tensor, splits: dict[Split, np.ndarray], sizes: tuple[int, ...]
    ) -> ArrayData:
        """Return the data set of these rows; a regression's targets have mean 0 and deviation 1 in the training split.

        Args:
            file: the table.
            x: (rows, n), the encoded features.
            splits: the rows of each split.
            sizes: the numbers of categories of the first columns, which hold codes.

        """
        rows: dict[Split, torch.Tensor] = {split: x[torch.from_numpy(index)] for split, index in splits.items()}
        y: dict[Split, torch.Tensor]
        if isinstance(self.task, Classification):
            for split in ("val", "test"):
                same_classes(str(file.path), self.y[splits["train"]], self.y[splits[split]], self.class_names)
            y = {split: torch.from_numpy(self.y[index]) for split, index in splits.items()}
            return ArrayData("table", rows, y, self.task.outputs, class_names=self.class_names, categories=sizes)
        task, values = self.task, self.y
        if isinstance(task, Regression):
            train = values[splits["train"]]
            center, scale = train.mean(0), train.std(0)
            # Values may differ by so little that their deviation is no number any more.
            if (train.min(0) == train.max(0)).any() or not (scale > 0).all():
                raise UserError(f"{file.path}: the target does not vary in the training split; give another split_seed")
            values = (values - center) / scale
            task = Regression(
                outputs=task.outputs,
                criterion=task.criterion,
                center=tuple(center.tolist()),
                scale=tuple(scale.tolist()),
            )
        y = {split: torch.from_numpy(values[index]).float() for split, index in splits.items()}
        check_targets(str(file.path), task, rows, y, None)
        return ArrayData("table", rows, y, 0, task=task, categories=sizes)


def _inferred(columns: Sequence[Column]) -> tuple[TableTask, str]:
    """Return the task that target columns imply, and why."""
    numbers = [column.numbers for column in columns if column.numbers is not None]
    if len(numbers) < len(columns):
        return "classification", "it holds words"
    if len(columns) > 1:
        if all(np.isin(values, (0, 1)).all() for values in numbers):
            return "multilabel", "they hold 0 and 1 alone"
        return "regression", "they hold numbers"
    present = np.unique(numbers[0])
    if 1 < len(present) <= min(_FEW, len(numbers[0]) // 2) and (present == np.round(present)).all():
        return "classification", f"it holds {len(present)} whole numbers, taken as classes"
    return "regression", "it holds numbers"


def _split(
    where: str,
    goal: _Target,
    test_fraction: float,
    val_fraction: float,
    val_size: int | None,
    seed: int,
    train_size: int | None,
) -> dict[Split, np.ndarray]:
    """Return the rows of each split, ascending."""
    labels = goal.y if goal.y.ndim == 1 else np.zeros(len(goal.y), dtype=np.int64)
    if isinstance(goal.task, MultiLabel) and goal.task.outputs == 1:
        labels = goal.y[:, 0]
    if len(labels) < 3:
        raise UserError(f"{where} has {len(labels)} rows; training, validation and test need one or more each")
    rest, test = hold_out(labels, held_out_size("test", len(labels), test_fraction, where=where), _TEST_SEED)
    train, val = hold_out(labels[rest], held_out_size("val", len(rest), val_fraction, val_size, where), seed)
    train, val = rest[train], rest[val]
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(labels[train], train_size, seed)[1]]
    return {"train": train, "val": val, "test": test}


class _Encoder:
    """Encode columns as a net's input, by the training split's rows; `notes` say what was decided."""

    def __init__(
        self,
        file: CsvFile,
        splits: dict[Split, np.ndarray],
        *,
        categories: Categories,
        missing: Missing,
        indicator: bool,
        normalize: str,
    ) -> None:
        self.file, self.train = file, splits["train"]
        self.held = np.concatenate([splits["val"], splits["test"]])
        self.categories, self.missing, self.indicator, self.normalize = categories, missing, indicator, normalize
        self.notes: list[str] = []

    def encode(
        self, columns: Sequence[Column], forced: Sequence[str]
    ) -> tuple[torch.Tensor, tuple[int, ...], tuple[str, ...]]:
        """Return x, (rows, n) float32, the numbers of categories of the columns that are codes, and the names of all.

        Codes come first; other columns keep their order, each followed by its indicator, if any.

        Args:
            columns: the features.
            forced: the columns that the user calls categorical.

        """
        self._check_absent(columns)
        codes: dict[str, np.ndarray] = {}
        sizes: list[int] = []
        values: dict[str, np.ndarray] = {}
        width = sum(len(c.words) for c in columns if c.codes is not None) if self.categories == "onehot" else 0
        if 4 * self.file.rows * width > _ONEHOT_BYTES:
            most = max((c for c in columns if c.codes is not None), key=lambda column: len(column.words))
            raise UserError(
                f"{self.file.path}: {width:,} categories, of which {most.name!r} has {len(most.words):,}, are too many "
                f"columns for {self.file.rows:,} rows; give categories=codes with net=deepfm, or drop=[{most.name}]"
            )
        for column in columns:
            absent = np.zeros(self.file.rows, dtype=bool)
            absent[column.absent] = True
            if column.codes is None:
                values[column.name] = self._numbers(column, absent)
            else:
                known, numbered = self._categories(column, absent, column.name in forced)
                if self.categories == "codes":
                    codes[column.name] = numbered.astype(np.float32)
                    sizes.append(len(known) + 1)
                else:
                    for number, word in enumerate(known):
                        values[f"{column.name}={column.words[word]}"] = (numbered == number).astype(np.float32)
            if self.indicator and absent[self.train].any():
                values[f"{column.name} missing"] = absent.astype(np.float32)
        named = [*codes.items(), *values.items()]
        x = np.stack([value for _, value in named], 1)
        return torch.from_numpy(x), tuple(sizes), tuple(name for name, _ in named)

    def _check_absent(self, columns: Sequence[Column]) -> None:
        for column in columns:
            absent = column.absent
            if len(absent) == self.file.rows or not (~np.isin(self.train, absent)).any():
                raise UserError(
                    f"{self.file.path}: column {column.name!r} has no value in any row of the training split; "
                    f"give drop=[{column.name}]"
                )
            if len(absent) and self.missing == "refuse":
                raise UserError(
                    f"{self.file.path}: column {column.name!r} has no value in {len(absent):,} of {self.file.rows:,} "
                    f"rows ({self.file.lines(absent)}); give missing=median, mean or most_frequent, or "
                    f"drop=[{column.name}]"
                )

    def _numbers(self, column: Column, absent: np.ndarray) -> np.ndarray:
        """Return a column of numbers, missing ones replaced, with mean 0 and deviation 1 in the training split."""
        assert column.numbers is not None
        present = column.numbers[self.train][~absent[self.train]]
        if absent.any():
            if self.missing == "most_frequent":
                found, counts = np.unique(present, return_counts=True)
                fill = found[counts.argmax()]
            else:
                fill = present.mean() if self.missing == "mean" else np.median(present)
            self._note_fill(column, absent, f"{fill:.6g}")
            column = Column(column.name, numbers=np.where(absent, fill, column.numbers))
            assert column.numbers is not None
        train = column.numbers[self.train]
        if train.min() == train.max():
            self.notes.append(f"column {column.name} is {train[0]:g} in all of the training split, so it says nothing")
        if len(train) > 2 and (np.diff(column.numbers) == 1).all():
            self.notes.append(f"column {column.name} numbers the rows; drop=[{column.name}] leaves it out")
        if self.normalize == "none":
            return column.numbers.astype(np.float32)
        standard = self.normalize == "standard"
        centre, width = (train.mean(), train.std()) if standard else (train.min(), train.max() - train.min())
        varies = width > np.finfo(np.float64).eps * np.abs(train).max()
        return ((column.numbers - centre) / (width if varies else 1.0)).astype(np.float32)

    def _categories(self, column: Column, absent: np.ndarray, forced: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return which of a column's words the training split has, and each row's index among them or their number."""
        assert column.codes is not None
        codes = column.codes
        counts = np.bincount(codes[self.train][~absent[self.train]], minlength=len(column.words))
        if absent.any():
            fill = int(counts.argmax())
            self._note_fill(column, absent, repr(column.words[fill]))
            codes = np.where(absent, fill, codes)
            counts = np.bincount(codes[self.train], minlength=len(column.words))
        known = np.flatnonzero(counts)
        if len(known) > max(50, len(self.train) // 2) and not forced:
            raise UserError(
                f"{self.file.where(0)}: {column.words[codes[0]]!r} in column {column.name!r} is one of {len(known):,} "
                f"words in {len(self.train):,} training rows, so hardly one comes again; give drop=[{column.name}], or "
                f"categorical=[{column.name}] to take them all the same"
            )
        numbered = np.full(len(column.words), len(known))
        numbered[known] = np.arange(len(known))
        place = numbered[codes]
        unseen = int((place[self.held] == len(known)).sum())
        if unseen:
            as_what = "all zeros" if self.categories == "onehot" else f"code {len(known)}"
            self.notes.append(
                f"column {column.name}: {unseen} of {len(self.held)} held-out rows have a category that no training "
                f"row has, which is {as_what}"
            )
        return known, place

    def _note_fill(self, column: Column, absent: np.ndarray, value: str) -> None:
        how = self.missing if column.codes is None else "most_frequent"
        self.notes.append(
            f"column {column.name}: {int(absent.sum())} missing values are {value}, the training split's {how}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
