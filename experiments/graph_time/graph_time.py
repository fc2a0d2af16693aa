"""Seconds of an epoch of ForwardGNN against backprop's on a graph, in turns in one process.

    LOCALEARN_DATA=<folder with the data> python experiments/graph_time/graph_time.py

with dataset=cora_ml turns=15 out=results/graph_time where none are given. An epoch is a step of every block on the
whole graph and the prediction that validation takes, which are timed apart. The greedy schedule makes one step of each
block, on sums over neighbours that it computed before, as its training does. Writes OUT/table.md and OUT/times.json.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import localearn
from localearn import GNN, Backprop, ForwardGNN
from localearn.data import Batch, Data
from localearn.files import replace_text
from localearn.trainers.phases import Descent, completed

WIDTH, DEPTHS, WARM_UP = 128, (2, 4), 2
FORMS = {
    "ForwardGNN, greedy": {},
    "ForwardGNN, joint": {"schedule": "joint"},
    "ForwardGNN, top-down to the input": {"schedule": "joint", "top_down": "input"},
    "ForwardGNN, top-down to the loss": {"schedule": "joint", "top_down": "loss"},
}


def made(name: str, data: Data, depth: int) -> Any:
    """Return a rule on a GCN of so many layers of 128: backprop's last one gives the classes."""
    torch.manual_seed(0)
    if name == "backprop":
        net = GNN(data.input_shape, data.classes, widths=(WIDTH,) * (depth - 1), dropout=0.0, readout="conv")
        return Backprop(net)
    return ForwardGNN(GNN(data.input_shape, data.classes, widths=(WIDTH,) * depth, dropout=0.0), **FORMS[name])


def epoch(rule: Any, batch: Batch) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what makes one step of every block, and what makes a prediction."""
    steps = []
    rule.train()
    for phase in rule.phases():
        with torch.no_grad():
            x = phase.input(batch.x, *batch.context)
        inputs = Batch(x, batch.target, batch.context, batch.index)
        if not isinstance(phase, Descent):
            phase.accumulate(inputs)
            phase.solve()
            continue
        optimizer = torch.optim.Adam(phase.optimizer_groups(), lr=0.001, weight_decay=0.0005)
        steps.append((phase, inputs, optimizer))

    def step() -> None:
        for phase, inputs, optimizer in steps:
            optimizer.zero_grad(set_to_none=True)
            completed(phase.gradients(inputs))
            optimizer.step()

    @torch.no_grad()
    def predict() -> None:
        for phase, inputs, _ in steps:
            phase.predict(inputs.x, *inputs.context)

    return step, predict


def measured(data: Data, depth: int, turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every turn's steps and predictions, by rule."""
    batch = next(data.batches("train", 1))
    works = {name: epoch(made(name, data, depth), batch) for name in ("backprop", *FORMS)}
    seconds: dict[str, dict[str, list[float]]] = {name: {"step": [], "predict": []} for name in works}
    for turn in range(WARM_UP + turns):
        for name, (step, predict) in works.items():
            for what, call in (("step", step), ("predict", predict)):
                begin = time.perf_counter()
                call()
                if turn >= WARM_UP:
                    seconds[name][what].append(time.perf_counter() - begin)
    return seconds


def table(dataset: str, found: dict[int, dict[str, dict[str, list[float]]]], turns: int) -> str:
    """Return the medians in milliseconds, and of the steps the median ratio to backprop's in the same turn."""
    lines = [
        f"{dataset}, medians of {turns} turns, {torch.get_num_threads()} threads of {platform.machine()}, "
        f"torch {torch.__version__}",
        "",
        "| layers | rule | step ms | prediction ms | step, times backprop's |",
        "|---|---|---|---|---|",
    ]
    for depth, of_depth in found.items():
        plain = of_depth["backprop"]["step"]
        for name, seconds in of_depth.items():
            ratio = statistics.median(own / other for own, other in zip(seconds["step"], plain, strict=True))
            step, predict = (1000 * statistics.median(seconds[what]) for what in ("step", "predict"))
            lines.append(f"| {depth} | {name} | {step:.1f} | {predict:.1f} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> None:
    """Measure and write."""
    options = {"dataset": "cora_ml", "turns": "15", "out": "results/graph_time"} | dict(w.split("=", 1) for w in words)
    data, out, turns = localearn.load(options["dataset"], fold=0), Path(options["out"]), int(options["turns"])
    found = {depth: measured(data, depth, turns) for depth in DEPTHS}
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "times.json", json.dumps(found, indent=1) + "\n")
    replace_text(out / "table.md", table(options["dataset"], found, turns))
    print((out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
