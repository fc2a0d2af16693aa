"""Callbacks: user code that is called at a run's events, and that may stop it.

`Callback` is the base class, `Context` the state that each event receives, `attached` adds callbacks to every run of a
block, and `Callbacks` is the dispatcher that the loop calls. The callbacks that localearn ships are in
`localearn.training.progress`, `localearn.training.loggers` and `localearn.training.illustration`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.moved import Renamed, former_names
from localearn.nets import Net
from localearn.records import Record
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
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
        stop_reason: The reason passed to `stop`; None while no callback has called it.

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
    ends the run and propagates to the caller. A callback may read everything, and is responsible for what it changes in
    the rule or the data; one that only reads leaves the weights bit for bit as they are without it. It is not part of a
    checkpoint: what it needs after a resume is in `context.position` and `context.history`.

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
            raise UserError(f"callbacks has the class {callback.__name__}; pass an instance of it")
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks has a {type(callback).__name__}, which is not a localearn.Callback; subclass it"
            )
    return found


class Callbacks:
    """The callbacks of a run, called in their order, those of `attached` last.

    Args:
        callbacks: The run's own callbacks.

    Attributes:
        all: All callbacks, in the order of calls.
        step_callbacks: Those that override `step_ended`, in the same order.

    """

    def __init__(self, callbacks: Iterable[Callback] = ()):
        self.all = (*callbacks, *_ATTACHED.get())
        self.step_callbacks = tuple(c for c in self.all if _defines_step_ended(c))

    def dispatch(self, event: str, context: Context) -> None:
        """Call each callback's method for an event.

        Args:
            event: One of `EVENTS` except `run_ended`, which has a method of its own.
            context: The state of the run.

        """
        for callback in self.step_callbacks if event == "step_ended" else self.all:
            getattr(callback, event)(context)

    def run_ended(self, context: Context) -> None:
        """Call each callback's `run_ended`, also where another one raises.

        Args:
            context: The state of the run, with its record.

        """
        with contextlib.ExitStack() as calls:
            for callback in reversed(self.all):
                calls.callback(callback.run_ended, context)

    tell = Renamed("dispatch")
    of_steps = Renamed("step_callbacks")


def _defines_step_ended(callback: Callback) -> bool:
    return getattr(callback.step_ended, "__func__", None) is not Callback.step_ended


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
