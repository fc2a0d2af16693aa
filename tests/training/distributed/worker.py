"""What each rank runs in the tests: cases of a file, one after another, each in a group of its own.

python worker.py CASES.json OUT    writes, from rank 0, OUT/<case>.pt with the state and OUT/<case>.json
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from localearn import cli
from localearn.errors import UserError
from localearn.training.experiment import build
from localearn.training.fit import train
from localearn.training.settings import Settings

COUNTED = ("layers-joint", "layers-unchained")


class Messages(TorchDispatchMode):
    """Counts what a rank sends to one other, and receives of it."""

    def __init__(self):
        super().__init__()
        self.counts = {"sends": 0, "receives": 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kind = {"c10d::send": "sends", "c10d::recv_": "receives"}.get(func._schema.name)
        if kind:
            self.counts[kind] += 1
        return func(*args, **kwargs or {})


def run(overrides, counted=False):
    """Train by a command line without a folder; return the rule's state and what to know of the record.

    counted: whether messages are, for which every call of torch is looked at.
    """
    torch.set_num_threads(1)
    asked = ["dataset=digits", "energy.enabled=false", "progress=false", *overrides]
    data, trainer, settings = build(*cli.compose(asked))
    messages = Messages()
    with messages if counted else contextlib.nullcontext():
        record = train(trainer, data, Settings(**{**vars(settings), "out": None}))
    known = ("status", "val_accuracy", "test_accuracy", "parallel", "ranks", "passes", "history", "metrics")
    return trainer.state_dict(), {name: getattr(record, name) for name in known} | {"messages": messages.counts}


def main(cases, out):
    for name, overrides in json.loads(Path(cases).read_text()).items():
        try:
            state, record = run(overrides, counted=name in COUNTED)
        except UserError as error:
            state, record = {}, {"error": str(error), "printed": error.print_on_this_rank}
        rank = int(os.environ.get("RANK", "0"))
        torch.save(state, Path(out) / f"{name}-{rank}.pt")
        (Path(out) / f"{name}-{rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
