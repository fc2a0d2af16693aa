"""`python -m localearn.energy.check`: check the energy meter on this machine."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, Range, option, read
from localearn.cli.pages import help_status
from localearn.energy.codecarbon import CpuEstimate, ProcessModel
from localearn.energy.nvml import NvmlCounter, torch_uuid
from localearn.energy.rapl import RaplCounter
from localearn.energy.selftest import Bench, Outcome, not_run, run_checks
from localearn.energy.selftest_load import MatrixLoad, loaded_by_another
from localearn.energy.selftest_page import PLOT, page, plot
from localearn.energy.sources import AbsentError, Clock, Counter
from localearn.errors import UserError
from localearn.files import replace_bytes, replace_text
from localearn.printing import say


@dataclass(frozen=True)
class CheckOptions(Options):
    """The options of a check of the meter."""

    out: Path = option(Path("results/meter"), "where to write; only files of earlier checks are replaced", folder=True)
    device: str = option(
        "auto",
        "torch's current GPU where there is one; cuda:1, another one; cpu leaves the GPU out",
    )
    seconds: float = option(
        10.0,
        "of each window; a GPU's must be longer than 50 of its update periods (about 5 s)",
        value="10",
        range=Range(above=0, unit="seconds"),
    )


COMMAND = Command(
    "check-meter",
    SUMMARIES["check-meter"],
    CheckOptions,
    """\
Checks the meter on this machine: its joules against integrated power, equal windows against each other, watts by known
loads, and its flags. Takes about ten times `seconds` on a GPU and on the CPU together; leave the machine alone.
Writes OUT/meter.json, meter.md and, where power was read, power.png. Exit status: 1 if a check failed.
""",
    bare=True,
)

_Checked = tuple[list[Outcome], Bench | None]


def cuda_devices() -> int:
    """Return the number of CUDA devices that torch finds."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_cpu(seconds: float) -> _Checked:
    """Check the source of the CPU's energy, RAPL or else the estimate.

    Args:
        seconds: The length of a window, in seconds.

    """
    clock = Clock()
    counter: Counter = RaplCounter("cpu", clock=clock)
    try:
        counter.open()
        counter.close()
    except AbsentError:
        counter = CpuEstimate(ProcessModel())
    device = torch.device("cpu")
    bench = Bench(device, counter, MatrixLoad(device), clock)
    return run_checks(bench, None, seconds), bench


def main(
    arguments: Sequence[str],
    cpu: Callable[[float], _Checked] = check_cpu,
    cards: Callable[[], int] = cuda_devices,
) -> int:
    """Check the meter and write the results; return the exit status: 0, or 1 if a check failed.

    Args:
        arguments: Those of the command line.
        cpu: Checks the CPU's source, given the seconds of a window.
        cards: Counts the CUDA devices of this machine.

    """
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(CheckOptions, arguments)
    device, why_none = card(options.device, cards())
    seconds, out = options.seconds, options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be made: {error.strerror}") from error
    summary = {
        "command": " ".join(["python -m localearn.energy.check", *arguments]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "machine": machine(),
    }
    outcomes, benches = [], []
    for part, run in (("gpu", partial(_check_card, device, why_none)), ("cpu", cpu)):
        print(f"{part}: measuring", flush=True)
        found, bench = run(seconds)
        outcomes += found
        benches += [bench] if bench else []
        for outcome in found:
            print(f"  {outcome.check}: {outcome.verdict}{outcome.reason and f' ({outcome.reason})'}")
    write(out, summary, outcomes, benches)
    say(out / "meter.md")
    return int(any(outcome.verdict == "failed" for outcome in outcomes))


def card(name: str, count: int) -> tuple[torch.device | None, str]:
    """Return the GPU to check, or None and the reason why there is none.

    Args:
        name: The device's name, as typed.
        count: The number of GPUs.

    Raises:
        UserError: For one that is not available.

    """
    if name == "cpu":
        return None, "device=cpu leaves the card out"
    if name == "auto":
        return (torch.device("cuda", torch.cuda.current_device()), "") if count else (None, "no GPU")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdecimal() or (not index and ":" not in name)):
        raise UserError(f"device is auto, cuda (or cuda:1) or cpu, not {name!r}")
    if int(index or 0) >= count:
        raise UserError(f"device={name} is not there: torch sees {count} CUDA devices; leave device= out")
    return torch.device("cuda", int(index or 0)), ""


def machine() -> dict[str, Any]:
    """Return what the figures depend on: machine, load, versions."""
    found = {}
    for package in ("localearn", "torch", "nvidia-ml-py", "codecarbon"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "system": platform.platform(),
        "logical CPUs": os.cpu_count(),
        "threads of the CPU's load": torch.get_num_threads(),
        "processes that ran or waited in the minute before": round(os.getloadavg()[0], 2)
        if hasattr(os, "getloadavg")
        else None,
        "python": platform.python_version(),
        "versions": found,
    }


def write(out: Path, summary: dict[str, Any], outcomes: Sequence[Outcome], benches: Sequence[Bench]) -> None:
    """Write meter.json, meter.md and, where power was read, the plot.

    Args:
        out: The folder.
        summary: The command, when it started, its options and the machine.
        outcomes: The result of each check.
        benches: The measurements behind them.

    """
    sources = {}
    for bench in benches:
        counter = bench.counter
        if bench.conditions:
            summary["machine"] |= {name: bench.conditions[name] for name in ("card", "driver")}
        sources[counter.part] = {"source": counter.source, "label": counter.label, "note": counter.note}
        sources[counter.part] |= {"period_s": counter.period_s, "conditions": bench.conditions}
    record = {"schema": 1, **summary, "sources": sources, "checks": [outcome.plain() for outcome in outcomes]}
    replace_text(out / "meter.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    replace_text(out / "meter.md", page(summary, outcomes, benches))
    (out / PLOT).unlink(missing_ok=True)
    for bench in benches:
        if bench.trace:
            replace_bytes(out / PLOT, plot(bench))


def _check_card(device: torch.device | None, why_none: str, seconds: float) -> _Checked:
    if device is None:
        return not_run("gpu", why_none), None
    clock = Clock()
    try:
        counter = NvmlCounter(torch_uuid(device), clock=clock)
    except AbsentError as reason:
        return not_run("gpu", str(reason)), None
    bench = Bench(device, counter, MatrixLoad(device), clock)
    return run_checks(bench, partial(loaded_by_another, str(device)), seconds), bench
