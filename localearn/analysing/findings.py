"""Findings about a trained rule's units: the figures of an analysis, for one rule and between rules."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from localearn.analysing.activities import Activities, activities
from localearn.analysing.measures import (
    Probe,
    centered,
    centered_cka,
    class_means,
    dead_units,
    ensembles,
    gram_norm,
    iou,
    iou_by_chance,
)
from localearn.data import Data
from localearn.errors import UserError
from localearn.trainers import Trainer

ROWS = 10_000  # of a split, at most, that are evaluated
THRESHOLD = 0.5  # of the largest mean activity that a unit has for a class


@dataclass(frozen=True)
class BlockFindings:
    """The figures of a block of n units.

    Attributes:
        units: n.
        hoyer: the mean over test rows of Hoyer's sparsity of the block's output; None where every row is zeros.
        silent: the share of test rows that are zeros.
        dead: the number of units whose activity is constant, see `dead_units`.
        probe: the test accuracy of a linear probe, of the classes that were trained on.
        sets: the class ensembles, (C, n) bool, of test rows' mean activities.
        shared: their `iou`, (C, C).
        by_chance: their `iou_by_chance`, (C, C).

    """

    units: int
    hoyer: float | None
    silent: float
    dead: int
    probe: float
    sets: Tensor
    shared: Tensor
    by_chance: Tensor

    @property
    def sizes(self) -> list[int]:
        """The number of units in each class's ensemble."""
        return self.sets.sum(1).tolist()

    def mean_shared(self, classes: Sequence[int], of: Tensor | None = None) -> float | None:
        """Return the mean overlap of pairs of classes; None without a pair.

        Args:
            classes: the classes.
            of: `shared`, or `by_chance`; None: `shared`.

        """
        matrix = self.shared if of is None else of
        pairs = [matrix[a, b].item() for i, a in enumerate(classes) for b in classes[i + 1 :]]
        pairs = [share for share in pairs if not math.isnan(share)]
        return sum(pairs) / len(pairs) if pairs else None

    def exclusive(self, classes: Sequence[int]) -> float | None:
        """Return the share of the units in an ensemble of some classes that are in one alone; None without any.

        Args:
            classes: the classes.

        """
        times = self.sets[list(classes)].sum(0)
        inside = int((times > 0).sum())
        return int((times == 1).sum()) / inside if inside else None

    def new(self, unseen: int, seen: Sequence[int]) -> float | None:
        """Return the share of an unseen class's ensemble that is in none of the seen classes'; None where it is empty.

        Args:
            unseen: the class.
            seen: the classes that were trained on.

        """
        own = self.sets[unseen]
        size = int(own.sum())
        return int((own & ~self.sets[list(seen)].any(0)).sum()) / size if size else None

    def called_up(self, unseen: int, seen: Sequence[int]) -> list[tuple[int, float]]:
        """Return the seen classes whose ensembles share most with an unseen class's, with what they share, in order.

        Args:
            unseen: the class.
            seen: the classes that were trained on.

        """
        shares = [(k, self.shared[unseen, k].item()) for k in seen]
        return sorted(((k, share) for k, share in shares if not math.isnan(share)), key=lambda pair: -pair[1])


@dataclass(frozen=True)
class Findings:
    """The figures of one trained rule.

    Attributes:
        label: its name on the page.
        algo: the rule's name in its record.
        dataset: the data set's.
        net: the net's.
        class_names: of all classes.
        classes: those that were trained on.
        unseen: those that were not.
        accuracy: of its predictions of test rows, of the classes that were trained on.
        predicted: of each unseen class as what its rows are predicted: shares by class.
        rows: the training and the test rows that were read.
        probe_of_input: a linear probe's accuracy on the rows themselves; None where they were not read.
        blocks: the figures of each.
        folder: the run's.
        history: the lines of metrics.jsonl, with the angles of diagnose=alignment where there are any.
        activities: of the test rows.

    """

    label: str
    algo: str
    dataset: str
    net: str
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    unseen: tuple[int, ...]
    accuracy: float
    predicted: Mapping[int, Mapping[int, float]]
    rows: tuple[int, int]
    probe_of_input: float | None
    blocks: tuple[BlockFindings, ...]
    folder: str = ""
    history: tuple[Mapping[str, Any], ...] = ()
    activities: Activities | None = field(default=None, repr=False)

    def angles(self) -> dict[str, list[tuple[float, float]]]:
        """Return the angles of diagnose=alignment by name, each with the passes after which it was taken."""
        angles: dict[str, list[tuple[float, float]]] = {}
        for line in self.history:
            for name, value in line.items():
                if name.startswith(("angle_", "path_angle_")) and value is not None:
                    angles.setdefault(name, []).append((float(line["passes"]), float(value)))
        return angles


def check_analysable(trainer: Trainer, data: Data) -> None:
    """Check that the data have one class a row, which the class ensembles need.

    Args:
        trainer: the rule.
        data: its data.

    Raises:
        UserError: when they have not.

    """
    if not data.task.exclusive or not data.task.has_classes or data.task.per_position:
        raise UserError(
            f"{data.name} is for {type(data.task).__name__}, and an analysis groups rows by the one class that each "
            "has; use a run that tells classes apart"
        )
    if len(set(range(data.classes)) - set(data.unseen)) < 2:
        raise UserError(f"{data.name} has fewer than two classes")


def examine(
    trainer: Trainer,
    data: Data,
    *,
    label: str | None = None,
    threshold: float = THRESHOLD,
    rows: int = ROWS,
    **record: Any,
) -> Findings:
    """Measure what the units of a trained rule have learned.

    All is measured on test rows; the probes alone are trained, on training rows, whose blocks stay as they are. Nothing
    is chosen by what is found.

    Args:
        trainer: the rule, on the data's device; its mode is evaluation from here on.
        data: with one class a row.
        label: its name on the page; the rule's class by default.
        threshold: of a class ensemble, see `ensembles`; between 0 and 1.
        rows: of each split, at most, that are read, drawn, always the same ones.
        record: `algo`, `dataset`, `net`, `folder` and `history` of `Findings`, where there is a record.

    Raises:
        UserError: when data have no classes, the threshold is out of its range, or rows are too few.

    Example:
        data, rule = localearn.load_rule("runs/...")
        print(examine(rule, data).blocks[0].hoyer)

    """
    check_analysable(trainer, data)
    if not 0 <= threshold < 1:
        raise UserError(f"threshold is {threshold}; it is a share of the largest mean activity, 0 or more, less than 1")
    if rows < 2 * data.classes:
        raise UserError(f"rows is {rows}; give {2 * data.classes} or more, of {data.classes} classes")
    trainer.eval()
    train, test = (activities(trainer, data, split, rows) for split in ("train", "test"))
    names = data.class_names or tuple(str(k) for k in range(data.classes))
    seen = tuple(k for k in range(data.classes) if k not in data.unseen)
    known = ~torch.isin(test.labels, torch.tensor(data.unseen, dtype=torch.int64))
    named: dict[str, Any] = {
        "algo": type(trainer).__name__,
        "dataset": data.name,
        "net": type(trainer.net).__name__,
    } | record
    return Findings(
        label=label or type(trainer).__name__,
        class_names=names,
        classes=seen,
        unseen=data.unseen,
        accuracy=(test.predicted == test.labels)[known].double().mean().item(),
        predicted={k: _predictions(test, k) for k in data.unseen},
        rows=(len(train.labels), len(test.labels)),
        probe_of_input=_probed(train.inputs, test.inputs, train, test, known, data.classes),
        blocks=tuple(_block(train, test, k, known, data.classes, threshold) for k in range(len(test.states))),
        activities=test,
        **named,
    )


def _predictions(test: Activities, k: int) -> dict[int, float]:
    """Return as what a class's rows are predicted, the share of each class that is, most frequent first."""
    counts = torch.bincount(test.predicted[test.labels == k])
    order = counts.argsort(descending=True, stable=True).tolist()
    return {j: counts[j].item() / int(counts.sum()) for j in order if counts[j]}


def _probed(
    x: Tensor | None, x_test: Tensor | None, train: Activities, test: Activities, known: Tensor, classes: int
) -> float | None:
    if x is None or x_test is None:
        return None
    return Probe(x, train.labels, classes).accuracy(x_test[known], test.labels[known])


def _block(train: Activities, test: Activities, k: int, known: Tensor, classes: int, threshold: float) -> BlockFindings:
    h, sparsity = test.states[k], test.sparsity[k]
    silent = sparsity.isnan()
    # A class of which no row was drawn has no mean, and so no unit in its ensemble.
    sets = ensembles(class_means(h, test.labels, classes).nan_to_num(0.0), threshold)
    probe = _probed(train.states[k], h, train, test, known, classes)
    assert probe is not None
    return BlockFindings(
        units=h.shape[1],
        hoyer=None if bool(silent.all()) else sparsity[~silent].mean().item(),
        silent=silent.double().mean().item(),
        dead=int(dead_units(test.lowest[k], test.highest[k]).sum()),
        probe=probe,
        sets=sets,
        shared=iou(sets),
        by_chance=iou_by_chance(sets),
    )


@dataclass(frozen=True)
class Similarity:
    """The linear CKA of all blocks of rules that saw the same test rows.

    Attributes:
        blocks: the rule and the number of each block.
        values: the matrix, of which each row and column is a block.

    """

    blocks: tuple[tuple[Findings, int], ...]
    values: Tensor


def similarities(found: Iterable[Findings]) -> list[Similarity]:
    """Return the CKA of blocks within and between rules, one for each set of test rows.

    Args:
        found: one for each run.

    """
    groups: dict[tuple[str, bytes], list[Findings]] = {}
    for finding in found:
        if finding.activities is not None:
            key = (finding.dataset, finding.activities.labels.numpy().tobytes())
            groups.setdefault(key, []).append(finding)
    return [_similarity(group) for group in groups.values()]


def _similarity(group: Sequence[Findings]) -> Similarity:
    blocks = [(finding, k) for finding in group for k in range(len(finding.blocks))]
    features = [centered(finding.activities.states[k]) for finding, k in blocks if finding.activities is not None]
    norms = [gram_norm(x) for x in features]
    values = torch.eye(len(blocks), dtype=torch.float64)
    for i, x in enumerate(features):
        if norms[i] == 0:  # of a block whose output is the same for every row
            values[i, i] = math.nan
        for j in range(i):
            values[i, j] = values[j, i] = centered_cka(x, features[j], norms[i], norms[j])
    return Similarity(tuple(blocks), values)
