"""`python -m localearn.study DIR`: run a study's rows and tabulate the results next to the published numbers."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Range, RunningOptions, argument, option, read, run_keys
from localearn.cli.pages import help_status
from localearn.errors import UserError, suggestion
from localearn.files import read_yaml
from localearn.grid import Grid, RunCell
from localearn.jobs import Job
from localearn.options import annotations, check_types
from localearn.printing import say
from localearn.records import Record, read_record
from localearn.trust import check_interpolations, check_overrides, words

FIELDS = ("title", "source", "published", "run", "seeds", "reason", "gpu")


@dataclass(frozen=True)
class StudyOptions(RunningOptions):
    """The options of a study."""

    folder: Path = argument(
        "DIR",
        "the study's folder, with a file for each row",
        missing="name one study's folder, say localearn study experiments/fidelity",
    )
    only: Sequence[str] | None = option(None, "these rows alone", value="ROW,ROW")
    seeds: Sequence[int] | None = option(
        None, "these seeds instead of the row's", value="[0,1,2]", range=Range(least=0)
    )
    out: Path | None = option(
        None, "where runs and table go; results/<the study's folder name> where none is given", value="DIR", folder=True
    )
    overrides: list[str] = run_keys("for every run: device=cuda progress=false")


COMMAND = Command(
    "study",
    SUMMARIES["study"],
    StudyOptions,
    """\
Runs what is missing of a study, row by row and seed by seed, and writes its table and plot: published numbers beside
ours. The same command again goes on where it stopped; typed in a second terminal, it shares the rest with the first.
A row is a file DIR/<row>.yaml:

  title: MNIST, MLP 2x1000, Mono-Forward
  source: Gong et al., arXiv 2501.09238, table 1
  published: 98.74                   # of the task's first metric, a fraction in %; null where none is published
  run: [algo=mono_forward, dataset=mnist]
  seeds: [0, 1, 2]
  reason: null                       # why ours differ, where they do
  gpu: false                         # true: more than a CPU does in about an hour; its command then has device=cuda
""",
)


@dataclass(frozen=True)
class Row:
    """One row of a study.

    Attributes:
        published: The published figure of the task's first metric, a fraction in per cent.
        gpu: Whether it takes a CPU more than about an hour, which its table says; it can be run on one all the same.

    """

    name: str
    title: str
    source: str
    run: list[str]
    seeds: list[int]
    published: float | None = None
    reason: str | None = None
    gpu: bool = False

    @property
    def dataset(self) -> str:
        """Return the data set that the row names; empty where it uses the default."""
        return next((word.removeprefix("dataset=") for word in self.run if word.startswith("dataset=")), "")

    def command(self) -> str:
        """Return the command that runs the row's first seed alone."""
        words = (shlex.quote(word) if "$" in word else word for word in self.run)  # which a shell would look up
        return " ".join(["python -m localearn.run", *words, f"seed={self.seeds[0]}"])


def main(arguments: list[str]) -> int:
    """Run a study and write its table; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(StudyOptions, arguments)
    folder, overrides = options.folder, options.overrides
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    rows = read_rows(folder, words(overrides)[1])
    chosen = _chosen(rows, options.only)
    out = options.out or Path("results") / folder.resolve().name
    cells = [
        RunCell(
            name=f"{row.name}-{seed}",
            group=row.name,
            title=f"[{row.name}] seed {seed}",
            job=Job(out / "runs" / f"{row.name}-{seed}", [*row.run, *overrides, f"seed={seed}"]),
            config_dir=options.config_dir,
        )
        for row in chosen
        for seed in options.seeds or row.seeds
    ]
    status = Grid(ended=lambda *_: write_table(rows, out, folder), share=True).run(cells)
    if status > 128:
        return status
    write_table(rows, out, folder)
    say(out / "table.md")
    return status


def read_rows(folder: Path, trust: Collection[str] = ()) -> list[Row]:
    """Return a study's rows in the order of their files.

    Args:
        folder: The study's folder.
        trust: Classes of the user's own that the rows may name.

    Raises:
        UserError: For a file that is not a row.

    """
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise UserError(f"{path}: a row is keys with values, {', '.join(FIELDS)}; --help shows one")
        unknown = [name for name in values if name not in FIELDS]
        missing = [name for name in ("title", "source", "run") if name not in values]
        if unknown:
            raise UserError(f"{path}: a row has no {unknown[0]!r}{suggestion(unknown[0], FIELDS)}")
        if missing:
            raise UserError(f"{path}: a row needs {', '.join(missing)}; --help shows one")
        values.setdefault("seeds", [0, 1, 2])
        check_types(values, annotations(Row), prefix=f"{path}: ")
        check_interpolations(path, values)
        check_overrides(path, values["run"], trust)
        rows.append(Row(path.stem, **values))
    if not rows:
        raise UserError(f"{folder} holds no rows; a row is a file DIR/<row>.yaml, and --help shows one")
    return rows


def write_table(rows: list[Row], out: Path, folder: Path) -> None:
    """Write table.md, table.json and the plots from the records of a study's rows.

    Args:
        rows: The rows.
        out: The folder of the runs and of the table.
        folder: The study's folder, for the commands that run a row again.

    """
    from localearn.reporting.study import StudyRow, write_study

    studied = []
    for row in rows:
        paths = sorted((out / "runs").glob(f"{row.name}-[0-9]*/run.json"))
        read = [_read_record(path) for path in paths if path.parent.name.rpartition("-")[0] == row.name]
        records = [record for record in read if record and record.status in ("completed", "diverged")]
        studied.append(
            StudyRow(
                row.name, row.title, row.source, row.published, row.reason, row.command(), row.seeds, records,
                data=row.dataset, gpu=row.gpu,
            )
        )  # fmt: skip
    write_study(studied, out, f"python -m localearn.study {folder}")


def _read_record(path: Path) -> Record | None:
    """Return a run's record; None, and a line on stderr, where it cannot be read or used in a table."""
    try:
        record = read_record(path)
        if record.status == "completed" and record.metric(record.judged_by.name) is None:
            raise UserError(f"{path}: a completed run has no {record.judged_by.name} on the test split")
    except UserError as error:
        say(f"{error}; left out of the table", error=True)
        return None
    return record


def _chosen(rows: list[Row], only: Sequence[str] | None) -> list[Row]:
    if only is None:
        return rows
    by_name = {row.name: row for row in rows}
    for name in only:
        if name not in by_name:
            raise UserError(f"no row {name!r}{suggestion(name, by_name)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in only]
