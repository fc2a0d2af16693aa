"""Typed access to what JSON gave: a field has the kind that the record's schema says, is null, or the record is bad."""

import math
from collections.abc import Mapping
from typing import Any


class BadRecordError(ValueError):
    """A record that cannot be read; the message says which field is wrong, without the file's name."""


def text(record: Mapping[str, Any], key: str) -> str:
    """Return a field that must be there and be a string."""
    value = record.get(key)
    if not isinstance(value, str):
        raise BadRecordError(f"{key} is {_shown(value)}, where a string belongs")
    return value


def optional_text(record: Mapping[str, Any], key: str) -> str | None:
    """Return a string field, None where it is null or missing."""
    return None if record.get(key) is None else text(record, key)


def integer(record: Mapping[str, Any], key: str) -> int:
    """Return a field that must be there and be a whole number."""
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRecordError(f"{key} is {_shown(value)}, where a whole number belongs")
    return value


def number(record: Mapping[str, Any], key: str) -> float | None:
    """Return a number, None where it is null, missing or not finite (a diverged loss)."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRecordError(f"{key} is {_shown(value)}, where a number belongs")
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError as error:  # a whole number that no float holds
        raise BadRecordError(f"{key} is a number of impossible size") from error


def mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object, an empty one where the field is null or missing."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRecordError(f"{key} is {_shown(value)}, where an object belongs")
    return value


def texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of strings, an empty one where the field is null or missing."""
    value = record.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRecordError(f"{key} is {_shown(value)}, where a list of strings belongs")
    return tuple(value)


def _shown(value: object) -> str:
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
