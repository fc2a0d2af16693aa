"""What stops a run, and a made-up source of energy."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from localearn.energy import Counter, Mark, Meter, metered_by
from localearn.training.callbacks import Callback, Context, attached


class Killed(BaseException):
    """Stands in for SIGKILL: nothing that ran after it may count."""


class Striker(Callback):
    """Has a signal come once, after so many steps of the runs since it was armed, or a stand-in for SIGKILL."""

    def __init__(self) -> None:
        self.left, self.how = 0, None
        self.dead = False
        self.record: bytes | None = None

    def arm(self, step: int, how: signal.Signals | type[Killed]) -> None:
        self.left, self.how = step, how

    def run_started(self, context: Context) -> None:
        path = context.folder and context.folder / "run.json"
        self.record = path.read_bytes() if path and path.is_file() else None

    def step_ended(self, context: Context) -> None:
        self.left -= 1
        if self.left == 0 and isinstance(self.how, signal.Signals):
            os.kill(os.getpid(), self.how)
        elif self.left == 0:
            self.kill()

    def kill(self) -> NoReturn:
        self.dead = True
        raise Killed

    def run_ended(self, context: Context) -> None:
        """Take back the record: what a killed process would have done on its way out, it does not do."""
        if self.dead and context.folder:
            path = context.folder / "run.json"
            path.unlink() if self.record is None else path.write_bytes(self.record)
        self.dead = False


@pytest.fixture
def striker() -> Iterator[Striker]:
    """Attach a striker to the runs of a test."""
    striker = Striker()
    with attached(striker):
        yield striker


@pytest.fixture
def strike(striker):
    """Make a signal come, or a stand-in for SIGKILL strike, once, after so many steps."""
    return striker.arm


@pytest.fixture
def killed_at(monkeypatch, striker):
    """Make a stand-in for SIGKILL strike in a method of a class, before or after the call of that number."""

    def arm(owner: type, method: str, call: int, *, after: bool) -> None:
        calls = 0
        original = getattr(owner, method)

        def counted(self: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                striker.kill()
            result = original(self, *arguments, **options)
            if calls == call:
                striker.kill()
            return result

        monkeypatch.setattr(owner, method, counted)

    return arm


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
def wall_energy():
    """Meter a made-up CPU of 100 W in place of this machine's sources."""

    def make(device: Any, country: str | None, sources: Any, idle_s: float) -> Meter:
        return Meter(device, country, [WallCounter()] if sources == "auto" else sources, idle_s)

    with metered_by(make):
        yield


@pytest.fixture
def killed():
    """Give the stand-in for SIGKILL to tests."""
    return Killed
