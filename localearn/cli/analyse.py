"""`python -m localearn.analyse DIR... out=DIR`: visualise what the units of trained nets learned."""

from collections.abc import Sequence
from dataclasses import dataclass

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, Range, argument, option, read
from localearn.cli.pages import help_status
from localearn.printing import say
from localearn.trust import words

_EXAMPLE = "say localearn analyse runs/A runs/B out=DIR"


@dataclass(frozen=True)
class AnalyseOptions(Options):
    """The options of an analysis."""

    folders: tuple[str, ...] = argument(
        "DIR...",
        "folders of runs on data with classes, with their checkpoint.pt",
        many=True,
        missing=f"name runs' folders and where to write; {_EXAMPLE}",
    )
    out: str = option(
        help="where to write; only files of an earlier analysis are replaced",
        value="DIR",
        folder=True,
        missing=f"name runs' folders and where to write; {_EXAMPLE}",
    )
    threshold: float | None = option(
        None,
        "a class's ensemble is the units whose mean activity for it is more than so many times the largest one",
        value="0.5",
        range=Range(least=0, below=1),
    )
    rows: int | None = option(None, "rows of each split, at most, that are looked at", value="10000")
    title: str | None = option(None, "the page's heading", value="TEXT")
    device: str = option("auto", "where the blocks compute")
    trust: str | None = option(None, "import this class of your own, if a folder names it", value="my.Class")


COMMAND = Command(
    "analyse",
    SUMMARIES["analyse"],
    AnalyseOptions,
    """\
Builds the trained rule of each run's folder again, with its own state, looks at the activities of its blocks over test
rows, and writes analysis.html, analysis.md, analysis.csv, analysis.json and analysis-plots/: Hoyer's sparsity, dead
units, a linear probe of each block, the ensemble of units that each class calls up and what ensembles share, also for
classes that were left out of training (dataset.leave_out=[3]), linear CKA between blocks and between runs, and the
angles over training of runs that have them (diagnose=alignment).
""",
)


def main(arguments: Sequence[str]) -> int:
    """Write the analysis of some runs; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(AnalyseOptions, arguments)
    from localearn.analysing import read_findings, write_analysis
    from localearn.analysing.findings import ROWS, THRESHOLD
    from localearn.analysing.page import command_line

    threshold = THRESHOLD if options.threshold is None else options.threshold
    found = read_findings(
        options.folders,
        threshold=threshold,
        rows=options.rows or ROWS,
        device=options.device,
        trust=words(list(arguments))[1],
    )
    texts = {} if options.title is None else {"title": options.title}
    given = dict(word.split("=", 1) for word in arguments if "=" in word and word not in options.folders)
    repeat = [f"{name}={value}" for name, value in given.items() if name not in ("debug", "device")]
    command = command_line(options.folders, repeat)
    say(write_analysis(found, options.out, threshold=threshold, command=command, **texts))
    return 0
