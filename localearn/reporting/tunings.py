"""Searches for the rules' options: what they found and cost, from the tune.json that each leaves."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from localearn.printing import visible
from localearn.records import BadRecordError, Reading, fields
from localearn.records.reading import decoded, label_of
from localearn.reporting import formatting
from localearn.reporting.document import Cell, Line, Table
from localearn.reporting.metrics import ACCURACY, named, with_unit, written
from localearn.reporting.runs import named_below
from localearn.tasks import Direction, Metric, Unit

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search: how many trials ended and how, what they cost in all, and the best one's options.

    Attributes:
        folder: its name in the report.
        algo: the rule's name.
        dataset: the data set's.
        net: the net's.
        trials: the number that ended in each status.
        val: the best trial's figure, on the validation split.
        options: the best trial's.
        train_s: seconds of training, all trials together.
        joules: of all their windows, by reading, for unlike figures are never added; None where those of a trial are
            not known.
        sampler: Optuna's.
        pruner: Optuna's.
        metric: what was searched by.

    """

    folder: str
    algo: str
    dataset: str
    net: str
    trials: Mapping[str, int]
    val: float
    options: Mapping[str, Any]
    train_s: float
    joules: Mapping[Reading, float | None]
    sampler: str
    pruner: str
    metric: Metric = ACCURACY

    @property
    def ended(self) -> int:
        """The number of trials that count: those that completed and those that were pruned."""
        return self.trials.get("complete", 0) + self.trials.get("pruned", 0)


@dataclass(frozen=True, slots=True)
class Tunings:
    """The searches that were found.

    Attributes:
        tunings: those that could be read.
        notes: remarks on the reading.

    """

    tunings: tuple[Tuning, ...] = ()
    notes: tuple[str, ...] = ()


def read_tunings(folders: Iterable[str | Path]) -> Tunings:
    """Read every search below the folders: each folder that holds a tune.json; one that cannot be read is noted.

    Args:
        folders: one or more.

    """
    found, notes = [], []
    for top in map(Path, folders):
        for file in sorted(top.rglob("tune.json")):
            folder = named_below(file.parent, top)
            try:
                found.append(parse_tuning(decoded(file), folder))
            except BadRecordError as error:
                notes.append(f"{folder}/tune.json was skipped: {error}.")
    return Tunings(tuple(found), tuple(notes))


def parse_tuning(record: Mapping[str, Any], folder: str) -> Tuning:
    """Return the search that a decoded tune.json describes.

    Args:
        record: the decoded object.
        folder: its name in the report.

    Raises:
        BadRecordError: when the schema is not ours, a field is of the wrong kind, or there is no best trial.

    """
    if record.get("schema") != SCHEMA:
        raise BadRecordError(f"schema {record.get('schema')!r} is unknown here (this version reads schema {SCHEMA})")
    trials = {fields.integer(trial, "number"): trial for trial in _objects(record, "trials")}
    numbers = record.get("best")
    best = trials.get(numbers[0]) if isinstance(numbers, list) and numbers else None
    metric = _metric(record)
    reached = fields.number(best, f"val_{metric.name}") if best else None
    if best is None or reached is None:
        raise BadRecordError("no trial of it completed")
    return Tuning(
        folder=folder,
        algo=fields.text(best, "algo"),
        dataset=fields.text(best, "dataset"),
        net=fields.text(best, "net"),
        trials=Counter(fields.text(trial, "state") for trial in trials.values()),
        val=reached,
        options=fields.mapping(best, "params"),
        train_s=sum(fields.number(trial, "train_s") or 0.0 for trial in trials.values()),
        joules=dict(_joules(spent) for spent in _objects(fields.mapping(record, "tuning"), "energy")),
        sampler=fields.text(record, "sampler"),
        pruner=fields.text(record, "pruner"),
        metric=metric,
    )


def described(metric: Metric) -> dict[str, Any]:
    """Return a metric's fields of a tune.json: none for the accuracy, the default of a reader.

    Args:
        metric: what was searched by.

    """
    if metric == ACCURACY:
        return {}
    return {"metric": {"name": metric.name, "direction": metric.direction, "unit": metric.unit}}


def _metric(record: Mapping[str, Any]) -> Metric:
    described = fields.optional_mapping(record, "metric")
    if described is None:
        return ACCURACY
    with fields.within("metric"):
        directions, units = get_args(Direction), get_args(Unit)
        return Metric(
            visible(fields.text(described, "name")),
            fields.choice(described, "direction", directions),
            fields.choice(described, "unit", units),
        )


def _objects(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRecordError(f"{key} is no list of objects")
    return value


def _joules(spent: Mapping[str, Any]) -> tuple[Reading, float | None]:
    reading = Reading(label_of(spent), fields.optional_text(spent, "source"), fields.optional_text(spent, "part"))
    return reading, fields.number(spent, "energy_j")


def tuning_table(tunings: Iterable[Tuning]) -> Table:
    """Return a row per search: its trials, its cost, what it reached and the options that it found.

    Args:
        tunings: the searches.

    """
    tunings = tuple(tunings)
    judged = {tuning.metric for tuning in tunings}
    one = judged.pop() if len(judged) == 1 else None
    rows = sorted(tunings, key=lambda tuning: (tuning.dataset, tuning.net, tuning.algo != "backprop", tuning.algo))
    return Table(
        "What each search cost and found",
        ("Rule", "Trials", "Cost", f"Validation {written(one)}" if one else "Validation", "Options found"),
        tuple((_head(t), _trials(t), _cost(t), _reached(t, one is None), _options(t)) for t in rows),
    )


def _head(tuning: Tuning) -> Cell:
    return Line(tuning.algo), Line(f"{tuning.dataset} · {tuning.net}", "label")


def _trials(tuning: Tuning) -> Cell:
    states = (("complete", "completed"), ("pruned", "pruned"))
    counts = [f"{tuning.trials[state]} {label}" for state, label in states if tuning.trials.get(state)]
    method = f"{tuning.sampler}, {tuning.pruner}"
    return Line(str(tuning.ended)), Line(", ".join(counts), "label"), Line(method, "label")


def _cost(tuning: Tuning) -> Cell:
    lines = [Line(f"{formatting.plain(tuning.train_s, 3)} s of training")]
    for reading, joules in tuning.joules.items():
        lines += [_energy(joules), Line(str(reading), "label")]
    return tuple(lines) if tuning.joules else (*lines, Line("energy absent", "refusal"))


def _energy(joules: float | None) -> Line:
    if joules is None:
        return Line("energy not known in full", "refusal")
    unit = formatting.choose_unit(formatting.JOULE, [joules])
    return Line(f"{formatting.plain(joules / unit.factor)} {unit.symbol}")


def _reached(tuning: Tuning, by_name: bool) -> Cell:
    return (Line((named if by_name else with_unit)(tuning.metric, tuning.val)),)


def _options(tuning: Tuning) -> Cell:
    return tuple(
        Line(f"{name} = {formatting.plain(value, 3) if isinstance(value, float) else value}")
        for name, value in tuning.options.items()
    )


def tuning_notes(tunings: Iterable[Tuning]) -> list[str]:
    """Return where the rules on one net and data were not searched for alike.

    Args:
        tunings: the searches.

    """
    groups: dict[tuple[str, str], list[Tuning]] = defaultdict(list)
    for tuning in tunings:
        groups[tuning.dataset, tuning.net].append(tuning)
    notes = []
    for (dataset, net), searches in sorted(groups.items()):
        by_one = len({search.metric for search in searches}) == 1
        if not by_one or len({(search.ended, search.sampler, search.pruner) for search in searches}) > 1:
            by = ["" if by_one else f", by {written(search.metric)}" for search in searches]
            listed = "; ".join(
                f"{s.algo} {s.ended} trials ({s.sampler}, {s.pruner}{way})" for s, way in zip(searches, by, strict=True)
            )
            notes.append(f"{dataset} · {net}: the searches for options are unequal: {listed}.")
    return notes
