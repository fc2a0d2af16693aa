"""`python -m localearn.bench parallel`: measure and simulate the work of several processes."""

import json
from pathlib import Path

from localearn.benching.parallel import RANKS, measured, page_and_record, read
from localearn.cli.options import whole
from localearn.errors import UserError, suggestion
from localearn.printing import say

HELP = """\
python -m localearn.bench parallel [rule=mono_forward] [width=2000 depth=4 batch=1024] [out=results/bench/parallel]

Measures what two processes, each on a core of its own, bring over one such process: parallel=layers (half of the
blocks each) and parallel=data (a batch each), turn by turn with one process alone. A simulation made from one block's,
one message's and one all-reduce's time is held against that, and then tells of 8, 64 and 512 ranks. Writes
OUT/parallel.json and OUT/parallel.md. Rows are made up; nothing is learned from them.

  rule=mono_forward  a local rule
  width=2000 depth=4 batch=1024
                     an MLP of so many blocks, with as many inputs, and a rank's rows a step
  batches=12         for each turn
  turns=5            for which each median is taken
  epoch=49           batches of an epoch, for the plan: after each the pipeline runs empty
  device=cpu         cuda: a card for each process
  precision=fp32     or bf16
  key=value          any key of localearn.run's algo, net and optim
"""
DEFAULTS = {"rule": "mono_forward", "width": "2000", "depth": "4", "batch": "1024", "batches": "12", "turns": "5",
            "epoch": "49", "device": "cpu", "precision": "fp32", "out": "results/bench/parallel"}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, simulate and write; return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    own, overrides = parse(arguments)
    out = Path(own["out"]).expanduser()
    from localearn.benching.page import writable

    writable(out)
    found = read(measured(own, overrides), int(own["batches"]))
    command = " ".join(["python -m localearn.bench parallel", *arguments])
    page, record = page_and_record(own, found, command)
    (out / "parallel.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "parallel.md").write_text(page, encoding="utf-8")
    print(page)
    say(out / "parallel.md")
    return 0


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the door's own options and the overrides of a run; raise UserError for what is unknown or out of range."""
    own, overrides = dict(DEFAULTS), []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not value:
            raise UserError(f"cannot read {argument!r}; write key=value, say width=1000")
        if name in DEFAULTS:
            own[name] = value
        elif "." not in name and name not in ("algo", "net", "optim", "debug"):
            raise UserError(f"no option {name!r}{suggestion(name, DEFAULTS)}; --help lists them")
        else:
            overrides.append(argument)
    for name in ("width", "batch", "batches", "turns", "epoch"):
        whole(name, own[name])
    whole("depth", own["depth"], least=RANKS)
    if own["precision"] not in ("fp32", "bf16"):
        raise UserError(f"precision is fp32 or bf16, not {own['precision']!r}")
    return own, overrides
