"""Time a backprop epoch through the loop against a loop over tensors written by hand, in one process.

    python experiments/main_job/loop_overhead.py

MNIST (prepared, see `localearn.load`), an MLP 2x1000, batch 128, fused Adam. Both shuffle anew, gather uint8 rows,
normalise them, step, and add up the loss on the device. A second loop by hand is given the rows as float32, normalised
beforehand. The three take turns and the medians are compared. Writes results/main_job/loop_overhead.json.
"""

import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import localearn

WIDTHS, BATCH, ROWS, TURNS, WARM_UP = (1000, 1000), 128, 128 * 100, 9, 2
ADAM = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)


def rows_of(data: localearn.Data) -> tuple[Tensor, Tensor]:
    """Return the training rows as uint8, (N, 784), and their labels, (N,)."""
    raw = localearn.load("mnist", train_size=ROWS, normalize="none")
    batch = next(raw.batches("train", ROWS))
    assert torch.equal(batch.y, next(data.batches("train", ROWS)).y)
    return batch.x.flatten(1).to(torch.uint8), batch.y


def by_hand(x: Tensor, y: Tensor, mean: float, deviation: float) -> Callable[[], float]:
    """Return a function that trains an epoch and returns its seconds."""
    torch.manual_seed(0)
    sizes = (784, *WIDTHS)
    hidden = [layer for a, b in zip(sizes, WIDTHS, strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(WIDTHS[-1], 10))
    optimizer = ADAM(model.parameters())

    def epoch() -> float:
        started_s = time.perf_counter()
        order, total = torch.randperm(len(y)), torch.zeros(())
        for start in range(0, len(y), BATCH):
            chosen = order[start : start + BATCH]
            rows = x[chosen]
            if rows.dtype == torch.uint8:
                rows = (rows - mean).mul_(1 / deviation)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(rows), y[chosen])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(chosen)
        total.item()
        return time.perf_counter() - started_s

    return epoch


def through_the_loop(data: localearn.Data) -> Callable[[], float]:
    """Return a function that trains an epoch by `fit` and returns the seconds of its train window."""
    torch.manual_seed(0)
    trainer = localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=WIDTHS))
    return lambda: trainer.fit(data, epochs=1, batch_size=BATCH, optim=ADAM, restore_best=False).train_s


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
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(TURNS + WARM_UP):
        for name, epoch in epochs.items():
            spent_s = epoch()
            if turn >= WARM_UP:
                seconds[name].append(spent_s)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    results = {
        "widths": WIDTHS,
        "batch": BATCH,
        "rows": ROWS,
        "turns": TURNS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "median_s": medians,
        "seconds": seconds,
        "ratio": medians["loop"] / medians["by hand"],
        "ratio_float32_beforehand": medians["loop"] / medians["by hand, float32 beforehand"],
    }
    print({name: round(value, 4) for name, value in medians.items()}, "ratio", round(results["ratio"], 3))
    path = Path("results/main_job/loop_overhead.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
