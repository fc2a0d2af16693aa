"""The door to reports: `python -m localearn.report DIR... [out=DIR]` builds one from records alone."""

from collections.abc import Sequence
from pathlib import Path

from localearn.cli.options import truth
from localearn.errors import UserError, suggestion
from localearn.printing import say
from localearn.reporting import read_runs, read_tunings, write_report

HELP = """\
python -m localearn.report DIR... [out=DIR] [title=TEXT] [baseline=ALGO] [allow_unlike=true] [debug=true]

Builds report.html, report.md, report.csv, report.json and plots/ from the records (run.json, metrics.jsonl, and
tune.json of a search) below the folders, and from nothing else.

  DIR...             folders that hold runs, at any depth
  out=DIR            where to write (default: the first DIR); only files of an earlier report are replaced
  title=TEXT         the report's heading
  baseline=ALGO      what the rules are compared with (default: backprop)
  allow_unlike=true  give ratios between runs that differ in more than the rule; the tables then say so
  debug=true         show the traceback of an error
"""
OPTIONS = ("out", "title", "baseline", "allow_unlike", "debug")


def main(arguments: Sequence[str]) -> int:
    """Write the report of what is below the folders; return the exit status."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    say(_report(arguments))
    return 0


def _report(arguments: Sequence[str]) -> Path:
    folders, options = _parse(arguments)
    if not folders:
        raise UserError("no folder is named; python -m localearn.report DIR... reads the records below each DIR")
    runs, tunings = read_runs(folders), read_tunings(folders)
    for note in (*runs.notes, *tunings.notes):
        say(f"note: {note}", error=True)
    texts = {name: options[name] for name in ("title", "baseline") if name in options}
    out, unlike = options.get("out", folders[0]), truth("allow_unlike", options.get("allow_unlike", "false"))
    return write_report(runs, out, allow_unlike=unlike, tunings=tunings, **texts)


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
    for name in ("allow_unlike", "debug"):
        truth(name, options.get(name, "false"))
    return folders, options
