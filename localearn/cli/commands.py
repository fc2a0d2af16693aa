"""The table of the commands, whose modules are imported when they are used."""

import importlib
from collections.abc import Mapping
from types import ModuleType

# The commands in the order of their use, with their modules in localearn.cli.
COMMANDS: Mapping[str, str] = {
    "run": "run",
    "compare": "compare",
    "report": "report",
    "tune": "tune",
    "study": "study",
    "bench": "bench",
    "analyse": "analyse",
    "export": "export",
    "sample": "sample",
    "check-meter": "check_meter",
    "list": "listing",
    "report-environment": "environment",
}


def module_of(command: str) -> ModuleType:
    """Return the module of a command, which has its `main` and its `COMMAND`."""
    return importlib.import_module(f"localearn.cli.{COMMANDS[command]}")
