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
    except ModuleNotFoundError as error:
        raise UserError(f"{needed_by} needs {error.name or module}; {install_line(extra)}") from error
    except Exception as error:  # whatever a broken installation does
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        package = module.partition(".")[0]
        raise UserError(
            f"{needed_by} needs {package}, whose import failed ({reason}); {install_line(extra)}"
        ) from error


def install_line(extra: str) -> str:
    """Return the line that installs one of localearn's extras."""
    return f'pip install "localearn[{extra}]"'
