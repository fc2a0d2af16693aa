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
# Their lines in `localearn --help`, which stand here so that it imports none of them.
SUMMARIES: Mapping[str, str] = {
    "run": "Train one rule on one data set",
    "compare": "Train rules side by side with a baseline, over seeds, and report",
    "report": "Build a report, html, md, csv and json with plots, from records alone",
    "tune": "Search for a rule's best options on the validation split",
    "study": "Run a study's rows and table them beside published numbers",
    "bench": "Time every rule's step beside backprop's, with its memory and energy",
    "analyse": "Show what the units of trained nets learned",
    "export": "Write a trained net as a torch.export program or an ONNX graph",
    "sample": "Let a net that was trained on text continue one",
    "check-meter": "Check the energy meter on this machine",
    "list": "Show rules, nets, data sets, tasks and recipes, and which go together",
    "report-environment": "Show versions, device, threads, and how the meter would label its joules here",
}


def module_of(command: str) -> ModuleType:
    """Return the module of a command, which has its `main` and its `COMMAND`."""
    return importlib.import_module(f"localearn.cli.{COMMANDS[command]}")
