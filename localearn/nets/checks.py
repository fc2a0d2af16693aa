"""Checks of the options of nets: choices by name, shapes, numbers of classes and widths."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from localearn.errors import UserError, suggestion

T = TypeVar("T")


def choose(what: str, name: str, choices: Mapping[str, T]) -> T:
    """Return `choices[name]`.

    Args:
        what: the kind of thing that is chosen, for the error message.
        name: the choice.
        choices: all choices by name.

    Raises:
        UserError: for an unknown name, listing the choices.

    """
    if name not in choices:
        raise UserError(f"no {what} {name!r}{suggestion(name, choices)}; there are {', '.join(choices)}")
    return choices[name]


def check_row(what: str, shape: Sequence[int] | int) -> tuple[int, ...]:
    """Return the shape of a row as a tuple.

    Args:
        what: the option's name in the error message.
        shape: sizes, or one size.

    Raises:
        UserError: unless the sizes are whole and positive.

    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or not all(_is_size(n) for n in sizes):
        raise UserError(f"{what} must be positive whole numbers, not {shape!r}")
    return sizes


def check_image(net: str, shape: Sequence[int] | int) -> tuple[int, ...]:
    """Return the shape of a row that is an image, (channels, height, width).

    Args:
        net: the net that takes images only, for the error message.
        shape: the shape.

    Raises:
        UserError: for another shape.

    """
    sizes = check_row("input_shape", shape)
    if len(sizes) != 3:
        raise UserError(
            f"a {net} takes images, rows of shape (channels, height, width), not {sizes}; use net=mlp or, of text, "
            "net=transformer"
        )
    return sizes


def check_classes(classes: int) -> int:
    """Return the number of classes.

    Args:
        classes: the number.

    Raises:
        UserError: unless it is whole and positive.

    """
    if not _is_size(classes):
        raise UserError(f"classes must be a positive whole number, not {classes!r}")
    return classes


def check_widths(what: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Return the widths as a tuple.

    Args:
        what: the option's name in the error message.
        widths: one per block.

    Raises:
        UserError: unless there is one at least and all are whole and positive.

    """
    if isinstance(widths, int) or not widths or not all(_is_size(n) for n in widths):
        raise UserError(f"{what} must be a list of positive whole numbers, one per block, not {widths!r}")
    return tuple(widths)


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0
