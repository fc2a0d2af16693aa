"""Time a backprop epoch through the loop against a loop over tensors written by hand, in one process.

    python experiments/main_job/loop_overhead.py

MNIST (prepared, see `localearn.load`), an MLP 2x1000, batch 128, fused Adam. Both shuffle anew, gather uint8 rows,
normalise them, step, and add up the loss on the device. A second loop by hand is given the rows as float32, normalised
beforehand. The three take turns and the medians are compared, of seconds and of CPU seconds, which a busy machine
distorts less. Writes results/main_job/loop_overhead.json.
"""

import functools
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import localearn
from localearn.energy import Counter, Mark, Meter
from localearn.files import replace_text
from localearn.training import Settings
from localearn.training.interrupt import Interrupt
from localearn.training.loop import Loop

Epoch = Callable[[], tuple[float, float]]  # trains an epoch and returns its wall and its CPU seconds

WIDTHS, BATCH, ROWS, TURNS, WARM_UP = (1000, 1000), 128, 128 * 100, 9, 2
ADAM = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)


def rows_of(data: localearn.Data) -> tuple[Tensor, Tensor]:
    """Return the training rows as uint8, (N, 784), and their labels, (N,)."""
    raw = localearn.load("mnist", train_size=ROWS, normalize="none")
    batch = next(raw.batches("train", ROWS))
    assert torch.equal(batch.y, next(data.batches("train", ROWS)).y)
    return batch.x.flatten(1).to(torch.uint8), batch.y


class CpuSeconds(Counter):
    """Count the process's CPU seconds over all threads, by which two loops differ on a busy machine too."""

    part, source, label, note = "cpu", "process time", "measured", ""
    period_s, includes_idle = None, False

    def open(self) -> None:
        """Nothing to start."""

    def read(self) -> Mark:
        """Return the CPU seconds so far."""
        return Mark(time.process_time())

    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the CPU seconds between two marks."""
        return end.value - begin.value

    def close(self) -> None:
        """Nothing to release."""


def by_hand(x: Tensor, y: Tensor, mean: float, deviation: float) -> Epoch:
    """Return a function that trains a fresh model for an epoch and returns its wall and CPU seconds."""

    def epoch() -> tuple[float, float]:
        torch.manual_seed(0)
        sizes = (784, *WIDTHS)
        hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        model = nn.Sequential(*hidden, nn.Linear(WIDTHS[-1], 10))
        optimizer = ADAM(model.parameters())
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        order, total = torch.randperm(len(y)), torch.zeros(())
        for start in range(0, len(y), BATCH):
            chosen = order[start : start + BATCH]
            rows = x.index_select(0, chosen)
            if rows.dtype == torch.uint8:
                rows = (rows - mean).mul_(1 / deviation)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(rows), y.index_select(0, chosen))
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(chosen)
        total.item()
        return time.perf_counter() - started_s, time.process_time() - started_cpu_s

    return epoch


def through_the_loop(data: localearn.Data) -> Epoch:
    """Return a function that trains a fresh rule for an epoch and returns its train window's wall and CPU seconds."""

    def epoch() -> tuple[float, float]:
        torch.manual_seed(0)
        trainer = localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=WIDTHS))
        meter = Meter("cpu", sources=[CpuSeconds()])
        settings = Settings(epochs=1, batch_size=BATCH, optim=ADAM)
        meter.open()
        Loop(trainer, data, settings, torch.device("cpu"), meter).run(Interrupt())
        cpu_s = meter.energy_j("train")
        meter.close()
        assert cpu_s is not None
        return meter.duration_s("train"), cpu_s

    return epoch


def main() -> None:
    """Measure and write."""
    data = localearn.load("mnist", train_size=ROWS)
    x, y = rows_of(data)
    mean, deviation = x.float().mean().item(), x.float().std(correction=0).item()
    epochs = {
        "loop": through_the_loop(data),
        "by hand": by_hand(x, y, mean, deviation),
        "by hand, float32 beforehand": by_hand((x - mean) / deviation, y, mean, deviation),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for turn in range(TURNS + WARM_UP):
        for name, epoch in epochs.items():
            seconds = epoch()
            if turn >= WARM_UP:
                spent[name].append(seconds)
    median_s = {name: statistics.median(wall for wall, _ in values) for name, values in spent.items()}
    median_cpu_s = {name: statistics.median(cpu for _, cpu in values) for name, values in spent.items()}
    results = {
        "widths": WIDTHS,
        "batch": BATCH,
        "rows": ROWS,
        "turns": TURNS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "wall_and_cpu_s": spent,
        "median_s": median_s,
        "median_cpu_s": median_cpu_s,
        "ratio": {name: median_s["loop"] / other for name, other in median_s.items()},
        "cpu_ratio": {name: median_cpu_s["loop"] / other for name, other in median_cpu_s.items()},
    }
    for figure in ("ratio", "cpu_ratio"):
        print(figure, {name: round(value, 3) for name, value in results[figure].items()})
    path = Path("results/main_job/loop_overhead.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
