"""Import the packages of localearn's extras, `pip install "localearn[onnx]"`, where they are used."""

import importlib
from typing import Any

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
    """Return the line that installs one of localearn's extras."""
    return f'pip install "localearn[{extra}]"'
