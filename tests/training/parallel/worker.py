"""What each rank runs in the tests: cases of a file, one after another, each in a group of its own.

python worker.py CASES.json OUT    writes, from rank 0, OUT/<case>.pt with the state and OUT/<case>.json
"""

import json
import os
import sys
from pathlib import Path

import torch

from localearn import cli
from localearn.errors import UserError
from localearn.training.experiment import build
from localearn.training.fit import train
from localearn.training.settings import Settings


def run(overrides):
    """Train by a command line without a folder; return the rule's state and what to know of the record."""
    torch.set_num_threads(1)
    asked = ["dataset=digits", "energy.enabled=false", "progress=false", *overrides]
    data, trainer, settings = build(*cli.compose(asked))
    record = train(trainer, data, Settings(**{**vars(settings), "out": None}))
    known = ("status", "val_accuracy", "test_accuracy", "parallel", "ranks", "passes", "history", "metrics")
    return trainer.state_dict(), {name: getattr(record, name) for name in known}


def main(cases, out):
    for name, overrides in json.loads(Path(cases).read_text()).items():
        try:
            state, record = run(overrides)
        except UserError as error:
            state, record = {}, {"error": str(error), "tell": error.tell}
        rank = int(os.environ.get("RANK", "0"))
        torch.save(state, Path(out) / f"{name}-{rank}.pt")
        (Path(out) / f"{name}-{rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
