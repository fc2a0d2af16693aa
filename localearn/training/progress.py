"""Progress of a run on standard output: a bar in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any

from localearn.printing import one_line, say
from localearn.tasks import Metric
from localearn.training.callbacks import Callback, Context


def make_progress() -> Callback:
    """Return a `Bar` where standard output is a terminal, `Lines` where it is not."""
    return Bar() if sys.stdout.isatty() else Lines()


class Lines(Callback):
    """Print a line an epoch, for logs and pipes.

    Args:
        every_s: The least seconds between two lines; a phase's first and last epoch are always printed.
        now: A clock in seconds, from which the intervals and the time left are computed.

    """

    def __init__(self, every_s: float = 1.0, now: Callable[[], float] = time.monotonic):
        self.every_s = every_s
        self._now = now
        self._printed_s = 0.0
        self._started_s = 0.0
        self._done = 0

    def phase_started(self, context: Context) -> None:
        """Start measuring the time left."""
        self._done = context.position.epoch
        self._printed_s, self._started_s = 0.0, self._now()

    def epoch_ended(self, context: Context) -> None:
        """Print the epoch's line."""
        line, epochs, now = context.line, context.epochs, self._now()
        last = line["epoch"] == epochs
        if not last and now - self._printed_s < self.every_s:
            return
        self._printed_s = now
        pace = (now - self._started_s) / max(1, line["epoch"] - self._done)
        left = f"{_clock(pace * (epochs - line['epoch']))} left" if not last else "done"
        say(f"{context.phase.name}  epoch {line['epoch']}/{epochs}  {describe(line, _main_metric(context))}  {left}")


class Bar(Callback):
    """Show a rich progress bar over the phase's batches, with the latest epoch's figures and the time left."""

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

    def phase_started(self, context: Context) -> None:
        """Start a new bar."""
        done, epochs, batches = context.position.epoch, context.epochs, context.batches
        fields: dict[str, Any] = {"stage": one_line(context.phase.name), "epoch": f"{done}/{epochs}", "figures": ""}
        self._task = self._bar.add_task("", total=epochs * batches, completed=done * batches, **fields)
        self._bar.start()

    def step_ended(self, context: Context) -> None:
        """Advance the bar by a batch."""
        self._bar.advance(self._task)

    def epoch_ended(self, context: Context) -> None:
        """Show the epoch's figures next to the bar."""
        line = context.line
        self._bar.update(
            self._task,
            completed=line["epoch"] * context.batches,
            epoch=f"{line['epoch']}/{context.epochs}",
            figures=describe(line, _main_metric(context)),
        )

    def run_ended(self, context: Context) -> None:
        """Stop redrawing."""
        self._bar.stop()


def describe(line: dict[str, Any], metric: Metric) -> str:
    """Return an epoch's figures as a short text.

    Args:
        line: The epoch's line of metrics.
        metric: The task's first metric, whose validation figure is included.

    """
    parts = [f"loss {line['train_loss']:.4f}", _validation(line, metric)]
    parts.append(f"{line['samples_per_s']:,.0f} samples/s")
    if line["train_j"] is not None:
        parts.append(f"{line['train_j']:,.1f} J")
    return "  ".join(parts)


def _validation(line: dict[str, Any], metric: Metric) -> str:
    """Return the metric on the validation split; an accuracy needs no name."""
    figure = line[f"val_{metric.name}"]
    text = f"{100 * figure:.2f} %" if metric.unit == "fraction" else f"{figure:.4g}"
    return f"val {text}" if metric.name == "accuracy" else f"val {metric.name.replace('_', ' ')} {text}"


def _main_metric(context: Context) -> Metric:
    return context.trainer.task.metrics[0]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
