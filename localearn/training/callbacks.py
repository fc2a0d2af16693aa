"""Callbacks: user code that is called at a run's events, and that may stop it.

`Callback` is the base class, `Context` the state that each event receives, `attached` adds callbacks to every run of a
block. Then the dispatcher that the loop calls, and the callbacks that localearn ships: `Lines` and `Bar` for progress,
`Illustration`. Loggers are in `localearn.training.loggers`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.nets import Net
from localearn.nets.layers import preserve_modes
from localearn.printing import one_line, say
from localearn.records import Record
from localearn.tasks import Metric
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
from localearn.training.runtime import autocast
from localearn.training.settings import Settings


@dataclass
class Position:
    """The progress of a run.

    Attributes:
        stage: The index of the phase, from 0.
        epoch: Epochs completed in the phase.
        batch: Batches completed in the epoch after them.
        passes: Passes over the training split in all phases.

    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    passes: float = 0.0


@dataclass
class Context:
    """The state of a run as callbacks see it: one object for the whole run, whose fields the loop updates.

    Attributes:
        trainer: The rule, on the run's device.
        settings: The options of the run.
        data: The data, on the run's device.
        phases: The parts of training, one after another, as `Trainer.phases()` returns them.
        position: The index of the phase, the epochs done in it, the batches done in the epoch, the passes in all.
        history: The line of metrics of every epoch so far, those before a resume included.
        folder: The run's folder; None where nothing is written.
        rank: The rank of this process, 0..ranks - 1.
        ranks: The number of processes that train together.
        epochs: The most epochs of the present phase.
        batches: The batches of an epoch of the present phase.
        optimizer: The phase's optimizer; None in a `Solve`.
        batch: The batch of the latest step, as the rule took it (in a greedy phase, the features of frozen blocks).
        metrics: The scalars of the latest step, on the device; empty in a `Solve`. To read one (`float`, `.item()`)
            waits for the device, and with `capture=graph` the next step overwrites them.
        record: The record of the run, in `run_ended` alone.
        stop_reason: The reason given to `stop`; None while no callback has called it.

    """

    trainer: Trainer
    settings: Settings
    data: Data
    phases: Sequence[Phase]
    position: Position = field(default_factory=Position)
    history: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
    rank: int = 0
    ranks: int = 1
    epochs: int = 0
    batches: int = 0
    optimizer: torch.optim.Optimizer | None = None
    batch: Batch | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    record: Record | None = None
    stop_reason: str | None = None

    @property
    def net(self) -> Net:
        """Return the net that is trained."""
        return self.trainer.net

    @property
    def phase(self) -> Phase:
        """Return the present phase."""
        return self.phases[self.position.stage]

    @property
    def line(self) -> dict[str, Any]:
        """Return the metrics of the latest epoch: train_loss, val_loss, val_accuracy, lr, train_s and the rule's own.

        It is empty before the end of the first epoch.
        """
        return self.history[-1] if self.history else {}

    def stop(self, reason: str) -> None:
        """Stop the run once every callback has had this event.

        The record's status is "stopped" and its error the reason. The checkpoint is saved, in the middle of an epoch
        too, and `resume` continues from it. The test split is not evaluated and no `net.safetensors` is written;
        `trainer.net` has the weights as they are. With several ranks any of them can stop all, and a stop in the middle
        of an epoch waits for its end.

        Args:
            reason: Why; of several calls the first one's is recorded.

        """
        if self.stop_reason is None:
            self.stop_reason = str(reason)


class Callback:
    """Base class of callbacks; override the events that you need, and pass instances as `fit(..., callbacks=[...])`.

    Callbacks are called in their order, on every rank (`context.rank` is its number), and an exception that one raises
    ends the run and reaches the caller as it is. A callback may read all, and is itself responsible for what it changes
    in the rule or the data; one that only reads leaves the weights bit for bit as they are without it. It is not part
    of a checkpoint: what it needs after a resume is in `context.position` and `context.history`.

    Example:
        class Best(localearn.Callback):
            def epoch_ended(self, context):
                if context.line["val_accuracy"] > 0.9:
                    context.stop("good enough")

        localearn.MonoForward(net).fit(data, callbacks=[Best()])

    """

    def run_started(self, context: Context) -> None:
        """Handle the start of a run, or of its resumed part (`context.position` is where it continues)."""

    def phase_started(self, context: Context) -> None:
        """Handle the start of a phase, or of its resumed part."""

    def step_ended(self, context: Context) -> None:
        """Handle the end of an optimizer step, or of a batch of a `Solve` phase.

        It costs nothing where it is not overridden. It is called in the metered training window: its time counts as
        training. It must not wait for the device (`.item()`, `print` of a tensor) unless it means to, and must draw
        random numbers from its own generators only. With `step="all"` the gradients of the step are still in `.grad`.
        """

    def epoch_ended(self, context: Context) -> None:
        """Handle the end of an epoch: `context.line` has its metrics, and its checkpoint is written."""

    def phase_ended(self, context: Context) -> None:
        """Handle the end of a phase, its best weights restored; not called where the run ends in the middle of it."""

    def run_ended(self, context: Context) -> None:
        """Handle the end of a run, however it ended; `context.record` says how."""


EVENTS = ("run_started", "phase_started", "step_ended", "epoch_ended", "phase_ended", "run_ended")

_ATTACHED: ContextVar[tuple[Callback, ...]] = ContextVar("attached", default=())


@contextlib.contextmanager
def attached(*callbacks: Callback) -> Iterator[None]:
    """Add callbacks to every run that this thread starts in the block, also by a command such as `localearn.run.main`.

    Args:
        callbacks: The callbacks, called after those of the run itself.

    Raises:
        UserError: Where one is not an instance of `Callback`.

    """
    token = _ATTACHED.set((*_ATTACHED.get(), *checked_callbacks(callbacks)))
    try:
        yield
    finally:
        _ATTACHED.reset(token)


def checked_callbacks(callbacks: object) -> list[Callback]:
    """Return callbacks as a list.

    Args:
        callbacks: An iterable of `Callback` instances.

    Raises:
        UserError: For anything else, a class in place of an instance included.

    """
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | Mapping):
        raise UserError(f"callbacks must be a list of localearn.Callback, not {type(callbacks).__name__}")
    found = list(callbacks)
    for callback in found:
        if isinstance(callback, type):
            raise UserError(f"callbacks has the class {callback.__name__}; give an instance of it")
        if not isinstance(callback, Callback):
            raise UserError(f"callbacks has a {type(callback).__name__}, which is no localearn.Callback; subclass it")
    return found


class Callbacks:
    """The callbacks of a run, called in their order, those of `attached` last.

    Args:
        callbacks: The run's own callbacks.

    Attributes:
        all: All callbacks, in the order of calls.
        of_steps: Those that override `step_ended`.

    """

    def __init__(self, callbacks: Iterable[Callback] = ()):
        self.all = (*callbacks, *_ATTACHED.get())
        self.of_steps = tuple(c for c in self.all if _defines_step_ended(c))

    def tell(self, event: str, context: Context) -> None:
        """Call the method of that name of each callback.

        Args:
            event: One of `EVENTS` but `run_ended`, which has its own method.
            context: The state of the run.

        """
        for callback in self.of_steps if event == "step_ended" else self.all:
            getattr(callback, event)(context)

    def run_ended(self, context: Context) -> None:
        """Call `run_ended` of each callback, of the others too where one raises."""
        with contextlib.ExitStack() as calls:
            for callback in reversed(self.all):
                calls.callback(callback.run_ended, context)


def _defines_step_ended(callback: Callback) -> bool:
    return getattr(callback.step_ended, "__func__", None) is not Callback.step_ended


class Lines(Callback):
    """Print a line an epoch, for logs and pipes.

    Args:
        every_s: The least seconds between two lines; a phase's first and last epoch are always printed.
        now: A clock in seconds, by which both the lines and the time left are computed.

    """

    def __init__(self, every_s: float = 1.0, now: Callable[[], float] = time.monotonic):
        self.every_s = every_s
        self._now = now
        self._shown_s = 0.0
        self._started_s = 0.0
        self._done = 0

    def phase_started(self, context: Context) -> None:
        """Start measuring the time left."""
        self._done = context.position.epoch
        self._shown_s, self._started_s = 0.0, self._now()

    def epoch_ended(self, context: Context) -> None:
        """Print the epoch's line."""
        line, epochs, now = context.line, context.epochs, self._now()
        last = line["epoch"] == epochs
        if not last and now - self._shown_s < self.every_s:
            return
        self._shown_s = now
        pace = (now - self._started_s) / max(1, line["epoch"] - self._done)
        left = f"{_clock(pace * (epochs - line['epoch']))} left" if not last else "done"
        say(f"{context.phase.name}  epoch {line['epoch']}/{epochs}  {describe(line, _first(context))}  {left}")


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
            figures=describe(line, _first(context)),
        )

    def run_ended(self, context: Context) -> None:
        """Stop redrawing."""
        self._bar.stop()


def describe(line: dict[str, Any], metric: Metric) -> str:
    """Return an epoch's figures in a few words.

    Args:
        line: The epoch's line of metrics.
        metric: The task's first metric, shown for the validation split.

    """
    parts = [f"loss {line['train_loss']:.4f}", _validation(line, metric)]
    parts.append(f"{line['samples_per_s']:,.0f} samples/s")
    if line["train_j"] is not None:
        parts.append(f"{line['train_j']:,.1f} J")
    return "  ".join(parts)


def _first(context: Context) -> Metric:
    return context.trainer.task.metrics[0]


def _validation(line: dict[str, Any], metric: Metric) -> str:
    """Return the metric on the validation split; an accuracy needs no name."""
    figure = line[f"val_{metric.name}"]
    shown = f"{100 * figure:.2f} %" if metric.unit == "fraction" else f"{figure:.4g}"
    return f"val {shown}" if metric.name == "accuracy" else f"val {metric.name.replace('_', ' ')} {shown}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def make_progress() -> Callback:
    """Return a `Bar` where standard output is a terminal, `Lines` where it is not."""
    return Bar() if sys.stdout.isatty() else Lines()


class Illustration(Callback):
    """Have the data of a completed run illustrate what was learned, in the run's folder, after all metering.

    It is not part of the run: where it fails, a line says so and nothing else changes.

    Attributes:
        lines: Lines to print, empty until the run has ended.

    """

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    def run_ended(self, context: Context) -> None:
        """Call `Data.illustrate` on the rank that writes the run's folder."""
        completed = context.record is not None and context.record.status == "completed"
        if not completed or context.folder is None or context.rank != 0:
            return

        device = next(context.net.parameters()).device

        def predict(x: Tensor, *beside: Tensor) -> Tensor:
            with torch.no_grad(), autocast(device, context.settings.precision):
                return context.trainer.predict(x, *beside).float()

        try:
            with preserve_modes(context.trainer):
                context.trainer.eval()
                self.lines = context.data.illustrate(predict, context.folder)
        except Exception as error:  # a picture is no reason to lose a run
            self.lines = (f"nothing was drawn: {type(error).__name__}: {one_line(error)}",)
