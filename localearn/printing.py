"""Print lines in which no name moves the cursor, changes a colour or begins a line of its own."""

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
    """Print one line, of anybody's names, on standard output or, of an `error` or a remark, on standard error."""
    print(one_line(text), file=sys.stderr if error else sys.stdout, flush=True)


def log_notes(where: str, notes: Iterable[str]) -> None:
    """Log what is to be known of data that were read, a line a note, on rank 0 alone."""
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            _log.warning("%s", one_line(f"{where}: {note}"))


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN


def torch_geometric(module: str) -> Any:
    """Import one of torch_geometric's modules, whose layers are compiled by `torch.jit.script`."""
    with _without_the_warning():
        return importlib.import_module(f"torch_geometric.{module}")


def load_forward_mode() -> None:
    """Load torch's forward-mode differentiation, which compiles what it needs at its first use in a process.

    So that is a part of a rule's setup, and not of its first step, whose time and energy are metered.
    """
    with _without_the_warning():
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


@contextmanager
def _without_the_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", category)
        yield
