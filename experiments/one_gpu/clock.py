"""Commands in order, run by a clock: what does not fit is left, what still runs is ended, what is done stays done."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.records import RunFolder

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 10.0  # for a process that is ended, in which training saves its checkpoint
RESERVE_S = GRACE_S + 10.0  # and the packing
FILES, FILE_BYTES = 4, 16 * 2**20  # 64 MiB in all
FAILURES = 2  # of a part, after which its other pieces are left: where no data are, say, each would fail
WEIGHTS = (".pt", ".safetensors")


@dataclass(frozen=True)
class Piece:
    """What one command does, done or not as a whole.

    expected_s: seconds on one H200. target: what it writes; cleared before it is run anew. goes_on: the same command
    goes on with an interrupted one, which is not cleared. like: pieces of one name are expected to take equally long.
    done_with: the exit statuses that end it.
    """

    name: str
    expected_s: float
    command: list[str]
    target: Path
    goes_on: bool = False
    like: str = ""
    done_with: tuple[int, ...] = (0,)


class Clock:
    """Runs pieces until a deadline, and keeps what became of them in WORK/state.json.

    Attributes:
        state: of each piece that was begun: its status (done, stopped or failed), its seconds over all calls, its exit
            status, and what it is like.
        left, failed: what this call left and what failed in it, a sentence each.

    """

    def __init__(self, work: Path, budget_s: float, started_s: float, grace_s: float = GRACE_S) -> None:
        """Take the records' folder and the command's seconds from a time of the monotonic clock on.

        A process that is ended has `grace_s` to end by itself.

        Raises:
            UserError: state.json cannot be read.

        """
        self.work, self.budget_s = work, budget_s - RESERVE_S
        self.deadline_s = started_s + self.budget_s
        self.grace_s = grace_s
        self.left: list[str] = []
        self.failed: list[str] = []
        self._failures: Counter[str] = Counter()  # by the pieces' part, the first word of their names
        path = work / "state.json"
        try:
            self.state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}); remove it to measure everything anew") from error

    def log(self, piece: Piece) -> Path:
        """Return where a piece's output goes."""
        return self.work / "logs" / f"{piece.name}.txt"

    def done(self, piece: Piece) -> bool:
        """Return whether a piece was run to its end and its records are there."""
        return self._status(piece) == "done" and piece.target.exists()

    def expected(self, piece: Piece) -> float:
        """Return the seconds that a piece, or its rest, takes; by another one like it where that was measured."""
        alike = [s["seconds"] for s in self.state.values() if piece.like == s["like"] != "" and s["status"] == "done"]
        whole_s = 1.1 * max(alike) if alike else piece.expected_s
        if piece.goes_on and self._status(piece) == "stopped":
            # At least a quarter: what was ended took longer than expected.
            return max(whole_s - self.state[piece.name]["seconds"], whole_s / 4)
        return whole_s

    def work_through(self, pieces: Iterable[Piece]) -> None:
        """Run the pieces that are not done and that fit; a later one may fit where an earlier one does not."""
        for piece in pieces:
            if self.done(piece):
                continue
            expected_s, rest_s = self.expected(piece), self.deadline_s - time.monotonic()
            if self._failures[_part(piece)] >= FAILURES:
                self.left.append(f"{piece.name}: {FAILURES} pieces of {_part(piece)} failed")
            elif expected_s > self.budget_s:
                needed = f"needs budget_s={expected_s + RESERVE_S:.0f}"
                self.left.append(f"{piece.name}: expected {expected_s:.0f} s, {needed}")
            elif expected_s > rest_s:
                self.left.append(f"{piece.name}: expected {expected_s:.0f} s, {max(0, rest_s):.0f} s were left")
            else:
                print(f"$ {shlex.join(piece.command)}\n  expected {expected_s:.0f} s", flush=True)
                self._run(piece)

    def _run(self, piece: Piece) -> None:
        """Run a piece to its end or the deadline, and note what became of it, also where this process is ended."""
        self.log(piece).parent.mkdir(parents=True, exist_ok=True)
        before_s = 0.0
        if piece.goes_on:
            before_s = self.state.get(piece.name, {}).get("seconds", 0.0)
        elif piece.target.is_dir():
            shutil.rmtree(piece.target)
        begin_s, status = time.monotonic(), None
        try:
            with self.log(piece).open("a" if piece.goes_on else "w", encoding="utf-8") as log:
                status = run(piece.command, log, self.deadline_s, self.grace_s)
        finally:
            spent_s = time.monotonic() - begin_s + before_s
            ended = "stopped" if status is None else "done" if status in piece.done_with else "failed"
            self.state[piece.name] = {
                "status": ended,
                "seconds": round(spent_s, 1),
                "exit": status,
                "like": piece.like,
            }
            path = self.work / "state.json"
            path.with_suffix(".new").write_text(json.dumps(self.state, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".new").replace(path)
        print(f"  {ended}, {spent_s:.0f} s", flush=True)
        if ended == "stopped":
            then = "goes on" if piece.goes_on else "is measured anew"
            self.left.append(f"{piece.name}: ended by the clock, {then} by the same command")
        elif ended == "failed":
            self._failures[_part(piece)] += 1
            said = self.log(piece).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = next(
                (line for line in reversed(said) if line.startswith("error:")), said[-1] if said else "no output"
            )
            self.failed.append(f"{piece.name}: status {status}, {last} ({self.log(piece)})")

    def _status(self, piece: Piece) -> str | None:
        return self.state.get(piece.name, {}).get("status")


def _part(piece: Piece) -> str:
    return piece.name.partition("-")[0]


def run(command: Sequence[str], log: Any, deadline_s: float, grace_s: float = GRACE_S) -> int | None:
    """Run a command, `python` and its arguments; return its exit status, None where the clock ended it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that what it starts is ended with it
    )
    try:
        return process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process, grace_s)


def _end(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """End a process, by a signal on which training saves its checkpoint, then what is left of its group by force."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def pack(work: Path, out: Path, first: Sequence[str], file_bytes: int = FILE_BYTES) -> tuple[list[Path], list[str]]:
    """Pack the records flat into `out`, into files of a limited size and number.

    Args:
        work: the records' folder.
        out: where OUT/records-N.tar are written; earlier ones are removed.
        first: names in `work` in their order of worth, before all others. Weights come last, those of interrupted runs,
            which go on with them; a finished run's are not packed.
        file_bytes: of each file, at most.

    Returns:
        The files, and the names of what found no place.

    """
    for earlier in out.glob("records-[0-9].tar"):
        earlier.unlink()
    order = {name: place for place, name in enumerate(first)}
    paths = [path for path in work.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(
        (path.relative_to(work) for path in paths if path.suffix not in WEIGHTS or _goes_on(path.parent)),
        key=lambda name: (name.suffix in WEIGHTS, order.get(name.parts[0], len(order)), name.parts),
    )
    chosen: list[list[Path]] = []
    sizes: list[int] = []
    left_out = []
    for name in names:
        # Its bytes in blocks of 512, behind a header that is longer for a long name.
        size = 2048 + 512 * (1 + (work / name).stat().st_size // 512)
        place = next((number for number, held in enumerate(sizes) if held + size <= file_bytes), len(sizes))
        if place == FILES or tarfile.RECORDSIZE + size > file_bytes:
            left_out.append(str(name))
            continue
        if place == len(sizes):
            chosen.append([])
            sizes.append(tarfile.RECORDSIZE)
        chosen[place].append(name)
        sizes[place] += size
    files = [out / f"records-{number}.tar" for number in range(len(chosen))]
    for path, held in zip(files, chosen, strict=True):
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for name in held:
                archive.add(work / name, arcname=str(name))
    return files, left_out


def _goes_on(folder: Path) -> bool:
    """Return whether a run's folder is of one that was interrupted, or whose record is not written yet."""
    return RunFolder(folder).status() in ("interrupted", "unfinished")
