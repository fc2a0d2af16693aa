"""What a person sees while a run goes on."""

import sys
import time
from typing import Any, Protocol

from localearn.printing import one_line, say


class Progress(Protocol):
    """Is told of every batch and epoch; it must not wait for the device."""

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Begin a stage of at most that many epochs, so many of which are done."""

    def batch(self) -> None:
        """Count a batch."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Show an epoch's metrics."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Silent:
    """Shows nothing."""

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Show nothing."""

    def batch(self) -> None:
        """Show nothing."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class Lines:
    """A line an epoch, for logs and pipes; at most one every `every_s` seconds but for a stage's first and last."""

    def __init__(self, every_s: float = 1.0):
        self.every_s = every_s
        self._shown_s = 0.0
        self._started_s = 0.0
        self._stage, self._epochs, self._done = "", 0, 0

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Remember the stage's name and length."""
        self._stage, self._epochs, self._done = stage, epochs, done
        self._shown_s, self._started_s = 0.0, time.monotonic()

    def batch(self) -> None:
        """Show nothing: a log has no use for it."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Print the epoch's line."""
        now = time.monotonic()
        last = line["epoch"] == self._epochs
        if not last and now - self._shown_s < self.every_s:
            return
        self._shown_s = now
        pace = (now - self._started_s) / max(1, line["epoch"] - self._done)
        left = f"{_clock(pace * (self._epochs - line['epoch']))} left" if not last else "done"
        say(f"{self._stage}  epoch {line['epoch']}/{self._epochs}  {describe(line)}  {left}")

    def close(self) -> None:
        """Nothing to put back."""


class Bar:
    """A rich progress bar over the stage's batches, with the latest epoch's figures and the time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # Four redraws a second: each costs about a millisecond of a core that may be training.
        self._bar = Progress(
            TextColumn("{task.fields[stage]}", style="bold", markup=False),  # which a rule may call [red]
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            refresh_per_second=4,
        )
        self._task: Any = None
        self._batches, self._epochs = 0, 0

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Begin a new bar."""
        self._batches, self._epochs = batches, epochs
        fields: dict[str, Any] = {"stage": one_line(stage), "epoch": f"{done}/{epochs}", "figures": ""}
        self._task = self._bar.add_task("", total=epochs * batches, completed=done * batches, **fields)
        self._bar.start()

    def batch(self) -> None:
        """Move the bar by a batch."""
        self._bar.advance(self._task)

    def epoch(self, line: dict[str, Any]) -> None:
        """Show the epoch's figures beside the bar."""
        self._bar.update(
            self._task,
            completed=line["epoch"] * self._batches,
            epoch=f"{line['epoch']}/{self._epochs}",
            figures=describe(line),
        )

    def close(self) -> None:
        """Stop redrawing."""
        self._bar.stop()


class Several:
    """Tells several of every batch and epoch."""

    def __init__(self, *parts: Progress):
        self.parts = parts

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Tell each of the stage."""
        for part in self.parts:
            part.start(stage, epochs, batches, done)

    def batch(self) -> None:
        """Tell each of the batch."""
        for part in self.parts:
            part.batch()

    def epoch(self, line: dict[str, Any]) -> None:
        """Tell each of the epoch."""
        for part in self.parts:
            part.epoch(line)

    def close(self) -> None:
        """Close each."""
        for part in self.parts:
            part.close()


def describe(line: dict[str, Any]) -> str:
    """Return an epoch's figures in a few words."""
    parts = [f"loss {line['train_loss']:.4f}", _validation(line)]
    parts.append(f"{line['samples_per_s']:,.0f} samples/s")
    if line["train_j"] is not None:
        parts.append(f"{line['train_j']:,.1f} J")
    return "  ".join(parts)


def _validation(line: dict[str, Any]) -> str:
    """Return the accuracy, or the first metric of a task that has none."""
    if "val_accuracy" in line:
        return f"val {100 * line['val_accuracy']:.2f} %"
    name = next((name for name in line if name.startswith("val_") and name != "val_loss"), "val_loss")
    return f"{name.replace('_', ' ')} {line[name]:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def make_progress(show: bool) -> Progress:
    """Return a bar where standard output is a terminal, lines where it is not, silence where none is wanted."""
    if not show:
        return Silent()
    return Bar() if sys.stdout.isatty() else Lines()
