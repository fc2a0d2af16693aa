"""Reader of records of every schema, which takes a file for data: bounded, of the declared types, never a program."""

import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import fields as fields_of
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from localearn.errors import UserError
from localearn.files import UnreadableError, read_bytes, read_json
from localearn.records import fields
from localearn.records.fields import BadRecordError
from localearn.records.record import (
    FORMER,
    LABELS,
    LOSS,
    NOT_IN_JSON,
    SCHEMA,
    Energy,
    Figures,
    Label,
    Part,
    Reading,
    Record,
    Window,
)
from localearn.tasks import Direction, Unit

RUN_JSON, METRICS = "run.json", "metrics.jsonl"
DEEPEST = 64  # levels of a record; a configuration of ours has fewer than 10
LONGEST_NAME = 200  # characters of a rule's, a data set's or a net's
_REQUIRED = ("status", "algo", "dataset", "net", "seed")
# Of a line of metrics.jsonl, what every epoch's has besides the metrics of its task.
_LINE = ("passes", "train_loss", "lr", "train_s", "train_j", "samples_per_s")


def read_record(path: str | Path) -> Record:
    """Read the record of a run, of this schema or an older one, without its history.

    Args:
        path: a run.json, or the folder that holds it.

    Returns:
        The record. Fields that the file does not hold have their defaults, and are listed in its `lacking`.

    Raises:
        UserError: when a file cannot be read, or a field is of the wrong kind; the message names both.

    """
    path = Path(path)
    path = path / RUN_JSON if path.is_dir() else path
    try:
        return parse_record(read_json(path))
    except BadRecordError as error:
        raise UserError(f"{path}: {error}") from error


def decoded(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: the file.

    Raises:
        BadRecordError: when it holds none, or is nested without end.

    """
    try:
        values = read_json(path)
    except UnreadableError as error:
        raise BadRecordError(f"it {error.reason}") from error
    _check_depth(values)
    return values


def parse_record(values: Mapping[str, Any]) -> Record:
    """Return the record that a decoded run.json describes.

    Args:
        values: the decoded object.

    Raises:
        BadRecordError: when the schema is unknown, or a field is missing or of the wrong kind; it names the field.

    """
    schema = values.get("schema")
    if schema not in (1, SCHEMA) or isinstance(schema, bool):
        raise BadRecordError(
            f"schema {repr(schema)[:40]} is unknown here (this version reads schema {SCHEMA} and older)"
        )
    _check_depth(values)
    metrics = _metrics_of_schema_1(values) if schema == 1 else _metrics(values)
    known: dict[str, Any] = {"schema": SCHEMA, "metrics": metrics}
    lacking = set()
    for name, (kind, optional) in _kinds().items():
        if name in known:
            continue
        value = _field(values, name, kind)
        if value is not None:
            known[name] = value
        elif not optional:
            lacking.add(name)
    record = Record(**known, lacking=frozenset(lacking))
    with fields.within("energy"):
        parse_energy(record.energy)
    with fields.within("co2e"):
        parse_co2e(record.co2e)
    with fields.within("memory"):
        for name in record.memory:
            fields.number(record.memory, name)
    with fields.within("device"):
        fields.optional_text(record.device, "type")
    for name in ("algo", "dataset", "net"):  # of which files are named
        if len(getattr(record, name)) > LONGEST_NAME:
            raise BadRecordError(f"{name} has more than {LONGEST_NAME} characters")
    for name in ("started", "finished"):
        _check_moment(name, getattr(record, name))
    return record


def read_history(path: str | Path) -> tuple[list[dict[str, Any]], int | None]:
    """Read the epochs in metrics.jsonl, up to the first line that is broken, as the last one of a killed run.

    Args:
        path: a metrics.jsonl, or the folder that holds it.

    Returns:
        The lines, and the number of the first broken one; None where there is none.

    Raises:
        UserError: when the file cannot be read.

    """
    path = Path(path)
    path = path / METRICS if path.is_dir() else path
    history: list[dict[str, Any]] = []
    for number, line in enumerate(read_bytes(path, "JSON").splitlines(), start=1):
        try:
            history.append(_epoch(json.loads(line)))
        except (ValueError, RecursionError):  # which BadRecordError, JSONDecodeError and UnicodeDecodeError are
            return history, number
    return history, None


def _epoch(line: Any) -> dict[str, Any]:
    """Return a line, its figures checked; raise BadRecordError for a field of the wrong kind."""
    if not isinstance(line, dict):
        raise BadRecordError("it is no object")
    _check_depth(line)
    names = [name for name in line if name in _LINE or name.startswith("val_")]
    return line | {name: fields.number(line, name) for name in names}


@functools.cache
def _kinds() -> dict[str, tuple[type, bool]]:
    """Return the type of each field of run.json, and whether it may be null."""
    hints = typing.get_type_hints(Record)
    kinds = {}
    for declared in fields_of(Record):
        if declared.name not in NOT_IN_JSON:
            hint = hints[declared.name]
            optional = NoneType in get_args(hint)
            hint = next(kind for kind in get_args(hint) if kind is not NoneType) if optional else hint
            kinds[declared.name] = (typing.get_origin(hint) or hint, optional)
    return kinds


_READERS = {
    str: fields.optional_text,
    int: fields.optional_integer,
    float: fields.number,
    bool: fields.optional_truth,
    dict: fields.optional_mapping,
    list: fields.optional_objects,
}


def _field(values: Mapping[str, Any], name: str, kind: type) -> Any:
    if name in _REQUIRED and values.get(name) is None:
        raise BadRecordError(f"{name} is missing")
    return _READERS[kind](values, name)


def _metrics(values: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the metrics of a record, by name."""
    metrics: dict[str, Figures] = {}
    for name in fields.mapping(values, "metrics"):
        with fields.within("metrics"):
            metric = fields.mapping(values["metrics"], name)
        with fields.within(f"metrics.{name}"):
            metrics[name] = Figures(
                direction=fields.choice(metric, "direction", get_args(Direction)),
                unit=fields.choice(metric, "unit", get_args(Unit)),
                val=fields.number(metric, "val"),
                test=fields.number(metric, "test"),
            )
    return metrics


def _metrics_of_schema_1(values: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the metrics of a record of schema 1: those that it names, if it does, and those of its former fields."""
    metrics = _metrics(values)
    for name, (metric, split) in FORMER.items():
        figure = fields.number(values, name)
        if metric == LOSS.name:
            new = Figures(direction=LOSS.direction, unit=LOSS.unit, val=None, test=None)
        else:  # no other task had one
            new = Figures(direction="max", unit="fraction", val=None, test=None)
        if figure is not None:
            metrics.setdefault(metric, new)[split] = figure
    return metrics


def _check_moment(name: str, stamp: str) -> None:
    try:
        if stamp:
            datetime.fromisoformat(stamp)
    except ValueError as error:
        raise BadRecordError(f"{name} is {fields.abbreviated(stamp)}, where an ISO date belongs") from error


def _check_depth(values: Mapping[str, Any]) -> None:
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [element for elements in inner for element in elements]
        if not level:
            return
    raise BadRecordError(f"it is nested more than {DEEPEST} levels deep")


def parse_energy(energy: Mapping[str, Any]) -> Energy:
    """Return the energy that a record describes.

    Args:
        energy: the record's `energy`.

    Raises:
        BadRecordError: when a field is of the wrong kind.

    """
    parts = {name: _part(name, part) for name, part in fields.mapping(energy, "parts").items()}
    reading = Reading(label_of(energy), fields.optional_text(energy, "source"), fields.optional_text(energy, "part"))
    present = reading.label != "absent"  # a number without a label is no number
    flags = set(fields.texts(energy, "flags"))
    headline = parts.get(reading.part or "")
    if headline and "train" in headline.windows:
        flags |= set(headline.windows["train"].flags)
    return Energy(
        reading=reading if present else Reading("absent"),
        train_j=fields.number(energy, "train_j") if present else None,
        train_net_j=fields.number(energy, "train_net_j") if present else None,
        uncertainty_j=fields.number(energy, "train_uncertainty_j") if present else None,
        flags=tuple(sorted(flags)),
        parts=parts,
        conditions=fields.mapping(energy, "conditions"),
    )


def _part(name: str, part: Any) -> Part:
    if not isinstance(part, dict):
        raise BadRecordError(f"parts.{name} is no object")
    with fields.within(f"parts.{name}"):
        label, idle = label_of(part), fields.mapping(part, "idle_w")
        windows = fields.mapping(part, "windows")
        return Part(
            reading=Reading(label, fields.optional_text(part, "source") if label != "absent" else None, name),
            note=fields.optional_text(part, "note"),
            idle_before_w=fields.number(idle, "before"),
            idle_after_w=fields.number(idle, "after"),
            windows={window: _window(windows, window, label) for window in windows},
        )


def _window(windows: Mapping[str, Any], name: str, label: Label) -> Window:
    present = label != "absent"
    with fields.within("windows"):
        window = fields.mapping(windows, name)
    with fields.within(f"windows.{name}"):
        return Window(
            energy_j=fields.number(window, "energy_j") if present else None,
            uncertainty_j=fields.number(window, "uncertainty_j") if present else None,
            flags=fields.texts(window, "flags"),
        )


def parse_co2e(co2e: Mapping[str, Any]) -> Reading:
    """Return the source of a record's carbon, which is the grid.

    Args:
        co2e: the record's `co2e`.

    Raises:
        BadRecordError: when a field is of the wrong kind.

    """
    label, country = label_of(co2e), fields.optional_text(co2e, "country")
    intensity = fields.number(co2e, "intensity_kg_per_kwh")
    grid = None if intensity is None else f"grid of {intensity:.3g} kg/kWh"
    return Reading(label, source=", ".join(part for part in (country, grid) if part) or None)


def label_of(record: Mapping[str, Any]) -> Label:
    """Return a record's label, "absent" where it has none.

    Args:
        record: an object that may have a `label`.

    Raises:
        BadRecordError: when it is unknown.

    """
    label = fields.optional_text(record, "label") or "absent"
    for known in LABELS:
        if label == known:
            return known
    raise BadRecordError(f"label is {label!r}, not one of {', '.join(LABELS)}")
