"""Typed access to decoded JSON: a field has the kind that the record's schema says, is null, or the record is bad."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localearn.moved import former_names

LARGEST = 2**64  # no seed, count or size of ours is larger
LONGEST = 300  # characters of a message, which has names of the file's own


class BadRecordError(ValueError):
    """A record that cannot be read.

    Args:
        message: of a length that is cut; it names the field and not the file.

    """

    def __init__(self, message: str):
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}...")


@contextlib.contextmanager
def within(path: str) -> Iterator[None]:
    """Put the path of an object before the names of its fields in the errors that the block raises.

    Args:
        path: the object's.

    Raises:
        BadRecordError: that of the block, with the path.

    """
    try:
        yield
    except BadRecordError as error:
        raise BadRecordError(f"{path}.{error}") from error


def text(record: Mapping[str, Any], key: str) -> str:
    """Return a field that must be there and be a string.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is not.

    """
    value = record.get(key)
    if not isinstance(value, str):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where a string belongs")
    return value


def optional_text(record: Mapping[str, Any], key: str) -> str | None:
    """Return a string field, None where it is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    return None if record.get(key) is None else text(record, key)


def integer(record: Mapping[str, Any], key: str) -> int:
    """Return a field that must be there and be a whole number.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is not.

    """
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where a whole number belongs")
    if abs(value) > LARGEST:
        raise BadRecordError(f"{key} is a number of impossible size")
    return value


def optional_integer(record: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number, None where it is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    return None if record.get(key) is None else integer(record, key)


def optional_truth(record: Mapping[str, Any], key: str) -> bool | None:
    """Return true or false, None where it is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    value = record.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where true or false belongs")
    return value


def choice(record: Mapping[str, Any], key: str, known: Sequence[str]) -> Any:
    """Return a string that must be there and be one of those known.

    Args:
        record: the object.
        key: the field's name.
        known: its values.

    Raises:
        BadRecordError: when it is not.

    """
    value = text(record, key)
    if value not in known:
        raise BadRecordError(f"{key} is {abbreviated(value)}, not one of {', '.join(known)}")
    return value


def number(record: Mapping[str, Any], key: str) -> float | None:
    """Return a number, None where it is null, missing or not finite (a diverged loss).

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where a number belongs")
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError as error:  # a whole number that no float holds
        raise BadRecordError(f"{key} is a number of impossible size") from error


def optional_mapping(record: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return an object, None where it is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    value = record.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where an object belongs")
    return value


def optional_objects(record: Mapping[str, Any], key: str) -> list[dict[str, Any]] | None:
    """Return a list of objects, None where it is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    value = record.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise BadRecordError(f"{key} is no list of objects")
    return value


def mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object, an empty one where the field is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    return optional_mapping(record, key) or {}


def texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of strings, an empty one where the field is null or missing.

    Args:
        record: the object.
        key: the field's name.

    Raises:
        BadRecordError: when it is of another kind.

    """
    value = record.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRecordError(f"{key} is {abbreviated(value)}, where a list of strings belongs")
    return tuple(value)


def abbreviated(value: object) -> str:
    """Return a value for a message, cut where it is long.

    Args:
        value: any.

    """
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
