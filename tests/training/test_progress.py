"""What a person, a log or TensorBoard sees of a run."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import localearn
from localearn.training import Context, Settings
from localearn.training.callbacks import Position
from localearn.training.progress import Bar, Lines, make_progress

TINY = ("dataset.train_size=60", "net.widths=[8]", "epochs=3", "energy.enabled=false")
LINE = {
    "stage": 0,
    "epoch": 1,
    "passes": 1.0,
    "train_loss": 0.51234,
    "val_loss": 0.5,
    "val_accuracy": 0.875,
    "lr": 0.1,
    "train_s": 2.0,
    "train_j": 1234.5,
    "samples_per_s": 10000.0,
}


def context(name: str, epochs: int, batches: int, done: int = 0) -> Context:
    data = localearn.load("karate")
    trainer = localearn.Backprop(localearn.GNN(data.input_shape, data.classes, widths=[2]))
    phases, position = [trainer.descent(name, ())], Position(epoch=done)
    return Context(trainer, Settings(), data, phases, position, epochs=epochs, batches=batches)


def tell(shown: Lines | Bar, run: Context, **changed: object) -> None:
    run.history.append(LINE | changed)
    shown.epoch_ended(run)


def test_lines_tell_loss_accuracy_samples_joules_and_time_left(capsys):
    lines = Lines()
    run = context("all", epochs=3, batches=2)
    lines.phase_started(run)
    tell(lines, run)
    tell(lines, run, epoch=2)  # within the second: not shown
    tell(lines, run, epoch=3, train_j=None)
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"all  epoch 1/3  loss 0.5123  val 87.50 %  10,000 samples/s  1,234.5 J  0:0\d left", first)
    assert last == "all  epoch 3/3  loss 0.5123  val 87.50 %  10,000 samples/s  done"


def test_lines_reckon_time_left_from_what_was_done_here(capsys):
    lines = Lines(now=iter([100.0, 110.0]).__next__)
    run = context("all", epochs=10, batches=1, done=8)  # resumed: 8 epochs were done by an earlier part
    lines.phase_started(run)
    tell(lines, run, epoch=9)
    assert "0:10 left" in capsys.readouterr().out


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Make standard output a pseudo-terminal; what came out of it is in the list afterwards."""
    pty: Any = pytest.importorskip("pty")
    master, slave = pty.openpty()
    shown: list[bytes] = []

    def drain() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                shown.append(os.read(master, 4096))

    reader = threading.Thread(target=drain)
    reader.start()
    with monkeypatch.context() as patched, os.fdopen(slave, "w") as screen:
        patched.setattr("sys.stdout", screen)
        patched.setenv("TERM", "xterm")
        patched.setenv("COLUMNS", "120")
        yield shown
    reader.join(10)
    os.close(master)


def test_a_terminal_gets_a_bar(monkeypatch):
    with terminal(monkeypatch) as shown:
        bar = make_progress()
        assert isinstance(bar, Bar)
        run = context("block 1", epochs=2, batches=3)
        bar.phase_started(run)
        for _ in range(3):
            bar.step_ended(run)
        tell(bar, run)
        run = context("block 2", epochs=2, batches=3, done=1)
        bar.phase_started(run)
        bar.run_ended(run)
        bar.run_ended(run)
    text = b"".join(shown).decode()
    for words in ("block 1", "block 2", "1/2", "3/6", "loss 0.5123", "87.50 %", "10,000 samples/s", "1,234.5 J"):
        assert words in text


def test_a_stage_is_called_what_its_rule_calls_it(monkeypatch, capsys):
    name = "[red]a\x1b[31m\nb"
    with terminal(monkeypatch) as shown:
        bar = make_progress()
        run = context(name, epochs=1, batches=1)
        bar.phase_started(run)
        bar.run_ended(run)
    assert rb"[red]a\x1b[31m\nb" in b"".join(shown)
    lines = Lines()
    lines.phase_started(run)
    tell(lines, run)
    assert capsys.readouterr().out.startswith(r"[red]a\x1b[31m\nb  epoch 1/1")


def test_a_bar_that_never_started_can_be_closed(monkeypatch):
    with terminal(monkeypatch):
        make_progress().run_ended(context("all", epochs=1, batches=1))


def test_what_is_no_terminal_gets_lines_and_silence_is_silent(door):
    assert isinstance(make_progress(), Lines)
    assert "epoch 3/3" in door(*TINY, "progress=true").out
    assert "epoch" not in door(*TINY, "progress=false").out
