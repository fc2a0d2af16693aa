"""What localearn must show on one GPU: a command that measures it all, and says of each line what was asked.

    LOCALEARN_DATA=<folder with the data> python experiments/one_gpu/measure.py [only=steps,bf16,...] [out=DIR]
    python experiments/one_gpu/measure.py small=true device=cpu out=DIR     # tries the command where there is no GPU

Each part is commands of localearn's own, which are shown and run as they stand; what a part has written already is not
measured again. OUT/asked.md and asked.json hold every line: what was asked, what was measured, or `not run`.
"""

import itertools
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localearn.arguments import listed, truth
from localearn.doorway import run_door
from localearn.errors import UserError, suggestion

OWN = ("only", "out", "device", "small")
LOCAL = "rules=[backprop,mono_forward]"


@dataclass(frozen=True)
class Line:
    """One thing that was asked for. measured: None where it was not run. met: None where nothing was asked of it."""

    part: str
    what: str
    asked: str
    measured: str | None
    met: bool | None


@dataclass(frozen=True)
class Sizes:
    """What is measured at: as asked for, or small, to try the command."""

    width: int
    batch: int
    widths: tuple[int, ...]
    batches: tuple[int, ...]
    wide: tuple[int, int]  # width and batch of the bfloat16 part
    deep: tuple[int, int]
    depths: tuple[int, ...]
    dataset: str
    passes: int  # of each stage
    loop_rows: int
    turns: int
    turn_s: float


ASKED = Sizes(2000, 512, (4096, 8192), (128, 4096), (8192, 4096), (1024, 4096), (4, 64), "cifar10", 15, 50_000, 5, 0.5)
SMALL = Sizes(32, 16, (48,), (32,), (64, 32), (32, 64), (2, 8), "digits", 1, 512, 2, 0.01)


@dataclass(frozen=True)
class Asked:
    """The command line."""

    out: Path
    device: str
    sizes: Sizes

    def bench(self, part: str, *options: str, seconds: float | None = None) -> list[str]:
        """Return a bench's command. seconds: of a turn."""
        turns = [f"turns={self.sizes.turns}", f"turn_s={seconds or self.sizes.turn_s}"]
        where = [f"device={self.device}", f"out={self.out / part}"]
        return ["python", "-m", "localearn.bench", *where, *turns, *options]


def steps(asked: Asked) -> list[Line]:
    """Measure every rule's captured step beside captured backprop's."""
    run(asked, [*asked.bench("steps", *sizes_of(asked)), "forward_forward:algo.prediction=goodness"])
    lines = []
    for size, ours, theirs in pairs(asked, "steps"):
        ratio, captured = ours["ratio"]["median"], ours["captured"] == theirs["captured"] == "graph"
        told = f"{ratio:.3f}{'' if captured else ', not captured'}"
        met = captured and ratio <= 0.70
        lines.append(Line("steps", f"Mono-Forward's captured step, {size}", "0.70 of backprop's", told, met))
    return lines


def joules(asked: Asked) -> list[Line]:
    """Measure Mono-Forward's joules beside backprop's, in turns that last long enough for a card's counter."""
    run(asked, [*asked.bench("joules", *sizes_of(asked), LOCAL, seconds=12 * asked.sizes.turn_s)])
    lines = []
    for size, ours, theirs in pairs(asked, "joules"):
        each = [rule["joules_per_sample"] and rule["joules_per_sample"]["median"] for rule in (ours, theirs)]
        share = each[0] / each[1] if all(each) else None
        told, met = ("absent", None) if share is None else (f"{share:.3f}", share <= 0.70)
        lines.append(Line("joules", f"Mono-Forward's joules a sample, {size}", "0.70 of backprop's", told, met))
    return lines


def bf16(asked: Asked) -> list[Line]:
    """Measure the share of the device's matrix rate that wide layers reach."""
    width, batch = asked.sizes.wide
    run(asked, asked.bench("bf16", "capture=graph", "precision=bf16", f"width={width}", f"batch={batch}", LOCAL))
    rules = benches(asked, "bf16")[0]["rules"]
    return [
        Line("bf16", f"{rule['algo']}, width {width}, batch {batch}, bf16", "55 % of the matrix rate",
             f"{100 * rule['share_of_limit']:.0f} %", rule["share_of_limit"] >= 0.55)
        for rule in rules
    ]  # fmt: skip


def loop(asked: Asked) -> list[Line]:
    """Measure an epoch through the loop, captured and not, beside a plain one with a DataLoader, in turns."""
    target = asked.out / "loop.json"
    if not target.exists():
        target.write_text(json.dumps(loops(asked), indent=1) + "\n")
    found = json.loads(target.read_text())
    factor = found["by hand"]["median_s"] / found["captured"]["median_s"]
    return [
        Line("loop", "captured, batch 128, MLP 2x1000", "5 times as fast as an eager loop with a DataLoader",
             f"{factor:.1f} times ({found['capture']})", factor >= 5)
    ]  # fmt: skip


def memory(asked: Asked) -> list[Line]:
    """Measure Mono-Forward's tensors of a step against depth."""
    (width, batch), depths = asked.sizes.deep, asked.sizes.depths
    run(asked, asked.bench(
        "depth", "step=block", f"width={width}", f"batch={batch}", f"input=[{width}]", f"depth={depths[0]}",
        f"depths=[{join(depths)}]", LOCAL,
    ))  # fmt: skip
    held = {b["depth"]: {r["algo"]: r["live_bytes"] for r in b["rules"]} for b in benches(asked, "depth")}
    shallow, deep = held[depths[0]], held[depths[-1]]
    of_backprop = deep["mono_forward"] / deep["backprop"]
    grown = deep["mono_forward"] / shallow["mono_forward"]
    at = f"depth {depths[-1]}, width {width}, batch {batch}"
    return [
        Line(
            "memory",
            f"Mono-Forward's peak, {at}",
            "1/8 of backprop's",
            f"1/{1 / of_backprop:.0f}",
            of_backprop <= 1 / 8,
        ),
        Line("memory", f"the same against depth {depths[0]}", "within 10 %", f"×{grown:.3f}", abs(grown - 1) <= 0.1),
    ]


def maps(asked: Asked) -> list[Line]:
    """Measure a convolutional net's step in either layout; nothing was asked for, but that the layout be there."""
    net = ["net=cnn", "net.channels=[4,6]", "input=[1,8,8]"] if asked.sizes == SMALL else ["net=cnn", "input=[3,32,32]"]
    found: dict[str, dict[str, float]] = {}
    for layout, precision in itertools.product(("contiguous", "channels_last"), ("fp32", "bf16")):
        part = f"maps_{layout}_{precision}"
        more = [
            f"memory_format={layout}",
            f"precision={precision}",
            "capture=graph",
            f"batch={asked.sizes.batch}",
            LOCAL,
        ]
        run(asked, asked.bench(part, *net, *more))
        found[f"{layout} {precision}"] = {
            rule["algo"]: rule["step_s"]["median"] for rule in benches(asked, part)[0]["rules"]
        }
    return [
        Line("maps", f"{rule}'s step, {precision}", "channels last beside contiguous",
             f"×{found[f'channels_last {precision}'][rule] / found[f'contiguous {precision}'][rule]:.3f}", None)
        for precision in ("fp32", "bf16") for rule in ("backprop", "mono_forward")
    ]  # fmt: skip


def run_of_study(asked: Asked) -> list[Line]:
    """Repeat the published study's greedy Mono-Forward run."""
    s, folder = asked.sizes, asked.out / "cifar10"
    augment = ["dataset.augment=crop_flip"] if s == ASKED else []
    run(asked, [
        "python", "-m", "localearn.run", "algo=mono_forward", "algo.schedule=greedy", f"dataset={s.dataset}", *augment,
        f"epochs={s.passes}", "batch_size=128", "capture=graph", f"device={asked.device}", "progress=false",
        f"net.widths=[{join([s.width] * 3)}]", f"out={folder}",
    ], folder / "run.json")  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    (folder / "net.safetensors").unlink(missing_ok=True)
    passes = f"{record['passes']:.0f} passes over {record['train_samples']:,}"
    what = f"{s.dataset}, MLP 3x{s.width}, greedy Mono-Forward, {passes}"
    told = f"{record['train_s']:.1f} s, {100 * record['test_accuracy']:.2f} % ({record['capture']})"
    return [Line("study", what, "under 15 s (published: 178 s)", told, record["train_s"] < 15)]


def tests(asked: Asked) -> list[Line]:
    """Run the tests that need a card."""
    target = asked.out / "tests.txt"
    if not target.exists():
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        target.write_text(done.stdout[-20_000:])
    last = target.read_text().strip().splitlines()[-1]
    met = "passed" in last and "failed" not in last and "error" not in last
    return [Line("tests", "pytest -m gpu", "passes", last.strip("= "), met)]


def meter(asked: Asked) -> list[Line]:
    """Run the meter's own checks."""
    run(asked, ["python", "-m", "localearn.energy.check", f"device={asked.device}", f"out={asked.out / 'meter'}"],
        asked.out / "meter" / "meter.json", may_fail=True)  # fmt: skip
    found = json.loads((asked.out / "meter" / "meter.json").read_text())
    counts = {s: sum(check["verdict"] == s for check in found["checks"]) for s in ("passed", "failed", "not run")}
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return [Line("meter", "python -m localearn.energy.check", "none fails", told, counts["failed"] == 0)]


PARTS: dict[str, Callable[[Asked], list[Line]]] = {
    "tests": tests, "steps": steps,
    "joules": joules, "bf16": bf16, "loop": loop, "memory": memory, "study": run_of_study, "maps": maps,
    "meter": meter,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure and write; return the exit status."""
    from localearn.benching.page import writable
    from localearn.training.device import select_device

    asked, only = parse(arguments)
    select_device(asked.device)  # tells a device that is not there
    writable(asked.out)
    table: dict[str, list[Line]] = {}
    for name, part in PARTS.items():
        table[name] = part(asked) if name in only else [Line(name, (part.__doc__ or "").strip(), "", None, None)]
        write(asked, [line for lines in table.values() for line in lines])
    print((asked.out / "asked.md").read_text())
    return 0


def parse(arguments: list[str]) -> tuple[Asked, list[str]]:
    """Read the command line."""
    given = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in OWN:
            raise UserError(f"no option {argument!r}{suggestion(name, OWN)}; there are {', '.join(OWN)}, as key=value")
        given[name] = value
    only = listed(given["only"]) if "only" in given else list(PARTS)
    for name in only:
        if name not in PARTS:
            raise UserError(f"only={name}: no such part{suggestion(name, PARTS)}; there are {', '.join(PARTS)}")
    sizes = SMALL if truth("small", given.get("small", "false")) else ASKED
    out = Path(given.get("out", Path(__file__).parents[2] / "results" / "bench" / "cuda"))
    return Asked(out, given.get("device", "cuda"), sizes), only


def run(asked: Asked, command: list[str], target: Path | None = None, may_fail: bool = False) -> None:
    """Run a command unless it has been run to its end; raise UserError where it fails.

    What an interrupted one has left, of a bench the first sizes, is measured anew.
    """
    target = target or Path(next(word for word in command if word.startswith("out="))[4:]) / "bench.json"
    done = target.parent / "done"
    if done.exists():
        return
    shutil.rmtree(target.parent, ignore_errors=True)
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, *command[1:]], check=False).returncode
    if status and not (may_fail and target.exists()):
        raise UserError(f"status {status} of: {shlex.join(command)}")
    done.touch()


def sizes_of(asked: Asked) -> list[str]:
    """Return the options of the sizes that steps are measured at."""
    s = asked.sizes
    base = [f"width={s.width}", f"batch={s.batch}", "input=[784]", "capture=graph"]
    return [*base, f"widths=[{join(s.widths)}]", f"batches=[{join(s.batches)}]"]


def pairs(asked: Asked, part: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield what each size is called, and what was measured of Mono-Forward and of backprop there."""
    for bench in benches(asked, part):
        rules = {rule["algo"]: rule for rule in bench["rules"]}
        yield f"width {bench['width']}, batch {bench['batch']}", rules["mono_forward"], rules["backprop"]


def benches(asked: Asked, part: str) -> list[dict[str, Any]]:
    """Return what a bench has found, size by size."""
    return json.loads((asked.out / part / "bench.json").read_text())["benches"]


def loops(asked: Asked) -> dict[str, Any]:
    """Time epochs of backprop, captured, eager through the loop, and by hand with a DataLoader; in turns."""
    import torch

    import localearn
    from localearn.data import ArrayData

    device = torch.device(asked.device)
    images = torch.randint(0, 256, (asked.sizes.loop_rows, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (asked.sizes.loop_rows,))
    x = images.float().div_(255)
    splits: dict[Any, Any] = {"train": x, "val": x[:128], "test": x[:128]}
    truths: dict[Any, Any] = {"train": labels, "val": labels[:128], "test": labels[:128]}
    data = ArrayData("made up", splits, truths, 10)
    capture, seconds = "", {"captured": [], "eager": [], "by hand": []}
    for turn in range(asked.sizes.turns + 1):
        for name in seconds:
            torch.manual_seed(0)
            net = localearn.MLP(data.input_shape, 10, widths=(1000, 1000))
            if name == "by hand":
                spent = by_hand(net.to(device), x, labels, device)
            else:
                how = "graph" if name == "captured" else "off"
                record = localearn.Backprop(net).fit(data, epochs=3, capture=how, device=asked.device)
                capture = record.capture if name == "captured" else capture
                ends = [line["train_s"] for line in record.history]
                spent = ends[-1] - ends[-2]
            if turn:
                seconds[name].append(spent)
    found = {name: {"median_s": statistics.median(values), "all_s": values} for name, values in seconds.items()}
    return found | {"capture": f"capture={capture}"}


def by_hand(net: Any, x: Any, labels: Any, device: Any) -> float:
    """Train an epoch as most code does; return its seconds: a DataLoader, a copy to the device, and the loss read."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    rows = DataLoader(TensorDataset(x, labels), batch_size=128, shuffle=True, pin_memory=device.type == "cuda")
    spent = 0.0
    for _ in range(2):  # the first warms up
        started_s, total = time.perf_counter(), 0.0
        for inputs, targets in rows:
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
        spent = time.perf_counter() - started_s
    return spent


def write(asked: Asked, lines: list[Line]) -> None:
    """Write asked.md and asked.json."""
    import torch

    from localearn.training.device import describe_device

    machine = describe_device(torch.device(asked.device))
    marks = (
        {True: "met", False: "short", None: "–"} if asked.sizes == ASKED else dict.fromkeys((True, False, None), "–")
    )
    table = [
        f"| {line.what} | {line.asked} | {line.measured or 'not run'} | {marks[line.met]} |" for line in lines
    ]  # fmt: skip
    size = "" if asked.sizes == ASKED else " Small sizes, which try the command and say nothing of a device."
    page = [
        "# Asked of one GPU, and measured", "", f"{machine['name']}, torch {torch.__version__}.{size}", "",
        "| what | asked | measured | |", "|---|---|---|---|", *table,
    ]  # fmt: skip
    (asked.out / "asked.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    record = {
        "machine": machine,
        "torch": torch.__version__,
        "small": asked.sizes != ASKED,
        "lines": [asdict(line) for line in lines],
    }
    (asked.out / "asked.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def join(values: Any) -> str:
    """Return numbers as a list's inside."""
    return ",".join(map(str, values))


if __name__ == "__main__":
    sys.exit(run_door(main))
