"""`python -m localearn.analyse DIR... out=DIR`: show what the units of trained nets learned."""

import math
from collections.abc import Sequence
from pathlib import Path

from localearn.cli.options import whole
from localearn.errors import UserError, suggestion
from localearn.printing import say
from localearn.trust import words

HELP = """\
python -m localearn.analyse DIR... out=DIR [threshold=0.5] [rows=10000] [title=TEXT] [device=auto] [trust=my.Class]

Builds the trained rule of each run's folder again, with its own state, looks at the activities of its blocks over test
rows, and writes analysis.html, analysis.md, analysis.csv, analysis.json and analysis-plots/: Hoyer's sparsity, dead
units, a linear probe of each block, the ensemble of units that each class calls up and what ensembles share, also for
classes that were left out of training (dataset.leave_out=[3]), linear CKA between blocks and between runs, and the
angles over training of runs that have them (diagnose=alignment).

  DIR...             folders of runs on data with classes, with their checkpoint.pt
  out=DIR            where to write; only files of an earlier analysis are replaced
  threshold=T        a class's ensemble is the units whose mean activity for it is more than T times the largest one
  rows=N             rows of each split, at most, that are looked at
  title=TEXT         the page's heading
  device=NAME        where the blocks compute
  trust=my.Class     import this class of your own, if a folder names it
  debug=true         show the traceback of an error
"""
OPTIONS = ("out", "threshold", "rows", "title", "device", "trust", "debug")


def main(arguments: Sequence[str]) -> int:
    """Write the analysis of some runs; return the exit status."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    folders, options = _parse(arguments)
    from localearn.analysing import read_findings, write_analysis
    from localearn.analysing.findings import ROWS, THRESHOLD
    from localearn.analysing.page import command_line

    threshold = _share(options.get("threshold", str(THRESHOLD)))
    rows = whole("rows", options.get("rows", str(ROWS)), 1)
    found = read_findings(
        folders,
        threshold=threshold,
        rows=rows,
        device=options.get("device", "auto"),
        trust=words(list(arguments))[1],
    )
    texts = {"title": options["title"]} if "title" in options else {}
    repeat = [f"{name}={value}" for name, value in options.items() if name not in ("debug", "device")]
    command = command_line(folders, repeat)
    say(write_analysis(found, options["out"], threshold=threshold, command=command, **texts))
    return 0


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the folders and the options; an argument with `=` is an option unless a folder has that very name."""
    folders: list[str] = []
    options: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in OPTIONS and equals:
            if not value:
                raise UserError(f"{name}= needs a value")
            options[name] = value
        elif argument.startswith("-") or (equals and not Path(argument).exists()):
            raise UserError(
                f"unknown argument {argument!r}{suggestion(name.lstrip('-'), OPTIONS)}; --help lists them all"
            )
        else:
            folders.append(argument)
    if not folders or "out" not in options:
        raise UserError("name runs' folders and where to write; say python -m localearn.analyse runs/A runs/B out=DIR")
    return folders, options


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise UserError(f"threshold takes numbers from 0 to below 1, not {text!r}")
    return value
