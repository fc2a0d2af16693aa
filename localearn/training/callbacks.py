"""Callbacks: code of the user's own that is called while a run trains, and that may stop it."""

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
from localearn.nets.net import modes_kept
from localearn.printing import one_line, say
from localearn.records import Record
from localearn.tasks import Metric
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
from localearn.training.runtime import autocast
from localearn.training.settings import Settings


@dataclass
class Position:
    """How far a run has come: epochs done in the phase, batches done in the epoch after them."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    passes: float = 0.0


@dataclass
class Context:
    """The state of a run as callbacks see it: one object for the whole run, whose fields the loop updates.

    Attributes:
        trainer: the rule, on the run's device.
        settings: the options of the run.
        data: the data, on the run's device.
        phases: the parts of training, one after another, as `Trainer.phases()` gives them.
        position: the number of the phase, the epochs done in it, the batches done in the epoch, the passes in all.
        history: the line of metrics of every epoch so far, those before a resume included.
        folder: the run's folder; None where nothing is written.
        rank: the number of this process, and ranks: how many train together.
        epochs: the most epochs of the present phase. batches: the batches of each.
        optimizer: the phase's; None in a `Solve`.
        batch: the batch of the latest step, as the rule took it (in a greedy phase, the features of frozen blocks).
        metrics: the scalars of the latest step, on the device; empty in a `Solve`. To read one (`float`,
            `.item()`) waits for the device, and with `capture=graph` the next step overwrites them.
        record: the record of the run, in `run_ended` alone.
        stop_reason: what `stop` was given.

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

        Before the end of the first epoch it is empty.
        """
        return self.history[-1] if self.history else {}

    def stop(self, reason: str) -> None:
        """Stop the run once every callback has had this event; its record's status is "stopped", its error the reason.

        The checkpoint is kept, in the middle of an epoch too, and `resume` goes on from it. The test split is not
        evaluated and no `net.safetensors` is written; `trainer.net` has the weights as they are. With several ranks
        any of them can stop all, and a stop in the middle of an epoch waits for its end.
        """
        if self.stop_reason is None:
            self.stop_reason = str(reason)


class Callback:
    """Base class of callbacks; override the events that you need, and pass instances as `fit(..., callbacks=[...])`.

    Callbacks are called in their order, on every rank (`context.rank` tells which), and an exception that one raises
    ends the run and reaches the caller as it is. A callback may read all, and what it changes in the rule or the data
    is its own affair; one that only reads leaves the weights bit for bit as they are without it. It is no part of a
    checkpoint: what it needs after a resume stands in `context.position` and `context.history`.

    Example:
        class Best(localearn.Callback):
            def epoch_ended(self, context):
                if context.line["val_accuracy"] > 0.9:
                    context.stop("good enough")

        localearn.MonoForward(net).fit(data, callbacks=[Best()])

    """

    def run_started(self, context: Context) -> None:
        """Handle the start of a run, or of its resumed part (`context.position` is where it goes on)."""

    def phase_started(self, context: Context) -> None:
        """Handle the start of a phase, or of its resumed part."""

    def step_ended(self, context: Context) -> None:
        """Handle a step of the optimizer, or a batch of a `Solve` phase; no cost where it is not overridden.

        It is called in the metered training window: its time counts as training. It must not wait for the device
        (`.item()`, `print` of a tensor) unless it means to, and draws random numbers from generators of its own alone.
        With `step="all"` the gradients of the step still stand in `.grad`.
        """

    def epoch_ended(self, context: Context) -> None:
        """Handle the end of an epoch: `context.line` has its metrics, and its checkpoint is written."""

    def phase_ended(self, context: Context) -> None:
        """Handle the end of a phase, its best weights restored; not called in a run that ends in the midst of it."""

    def run_ended(self, context: Context) -> None:
        """Handle the end of a run, however it ended; `context.record` says how."""


EVENTS = ("run_started", "phase_started", "step_ended", "epoch_ended", "phase_ended", "run_ended")

_ATTACHED: ContextVar[tuple[Callback, ...]] = ContextVar("attached", default=())


@contextlib.contextmanager
def attached(*callbacks: Callback) -> Iterator[None]:
    """Add callbacks to every run that this thread starts in the block, also by a command, as `localearn.run.main`."""
    token = _ATTACHED.set((*_ATTACHED.get(), *checked_callbacks(callbacks)))
    try:
        yield
    finally:
        _ATTACHED.reset(token)


def checked_callbacks(callbacks: object) -> list[Callback]:
    """Return callbacks as a list; raise UserError for what is none."""
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
    """The callbacks of a run, called in their order, those of `attached` last."""

    def __init__(self, callbacks: Iterable[Callback] = ()):
        self.all = (*callbacks, *_ATTACHED.get())
        self.of_steps = tuple(c for c in self.all if _defines_step_ended(c))

    def tell(self, event: str, context: Context) -> None:
        """Call a method of each."""
        for callback in self.of_steps if event == "step_ended" else self.all:
            getattr(callback, event)(context)

    def run_ended(self, context: Context) -> None:
        """Call `run_ended` of each, of the others too where one raises."""
        with contextlib.ExitStack() as calls:
            for callback in reversed(self.all):
                calls.callback(callback.run_ended, context)


def _defines_step_ended(callback: Callback) -> bool:
    return getattr(callback.step_ended, "__func__", None) is not Callback.step_ended


class Lines(Callback):
    """A line an epoch, for logs and pipes; at most one every `every_s` seconds but for a stage's first and last.

    now: returns seconds, by which both the lines and the time left go.
    """

    def __init__(self, every_s: float = 1.0, now: Callable[[], float] = time.monotonic):
        self.every_s = every_s
        self._now = now
        self._shown_s = 0.0
        self._started_s = 0.0
        self._done = 0

    def phase_started(self, context: Context) -> None:
        """Begin to reckon the time left."""
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

    def phase_started(self, context: Context) -> None:
        """Begin a new bar."""
        done, epochs, batches = context.position.epoch, context.epochs, context.batches
        fields: dict[str, Any] = {"stage": one_line(context.phase.name), "epoch": f"{done}/{epochs}", "figures": ""}
        self._task = self._bar.add_task("", total=epochs * batches, completed=done * batches, **fields)
        self._bar.start()

    def step_ended(self, context: Context) -> None:
        """Move the bar by a batch."""
        self._bar.advance(self._task)

    def epoch_ended(self, context: Context) -> None:
        """Show the epoch's figures beside the bar."""
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
    """Return an epoch's figures in a few words. metric: the one that the run is judged by."""
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
    """Return a bar where standard output is a terminal, lines where it is not."""
    return Bar() if sys.stdout.isatty() else Lines()


class Illustration(Callback):
    """Has the data of a completed run illustrate what was learned, in the run's folder, after all that is metered.

    lines: what there is to print of it. It is no part of the run: where it fails, a line says so and nothing else
    changes.
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
            with modes_kept(context.trainer):
                context.trainer.eval()
                self.lines = context.data.illustrate(predict, context.folder)
        except Exception as error:  # a picture is no reason to lose a run
            self.lines = (f"nothing was drawn: {type(error).__name__}: {one_line(error)}",)
