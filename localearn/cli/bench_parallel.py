"""`python -m localearn.bench parallel`: measure and simulate training by several processes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from localearn.benching.parallel import RANKS, page_and_record, run_ranks
from localearn.benching.parallel import read as read_measurements
from localearn.cli.options import Command, Options, Range, option, read, run_keys
from localearn.cli.pages import help_status
from localearn.errors import UserError, suggestion
from localearn.files import replace_text
from localearn.printing import say


@dataclass(frozen=True)
class ParallelOptions(Options):
    """The options of a bench of two processes."""

    rule: str = option("mono_forward", "a local rule")
    width: int = option(2000, "of an MLP's blocks, and its inputs")
    depth: int = option(4, "how many blocks", range=Range(least=RANKS))
    batch: int = option(1024, "a rank's rows a step")
    batches: int = option(12, "for each turn")
    turns: int = option(5, "for which each median is taken")
    epoch: int = option(49, "batches of an epoch, for the plan: after each the pipeline runs empty")
    device: str = option("cpu", "cuda: a GPU for each process")
    precision: Literal["fp32", "bf16"] = option("fp32")
    out: Path = option(Path("results/bench/parallel"), "where to write", folder=True)
    overrides: list[str] = run_keys("any key of localearn.run's algo, net and optim")


COMMAND = Command(
    "bench parallel",
    "Measure what a second process brings",
    ParallelOptions,
    """\
Measures what two processes, each on a core of its own, bring over one such process: parallel=layers (half of the
blocks each) and parallel=data (a batch each), turn by turn with one process alone; and one block's, one message's and
one all-reduce's time, of which experiments/parallel/simulate.py makes a simulation of more ranks. Writes
OUT/parallel.json and OUT/parallel.md. Rows are made up; nothing is learned from them.
""",
    bare=True,
)


def main(arguments: list[str]) -> int:
    """Measure and write the bench; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = parse(arguments)
    from localearn.benching.page import writable

    own = as_texts(options)
    writable(options.out)
    found = read_measurements(run_ranks(own, options.overrides), options.batches)
    command = " ".join(["python -m localearn.bench parallel", *arguments])
    page, record = page_and_record(own, found, command)
    replace_text(options.out / "parallel.json", json.dumps(record, indent=1) + "\n")
    replace_text(options.out / "parallel.md", page)
    print(page)
    say(options.out / "parallel.md")
    return 0


def parse(arguments: Sequence[str]) -> ParallelOptions:
    """Read the command line.

    Raises:
        UserError: For what is unknown or out of range.

    """
    options = read(ParallelOptions, arguments)
    own = [declared.name for declared in fields(ParallelOptions)]
    for override in options.overrides:
        name = override.partition("=")[0]
        if "." not in name and name not in ("algo", "net", "optim"):
            raise UserError(f"no option {name!r}{suggestion(name, own)}; --help lists them all")
    return options


def as_texts(options: ParallelOptions) -> dict[str, Any]:
    """Return the options as the record stores them, each a text."""
    leaving = ("overrides", "debug")
    return {f.name: str(getattr(options, f.name)) for f in fields(options) if f.name not in leaving}
