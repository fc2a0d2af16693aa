"""What stops a run, and a made-up source of energy."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from localearn.energy import Counter, Mark, Meter
from localearn.training.folder import RunFolder
from localearn.training.update import Update


class Killed(BaseException):
    """Stands in for SIGKILL: nothing that ran after it may count."""


@pytest.fixture
def strike(monkeypatch):
    """Make a signal come, or a stand-in for SIGKILL strike, once, after so many steps."""

    def arm(step: int, how: signal.Signals | type[Killed]) -> None:
        taken = 0
        original = Update.__call__

        def counted(self: Update, *arguments: Any) -> Any:
            nonlocal taken
            metrics = original(self, *arguments)
            taken += 1
            if taken == step:
                monkeypatch.setattr(Update, "__call__", original)
                _strike(how, monkeypatch)
            return metrics

        monkeypatch.setattr(Update, "__call__", counted)

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


@pytest.fixture
def killed():
    """Give the stand-in for SIGKILL to tests."""
    return Killed
