"""Grids of cells: what is done is skipped, what fails is collected, what is interrupted is gone on with."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from localearn.errors import UserError
from localearn.grid import GRACE_S, REFUSED, Budget, Cell, CommandCell, Grid, Outcome, RunCell, _end
from localearn.jobs import Job
from localearn.records import read_record
from localearn.records.folder import locked
from tests.marks import posix

SOON_S, RESERVE_S = 60.0, 20.0
SMALL = [
    "algo=mono_forward", "dataset=digits", "dataset.train_size=100", "net.widths=[4]", "epochs=1", "progress=false",
    "energy.enabled=false",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Told(Cell):
    """A cell that ends as it was told, and notes that it was run."""

    outcome: Outcome | UserError = field(default_factory=lambda: Outcome(0, done=True))
    ran: list[str] = field(default_factory=list)

    def run(self, deadline_s: float = 0.0, grace_s: float = 0.0) -> Outcome:
        self.ran.append(self.name)
        if isinstance(self.outcome, UserError):
            raise self.outcome
        return self.outcome


def cells_of(*outcomes: Outcome | UserError | None) -> tuple[list[Told], list[str]]:
    """Return cells a, b, ... that end so, None as they should, and the names of those that were run."""
    ran: list[str] = []
    made = [Outcome(0, done=True) if outcome is None else outcome for outcome in outcomes]
    return [Told(name=chr(97 + k), group="row", outcome=one, ran=ran) for k, one in enumerate(made)], ran


def test_what_is_done_is_skipped_and_what_fails_is_collected_while_the_rest_goes_on(capsys):
    cells, ran = cells_of(None, Outcome(3, error="diverged"), None, None)
    ended = []
    grid = Grid(done=lambda cell: cell.name == "c", ended=lambda cell, outcome: ended.append((cell.name, outcome)))
    assert grid.run(cells) == 3
    assert ran == ["a", "b", "d"] == [name for name, _ in ended] == capsys.readouterr().out.split()
    assert grid.failed == ["b: diverged"] and not grid.left
    assert [outcome.status for _, outcome in ended] == [0, 3, 0]


def test_nothing_is_begun_after_an_interruption():
    cells, ran = cells_of(None, Outcome(130, interrupted=True), None)
    ended = []
    assert Grid(ended=lambda cell, _: ended.append(cell.name)).run(cells) == 130
    assert (ran, ended) == (["a", "b"], ["a"])


def test_an_error_ends_the_grid_unless_it_carries_on(capsys):
    cells, ran = cells_of(UserError("no such data"), None)
    with pytest.raises(UserError, match="no such data"):
        Grid().run(cells)
    assert ran == ["a"]
    grid = Grid(carry_on=True)
    assert grid.run(cells) == REFUSED == 2
    assert ran == ["a", "a", "b"] and grid.failed == ["a: no such data"]
    assert capsys.readouterr().err == "error: no such data\n"


def test_a_group_that_fails_so_often_is_left_for_the_others():
    cells, ran = cells_of(Outcome(1, error="status 1"), None, None)
    (other,), _ = cells_of(None)
    grid = Grid(most_failures=1)
    assert grid.run([*cells, other]) == 1
    assert ran == ["a"] and grid.left == [f"{name}: 1 piece of row failed" for name in ("b", "c", "a")]
    assert Grid(most_failures=1).run([Told(name="z", group="another row")]) == 0


@pytest.fixture
def run_cell(tmp_path):
    """Small runs by their names, in folders of their own."""

    def made(name: str, *more: str, **options: Any) -> RunCell:
        return RunCell(name=name, job=Job(tmp_path / "runs" / name, [*SMALL, *more]), **options)

    return made


def test_rows_are_run_seed_by_seed_a_diverged_one_is_told_and_records_alone_stay(run_cell, capsys):
    cells = [run_cell(f"row-{seed}", f"seed={seed}") for seed in (3, 4)]
    cells.insert(1, run_cell("lost-0", "optim=sgd", "optim.lr=1e30", "clip_norm=null"))
    grid = Grid(share=True)
    assert grid.run(cells) == 3
    assert [read_record(cell.job.folder).seed for cell in (cells[0], cells[2])] == [3, 4]
    assert grid.failed == [f"lost-0: status 3 ({cells[1].job.folder})"] and all(cell.finished for cell in cells)
    there = {path.name for path in cells[0].job.folder.iterdir()}
    assert there == {"config.yaml", "metrics.jsonl", "run.json"}
    assert sorted(path.name for path in cells[0].job.folder.parent.iterdir()) == ["lost-0", "row-3", "row-4"]
    capsys.readouterr()
    assert Grid(share=True).run(cells) == 0, "nothing is left to do"
    assert capsys.readouterr().out.count(" already; reused") == 3


def test_weights_stay_where_they_are_wanted(run_cell):
    cell = run_cell("row-0", keep_weights=True)
    assert Grid().run([cell]) == 0
    assert (cell.job.folder / "net.safetensors").exists() and (cell.job.folder / "checkpoint.pt").exists()


@posix
def test_a_run_that_another_process_is_at_comes_last_and_is_waited_for(run_cell, capsys):
    cells = [run_cell("one"), run_cell("two")]
    with contextlib.ExitStack() as other:
        folder = cells[0].job.folder
        folder.parent.mkdir()
        other.enter_context(locked(folder.with_name(".one.lock"), wait=False))

        def ended(cell, outcome):
            if cell.name == "two":
                assert not folder.exists()
                other.close()

        assert Grid(share=True, ended=ended).run(cells) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "mono_forward" not in line]
    assert said == ["one: another process is at it", "two", "one"]


@pytest.fixture
def piece(tmp_path):
    """Commands of a line of Python, each with a folder of its own."""

    def made(name, code, expected_s=1.0, **more):
        target = tmp_path / name
        code = f"import pathlib, sys, time; target = pathlib.Path({str(target)!r}); target.mkdir(exist_ok=True)\n{code}"
        log = tmp_path / "logs" / f"{name}.txt"
        return CommandCell(
            name=name, group=name.partition("-")[0], command=["python", "-c", code], target=target, log=log,
            expected_s=expected_s, **more,
        )  # fmt: skip

    return made


@dataclass
class Call:
    """What one call of a grid with a budget found."""

    left: list[str]
    failed: list[str]
    state: dict[str, Any]


def worked(work, pieces, seconds=SOON_S, spent_s=0.0, grace_s=GRACE_S):
    """Return what a call finds that has so many seconds for its pieces, some of them spent."""
    budget = Budget(work, seconds + RESERVE_S, time.monotonic() - spent_s, reserve_s=RESERVE_S, grace_s=grace_s)
    grid = Grid(budget=budget, most_failures=2)
    grid.run(pieces)
    return Call(grid.left, grid.failed, budget.state)


def test_what_would_not_fit_is_named_and_left_and_a_smaller_one_is_run(piece, tmp_path):
    pieces = [piece("first", "pass", 1), piece("long", "pass", 45), piece("longer", "pass", 600), piece("last", "")]
    made = worked(tmp_path, pieces, spent_s=20)
    assert {name: found["status"] for name, found in made.state.items()} == {"first": "done", "last": "done"}
    assert made.left[0].startswith("long: expected 45 s, ") and made.left[0].endswith("s were left")
    assert made.left[1] == f"longer: expected 600 s, needs budget_s={600 + RESERVE_S:.0f}"
    ran = worked(tmp_path, pieces)
    assert set(ran.state) == {"first", "long", "last"} and len(ran.left) == 1, "the next call has the time for it"


@pytest.mark.slow
def test_the_clock_ends_what_runs_and_the_same_command_goes_on(piece, tmp_path):
    code = """
import signal
def end(*_):
    (target / "checkpoint").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
if (target / "checkpoint").exists():
    sys.exit(0)
(target / "begun").touch()
time.sleep(100)
"""
    begin_s = time.monotonic()
    made = worked(tmp_path, [piece("training", code, 0.5, resumes=True)], 2.0)
    assert time.monotonic() - begin_s < 2.0 + GRACE_S
    assert made.state["training"]["status"] == "stopped" and made.state["training"]["seconds"] >= 2
    assert made.left == ["training: ended by the clock, goes on by the same command"] and not made.failed
    again = worked(tmp_path, [piece("training", code, 0.5, resumes=True)])
    assert again.state["training"]["status"] == "done" and (tmp_path / "training" / "begun").exists()
    assert again.state["training"]["seconds"] >= made.state["training"]["seconds"], "those of both calls"


def test_a_piece_that_does_not_go_on_is_measured_anew(piece, tmp_path):
    code = """
assert not (target / "half").exists()
(target / "half").touch()
time.sleep(float((target / "../s").read_text()))
"""
    (tmp_path / "s").write_text("100")
    made = worked(tmp_path, [piece("bench", code, 0.5)], 1.0)
    assert made.left == ["bench: ended by the clock, is measured again by the same command"]
    (tmp_path / "s").write_text("0")
    assert worked(tmp_path, [piece("bench", code, 0.5)]).state["bench"]["status"] == "done"


@pytest.mark.slow
def test_one_that_ignores_the_signal_is_ended_with_what_it_started(piece, tmp_path):
    code = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    while True:
        (target / "alive").write_text(str(time.monotonic()))
        time.sleep(0.02)
time.sleep(100)
"""
    worked(tmp_path, [piece("stubborn", code, 0.5)], 2.0, grace_s=0.2)
    last = (tmp_path / "stubborn" / "alive").read_text()
    time.sleep(0.2)
    assert (tmp_path / "stubborn" / "alive").read_text() == last


def test_a_failure_is_told_the_next_is_run_and_it_is_tried_again(piece, tmp_path):
    pieces = [
        piece("broken", "sys.exit('error: no such data\\nmore of it')"),
        piece("tests", "sys.exit(1)", done_with=(0, 1)),
    ]
    made = worked(tmp_path, pieces)
    assert len(made.failed) == 1 and made.failed[0].startswith("broken: status 1, error: no such data (")
    assert made.state["tests"]["status"] == "done"
    assert len(worked(tmp_path, pieces).failed) == 1


def test_a_part_that_fails_twice_is_left_for_the_others(piece, tmp_path):
    pieces = [piece(f"cnn-{number}", "sys.exit(2)") for number in range(4)]
    made = worked(tmp_path, [*pieces, piece("bench", "pass")])
    assert len(made.failed) == 2 and made.state["bench"]["status"] == "done"
    assert made.left == [f"cnn-{number}: 2 pieces of cnn failed" for number in (2, 3)]


@pytest.mark.slow
def test_what_was_interrupted_with_the_command_goes_on(piece, tmp_path):
    code = """
import os, signal
if not (target / "checkpoint").exists():
    (target / "checkpoint").touch()
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(100)
"""
    training = piece("training", code, resumes=True)
    with pytest.raises(KeyboardInterrupt):
        worked(tmp_path, [training])
    assert json.loads((tmp_path / "state.json").read_text())["training"]["status"] == "stopped"
    assert worked(tmp_path, [training]).state["training"]["status"] == "done"


def test_records_that_are_gone_are_measured_again(piece, tmp_path):
    one = piece("one", "pass")
    worked(tmp_path, [one])
    one.target.rmdir()
    assert not Budget(tmp_path, SOON_S, 0.0).done(one)
    worked(tmp_path, [one])
    assert Budget(tmp_path, SOON_S, 0.0).done(one)


def test_what_was_measured_tells_what_is_expected(piece, tmp_path):
    found = {
        "row-0": {"status": "done", "seconds": 40.0, "exit": 0, "like": "row"},
        "row-1": {"status": "stopped", "seconds": 30.0, "exit": None, "like": "row"},
        "bench": {"status": "stopped", "seconds": 30.0, "exit": None, "like": ""},
    }
    (tmp_path / "state.json").write_text(json.dumps(found))
    made = Budget(tmp_path, SOON_S, time.monotonic())
    assert made.expected_s(piece("row-1", "", 90, resumes=True, like="row")) == pytest.approx(1.1 * 40 - 30)
    assert made.expected_s(piece("row-2", "", 90, resumes=True, like="row")) == pytest.approx(1.1 * 40)
    assert made.expected_s(piece("bench", "", 90)) == 90, "which begins anew"
    assert made.expected_s(piece("other", "", 90)) == 90


@posix
@pytest.mark.slow
def test_sigterm_ends_the_command_with_the_grid(tmp_path):
    """Its session is its own, so nothing else would end it."""
    (tmp_path / "program.py").write_text(f"""
from localearn.grid import CommandCell, Grid
code = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(100)"
Grid().run([CommandCell(name="long", command=["python", "-c", code], folder={str(tmp_path)!r})])
""")
    program = subprocess.Popen([sys.executable, tmp_path / "program.py"], stderr=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(signal.SIGTERM)
    assert program.wait(GRACE_S) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@posix
def test_a_second_interruption_ends_what_ignores_the_first():
    waited = []

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            waited.append(timeout)
            if len(waited) == 1:
                raise KeyboardInterrupt
            return super().wait(timeout)

    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(100)"
    process = Process([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline()
    with process.stdout, pytest.raises(KeyboardInterrupt):
        _end(process, GRACE_S)
    assert process.returncode == -signal.SIGKILL


def test_a_command_without_a_log_says_its_status_alone(tmp_path):
    grid = Grid()
    cell = CommandCell(name="broken", command=["python", "-c", "raise SystemExit(7)"], folder=tmp_path)
    assert grid.run([cell]) == 7 and grid.failed == ["broken: status 7"]


@pytest.mark.parametrize("state", ['{"a": 3}', '{"a": {"status": "done"}}'])
def test_a_state_of_another_shape_is_an_error(tmp_path: Path, state: str):
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(UserError, match=r"state\.json is no state of a grid; remove it to measure everything again"):
        Budget(tmp_path, 60, 0.0)


def test_an_unreadable_state_is_an_error(tmp_path: Path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json cannot be read .*; remove it to measure everything again"):
        Budget(tmp_path, 60, 0.0)
