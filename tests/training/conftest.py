"""A run in this process, small enough that many of them fit into a test."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import localearn
from localearn import cli, run
from localearn.energy import Counter, Mark, Meter
from localearn.training.folder import RunFolder
from localearn.training.loop import Loop

TINY = ("dataset.train_size=60", "net.widths=[12,10]", "batch_size=16", "epochs=3", "progress=false")
TIMES = ("train_s", "train_j", "samples_per_s")


@dataclass
class Ended:
    """How a run in this process ended."""

    status: int
    out: str
    err: str


class Killed(BaseException):
    """Stands in for SIGKILL: nothing that ran after it may count."""


@pytest.fixture
def door(tmp_path, monkeypatch, capsys):
    """Run `python -m localearn.run` with these arguments in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def enter(*arguments: str) -> Ended:
        status = cli.run_door(run.main, arguments)
        told = capsys.readouterr()
        return Ended(status, told.out, told.err)

    return enter


@pytest.fixture
def tiny(door):
    """Run on a few rows of the digits, without energy unless it is asked for."""

    def enter(*arguments: str) -> Ended:
        energy = () if any(a.startswith("energy.") for a in arguments) else ("energy.enabled=false",)
        return door(*TINY, *energy, *arguments)

    return enter


@pytest.fixture
def strike(monkeypatch):
    """Make a signal come, or a stand-in for SIGKILL strike, once, after so many steps."""

    def arm(step: int, how: signal.Signals | type[Killed]) -> None:
        taken = 0
        original = Loop._step

        def counted(self: Loop, *arguments: Any) -> None:
            nonlocal taken
            original(self, *arguments)
            taken += 1
            if taken == step:
                monkeypatch.setattr(Loop, "_step", original)
                _strike(how, monkeypatch)

        monkeypatch.setattr(Loop, "_step", counted)

    return arm


@pytest.fixture
def killed_at(monkeypatch):
    """Make a stand-in for SIGKILL strike in a method of a class, before or after the call of that number."""

    def arm(owner: type, method: str, call: int, *, after: bool) -> None:
        calls = 0
        original = getattr(owner, method)

        def counted(self: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                monkeypatch.setattr(owner, method, original)
                _strike(Killed, monkeypatch)
            result = original(self, *arguments, **options)
            if calls == call:
                monkeypatch.setattr(owner, method, original)
                _strike(Killed, monkeypatch)
            return result

        monkeypatch.setattr(owner, method, counted)

    return arm


def _strike(how: signal.Signals | type[Killed], monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(how, signal.Signals):
        os.kill(os.getpid(), how)
        return
    # What a killed process would have done on its way out, it does not do.
    original = RunFolder.write_text

    def not_any_more(self: RunFolder, path: Path, text: str) -> None:
        monkeypatch.setattr(RunFolder, "write_text", original)

    monkeypatch.setattr(RunFolder, "write_text", not_any_more)
    raise Killed


class WallCounter(Counter):
    """A CPU of 100 W: joules that are a hundredfold of the seconds."""

    part = "cpu"
    source = "wall"
    label = "measured"
    note = ""
    period_s = 1e-6
    includes_idle = False

    def open(self) -> None:
        pass

    def read(self) -> Mark:
        return Mark(time.perf_counter())

    def joules(self, begin: Mark, end: Mark) -> float:
        return 100 * (end.value - begin.value)

    def close(self) -> None:
        pass


@pytest.fixture
def wall_energy(monkeypatch):
    """Meter a made-up CPU of 100 W in place of this machine's sources."""
    original = Meter.__init__

    def init(self: Meter, device: Any, country: str | None = None, sources: Any = "auto", idle_s: float = 0.0) -> None:
        original(self, device, country, [WallCounter()] if sources == "auto" else sources, idle_s)

    monkeypatch.setattr(Meter, "__init__", init)


def record_of(folder: Path | str) -> dict[str, Any]:
    """Return a run's record, which must be JSON in the strict sense."""
    return json.loads((Path(folder) / "run.json").read_text(), parse_constant=pytest.fail)


def history_of(folder: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    text = (Path(folder) / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the history without what is another each time."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in history]


def net_of(folder: Path | str) -> bytes:
    """Return the trained net's file."""
    return (Path(folder) / "net.safetensors").read_bytes()


@pytest.fixture
def read():
    """Give the readers of a run's files to tests, which cannot import this module."""

    class Readers:
        record = staticmethod(record_of)
        history = staticmethod(history_of)
        timeless = staticmethod(timeless)
        net = staticmethod(net_of)

    return Readers


@pytest.fixture
def process(tmp_path):
    """Start `python -m localearn.run` with these arguments as a process of its own, in the test's folder."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        root = str(Path(localearn.__file__).parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-m", "localearn.run", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def killed():
    """Give the stand-in for SIGKILL to tests."""
    return Killed
