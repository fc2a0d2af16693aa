"""Text from records made harmless: nothing in it moves a cursor, turns a line round or is a spreadsheet's formula."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Cc: control characters, ANSI escapes begin with one. Cf: formats, bidirectional overrides among them. Cs: lone
# surrogates, which no file can be written with. Zl, Zp: separators that end a line in a browser.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_FORMULA = re.compile(r"\s*[=+\-@\t\r]")


def visible(text: str) -> str:
    r"""Return a text in which each character that is not seen is written out, as \x1b or \u202e; a line break stays."""
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


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


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN
