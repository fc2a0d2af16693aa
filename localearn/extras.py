"""Import optional packages, and torch features that print warnings of their own, where they are used."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from localearn.errors import UserError


def optional(module: str, needed_by: str, extra: str) -> Any:
    """Import a module that one of localearn's extras installs.

    Args:
        module: Its dotted name.
        needed_by: The option that needs it, as it was typed: "format=onnx".
        extra: The extra that installs it.

    Returns:
        The module.

    Raises:
        UserError: Where it is missing or its import fails, with the line that installs it.

    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a broken installation does
        raise not_usable(module, needed_by, extra, error) from error


def not_usable(module: str, needed_by: str, extra: str, error: Exception) -> UserError:
    """Return the error of a package that is missing, or whose import fails, with the line that installs it.

    Args:
        module: Its dotted name.
        needed_by: The option, or the module, that needs it.
        extra: The extra that installs it.
        error: What its import raised.

    """
    if isinstance(error, ModuleNotFoundError):
        return UserError(f"{needed_by} needs {error.name or module}; {install_line(extra)}")
    reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    package = module.partition(".")[0]
    return UserError(f"{needed_by} needs {package}, whose import failed ({reason}); {install_line(extra)}")


def install_line(extra: str) -> str:
    """Return the command that installs one of localearn's extras.

    Args:
        extra: The extra's name.

    """
    return f'pip install "localearn[{extra}]"'


def torch_geometric(module: str) -> Any:
    """Import one of torch_geometric's modules without the warning that its use of `torch.jit.script` causes.

    Args:
        module: The name of the module, without the package's.

    """
    with _without_the_warning():
        return importlib.import_module(f"torch_geometric.{module}")


def load_forward_mode() -> None:
    """Load torch's forward-mode differentiation, which compiles what it needs at its first use in a process.

    So that is part of a rule's setup, and not of its first step, whose time and energy are metered.
    """
    with _without_the_warning():
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


@contextmanager
def _without_the_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", category)
        yield
