"""Labels of every usual form, numbers, words or one-hot rows, numbered from 0."""

from collections.abc import Mapping, Sequence

import numpy as np

from localearn.errors import UserError

_WHOLE = 2**53  # beyond it a float64 no longer distinguishes one whole number from the next


def numbered(
    where: str, labels: Mapping[str, np.ndarray], class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Return the labels of all parts as (N,) int64, numbered alike, and the names of the classes.

    Words are numbered in their order, False and True are 0 and 1, and labels that begin at 1 in all parts and leave
    no number out begin at 0. Whether every class is among the training labels is `checks.same_classes`'s to say.

    Args:
        where: the source, for error messages.
        labels: by the part's name in error messages, training part first: (N,) or (N, 1) whole numbers of any type,
            booleans or words, or (N, C) one-hot rows.
        class_names: the names in the order of the numbers, where the source knows them.

    Returns:
        The labels, and the names of the classes; None where numbers were given that stay as they are.

    Raises:
        UserError: for labels that are NaN, negative or no whole number, and rows that are not one-hot.

    """
    parts = {name: flat_labels(f"{where}: {name}", y) for name, y in labels.items()}
    textual = [y.dtype.kind == "U" for y in parts.values()]
    if any(textual) and not all(textual):
        types = ", ".join(f"{name} {y.dtype}" for name, y in parts.items())
        raise UserError(f"{where}: labels are words in one part and numbers in another ({types})")
    names: tuple[str, ...] | None = None
    if all(textual):
        found = np.unique(np.concatenate(list(parts.values())))
        words = _word_order(where, class_names, found)
        numbers = {word: number for number, word in enumerate(words)}
        parts = {name: np.array([numbers[str(word)] for word in y], np.int64) for name, y in parts.items()}
        return parts, words
    if all(y.dtype.kind == "b" for y in parts.values()):
        names = ("False", "True")
    parts = {name: y.astype(np.int64) for name, y in parts.items()}
    present = np.unique(np.concatenate(list(parts.values())))
    if len(present) > 1 and present[0] == 1 and present[-1] == len(present):
        names = tuple(str(label) for label in present)
        parts = {name: y - 1 for name, y in parts.items()}
    if class_names is None:
        return parts, names
    names = tuple(str(name) for name in class_names)
    classes = 1 + max((int(y.max()) for y in parts.values() if len(y)), default=0)
    if len(names) != classes:
        raise UserError(f"{where}: there are {len(names)} class_names and {classes} classes of labels")
    return parts, names


def flat_labels(what: str, y: np.ndarray) -> np.ndarray:
    """Return the labels of one part, (N,): booleans, integers from 0 or words.

    Args:
        what: the labels' name in error messages.
        y: the labels.

    Raises:
        UserError: for another type or shape.

    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y.flat):
        y = y.astype(np.str_)
    if y.dtype.kind == "S":
        y = _decoded(what, y)
    if y.dtype.kind not in "buifU":
        raise UserError(f"{what} is {y.dtype}; labels must be integers, 0 to classes - 1, or words")
    if y.ndim == 2 and y.dtype.kind in "buif" and y.shape[1] > 1:
        return _from_one_hot(what, y)
    if y.ndim != 1:
        raise UserError(f"{what} has shape {y.shape}; one label for each row, (N,), or one-hot rows are expected")
    if y.dtype.kind == "f":
        y = _from_floats(what, y)
    if y.dtype.kind in "ui" and len(y) and (y.min() < 0 or y.max() > np.iinfo(np.int64).max):
        raise UserError(f"{what} holds {y.min() if y.min() < 0 else y.max()}; labels run from 0 to classes - 1")
    return y


def _from_floats(what: str, y: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(y)
    if bad.any():
        raise UserError(f"{what} holds {int(bad.sum())} of {len(y)} labels that are NaN or infinite")
    part = y[(y != np.round(y)) | (np.abs(y) > _WHOLE)]
    if len(part):
        raise UserError(
            f"{what} is {y.dtype} and holds {part[0]}; labels must be integers, 0 to classes - 1, and "
            "values need a task, regression"
        )
    return y.astype(np.int64)


def _from_one_hot(what: str, y: np.ndarray) -> np.ndarray:
    ones = y == 1
    wrong = np.flatnonzero((ones.sum(1) != 1) | ((y != 0) & ~ones).any(1))
    if len(wrong):
        raise UserError(
            f"{what} has shape {y.shape} and its row {wrong[0]} is not one-hot; one label for each row, (N,), or a "
            f"single 1 among zeros is expected"
        )
    return ones.argmax(1)


def _decoded(what: str, y: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(y, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} holds bytes that are no UTF-8 text") from error


def _word_order(where: str, class_names: Sequence[str] | None, found: np.ndarray) -> tuple[str, ...]:
    """Return the words' order: the given one, if there is one, else the alphabet's."""
    if class_names is None:
        return tuple(str(word) for word in found)
    names = tuple(str(name) for name in class_names)
    unknown = [str(word) for word in found if str(word) not in names]
    if unknown:
        raise UserError(f"{where}: a label is {unknown[0]!r}, which is not among the class_names {', '.join(names)}")
    return names
