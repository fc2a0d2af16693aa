"""Parts of other people's that warn, on every user's terminal, of what nobody here can mend: `torch.jit.script`."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


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
