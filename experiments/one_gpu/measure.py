"""What localearn must show on one GPU, in two commands of at most 9 minutes: the same one, twice.

    LOCALEARN_DATA=<folder with the data> python experiments/one_gpu/measure.py [out=DIR] [budget_s=520]
    python experiments/one_gpu/measure.py small=true device=cpu    # tries all of it where there is no GPU, in a minute

  only=steps,cnn     these parts alone: tests, steps, energy, cnn; and by name alone bf16, memory, study, meter
  budget_s=520       the command's own clock: what would not fit is left and named, what still runs is ended
  work=runs/one_gpu  where the records go, and where the next call finds what is done
  out=DIR            where they are packed, flat, as each piece ends: at most 4 files records-N.tar of 16 MiB;
                     WORK-packed if not given
  device=cuda

Each piece is a command of localearn's own, which is shown and run as it stands. What is done is not done again, and
training that was interrupted goes on. WORK/asked.md and asked.json hold every line: what was asked, what was measured,
or `not run`.
"""

import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from packing import pack

from localearn.cli.errors import run_command
from localearn.cli.options import Options, Range, choice, option, read
from localearn.errors import UserError
from localearn.files import replace_text
from localearn.grid import GRACE_S, Budget, CommandCell, Grid
from localearn.records import read_record

ROOT = Path(__file__).resolve().parents[2]
RESERVE_S = GRACE_S + 10.0  # and the packing
FAILURES = 2  # of a part, after which its other pieces are left
PACKED_FIRST = ("asked.md", "asked.json", "state.json", "logs", "steps", "energy", "fidelity")
ENERGY_ROWS = ("mnist-mono_forward", "fashion_mnist-mono_forward")

# Rows of the fidelity table, each seed with its seconds on an H200, measured or expected. The first two are
# one comparison, so they take turns seed by seed; a row of more than a command's seconds waits for a longer budget.
CNN_FIRST = {"cifar10_cnn-mono_forward": 60, "cifar10_cnn-backprop": 55}
CNN_REST = {
    "cifar10_cnn-pepita": 120,
    "cifar10_cnn-cafo_dfa": 100,
    **dict.fromkeys(
        (
            "cifar10_lenet-backprop",
            "cifar10_lenet-direct_feedback_alignment",
            "cifar10_lenet-feedback_alignment",
            "cifar10_lenet-sign_symmetry_usf",
            "cifar10_lenet-sign_symmetry_frsf",
            "cifar10_lenet-sign_symmetry_brsf",
        ),
        150,
    ),
    "cifar10_lenet-shallow": 100,
    "cifar10_resnet20-shallow": 300,
    "cifar10_cnn-cafo_ce": 400,
    "cifar10_cnn-scalable_forward_forward": 250,
    "cifar10_cnn_5x512-backprop": 150,
    "cifar10_cnn_5x512-counter_current": 300,
    "cifar10_cnn_5x512-counter_current_rows": 300,
    "cifar10_mobilenet_v3_small-scalable_forward_forward": 900,
    "cifar10_resnet18-scalable_forward_forward": 1200,
    **dict.fromkeys(
        (
            "cifar10_resnet20-backprop",
            "cifar10_resnet20-direct_feedback_alignment",
            "cifar10_resnet20-feedback_alignment",
            "cifar10_resnet20-product_feedback_alignment",
            "cifar10_resnet20-sign_symmetry_usf",
            "cifar10_resnet20-sign_symmetry_frsf",
            "cifar10_resnet20-sign_symmetry_brsf",
        ),
        600,
    ),
    **dict.fromkeys([f"cifar10_noprop-noprop{form}" for form in ("", "_learned", "_prototype", "_ct", "_fm")], 3600),
    # Expected by their products at 30 TFLOP/s; the similarities' convolutions are more than the net's own.
    **dict.fromkeys(("cifar10_vgg8b-backprop", "cifar10_vgg8b-local_loss_pred"), 3600),
    **dict.fromkeys(("cifar10_vgg8b-local_loss", "cifar10_vgg8b-local_loss_sim"), 9600),
}


@dataclass(frozen=True)
class Line:
    """One thing that was asked for. measured: None where it was not run. met: None where nothing was asked of it."""

    part: str
    what: str
    asked: str
    measured: str | None
    met: bool | None


@dataclass(frozen=True)
class Asked:
    """The command line."""

    work: Path
    out: Path
    device: str
    small: bool = False
    budget_s: int = 520

    def piece(
        self,
        name: str,
        expected_s: float,
        command: list[str],
        target: Path,
        *,
        resumes: bool = False,
        like: str = "",
        done_with: tuple[int, ...] = (0,),
    ) -> CommandCell:
        """Return what one command does, on this checkout, with its output in WORK/logs; of the part that it names."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return CommandCell(
            name=name, group=name.partition("-")[0], command=command, target=target, resumes=resumes,
            done_with=done_with, log=self.work / "logs" / f"{name}.txt", folder=ROOT,
            environment={"PYTHONPATH": path}, expected_s=expected_s, like=like,
        )  # fmt: skip

    def bench(self, folder: str, expected_s: float, *options: str) -> CommandCell:
        """Return a bench, which is measured again where it was interrupted."""
        if self.small:
            options = (*options, "turns=1", "turn_s=0.001")
        where = [f"device={self.device}", f"out={self.work / folder}"]
        command = ["python", "-m", "localearn.bench", *options, *where]
        return self.piece(folder, self.seconds(expected_s), command, self.work / folder)

    def seconds(self, expected_s: float) -> float:
        """Return what a piece is expected to take at the sizes that were asked for."""
        return 8 if self.small else expected_s


@dataclass(frozen=True)
class Part:
    """Pieces of one purpose, and the lines that their records give, none as long as there are no records."""

    pieces: Callable[[Asked], list[CommandCell]]
    lines: Callable[[Asked], list[Line]]
    what: str
    by_name_alone: bool = False


# tests


def tests(asked: Asked) -> list[CommandCell]:
    """Return the tests that need a card; the files without one are not even collected."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    command = ["python", "-m", "pytest", "-q", "-m", "gpu", "-n", "8", "-p", "no:cacheprovider", *map(str, files)]
    return [asked.piece("tests", asked.seconds(100), command, asked.work / "logs" / "tests.txt", done_with=(0, 1))]


def tests_lines(asked: Asked) -> list[Line]:
    """Return the verdict of the tests."""
    said = (asked.work / "logs" / "tests.txt").read_text(encoding="utf-8").strip().splitlines()
    last = said[-1].strip("= ") if said else "no output"
    met = "passed" in last and not any(word in last for word in ("failed", "error", "skipped"))
    return [Line("tests", "pytest -m gpu", "passes", last, met)]


# steps


def steps(asked: Asked) -> list[CommandCell]:
    """Return every rule's captured step beside backprop's, in turns that last long enough for the counter of joules."""
    size = ["width=24", "batch=16"] if asked.small else ["width=2000", "batch=512", "turns=2", "turn_s=5.2"]
    options = ["depth=3", "input=[784]", "capture=graph", "forward_forward:algo.prediction=goodness"]
    return [asked.bench("steps", 200, *size, *options)]


def steps_lines(asked: Asked) -> list[Line]:
    """Return each rule's step and joules beside backprop's; Mono-Forward's alone were asked for."""
    (bench,) = benches(asked, "steps")
    rules = {rule["algo"]: rule for rule in bench["rules"]}
    base = rules.pop("backprop")
    lines = []
    for algo, rule in sorted(rules.items(), key=lambda item: (item[0] != "mono_forward", item[0])):
        of_it = algo == "mono_forward"
        asked_for = "0.70 of backprop's" if of_it else "beside backprop's"
        ratio, captured = rule["ratio"]["median"], rule["captured"] == base["captured"] == "graph"
        told = f"{ratio:.3f}{'' if captured else ', not captured'}"
        met = captured and ratio <= 0.70 if of_it else None
        lines.append(Line("steps", f"{algo}, captured step", asked_for, told, met))
        each = [one["joules_per_sample"] and one["joules_per_sample"]["median"] for one in (rule, base)]
        share = each[0] / each[1] if all(each) else None
        told = "absent" if share is None else f"{share:.3f}"
        told += ", turns too short for its counter" if bench["energy"] and bench["energy"]["too_short"] else ""
        met = share <= 0.70 if of_it and share is not None else None
        lines.append(Line("steps", f"{algo}, joules a sample", asked_for, told, met))
    return lines


# energy


def energy(asked: Asked) -> list[CommandCell]:
    """Return rows of the energy study, both protocols, 3 seeds, each rule as its committed search tuned it."""
    study, pieces = energy_study(), []
    more = [f"device={asked.device}", "capture=graph", "progress=false"]
    if asked.small:
        more += ["dataset=digits", "net.widths=[24,24]", "epochs=3", "max_epochs=2", "patience=1", "warm_up=false"]
    for row in study.ROWS:
        if row.name in ENERGY_ROWS:
            out = asked.work / "energy"
            tuned = f"tuned={ROOT / 'results' / 'energy_study' / row.name / 'tuned'}"
            compare = row.commands(out, 20, [0] if asked.small else [0, 1, 2], more)[-1]
            command = [tuned if word.startswith("tuned=") else word for word in compare]
            name, target = f"energy-{row.name}", out / row.name
            pieces.append(asked.piece(name, asked.seconds(90), command, target, resumes=True, like="energy"))
    return pieces


def energy_lines(asked: Asked) -> list[Line]:
    """Return each row's accuracy, time and joules beside backprop's, by protocol."""
    lines = []
    for name in ENERGY_ROWS:
        report, algo = asked.work / "energy" / name / "report.json", name.rpartition("-")[-1]
        for group in json.loads(report.read_text())["groups"] if report.exists() else []:
            measures = next(rule["measures"] for rule in group["rules"] if rule["algo"] == algo)
            told = [compared(measures.get(key), said) for key, said in SHOWN.items()]
            lines.append(Line("energy", f"{name}, {group['protocol']}", "measured joules", ", ".join(told), None))
    return lines


SHOWN = {"test_accuracy": "points of accuracy", "train_s": "time", "train_j": "joules"}


def compared(measure: dict[str, Any] | None, said: str) -> str:
    """Return a measure of a rule beside the baseline's, with its label where it has one."""
    if measure is None or measure["to_baseline"] is None:
        return f"{said} not compared"
    mean = measure["to_baseline"]["mean"]
    label = "".join(f" ({word})" for word in sorted({v["label"] for v in measure["values"] if "label" in v}))
    return f"{100 * mean:+.2f} {said}" if measure["compared_as"] == "difference" else f"{said} ×{mean:.2f}{label}"


def energy_study() -> ModuleType:
    """Return the energy study's own script, which knows its rows."""
    path = ROOT / "experiments" / "energy_study" / "study.py"
    spec = importlib.util.spec_from_file_location("energy_study", path)
    assert spec and spec.loader
    module = sys.modules["energy_study"] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


# cnn


def cnn(asked: Asked) -> list[CommandCell]:
    """Return the convolutional rows of the fidelity table on CIFAR-10 that a CPU cannot run, a piece for each seed."""
    in_turns = [(row, seed, seconds) for seed in range(3) for row, seconds in CNN_FIRST.items()]
    in_turns += [(row, seed, seconds) for seed in range(3) for row, seconds in CNN_REST.items()]
    more = [f"device={asked.device}", "capture=graph", "progress=false", f"out={asked.work / 'fidelity'}"]
    if asked.small:
        in_turns = in_turns[:2]
        more += ["dataset=digits", "net.channels=[4,6]", "epochs=1"]
    return [
        asked.piece(
            f"cnn-{row}-{seed}",
            asked.seconds(seconds),
            ["python", "-m", "localearn.study", "experiments/fidelity", f"only={row}", f"seeds=[{seed}]", *more],
            asked.work / "fidelity" / "runs" / f"{row}-{seed}",
            resumes=True,
            like=row,
        )
        for row, seed, seconds in in_turns
    ]


def cnn_lines(asked: Asked) -> list[Line]:
    """Return the accuracies of the rows that were run beside the published ones."""
    table = asked.work / "fidelity" / "table.json"
    if not table.exists():
        return []
    from localearn.cli.study import read_rows

    lines = []
    for row in read_rows(ROOT / "experiments" / "fidelity"):
        paths = sorted((asked.work / "fidelity" / "runs").glob(f"{row.name}-[0-9]/run.json"))
        ended = [record for record in map(read_record, paths) if record.status == "completed"]
        accuracies = [accuracy for record in ended if (accuracy := record.metric("accuracy")) is not None]
        if accuracies:
            mean = sum(accuracies) / len(accuracies)
            told = f"{100 * mean:.2f} %, {len(accuracies)} of {len(row.seeds)} seeds ({ended[0].capture})"
            published = "nothing published" if row.published is None else f"published {row.published:.2f} %"
            lines.append(Line("cnn", row.title, published, told, None))
    return lines


# what is run by name alone

LOCAL = "rules=[backprop,mono_forward]"


def bf16(asked: Asked) -> list[CommandCell]:
    """Return the bench of wide layers in bfloat16."""
    size = ["width=64", "batch=32"] if asked.small else ["width=8192", "batch=4096", "turns=3", "turn_s=0.5"]
    return [asked.bench("bf16", 60, "capture=graph", "precision=bf16", *size, LOCAL)]


def bf16_lines(asked: Asked) -> list[Line]:
    """Return the share of the device's matrix rate that wide layers reach."""
    (bench,) = benches(asked, "bf16")
    return [
        Line("bf16", f"{rule['algo']}, width {bench['width']}, bf16", "55 % of the matrix rate",
             f"{100 * rule['share_of_limit']:.0f} %", rule["share_of_limit"] >= 0.55)
        for rule in bench["rules"]
    ]  # fmt: skip


def memory(asked: Asked) -> list[CommandCell]:
    """Return the bench of a step's memory against depth."""
    width, batch, depths = (32, 64, (2, 8)) if asked.small else (1024, 4096, (4, 64))
    sizes = [f"width={width}", f"input=[{width}]", f"batch={batch}", f"depth={depths[0]}", f"depths=[{depths[1]}]"]
    return [asked.bench("depth", 60, "step=block", *sizes, LOCAL, "turns=1", "turn_s=0.5")]


def memory_lines(asked: Asked) -> list[Line]:
    """Return Mono-Forward's memory beside backprop's, and against depth."""
    shallow, deep = ({r["algo"]: r["live_bytes"] for r in bench["rules"]} for bench in benches(asked, "depth"))
    share, grown = deep["mono_forward"] / deep["backprop"], deep["mono_forward"] / shallow["mono_forward"]
    return [
        Line("memory", "Mono-Forward's peak, deep", "1/8 of backprop's", f"1/{1 / share:.0f}", share <= 1 / 8),
        Line("memory", "the same against a shallow net", "within 10 %", f"×{grown:.3f}", abs(grown - 1) <= 0.1),
    ]


def run_of_study(asked: Asked) -> list[CommandCell]:
    """Return the published study's greedy Mono-Forward run on CIFAR-10."""
    folder = asked.work / "cifar10"
    data = ["dataset=cifar10", "dataset.augment=crop_flip", "net=mlp_3x2000", "epochs=15"]
    small = ["dataset=digits", "net.widths=[24]", "epochs=1"]
    command = [
        "python", "-m", "localearn.run", "algo=mono_forward", "algo.schedule=greedy", *(small if asked.small else data),
        "batch_size=128", "capture=graph", f"device={asked.device}", "progress=false", f"out={folder}",
    ]  # fmt: skip
    return [asked.piece("study", asked.seconds(60), command, folder)]


def run_of_study_lines(asked: Asked) -> list[Line]:
    """Return the run's seconds and accuracy."""
    record = read_record(asked.work / "cifar10")
    accuracy = record.metric("accuracy")
    accurate = "no accuracy" if accuracy is None else f"{100 * accuracy:.2f} %"
    told = f"{record.train_s:.1f} s, {accurate} ({record.capture})"
    what = f"greedy Mono-Forward on {record.dataset}, {record.passes:.0f} passes"
    return [Line("study", what, "under 15 s (published: 178 s)", told, record.train_s < 15)]


def meter(asked: Asked) -> list[CommandCell]:
    """Return the meter's own checks."""
    folder = asked.work / "meter"
    command = ["python", "-m", "localearn.energy.check", f"device={asked.device}", f"out={folder}"]
    return [asked.piece("meter", 90, command, folder, done_with=(0, 1))]


def meter_lines(asked: Asked) -> list[Line]:
    """Return the verdicts of the checks."""
    found = json.loads((asked.work / "meter" / "meter.json").read_text())
    counts = {s: sum(check["verdict"] == s for check in found["checks"]) for s in ("passed", "failed", "not run")}
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return [Line("meter", "python -m localearn.energy.check", "none fails", told, counts["failed"] == 0)]


PARTS = {
    "tests": Part(tests, tests_lines, "the tests that need a card"),
    "steps": Part(steps, steps_lines, "every rule's captured step and joules, MLP 3x2000"),
    "energy": Part(energy, energy_lines, "MNIST and Fashion-MNIST rows of the energy study"),
    "cnn": Part(cnn, cnn_lines, "convolutional rows of the fidelity table"),
    "bf16": Part(bf16, bf16_lines, "share of the matrix rate in bfloat16", by_name_alone=True),
    "memory": Part(memory, memory_lines, "memory of a step against depth", by_name_alone=True),
    "study": Part(run_of_study, run_of_study_lines, "the published study's run", by_name_alone=True),
    "meter": Part(meter, meter_lines, "the meter's checks", by_name_alone=True),
}


def main(arguments: list[str]) -> int:
    """Measure what fits, write and pack; return the exit status: 1 where a piece failed."""
    started_s = time.monotonic()
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    from localearn.training.runtime import select_device

    asked, only = parse(arguments)
    select_device(asked.device)  # tells a device that is not there
    for key, folder in (("work", asked.work), ("out", asked.out)):
        check_writable(key, folder)
    budget = Budget(asked.work, asked.budget_s, started_s, reserve_s=RESERVE_S)
    # Packed as each piece ends: what is lent may be gone before all are.
    grid = Grid(ended=lambda *_: pack(asked.work, asked.out, PACKED_FIRST), most_failures=FAILURES, budget=budget)
    try:
        grid.run([piece for name in PARTS if name in only for piece in PARTS[name].pieces(asked)])
    finally:  # also where this process is ended
        try:
            write(asked, budget)
        finally:
            files, left_out = pack(asked.work, asked.out, PACKED_FIRST)
    print((asked.work / "asked.md").read_text(encoding="utf-8"))
    for head, sentences in (("left", by_reason(grid.left)), ("failed", grid.failed), ("not packed", left_out)):
        print("".join(f"{head}: {sentence}\n" for sentence in sentences), end="")
    print("the same command goes on with what is left" if grid.left else "nothing is left")
    print(f"{len(files)} files in {asked.out}; {time.monotonic() - started_s:.0f} s of {asked.budget_s}")
    return 1 if grid.failed else 0


@dataclass(frozen=True)
class GpuOptions(Options):
    """The options of the script."""

    only: Sequence[str] | None = option(None, "these parts alone", value="PART,PART")
    budget_s: int = option(520, "the command's own clock", range=Range(least=30))
    work: Path | None = option(None, "where the records go")
    out: Path | None = option(None, "where they are packed")
    device: str = option("cuda", "what is measured")
    small: bool = option(False, "try all of it at small sizes", value="true")


def parse(arguments: list[str]) -> tuple[Asked, list[str]]:
    """Read the command line; return it and the names of the parts."""
    options = read(GpuOptions, arguments)
    for name in options.only or ():
        choice("only", name, list(PARTS))
    work = (options.work or ROOT / "runs" / ("one_gpu_small" if options.small else "one_gpu")).absolute()
    out = (options.out or Path(f"{work}-packed")).absolute()
    if out == work or work in out.parents:
        raise UserError(f"out={out} lies in work={work}, whose files are packed there; give another")
    usual = [name for name, part in PARTS.items() if not part.by_name_alone]
    return Asked(work, out, options.device, options.small, options.budget_s), list(options.only or usual)


def by_reason(sentences: list[str]) -> list[str]:
    """Return a sentence for each reason, with the names of all that it holds for."""
    names: dict[str, list[str]] = {}
    for sentence in sentences:
        name, _, reason = sentence.partition(": ")
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(those)}: {reason}" for reason, those in names.items()]


def check_writable(key: str, folder: Path) -> None:
    """Make a folder; raise UserError where nothing can be written there, before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{key}={folder} cannot be written to: {error.strerror or error}") from error


def benches(asked: Asked, folder: str) -> list[dict[str, Any]]:
    """Return what a bench has found, size by size."""
    return json.loads((asked.work / folder / "bench.json").read_text())["benches"]


def write(asked: Asked, budget: Budget) -> None:
    """Write asked.md and asked.json from the records of this call and of earlier ones."""
    import torch

    from localearn.training.runtime import describe_device

    lines = []
    for name, part in PARTS.items():
        # Where the pieces of a part are each gone on with, so each has lines as soon as it has its own record.
        done = all(piece.resumes or budget.done(piece) for piece in part.pieces(asked))
        lines += (part.lines(asked) if done else []) or [Line(name, part.what, "–", None, None)]
    machine = describe_device(torch.device(asked.device))
    marks = dict.fromkeys((True, False, None), "–") if asked.small else {True: "met", False: "short", None: "–"}
    table = [f"| {line.what} | {line.asked} | {line.measured or 'not run'} | {marks[line.met]} |" for line in lines]
    size = " Small sizes, which try the command and say nothing of a device." if asked.small else ""
    page = [
        "# Asked of one GPU, and measured", "", f"{machine['name']}, torch {torch.__version__}.{size}", "",
        "| what | asked | measured | |", "|---|---|---|---|", *table,
    ]  # fmt: skip
    replace_text(asked.work / "asked.md", "\n".join(page) + "\n")
    record = {
        "machine": machine,
        "torch": torch.__version__,
        "small": asked.small,
        "pieces": budget.state,
        "lines": [asdict(line) for line in lines],
    }
    replace_text(asked.work / "asked.json", json.dumps(record, indent=1) + "\n")


def interrupted(signum: int, _: Any) -> None:
    """End as on Ctrl-C: what runs is ended, what is there is packed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    sys.exit(run_command(main))
