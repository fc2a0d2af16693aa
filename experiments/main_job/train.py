"""Train the main job's rows and table what came of them.

    python experiments/main_job/train.py [only=ROW,ROW] [seeds=0,1,2]

Each row runs `python -m localearn.run` with the options below, once a seed, into results/main_job/runs/<row>-<seed>; a
run that is there already is kept, and one that was interrupted is run again, since its wall clock is that of the whole
command. Records stay, weights do not. The table is results/main_job/table.md.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localearn.cli.errors import run_command
from localearn.cli.options import Options, Range, choice, option, read
from localearn.files import replace_text
from localearn.grid import CommandCell, Grid, Outcome
from localearn.printing import say
from localearn.records import RunFolder, read_record

RESULTS = Path("results/main_job")


@dataclass(frozen=True)
class Row:
    """What is run, and what it must reach."""

    name: str
    options: str
    least_accuracy: float | None = None
    most_wall_s: float | None = None


MNIST = "epochs=20 schedule=cosine"
CIFAR = "epochs=20 schedule=cosine optim.lr=0.0003"
ROWS = (
    Row("digits-mono_forward", "", 0.96, 60),
    Row("mnist-mono_forward", f"algo=mono_forward dataset=mnist {MNIST}", 0.983, 900),
    Row("mnist-backprop", f"algo=backprop dataset=mnist {MNIST}", 0.983, 900),
    Row("fashion_mnist-mono_forward", f"algo=mono_forward dataset=fashion_mnist {MNIST}", 0.895),
    Row("fashion_mnist-backprop", f"algo=backprop dataset=fashion_mnist {MNIST}"),
    Row("cora-backprop", "algo=backprop dataset=cora", 0.805),
    Row("cora-mono_forward", "algo=mono_forward dataset=cora", 0.78),
    Row("cora-direct_feedback_alignment", "algo=direct_feedback_alignment dataset=cora", 0.78),
    Row("cifar10-mono_forward", f"algo=mono_forward dataset=cifar10 {CIFAR}", 0.55),
    Row("cifar10-backprop", f"algo=backprop dataset=cifar10 {CIFAR}"),
)


@dataclass(frozen=True)
class JobOptions(Options):
    """The options of the script."""

    only: Sequence[str] | None = option(None, "these rows alone", value="ROW,ROW")
    seeds: Sequence[int] = option((0, 1, 2), "of each row", range=Range(least=0))


def main(arguments: list[str]) -> int:
    """Run what is asked for and write the table; return the exit status."""
    options = read(JobOptions, arguments)
    rows = {row.name: row for row in ROWS}
    only = options.only or list(rows)
    for name in only:
        choice("only", name, list(rows))
    grid = Grid(ended=ended, done=lambda cell: wall_file(cell.target).exists())
    status = grid.run(cell_of(rows[name], seed) for name in only for seed in options.seeds)
    for sentence in grid.failed:
        say(sentence, error=True)
    table = tabled()
    replace_text(RESULTS / "table.md", table)
    print(table)
    return status


def cell_of(row: Row, seed: int) -> CommandCell:
    """Return a row's run with a seed."""
    folder = RESULTS / "runs" / f"{row.name}-{seed}"
    command = ["python", "-m", "localearn.run", *row.options.split(), f"seed={seed}", f"out={folder}"]
    return CommandCell(name=folder.name, group=row.name, command=command, target=folder)


def ended(cell: CommandCell, outcome: Outcome) -> None:
    """Note the wall clock of a whole command beside its record, and keep no weights."""
    if outcome.done and cell.target is not None:
        replace_text(wall_file(cell.target), json.dumps({"wall_s": outcome.seconds}) + "\n")
        RunFolder(cell.target).drop_weights()


def wall_file(folder: Path) -> Path:
    """Return the file of a run's wall clock, which a whole run has."""
    return folder / "wall.json"


def tabled() -> str:
    """Return the table of all rows that have records, in Markdown."""
    lines = [
        "| row | options | seeds | test accuracy %, mean (each) | asked for | wall s, each | asked for |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        folders = sorted((RESULTS / "runs").glob(f"{row.name}-[0-9]*"))
        folders = [folder for folder in folders if wall_file(folder).exists()]
        if not folders:
            lines.append(f"| {row.name} | `{row.options}` | not run | | | | |")
            continue
        records = [read_record(folder) for folder in folders]
        read = [record.metric("accuracy") for record in records]
        accuracies = [100 * accuracy for accuracy in read if accuracy is not None]
        walls = [json.loads(wall_file(folder).read_text())["wall_s"] for folder in folders]
        seeds = ", ".join(str(record.seed) for record in records)
        each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        least = f"{100 * row.least_accuracy:.1f}" if row.least_accuracy else ""
        most = f"{row.most_wall_s:.0f}" if row.most_wall_s else ""
        wall = ", ".join(f"{wall:.1f}" for wall in walls)
        mean = statistics.mean(accuracies)
        lines.append(f"| {row.name} | `{row.options}` | {seeds} | {mean:.2f} ({each}) | {least} | {wall} | {most} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main))
