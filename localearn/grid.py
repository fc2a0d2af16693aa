"""Grids: runs and commands that are done once each, in order, by one process or several, and resumed by the same call.

    cells = [RunCell(f"{row}-{seed}", job=Job(out / f"{row}-{seed}", [*words, f"seed={seed}"])) for ...]
    status = Grid().run(cells)

A `RunCell` trains in this process, a `CommandCell` runs a command in a process of its own. A `Budget` bounds the
seconds of a grid of commands: what would not fit is left, what still runs at the deadline is ended.
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.files import UnreadableError, read_json, replace_text
from localearn.jobs import Job, run_job
from localearn.printing import say
from localearn.records.folder import LockedError, RunFolder, locked

GRACE_S = 10.0  # for a command that is ended, in which training saves its checkpoint
_ENTRY = {"status", "seconds", "like"}  # of a cell in state.json
REFUSED = 2  # the exit status of a cell that raised UserError, as a command's
_ENDED_FROM_OUTSIDE = (128 + signal.SIGINT, 128 + signal.SIGTERM)


@dataclass(frozen=True)
class Outcome:
    """The end of a cell.

    Attributes:
        status: its exit status; None where the deadline ended it.
        seconds: that it took in this call.
        done: whether it ended as it should.
        interrupted: whether somebody stopped it, and with it the whole grid.
        error: the message where it failed with one.

    """

    status: int | None
    seconds: float = 0.0
    done: bool = False
    interrupted: bool = False
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One cell of a grid: what is done once.

    Args:
        name: unique in its grid.
        group: cells that fail for the same reason, as those of one row; see `Grid.most_failures`.
        title: the line that announces it.

    """

    name: str
    group: str = ""
    title: str = ""

    def announcement(self) -> str:
        """Return the line that is printed before it is run."""
        return self.title or self.name

    @abstractmethod
    def run(self, deadline_s: float = math.inf, grace_s: float = GRACE_S) -> Outcome:
        """Do it, or go on with it where it was interrupted.

        Args:
            deadline_s: the time of the monotonic clock at which a command is ended.
            grace_s: the seconds that it then has to end by itself.

        Raises:
            UserError: for what the user can mend.

        """

    @contextlib.contextmanager
    def lock(self, wait: bool) -> Iterator[None]:
        """Lock the cell against other processes of the same grid while the block runs.

        Args:
            wait: whether to wait for another holder.

        Raises:
            LockedError: where another process holds the lock and `wait` is false.

        """
        yield


@dataclass(frozen=True, kw_only=True)
class RunCell(Cell):
    """A training run in this process: run, resumed where it was interrupted, reused where it is done.

    Args:
        job: its folder and its overrides.
        config_dir: a folder of the user's own configuration files.
        keep_weights: whether a finished run's weights stay in its folder.

    """

    job: Job
    config_dir: str | None = None
    keep_weights: bool = False

    @property
    def finished(self) -> bool:
        """Whether its folder holds a finished run, whatever its configuration."""
        return RunFolder(self.job.folder).is_finished()

    def run(self, deadline_s: float = math.inf, grace_s: float = GRACE_S) -> Outcome:
        """Run the job; a signal, and not a deadline, interrupts it."""
        started_s = time.monotonic()
        status = run_job(self.job, self.config_dir)
        if not self.keep_weights:
            RunFolder(self.job.folder).drop_weights()
        seconds, interrupted = time.monotonic() - started_s, status > 128
        error = f"status {status} ({self.job.folder})" if status and not interrupted else ""
        return Outcome(status, seconds, done=not status, interrupted=interrupted, error=error)

    @contextlib.contextmanager
    def lock(self, wait: bool) -> Iterator[None]:
        """Hold the lock of a file next to the run's folder, from before it is looked at until its run is over."""
        folder = self.job.folder
        with contextlib.ExitStack() as stack:
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder.with_name(f".{folder.name}.lock"), wait=wait))
            except OSError as error:
                raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
            yield


@dataclass(frozen=True, kw_only=True)
class CommandCell(Cell):
    """A command in a process of its own, done or not as a whole.

    Args:
        command: its words; a first `python` is this process's interpreter.
        target: what it writes, a folder or file; removed before it is run again.
        resumes: whether the same command goes on with an interrupted one, whose target then stays.
        done_with: the exit statuses that end it.
        log: the file of its output; None for this process's.
        folder: where it runs, by default where this process does.
        environment: variables that are added to this process's.
        expected_s: the seconds that a budget plans for it.
        like: cells of one name are expected to take equally long.

    """

    command: list[str]
    target: Path | None = None
    resumes: bool = False
    done_with: tuple[int, ...] = (0,)
    log: Path | None = None
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    expected_s: float = 0.0
    like: str = ""

    def announcement(self) -> str:
        """Return the command as it would be typed."""
        return self.title or f"$ {shlex.join(self.command)}"

    def run(self, deadline_s: float = math.inf, grace_s: float = GRACE_S) -> Outcome:
        """Run the command until it ends, or until the deadline."""
        if not self.resumes and self.target is not None:
            shutil.rmtree(self.target) if self.target.is_dir() else self.target.unlink(missing_ok=True)
        started_s = time.monotonic()
        with contextlib.ExitStack() as opened:
            output = None
            if self.log is not None:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                output = opened.enter_context(self.log.open("a" if self.resumes else "w", encoding="utf-8"))
            opened.enter_context(_terminated_as_interrupted())
            status = self._status(output, deadline_s, grace_s)
        done = status in self.done_with
        error = "" if done or status is None else self._error(status)
        seconds = time.monotonic() - started_s
        return Outcome(status, seconds, done, interrupted=not done and status in _ENDED_FROM_OUTSIDE, error=error)

    def _status(self, output: Any, deadline_s: float, grace_s: float) -> int | None:
        """Return the exit status, 128 + the number of a signal that ended it; None where the deadline did."""
        command = [sys.executable, *self.command[1:]] if self.command[0] == "python" else self.command
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,  # so that what it starts is ended with it
        )
        try:
            status = process.wait(None if deadline_s == math.inf else max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process, grace_s)
        return 128 - status if status < 0 else status

    def _error(self, status: int) -> str:
        """Return the status with the error message that the command wrote to its log, or the last line there."""
        if self.log is None:
            return f"status {status}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        last = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1])
        return f"status {status}, {last} ({self.log})"


def _end(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """End a process, by a signal on which training saves its checkpoint, then what is left of its group by force."""
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
    finally:  # also where a second Ctrl-C ends the wait
        if hasattr(os, "killpg") and hasattr(signal, "SIGKILL"):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM, so that a command, which has a session of its own, is ended with us."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # no other thread may, and who has a handler knows what to do
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Budget:
    """The seconds that a grid of commands has in one call, and the outcomes of all calls, in FOLDER/state.json.

    A command that would not fit in what is left is left for the next call; what still runs at the deadline is ended.
    Expected seconds are the cell's own until one like it was measured.

    Args:
        folder: where state.json is.
        seconds: of this call.
        started_s: the time of the monotonic clock when it began.
        reserve_s: those of `seconds` that are kept for ending a command and for what follows the grid.
        grace_s: the seconds that an ended command has to end by itself.

    Attributes:
        state: of each cell that was begun: its status (done, stopped or failed), its seconds over all calls, its exit
            status, and what it is like.

    Raises:
        UserError: where state.json cannot be read.

    """

    def __init__(
        self, folder: Path, seconds: float, started_s: float, *, reserve_s: float = GRACE_S, grace_s: float = GRACE_S
    ) -> None:
        self.file = folder / "state.json"
        self.reserve_s, self.grace_s = reserve_s, grace_s
        self.seconds = seconds - reserve_s
        self.deadline_s = started_s + self.seconds
        try:
            self.state: dict[str, Any] = read_json(self.file) if self.file.exists() else {}
        except UnreadableError as error:
            raise UserError(
                f"{self.file} cannot be read ({error.reason}); remove it to measure everything again"
            ) from error
        if not all(isinstance(entry, dict) and entry.keys() >= _ENTRY for entry in self.state.values()):
            raise UserError(f"{self.file} is no state of a grid; remove it to measure everything again")

    def done(self, cell: CommandCell) -> bool:
        """Return whether a cell was run to its end and what it wrote is there."""
        return self._status(cell) == "done" and (cell.target is None or cell.target.exists())

    def expected_s(self, cell: CommandCell) -> float:
        """Return the seconds that a cell, or its rest, takes; by another one like it where that was measured."""
        alike = [s["seconds"] for s in self.state.values() if cell.like == s["like"] != "" and s["status"] == "done"]
        whole_s = 1.1 * max(alike) if alike else cell.expected_s
        if cell.resumes and self._status(cell) == "stopped":
            # At least a quarter: what was ended took longer than expected.
            return max(whole_s - self.state[cell.name]["seconds"], whole_s / 4)
        return whole_s

    def why_left(self, cell: CommandCell) -> str:
        """Return why a cell does not fit, empty where it does."""
        expected_s, rest_s = self.expected_s(cell), self.deadline_s - time.monotonic()
        if expected_s > self.seconds:
            return f"expected {expected_s:.0f} s, needs budget_s={expected_s + self.reserve_s:.0f}"
        return f"expected {expected_s:.0f} s, {max(0, rest_s):.0f} s were left" if expected_s > rest_s else ""

    @contextlib.contextmanager
    def noting(self, cell: CommandCell) -> Iterator[Callable[[Outcome], None]]:
        """Write a cell's outcome to state.json after the block, also where the block is interrupted.

        Yields:
            What takes the outcome.

        """
        before_s = self.state.get(cell.name, {}).get("seconds", 0.0) if cell.resumes else 0.0
        started_s, outcomes = time.monotonic(), [Outcome(None)]
        try:
            yield outcomes.append
        finally:
            status, done = outcomes[-1].status, outcomes[-1].done
            self.state[cell.name] = {
                "status": "stopped" if status is None else "done" if done else "failed",
                "seconds": round(time.monotonic() - started_s + before_s, 1),
                "exit": status,
                "like": cell.like,
            }
            replace_text(self.file, json.dumps(self.state, indent=1) + "\n")

    def _status(self, cell: CommandCell) -> str | None:
        return self.state.get(cell.name, {}).get("status")


def _nothing(cell: Cell, outcome: Outcome) -> None:
    """Do nothing at the end of a cell."""


@dataclass
class Grid:
    """Does cells one after another, each once, and collects what failed and what was left.

    Args:
        ended: is called after each cell with its outcome, as to write a table; not where it was interrupted.
        done: says of which cells nothing is left to do; by default a cell finds that out itself.
        carry_on: whether the others are done where a cell raises UserError; otherwise that ends the grid.
        share: whether other processes may do cells of the same grid at the same time: each is done by one of them, and
            those that others are at come last.
        most_failures: of a group, after which its other cells are left: without data, say, each would fail.
        budget: of a grid of commands.

    Attributes:
        failed: a sentence for each cell that failed.
        left: a sentence for each cell that was not done, or not to its end.

    """

    ended: Callable[[Any, Outcome], object] = _nothing
    done: Callable[[Any], bool] = lambda cell: False
    carry_on: bool = False
    share: bool = False
    most_failures: int | None = None
    budget: Budget | None = None
    failed: list[str] = field(default_factory=list, init=False)
    left: list[str] = field(default_factory=list, init=False)
    _failures: Counter[str] = field(default_factory=Counter, init=False)

    def run(self, cells: Iterable[Cell]) -> int:
        """Do the cells that are not done yet.

        Returns:
            The largest exit status, 0 where all went well; that of an interrupted cell, after which no other is begun.

        Raises:
            UserError: as `carry_on` says.

        """
        worst = 0
        for cell, outcome in self._outcomes(cells):
            status = outcome.status or 0
            if outcome.interrupted:
                return status
            worst = max(worst, 0 if outcome.done else status)
            self.ended(cell, outcome)
        return worst

    def _outcomes(self, cells: Iterable[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Yield each cell that was done, or tried, with its outcome; last those that other processes were at."""
        elsewhere = []
        for cell in cells:
            try:
                outcome = self._do(cell, wait=False)
            except LockedError:
                say(f"{cell.name}: another process is at it")
                elsewhere.append(cell)
                continue
            if outcome:
                yield cell, outcome
        for cell in elsewhere:
            outcome = self._do(cell, wait=True)
            if outcome:
                yield cell, outcome

    def _do(self, cell: Cell, wait: bool) -> Outcome | None:
        """Do a cell; None where it was done before, or is left."""
        if self.done(cell):
            return None
        most = self.most_failures
        if most is not None and self._failures[cell.group] >= most:
            self.left.append(f"{cell.name}: {most} {'piece' if most == 1 else 'pieces'} of {cell.group} failed")
            return None
        with cell.lock(wait) if self.share else contextlib.nullcontext():
            outcome = self._budgeted(cell) if self.budget and isinstance(cell, CommandCell) else self._plain(cell)
        if outcome and outcome.error:
            self._failures[cell.group] += 1
            self.failed.append(f"{cell.name}: {outcome.error}")
        return outcome

    def _plain(self, cell: Cell) -> Outcome:
        say(cell.announcement())
        try:
            return cell.run()
        except UserError as error:
            if not self.carry_on:
                raise
            say(f"error: {error}", error=True)
            return Outcome(REFUSED, error=str(error))

    def _budgeted(self, cell: CommandCell) -> Outcome | None:
        budget = self.budget
        assert budget is not None
        if budget.done(cell):
            return None
        why = budget.why_left(cell)
        if why:
            self.left.append(f"{cell.name}: {why}")
            return None
        say(cell.announcement())
        say(f"  expected {budget.expected_s(cell):.0f} s")
        with budget.noting(cell) as note:
            outcome = cell.run(budget.deadline_s, budget.grace_s)
            note(outcome)
        noted = budget.state[cell.name]
        say(f"  {noted['status']}, {noted['seconds']:.0f} s")
        if outcome.status is None:
            then = "goes on" if cell.resumes else "is measured again"
            self.left.append(f"{cell.name}: ended by the clock, {then} by the same command")
        return outcome
