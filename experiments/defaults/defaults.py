"""Every rule by its defaults: algo, dataset and net alone are set; with backprop and a linear classifier.

    python experiments/defaults/defaults.py [only=CELL,CELL] [algos=RULE,RULE] [out=DIR] [key=value ...]

A cell is a data set and a net; each rule is run on it once, with seed 0, into DIR/runs/<cell>-<rule>, results/defaults
where no DIR is given. What is done is kept, and the same command again goes on where it stopped; table.md and
table.json are written after every run. Any other key=value goes to every run: device=cuda.

A rule that is refused on a cell leaves its reason there, and the others are run.

The linear classifier is scikit-learn's logistic regression on the same training rows as the nets see them (a graph's
nodes by their features alone), its strength of regularisation chosen by the validation split among five.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localearn import cli
from localearn.cli.errors import run_command
from localearn.cli.options import listed
from localearn.errors import UserError, suggestion
from localearn.files import read_json, replace_text
from localearn.grid import REFUSED, Grid, Outcome, RunCell
from localearn.jobs import Job
from localearn.records import Record, read_record
from localearn.reporting import formatting
from localearn.training.building import build_data

OWN = ("only", "algos", "out")
RULES = (
    "backprop", "mono_forward", "forward_forward", "cafo", "direct_feedback_alignment", "feedback_alignment",
    "sign_symmetry", "product_feedback_alignment", "pepita", "forward_gradient", "likelihood_ratio",
)  # fmt: skip
SEED = 0
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Cell:
    """A data set and a net; `options` are what names them."""

    name: str
    title: str
    options: Sequence[str]


_CIFAR = ("dataset=cifar10", "dataset.train_size=4000")
CELLS = (
    Cell("digits-mlp", "digits, MLP", ("dataset=digits", "net=mlp")),
    Cell("karate-gcn", "karate, GCN", ("dataset=karate", "net=gcn")),
    Cell("cora-gcn", "Cora, GCN", ("dataset=cora", "net=gcn")),
    Cell("mnist-mlp", "MNIST, MLP", ("dataset=mnist", "net=mlp")),
    Cell("cifar10-lenet", "CIFAR-10, 4,000 images, LeNet-5", (*_CIFAR, "net=lenet")),
    Cell("cifar10-mlp", "CIFAR-10, 4,000 images, MLP", (*_CIFAR, "net=mlp")),
    Cell("cifar10-cnn", "CIFAR-10, 4,000 images, CNN", (*_CIFAR, "net=cnn")),
    Cell("cifar10-resnet20", "CIFAR-10, 4,000 images, ResNet-20", (*_CIFAR, "net=resnet20")),
)


def main(arguments: list[str]) -> int:
    """Run what is missing of the cells that are asked for and write the table; return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    own: dict[str, str] = {}
    more = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is no key=value; --help shows them")
        if name in OWN:
            own[name] = value
        else:
            more.append(argument)
    cells = {cell.name: cell for cell in CELLS}
    only = _known("cell", own.get("only"), list(cells))
    rules = _known("rule", own.get("algos"), list(RULES))
    out = Path(own.get("out", "results/defaults"))

    def ended(cell: RunCell, outcome: Outcome) -> None:
        _keep_refusal(cell.job.folder, outcome.error if outcome.status == REFUSED else "")
        write_table(out)

    grid = Grid(ended=ended, carry_on=True, share=True)
    for name in only:
        _linear(cells[name], out)
        status = grid.run(_cell(cells[name], rule, out, more) for rule in rules)
        write_table(out)
        if status > 128:
            return status
    print(out / "table.md")
    return 0


def _known(what: str, value: str | None, names: list[str]) -> list[str]:
    asked = names if value is None else listed(value)
    for name in asked:
        if name not in names:
            raise UserError(f"no {what} {name!r}{suggestion(name, names)}; there are {', '.join(names)}")
    return asked


def _cell(cell: Cell, rule: str, out: Path, more: list[str]) -> RunCell:
    """Return a rule's run on a cell."""
    name = f"{cell.name}-{rule}"
    job = Job(out / "runs" / name, [f"algo={rule}", *cell.options, *more, f"seed={SEED}"])
    return RunCell(name=name, group=cell.name, title=f"[{cell.name}] {rule}", job=job)


def _keep_refusal(folder: Path, message: str) -> None:
    """Write why a rule was refused on a cell next to where its run would be; remove that where it was not."""
    refusal = folder.with_suffix(".refused")
    if message:
        replace_text(refusal, f"{message}\n")
    else:
        refusal.unlink(missing_ok=True)


def _linear(cell: Cell, out: Path) -> None:
    """Fit the linear classifier of a cell, unless that is done, and keep its accuracies."""
    from omegaconf import OmegaConf
    from sklearn.linear_model import LogisticRegression

    path = out / "linear" / f"{cell.name}.json"
    if path.exists():
        return
    config: Any = OmegaConf.to_container(cli.compose([*cell.options, "algo=backprop"])[0], resolve=True)
    data = build_data(config["dataset"])
    parts = {}
    for split in ("train", "val", "test"):
        batches = list(data.batches(split, 1024))
        x = np.concatenate([batch.rows(batch.x).flatten(1).numpy() for batch in batches])
        parts[split] = (x, np.concatenate([batch.y.numpy() for batch in batches]))
    best = (-1.0, 0.0, 0.0)
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=200).fit(*parts["train"])
        best = max(best, (model.score(*parts["val"]), strength, model.score(*parts["test"])))
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"val_accuracy": best[0], "C": best[1], "test_accuracy": best[2]}
    replace_text(path, json.dumps(figures, indent=1) + "\n")


def write_table(out: Path) -> None:
    """Write table.md and table.json below `out` from the records there."""
    rows, lines = [], []
    for cell in CELLS:
        linear = out / "linear" / f"{cell.name}.json"
        if not linear.exists():
            continue
        floor = read_json(linear)["test_accuracy"]
        lines += [
            f"## {cell.title}", "", f"Linear classifier: {100 * floor:.2f} %. Options: `{' '.join(cell.options)}`.", "",
            "| rule | test accuracy % | training s | of backprop's | energy | passes | |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        reference = _record(out, cell, "backprop")
        for rule in RULES:
            row = _row(out, cell, rule, floor, reference)
            rows.append(row)
            told = [row["accuracy"], row["train_s"], row["ratio"], row["energy"], row["passes"]]
            lines.append(f"| {rule} | {' | '.join(told)} | {row['verdict']} |")
        lines.append("")
    made = "`python experiments/defaults/defaults.py` makes it"
    head = f"# Every rule by its defaults\n\nOne seed; {made}. Seconds and joules are of the machine that ran it.\n\n"
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "table.md", head + "\n".join(lines))
    replace_text(out / "table.json", json.dumps(rows, indent=1) + "\n")


def _record(out: Path, cell: Cell, rule: str) -> Record | None:
    path = out / "runs" / f"{cell.name}-{rule}" / "run.json"
    return read_record(path) if path.exists() else None


def _row(out: Path, cell: Cell, rule: str, floor: float, reference: Record | None) -> dict[str, Any]:
    row = {"cell": cell.name, "rule": rule, **dict.fromkeys(("accuracy", "train_s", "ratio", "energy", "passes"), "–")}
    refusal = out / "runs" / f"{cell.name}-{rule}.refused"
    record = _record(out, cell, rule)
    if refusal.exists():
        return row | {"verdict": f"refused: {refusal.read_text().strip()}"}
    if record and record.status == "diverged":
        return row | {"verdict": f"diverged: {record.error}"}
    accuracy = record and record.metric("accuracy")
    if record is None or record.status != "completed" or accuracy is None:
        return row | {"verdict": "not run"}
    joules, label = record.energy.get("train_j"), record.energy.get("label")
    above = accuracy - floor > 1e-6  # both are counts of rows, as many right is no more
    told = {
        "accuracy": f"{100 * accuracy:.2f}",
        "train_s": f"{record.train_s:,.1f}",
        "ratio": f"×{record.train_s / reference.train_s:.1f}" if reference and reference.train_s else "–",
        "energy": "absent" if joules is None else f"{formatting.plain(joules, 3)} J {label}",
        "passes": f"{record.passes:g}",
        "verdict": "above the linear classifier" if above else "**not above the linear one**",
    }
    return row | told


if __name__ == "__main__":
    sys.exit(run_command(main))
