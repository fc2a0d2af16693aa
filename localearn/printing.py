"""Print safely: lines in which no name moves the cursor, changes a colour or begins a line of its own."""

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
    """Print one line, whose names may be anybody's.

    Args:
        text: The line; line breaks in it are written out.
        error: Whether it goes to standard error, as errors and remarks do, or to standard output.

    """
    print(one_line(text), file=sys.stderr if error else sys.stdout, flush=True)


def log_notes(where: str, notes: Iterable[str]) -> None:
    """Log the notes on data that were read, a line a note, on rank 0 only.

    Args:
        where: The data, named at the start of each line.
        notes: The notes.

    """
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            _log.warning("%s", one_line(f"{where}: {note}"))


def one_line(text: object) -> str:
    r"""Return what `visible` does, with line breaks written out as \n too."""
    return visible(str(text)).replace("\n", r"\n")


def visible(text: str) -> str:
    r"""Return a text in which each character that is not seen is written out, as \x1b or \u202e; a line break stays."""
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
