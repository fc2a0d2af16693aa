"""Callbacks: code of the user's own that is called while a run trains, and that may stop it."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from localearn.data import Batch, Data
from localearn.errors import UserError
from localearn.nets import Net
from localearn.records import Record
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase
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
