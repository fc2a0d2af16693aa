"""The runs by which the recipes of local losses were chosen, and their validation figures.

    LOCALEARN_DATA=<folder with the data> python experiments/defaults/local_loss.py [GROUP ...]

runs what is missing of the groups below, all of them where none is named, into results/defaults/probes and writes
results/defaults/local_loss.md of what is there: means of the best epoch's validation accuracy over seeds.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from localearn.cli.errors import run_command
from localearn.files import replace_text
from localearn.grid import Grid, RunCell
from localearn.jobs import Job
from localearn.records import read_record

OUT = Path("results/defaults")
QUIET = ["energy.enabled=false", "progress=false"]
RATES = ("0.0005", "0.001", "0.002", "0.005", "0.01")
DENSE = ["algo=local_loss", "dataset=digits", "net=mlp"]
MAPS = ["algo=local_loss", "dataset=digits", "net=cnn", "net.channels=[16,32]", "net.activation=leaky_relu"]
CORA = ["algo=local_loss", "dataset=cora", "net=gcn", "net.widths=[64,64]", "epochs=60"]
GROUPS = {
    "dense": {f"digits-mlp-local_loss_lr-{lr}": [*DENSE, f"optim.lr={lr}"] for lr in RATES},
    "maps": {f"digits-cnn-local_loss_lr-{lr}": [*MAPS, f"optim.lr={lr}"] for lr in RATES},
    "graph": {
        f"cora-gcn-local_loss_{loss}_normalize-{normalize}_weight_decay-{decay}": [
            *CORA,
            f"algo.loss={loss}",
            f"dataset.normalize={normalize}",
            f"optim.weight_decay={decay}",
        ]
        for loss, decays in (("predsim", ("0.0005", "0")), ("pred", ("0.0005",)))
        for normalize in ("rows", "none")
        for decay in decays
    },
}
SEEDS = range(3)


def folder(name: str, seed: int) -> Path:
    """Return the path of a run's record."""
    return OUT / "probes" / f"{name}_seed-{seed}"


def table() -> str:
    """Return the table in Markdown, of the runs that are there."""
    lines = ["| group | run | seeds | validation %, mean (each) | test % |", "|---|---|---|---|---|"]
    for group, runs in GROUPS.items():
        for name, words in runs.items():
            figures = defaultdict(list)
            for seed in SEEDS:
                if (folder(name, seed) / "run.json").exists():
                    record = read_record(folder(name, seed))
                    for split in ("val", "test"):
                        figures[split].append(100 * (record.metric("accuracy", split) or 0.0))
            if not figures:
                continue
            val, test = (statistics.mean(figures[split]) for split in ("val", "test"))
            each = ", ".join(f"{figure:.2f}" for figure in figures["val"])
            own = " ".join(words[1:])
            lines.append(f"| {group} | `{own}` | {len(figures['val'])} | {val:.2f} ({each}) | {test:.2f} |")
    return "\n".join(lines) + "\n"


def main(groups: list[str]) -> int:
    """Run and write; return the exit status."""
    cells = [
        RunCell(name=f"{name}_seed-{seed}", job=Job(folder(name, seed), [*words, f"seed={seed}", *QUIET]))
        for group in groups or GROUPS
        for name, words in GROUPS[group].items()
        for seed in SEEDS
    ]
    status = Grid(done=lambda cell: cell.finished, share=True).run(cells)
    replace_text(OUT / "local_loss.md", table())
    return status


if __name__ == "__main__":
    sys.exit(run_command(main))
