"""Print untrusted text safely: no name in it moves the cursor, changes a colour or starts another line."""

import logging
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from localearn.moved import former_names

_log = logging.getLogger(__name__)

# Cc: control characters, ANSI escapes begin with one. Cf: formats, bidirectional overrides among them. Cs: lone
# surrogates, which no file can be written with. Zl, Zp: separators that end a line in a browser.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def say(text: object, *, error: bool = False) -> None:
    """Print one line that may contain untrusted names.

    Args:
        text: The line; line breaks in it are escaped.
        error: Whether to print to standard error, as for errors and remarks, or to standard output.

    """
    print(one_line(text), file=sys.stderr if error else sys.stdout, flush=True)


def log_notes(where: str, notes: Iterable[str]) -> None:
    """Log notes on a data set as warnings, a line for each, on rank 0 only.

    Args:
        where: The name of the data, at the start of each line.
        notes: The notes.

    """
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            _log.warning("%s", one_line(f"{where}: {note}"))


def one_line(text: object) -> str:
    r"""Return a text with its invisible characters escaped, line breaks included.

    Args:
        text: The text, or an object whose `str` it is.

    """
    return visible(str(text)).replace("\n", r"\n")


def visible(text: str) -> str:
    r"""Return a text with its invisible characters escaped, as \x1b or \u202e, except line breaks.

    Args:
        text: The text.

    """
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
