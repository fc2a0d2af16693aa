"""`python -m localearn.report DIR... [out=DIR]`: build a report from records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, argument, option, read
from localearn.cli.pages import help_status
from localearn.errors import UserError, suggestion
from localearn.printing import say
from localearn.reporting import read_runs, read_tunings, write_report


@dataclass(frozen=True)
class ReportOptions(Options):
    """The options of a report."""

    folders: tuple[str, ...] = argument(
        "DIR...",
        "folders that hold runs, at any depth",
        many=True,
        missing="no folder is named; localearn report DIR... reads the records below each DIR",
    )
    out: str | None = option(
        None,
        "where to write (default: the first DIR); only files of an earlier report are replaced",
        value="DIR",
        folder=True,
    )
    title: str | None = option(None, "the report's heading", value="TEXT")
    baseline: str | None = option(None, "what the rules are compared with (default: backprop)", value="ALGO")
    allow_unlike: bool = option(
        False, "give ratios between runs that differ in more than the rule; the tables then say so", value="true"
    )


COMMAND = Command(
    "report",
    SUMMARIES["report"],
    ReportOptions,
    """\
Builds report.html, report.md, report.csv, report.json and plots/ from the records (run.json, metrics.jsonl, and
tune.json of a search) below the folders, and from nothing else.
""",
)


def main(arguments: Sequence[str]) -> int:
    """Write the report of the runs below the folders; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is None:
        say(_report(read(ReportOptions, arguments)))
    return status or 0


def _report(options: ReportOptions) -> Path:
    runs, tunings = read_runs(options.folders), read_tunings(options.folders)
    for note in (*runs.notes, *tunings.notes):
        say(f"note: {note}", error=True)
    _check_baseline(options.baseline, sorted({run.algo for run in runs}))
    texts = {"title": options.title, "baseline": options.baseline}
    return write_report(
        runs,
        options.out or options.folders[0],
        allow_unlike=options.allow_unlike,
        tunings=tunings,
        **{name: text for name, text in texts.items() if text is not None},
    )


def _check_baseline(baseline: str | None, algos: Sequence[str]) -> None:
    """Raise UserError where no run is of the baseline that was named, so that no rule would be compared."""
    if baseline is not None and baseline not in algos:
        raise UserError(
            f"baseline={baseline}: no run is of it{suggestion(baseline, algos)}; there are {', '.join(algos)}"
        )
