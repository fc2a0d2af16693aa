"""Print safely: lines in which no name moves the cursor, changes a colour or begins a line of its own.

Below that, imports of torch features which print warnings of their own: `torch_geometric` and `load_forward_mode`.
"""

import importlib
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_log = logging.getLogger(__name__)

# Cc: control characters, ANSI escapes begin with one. Cf: formats, bidirectional overrides among them. Cs: lone
# surrogates, which no file can be written with. Zl, Zp: separators that end a line in a browser.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    r"""Return a text in which each character that is not seen is written out, as \x1b or \u202e; a line break stays."""
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


def one_line(text: object) -> str:
    r"""Return what `visible` does, with line breaks written out as \n too."""
    return visible(str(text)).replace("\n", r"\n")


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


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN


def torch_geometric(module: str) -> Any:
    """Import one of torch_geometric's modules, whose layers are compiled by `torch.jit.script`.

    Args:
        module: The name of the module, without the package's.

    """
    with _without_the_warning():
        return importlib.import_module(f"torch_geometric.{module}")


def load_forward_mode() -> None:
    """Load torch's forward-mode differentiation, which compiles what it needs at its first use in a process.

    So that belongs to a rule's setup, and not to its first step, whose time and energy are metered.
    """
    with _without_the_warning():
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


@contextmanager
def _without_the_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", category)
        yield
