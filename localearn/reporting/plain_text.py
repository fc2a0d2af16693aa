"""Text from records made harmless: nothing in it moves a cursor, turns a line round or is a spreadsheet's formula."""

import re
from collections.abc import Mapping
from typing import Any

from localearn.printing import visible

_FORMULA = re.compile(r"\s*[=+\-@\t\r]")


def visible_tree(value: Any) -> Any:
    """Return decoded JSON with `visible` applied to every text in it, keys included."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(name)): visible_tree(element) for name, element in value.items()}
    return [visible_tree(element) for element in value] if isinstance(value, list) else value


def cell(value: Any) -> Any:
    """Return a CSV's cell; a text that a spreadsheet would take for a formula has an apostrophe before it."""
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value
