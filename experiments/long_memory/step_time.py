"""Time a recurrent layer's way back through time against its steps: exact, truncated, none, and by a fixed diagonal.

    python experiments/long_memory/step_time.py out=DIR [device=cuda] [steps=[16,64]] [cells=[rnn,gru]] [turns=7]

In each turn every derivative takes one forward and one backward pass of the same layer on the same rows, in an order
that goes round; what is told are medians over turns of the ratio to the exact one in the same turn. On the CPU it is
one thread's own seconds (`time.process_time`), which other processes do not add to, and wall time beside them; on a GPU
wall time alone, synchronized. `operations` is how many operations of torch's the way back takes, which no load changes.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from localearn.cli.errors import run_command
from localearn.cli.options import Options, option, read
from localearn.files import atomic_write, replace_text
from localearn.nets.recurrent import RecurrentLayer
from localearn.nets.through_time import Detached, Diagonal, Truncated
from localearn.training.runtime import select_device

CELLS: list[Any] = ["rnn", "gru", "lstm"]
UNITS, ROWS, TRUNCATION = 96, 16, 16
LINES = {
    "exact": lambda: None,
    "truncated": lambda: Truncated(TRUNCATION),
    "none": Detached,
    "diagonal, scan": lambda: Diagonal(UNITS),
    "diagonal, fft": lambda: Diagonal(UNITS, recursion="fft"),
}


class Operations(TorchDispatchMode):
    """Counts what torch dispatches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation, and run it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def clock(device: torch.device) -> tuple[float, float]:
    """Return seconds, of this process and of the wall; of the wall twice where a GPU has done all that was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        now = time.perf_counter()
        return now, now
    return time.process_time(), time.perf_counter()


def between(before: tuple[float, float], after: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds that passed by each clock."""
    return after[0] - before[0], after[1] - before[1]


def measured(cell: Any, steps: int, turns: int, device: torch.device) -> dict[str, Any]:
    """Return of each derivative the ratios of forward, backward and both to the exact one's, and its operations."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, UNITS, UNITS).to(device)
    x = torch.randn(ROWS, steps, UNITS, device=device, requires_grad=True)
    error = torch.randn(ROWS, steps, UNITS, device=device)
    by = {name: make() for name, make in LINES.items()}
    by = {name: one and one.to(device) for name, one in by.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in by}
    walls: dict[str, list[tuple[float, float]]] = {name: [] for name in by}
    names = list(by)
    for turn in range(-1, turns):  # one to warm up
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            layer.through_time = by[name]
            layer.zero_grad()
            began = clock(device)
            states = layer(x)
            there = clock(device)
            states.backward(error)
            if turn >= 0:
                back = clock(device)
                forward, backward = between(began, there), between(there, back)
                seconds[name].append((forward[0], backward[0]))
                walls[name].append((forward[1], backward[1]))
    found = {}
    for name in names:
        layer.through_time = by[name]
        states = layer(x)
        with Operations() as operations:
            states.backward(error)
        pairs = list(zip(seconds[name], seconds["exact"], strict=True))
        on_wall = list(zip(walls[name], walls["exact"], strict=True))
        median = statistics.median
        found[name] = {
            "forward_s": median(forward for forward, _ in seconds[name]),
            "backward_s": median(back for _, back in seconds[name]),
            "backward_ratio": median(ours[1] / exact[1] for ours, exact in pairs),
            "step_ratio": median(sum(ours) / sum(exact) for ours, exact in pairs),
            "wall_forward_s": median(forward for forward, _ in walls[name]),
            "wall_backward_s": median(back for _, back in walls[name]),
            "wall_backward_ratio": median(ours[1] / exact[1] for ours, exact in on_wall),
            "wall_step_ratio": median(sum(ours) / sum(exact) for ours, exact in on_wall),
            "operations": operations.count,
        }
    return found


@dataclass(frozen=True)
class TimeOptions(Options):
    """The options of the experiment."""

    out: Path = option(Path("results/long_memory"), "where the table goes")
    device: str = option("cpu", "cpu or cuda")
    steps: Sequence[int] = option((16, 32, 64, 128, 256, 512), "of a sequence")
    cells: Sequence[Literal["rnn", "gru", "lstm"]] = option(tuple(CELLS), "of the layer")
    turns: int = option(7, "that are timed")


def main(arguments: list[str]) -> int:
    """Measure, and write step_time.json, step_time.md and step_time.png."""
    options = read(TimeOptions, arguments)
    out, turns, device = options.out, options.turns, select_device(options.device)
    lengths, cells = list(options.steps), list(options.cells)
    torch.set_num_threads(1)
    table = {}
    for cell in cells:
        for steps in lengths:
            table[f"{cell} {steps}"] = measured(cell, steps, turns, device)
            print(cell, steps, {name: round(one["step_ratio"], 3) for name, one in table[f"{cell} {steps}"].items()})
    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    about = {"units": UNITS, "rows": ROWS, "truncation": TRUNCATION, "turns": turns, "torch": torch.__version__}
    out.mkdir(parents=True, exist_ok=True)
    record = {**about, "device": device.type, "machine": machine, "table": table}
    replace_text(out / "step_time.json", json.dumps(record, indent=1) + "\n")
    replace_text(out / "step_time.md", page(table, about, device.type))
    draw(table, cells, lengths, out / "step_time.png")
    return 0


def page(table: dict[str, Any], about: dict[str, Any], device: str) -> str:
    """Return the table in Markdown."""
    clocked = "of the wall" if device == "cuda" else "one thread's own seconds"
    lines = [
        f"A layer of {about['units']} units, {about['rows']} rows, medians of {about['turns']} turns that took each "
        f"derivative in turn: {clocked}, and wall time.",
        "Ratios are to exact derivatives in the same turn; operations are torch's on the way back. Truncated: windows "
        f"of {about['truncation']} steps. Written by `experiments/long_memory/step_time.py`.",
        "",
        "| cell, steps | derivative | forward ms | backward ms | backward ratio | step ratio | wall: backward ms | "
        "backward ratio | step ratio | operations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, by in table.items():
        for derivative, one in by.items():
            times = f"{1e3 * one['forward_s']:.2f} | {1e3 * one['backward_s']:.2f}"
            ratios = f"{one['backward_ratio']:.2f} | {one['step_ratio']:.2f}"
            wall = f"{1e3 * one['wall_backward_s']:.2f} | {one['wall_backward_ratio']:.2f}"
            ratios += f" | {wall} | {one['wall_step_ratio']:.2f} | {one['operations']}"
            lines.append(f"| {name} | {derivative} | {times} | {ratios} |")
    return "\n".join(lines) + "\n"


def draw(table: dict[str, Any], cells: list[Any], lengths: list[int], path: Path) -> None:
    """Draw seconds of the way back against steps, both axes logarithmic, a panel a cell."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(cells), figsize=(3.7 * len(cells), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, cell in zip(axes[0], cells, strict=True):
        for name in LINES:
            panel.loglog(lengths, [table[f"{cell} {t}"][name]["backward_s"] for t in lengths], "o-", label=name)
        panel.set_title(cell)
        panel.set_xlabel("steps")
        panel.set_xticks(lengths, [str(length) for length in lengths])
        panel.minorticks_off()
    axes[0, 0].set_ylabel("backward pass, s")
    axes[0, 0].legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    sys.exit(run_command(main))
