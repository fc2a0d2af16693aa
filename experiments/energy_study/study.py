"""The energy study: each row's rule and baseline are tuned alike, then compared under both protocols.

    python experiments/energy_study/study.py [only=ROW,ROW] [trials=20] [seeds=[0,1,2]] [out=DIR] [print=true]

A row is three commands: localearn.tune for the baseline, localearn.tune for the rule, localearn.compare with what both
found. They are run as they stand (print=true shows them and runs nothing), into DIR/<row>, results/energy_study where
no DIR is given; what is done is kept, and the same command goes on where it stopped. Where one of a row fails, the
other rows are run all the same. Any other key=value goes to all three: device=cuda. DIR/table.md and table.json hold
every row: published beside ours, or `not run`.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.cli.errors import run_command
from localearn.cli.options import listed, truth, whole
from localearn.errors import UserError, suggestion
from localearn.files import replace_text
from localearn.grid import CommandCell, Grid, Outcome
from localearn.printing import say
from localearn.records import RunFolder
from localearn.reporting import formatting
from localearn.reporting.statistics import Estimate

SOURCE = "Spyra, arXiv 2509.19063 and 2511.01061, one A100"
OWN = ("only", "trials", "seeds", "out", "print")
PROTOCOLS = ("matched", "converged")
MEASURES = {
    "test_accuracy": "accuracy, points",
    "train_s": "time",
    "train_j": "energy",
    "peak_memory_bytes": "peak memory",
    "common_accuracy_j": "energy to a common accuracy",
}


@dataclass(frozen=True)
class Published:
    """A row of the published study: rule, then baseline; accuracy in %, None where it is not given."""

    accuracy: tuple[float, float | None]
    train_s: tuple[float, float] | None = None
    energy_wh: tuple[float, float] | None = None
    peak_mib: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A rule and backprop on one net and data set.

    shared: options of both. rule, baseline: each one's own. tuning: epochs of a trial's stages, rule and baseline, with
    which they make as many passes. compare: passes, patience and the most epochs of a stage.
    """

    name: str
    algo: str
    shared: str
    published: Published
    rule: str = ""
    baseline: str = "optim=adamw"
    tuning: tuple[int, int] = (9, 9)
    compare: str = "epochs=15 patience=5 max_epochs=30"

    def commands(self, out: Path, trials: int, seeds: list[int], more: list[str]) -> list[list[str]]:
        """Return what a user types: tune the baseline, tune the rule, compare."""
        folder, python = out / self.name, ["python", "-m"]
        tunes = [
            [*python, "localearn.tune", f"algo={algo}", *own.split(), *self.shared.split(), f"epochs={epochs}",
             f"trials={trials}", *more, f"out={folder / 'tuned' / algo}"]
            for algo, own, epochs in (
                ("backprop", self.baseline, self.tuning[1]), (self.algo, self.rule, self.tuning[0]))
        ]  # fmt: skip
        compare = [*python, "localearn.compare", f"algos=[backprop,{self.algo}]", f"tuned={folder / 'tuned'}",
                   *self.compare.split(), f"seeds=[{','.join(map(str, seeds))}]", *more, f"out={folder}"]  # fmt: skip
        return [*tunes, compare]


# Greedy, with the input's own projection, as the study trains Mono-Forward: depth + 1 stages share the passes.
GREEDY = "algo.schedule=greedy algo.input_projection=true optim=adam"
CIFAR = "batch_size=128 dataset.augment=crop_flip"
CIFAR_COMPARED = "epochs=60 patience=5 max_epochs=100"
# bfloat16 for both: Forward-Forward's products take it as well, and the row is the longest.
FORWARD = "recipe=alike dataset.normalize=unit batch_size=100 precision=bf16"
FORWARD_COMPARED = "epochs=20 patience=5 max_epochs=60"
# In closed form CaFo makes four passes and no more; the study's predictors learnt by cross-entropy.
CLOSED = "epochs=4 patience=5 max_epochs=30"
DFA = "algo.blocks=dfa algo.loss=ce optim=adam"
CAFO = {
    "mnist": ((98.62, 98.94), (99.02, 98.94)),
    "fashion_mnist": ((90.36, 89.25), (91.72, 89.25)),
    "cifar10": ((66.09, 79.32), (77.60, 79.32)),
    "cifar100": ((41.19, 52.63), (48.20, 52.63)),
}

ROWS = (
    Row("mnist-mono_forward", "mono_forward", "dataset=mnist batch_size=128",
        Published((98.14, 98.05), (35.0, 39.8), (0.60, 0.69), (934, 926)), GREEDY, tuning=(3, 9)),
    Row("fashion_mnist-mono_forward", "mono_forward", "dataset=fashion_mnist batch_size=128",
        Published((89.72, 89.21), (52.1, 44.1), (0.86, 0.79), (934, 926)), GREEDY, tuning=(3, 9)),
    Row("cifar10-mono_forward", "mono_forward", f"dataset=cifar10 {CIFAR}",
        Published((62.34, 61.13), (177.7, 268.5), (3.17, 5.35), (1120, 1184)), GREEDY, tuning=(3, 12),
        compare=CIFAR_COMPARED),
    Row("cifar100-mono_forward", "mono_forward", f"dataset=cifar100 {CIFAR}",
        Published((30.31, 29.94), (110.4, 111.8), (2.02, 2.30), (1142, 1192)), GREEDY, tuning=(3, 12),
        compare=CIFAR_COMPARED),
    Row("mnist-forward_forward", "forward_forward", f"dataset=mnist net=mlp_3x1000 {FORWARD}",
        Published((98.33, None)), tuning=(8, 8), compare=FORWARD_COMPARED),
    Row("mnist-forward_forward_4x2000", "forward_forward", f"dataset=mnist net=mlp_4x2000 {FORWARD}",
        Published((98.42, None)), tuning=(8, 8), compare=FORWARD_COMPARED),
    Row("fashion_mnist-forward_forward", "forward_forward", f"dataset=fashion_mnist net=mlp_4x2000 {FORWARD}",
        Published((89.63, 88.88), (574.6, 43.1), (14.28, 1.48), (1190, 1168)), tuning=(8, 8), compare=FORWARD_COMPARED),
    *(Row(f"{data}-cafo", "cafo", f"dataset={data} net=cafo batch_size=128", Published(random), tuning=(1, 4),
          compare=CLOSED) for data, (random, _) in CAFO.items()),
    *(Row(f"{data}-cafo_dfa", "cafo", f"dataset={data} net=cafo batch_size=128", Published(dfa), DFA, tuning=(3, 12),
          compare="epochs=16 patience=5 max_epochs=30")
      for data, (_, dfa) in CAFO.items()),
)  # fmt: skip


def main(arguments: list[str], rows: Sequence[Row] = ROWS) -> int:
    """Run those of the rows that are asked for and write the table; return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    own, more = _parse(arguments)
    names = [row.name for row in rows]
    only = listed(own.get("only", ",".join(names)))
    for name in only:
        if name not in names:
            raise UserError(f"no row {name!r}{suggestion(name, names)}; there are {', '.join(names)}")
    trials = whole("trials", own.get("trials", "20"))
    seeds = [whole("seeds", seed, least=0) for seed in listed(own.get("seeds", "0,1,2"))]
    out = Path(own.get("out", "results/energy_study"))
    commands = {row.name: row.commands(out, trials, seeds, more) for row in rows if row.name in only}
    if truth("print", own.get("print", "false")):
        print("\n".join(shlex.join(command) for three in commands.values() for command in three))
        return 0
    cells = [
        CommandCell(name=f"{name}, {' '.join(command[2:4])}", group=name, command=command, resumes=True)
        for name, three in commands.items()
        for command in three
    ]

    def ended(cell: CommandCell, _: Outcome) -> None:
        lighten(out / cell.group)
        write_table(out, rows)

    grid = Grid(ended=ended, most_failures=1)  # of a row: there is nothing to compare without both searches
    status = grid.run(cells)
    for sentence in (*grid.failed, *grid.left):
        say(sentence, error=True)
    if status <= 128:
        print(out / "table.md")
    return status


def _parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the study's own options, and what goes to all three commands."""
    own: dict[str, str] = {}
    more = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (equals and value):
            raise UserError(f"cannot read {argument!r}; write key=value, say only={ROWS[0].name}")
        if name in OWN:
            own[name] = value
        else:
            more.append(argument)
    return own, more


def lighten(folder: Path) -> None:
    """Remove the weights of the finished runs: a study keeps records."""
    for record in folder.rglob("run.json"):
        RunFolder(record.parent).drop_weights()


def write_table(out: Path, rows: Sequence[Row] = ROWS) -> None:
    """Write table.md and table.json from the rows' reports."""
    reported = [(row, _ratios(out / row.name / "report.json", row.algo)) for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "table.md", as_table(reported))
    values = [
        {"row": row.name, "published": vars(row.published), "source": SOURCE, "ours": ours or "not run"}
        for row, ours in reported
    ]
    replace_text(out / "table.json", json.dumps(values, indent=1) + "\n")


def _ratios(report: Path, algo: str) -> dict[str, dict[str, Any]] | None:
    """Return, by protocol, each measure of the rule with its mean, its label and its ratio to backprop."""
    if not report.exists():
        return None
    found: dict[str, dict[str, Any]] = {}
    for group in json.loads(report.read_text())["groups"]:
        rules = {rule["algo"]: rule["measures"] for rule in group["rules"]}
        if algo in rules and "backprop" in rules:
            found[group["protocol"]] = {
                name: {"rule": rules[algo][name], "baseline": rules["backprop"][name]}
                for name in MEASURES
                if name in rules[algo]
            }
    return found or None


def as_table(rows: list[tuple[Row, dict[str, dict[str, Any]] | None]]) -> str:
    """Return the table in Markdown: a line for the published numbers, one for each protocol of ours."""
    heads = ["row", "", "accuracy %, rule", "backprop", *MEASURES.values()]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row, ours in rows:
        lines.append(_line([row.name, "published", *_published(row.published)]))
        for protocol in PROTOCOLS:
            if ours and protocol in ours:
                lines.append(_line(["", f"ours, {protocol}", *_ours(ours[protocol])]))
        if ours is None:
            lines.append(_line(["", "not run", *["–"] * (2 + len(MEASURES))]))
    return "\n".join(lines) + (
        f"\n\nPublished: {SOURCE}. Ratios are the rule's to backprop's, with 95 % intervals over paired seeds; in bold "
        "where the interval leaves out equality. A row that is not run is run by "
        "`python experiments/energy_study/study.py only=ROW`, on a GPU with `device=cuda`.\n"
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _published(published: Published) -> list[str]:
    rule, baseline = published.accuracy
    difference = "–" if baseline is None else f"{rule - baseline:+.2f}"
    pairs = (published.train_s, published.energy_wh, published.peak_mib)
    time, energy, memory = ("–" if pair is None else f"×{pair[0] / pair[1]:.2f}" for pair in pairs)
    energy += "" if energy == "–" else " (measured)"
    shown = "–" if baseline is None else f"{baseline:.2f}"
    return [f"{rule:.2f}", shown, difference, time, energy, memory, "–"]


def _ours(measures: dict[str, Any]) -> list[str]:
    accuracy = measures["test_accuracy"]
    means = [f"{100 * accuracy[side]['values'][0]['mean']:.2f}" for side in ("rule", "baseline")]
    return [*means, *(_compared(measures.get(name)) for name in MEASURES)]


def _compared(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return "–"
    rule = measure["rule"]
    if rule["to_baseline"] is None:
        return rule["not_compared"] or "absent"
    ratio = Estimate(**{name: rule["to_baseline"][name] for name in ("mean", "low", "high", "n")})
    points = rule["compared_as"] == "difference"
    text = formatting.points(ratio).removesuffix(" points") if points else formatting.ratio(ratio)
    labels = sorted({value["label"] for value in rule["values"] if "label" in value})
    said = [f"**{text}**" if ratio.excludes(0.0 if points else 1.0) else text, *(f"({label})" for label in labels)]
    return " ".join([*said, *(f"⚑ {flag}" for flag in sorted(rule["flags"]))])


if __name__ == "__main__":
    sys.exit(run_command(main))
