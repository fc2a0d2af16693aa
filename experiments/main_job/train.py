"""Train the main job's rows and table what came of them.

    python experiments/main_job/train.py [only=ROW,ROW] [seeds=0,1,2]

Each row runs `python -m localearn.run` with the options below, once a seed, into results/main_job/runs/<row>-<seed>; a
run that is there already is kept. Records stay, weights do not. The table is results/main_job/table.md.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from localearn.records import read_record

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


def main() -> None:
    """Run what is asked for and write the table."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    only = options.get("only", "").split(",") if "only" in options else [row.name for row in ROWS]
    for row in ROWS:
        if row.name in only:
            for seed in options.get("seeds", "0,1,2").split(","):
                run(row, int(seed))
    table = tabled()
    (RESULTS / "table.md").write_text(table)
    print(table)


def run(row: Row, seed: int) -> None:
    """Run a row with a seed unless its record is there; note the wall clock of the whole command beside it."""
    folder = RESULTS / "runs" / f"{row.name}-{seed}"
    if (folder / "wall.json").exists():
        return
    command = [sys.executable, "-m", "localearn.run", *row.options.split(), f"seed={seed}", f"out={folder}"]
    started_s = time.perf_counter()
    subprocess.run(command, check=True)
    wall_s = time.perf_counter() - started_s
    (folder / "wall.json").write_text(json.dumps({"wall_s": wall_s}) + "\n")
    for name in ("checkpoint.pt", "net.safetensors"):
        (folder / name).unlink()


def tabled() -> str:
    """Return the table of all rows that have records, in Markdown."""
    lines = [
        "| row | options | seeds | test accuracy %, mean (each) | asked for | wall s, each | asked for |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        folders = sorted((RESULTS / "runs").glob(f"{row.name}-[0-9]*"))
        folders = [folder for folder in folders if (folder / "wall.json").exists()]
        if not folders:
            lines.append(f"| {row.name} | `{row.options}` | not run | | | | |")
            continue
        records = [read_record(folder) for folder in folders]
        read = [record.metric("accuracy") for record in records]
        accuracies = [100 * accuracy for accuracy in read if accuracy is not None]
        walls = [json.loads((folder / "wall.json").read_text())["wall_s"] for folder in folders]
        seeds = ", ".join(str(record.seed) for record in records)
        each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        least = f"{100 * row.least_accuracy:.1f}" if row.least_accuracy else ""
        most = f"{row.most_wall_s:.0f}" if row.most_wall_s else ""
        wall = ", ".join(f"{wall:.1f}" for wall in walls)
        mean = statistics.mean(accuracies)
        lines.append(f"| {row.name} | `{row.options}` | {seeds} | {mean:.2f} ({each}) | {least} | {wall} | {most} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
