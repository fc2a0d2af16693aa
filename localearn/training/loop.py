"""The loop that trains any rule: phases, epochs, validation, early stopping, checkpoints."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from localearn.data import Batch, Data, Split
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.moved import Renamed
from localearn.records import Record
from localearn.records.folder import RunFolder
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Phase, Solve
from localearn.training.callbacks import Callback, Callbacks, Context, Position
from localearn.training.capture import captured, captured_measure, on_any_device
from localearn.training.checkpoint import (
    check_middle,
    check_optimizer_state,
    check_part,
    check_position,
    check_weights,
    saved_once,
)
from localearn.training.diagnostics import alignment_angles
from localearn.training.distributed.ranks import Ranks
from localearn.training.early_stopping import EarlyStopping, monitored
from localearn.training.evaluate import Measure, evaluate, measure_of
from localearn.training.generator import give_way
from localearn.training.interrupt import Diverged, Interrupt, Interrupted, Stopped
from localearn.training.memory import PeakMemory
from localearn.training.optimization import step_schedule
from localearn.training.runtime import autocast, derived_seed, random_state, seed_random, set_random_state
from localearn.training.settings import Settings
from localearn.training.step import UPDATES, Step

_log = logging.getLogger(__name__)
INACTIVE_SHARE = 0.5  # of a block's units, past which a warning is logged


class Loop:
    """The training loop of one rule on one data set, both on the device already.

    Every epoch draws from generators seeded by (seed, phase, epoch), so a run that is resumed at any point draws the
    same random numbers as one that was never stopped. Nothing inside an epoch waits for the device: sums of the metrics
    stay there and are read once, at its end. Whatever else follows the run's progress is a callback.

    Args:
        trainer: The rule on its net.
        data: The full data set; `Ranks.setup` returns this rank's part of it.
        settings: The options of the run.
        device: Where rule and data are.
        meter: The open meter, whose windows "train", "eval" and "checkpoint" the loop enters.
        folder: The run's folder, on rank 0; None writes nothing.
        callbacks: Called at the events of the run.
        ranks: The ranks of the run; None is one process.

    Attributes:
        position: The progress of the run.
        history: The line of metrics of every epoch.
        best_epochs: The best epoch of each phase that has ended.
        peak_memory: The most bytes in use so far, as `PeakMemory.read` returns them.
        captures: How the phases' updates were captured.
        saves_checkpoints: Whether the run has a folder, on rank 0, to which all ranks send what they hold.
        session: Plain values that a checkpoint stores for the record.

    """

    def __init__(
        self,
        trainer: Trainer,
        data: Data,
        settings: Settings,
        device: torch.device,
        meter: Meter,
        folder: RunFolder | None = None,
        callbacks: Iterable[Callback] = (),
        ranks: Ranks | None = None,
    ):
        self.ranks = ranks or Ranks()
        self.trainer, self.settings, self.device = trainer, settings, device
        self.data = self.ranks.setup(trainer, data)
        # Rank 0 saves the checkpoints of all ranks, each of which has to gather its state for it.
        self.saves_checkpoints = self.ranks.broadcast_from_rank_0(lambda: folder is not None)
        self.meter, self.folder, self.callbacks = meter, folder, Callbacks(callbacks)
        self.autocast = autocast(device, settings.precision)
        self.phases = [self.ranks.setup_phase(phase) for phase in trainer.phases()]
        self.position = Position()
        self.history: list[dict[str, Any]] = []
        self.best_epochs: list[int] = []
        self.peak_memory: dict[str, int | None] = {}
        self.captures: set[str] = set()
        self.session: dict[str, Any] = {}
        self._memory = PeakMemory(device)
        self._sums: dict[str, Tensor] = {}
        self._epoch_rows = 0
        self._checkpoint: dict[str, Any] | None = None
        self._order_state: Tensor | None = None  # of the generator of row order, in an epoch that was stopped
        self._warned_inactive = False
        self._context: Context | None = None  # set when the run starts

    def run(self, interrupt: Interrupt) -> None:
        """Train all phases to their end.

        Args:
            interrupt: The flag that a signal sets.

        Raises:
            Interrupted: After a signal, once a checkpoint is saved.
            Diverged: Where a loss is not finite.
            Stopped: Where a callback stopped the run, once a checkpoint is saved.
            UserError: Where the rule's `gradients` breaks its contract.

        """
        self._context = Context(
            self.trainer,
            self.settings,
            self.data,
            self.phases,
            self.position,
            self.history,
            self.folder.path if self.folder else None,
            self.ranks.rank,
            self.ranks.size,
        )
        try:
            self._dispatch("run_started", self._context)
            for index in range(self.position.stage, len(self.phases)):
                self._train_phase(index, interrupt, self._context)
        finally:
            self._update_peak_memory()

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return the loss and the task's metrics of the trained net over a split, by name.

        Args:
            split: "train", "val" or "test".

        """
        self.trainer.eval()
        with self.meter.window("eval"):
            return self._evaluated(measure_of(self.trainer.predict, self.autocast, self.trainer.task), self.data, split)

    def load(self, state: dict[str, Any]) -> None:
        """Restore rule, position, history and meter from a checkpoint; the optimizer's state is loaded by its phase.

        Args:
            state: The checkpoint's content.

        Raises:
            UserError: Where its parts are not consistent.

        """
        where = self.folder.checkpoint if self.folder else "the checkpoint"
        check_position(where, state, len(self.phases))
        check_middle(where, state, self.data.num_batches("train", self.settings.batch_size))
        self.position = Position(**state["position"])
        self.trainer.load_state_dict(state["trainer"])
        self.history, self.best_epochs = state["history"], state["best_epochs"]
        if self.ranks.size == 1:  # of several ranks the loss is that of the batches since the checkpoint
            self._sums, self._epoch_rows = state["sums"], state["rows_seen"]
        self.peak_memory = state["peak_memory"]
        self.meter.add_earlier(state["meter"], joules=self.ranks.is_rank_0)
        self._checkpoint = {"parts": state["parts"], **state["middle"]}
        if self.folder:
            self.folder.write_metrics(self.history)

    def end(self, record: Record) -> None:
        """Call the callbacks' `run_ended`, if the run was started.

        Args:
            record: The record of the run, which becomes `context.record`.

        """
        if self._context:
            self._context.record = record
            self.callbacks.run_ended(self._context)

    def _train_phase(self, index: int, interrupt: Interrupt, context: Context) -> None:
        phase, settings = self.phases[index], self.settings
        if index != self.position.stage:
            self.position = context.position = Position(stage=index, passes=self.position.passes)
        with self.meter.window("train"):  # the features of frozen blocks are part of the cost of training
            data, cached = self._phase_data(index, phase)
        optimizer = settings.optim(phase.optimizer_groups()) if isinstance(phase, Descent) else None
        schedule = settings.schedule(optimizer) if settings.schedule and optimizer else None
        monitor, direction = monitored(settings.monitor, self.trainer.task)
        stopping = EarlyStopping(
            monitor, settings.patience, settings.min_delta, keep=settings.restore_best, direction=direction
        )
        capture = settings.capture if self.ranks.size == 1 else "off"
        predict = phase.predict if cached else partial(_predict_from_x, phase)
        measure = captured_measure(measure_of(predict, self.autocast, self.trainer.task), capture, self.device)
        run = _PhaseRun(index, phase, data, cached, stopping, optimizer, schedule, measure)
        self._load_parts(run.parts)
        if isinstance(phase, Descent) and optimizer:
            self.ranks.drop_remote_state(optimizer)
            kind = UPDATES[settings.step]
            update = kind(self.trainer, phase, optimizer, settings, self.autocast, self.ranks)
            run.update = captured(update, capture, self.device)
        try:
            self._train_epochs(run, 1 if isinstance(phase, Solve) else settings.epochs, interrupt, context)
        finally:
            if run.update:
                self.captures.add(run.update.kind)
                run.update.close()
        stopping.restore(self.trainer)
        self.best_epochs.append(stopping.best_epoch)
        self._dispatch("phase_ended", context)

    def _phase_data(self, index: int, phase: Phase) -> tuple[Data, bool]:
        """Return the phase's data, and whether its x is the phase's features, computed once."""
        if phase.width is None or isinstance(phase, Solve) or self.data.augmented:
            return self.data, False
        if self.data.kind == "graph":  # the features of all nodes are cached, the unlabelled ones too
            rows = len(next(iter(self.data.batches("val", 1))).x)
        else:
            rows = self.data.sizes["train"] + self.data.sizes["val"]
        if 4 * phase.width * rows > self.settings.feature_cache_bytes:
            return self.data, False
        self.trainer.eval()
        features = partial(self._features, phase)
        return self.data.features(f"stage-{index}", features, self.settings.eval_batch_size), True

    def _load_parts(self, parts: dict[str, Any]) -> None:
        if self._checkpoint is None:
            return
        where = self.folder.checkpoint if self.folder else "the checkpoint"
        for name, part in parts.items():
            state = self._checkpoint["parts"].get(name)
            if isinstance(part, torch.optim.Optimizer):
                check_optimizer_state(where, state, part)
            else:
                check_part(where, name, state, part)
                if name == "stopping" and state["best_weights"] is not None:
                    state["best_weights"] = saved_once(state["best_weights"], self.trainer)
                    check_weights(where, state["best_weights"], self.trainer.state_dict())
            part.load_state_dict(state)
        if not self.position.batch:
            self._checkpoint = None

    def _train_epochs(self, run: "_PhaseRun", epochs: int, interrupt: Interrupt, context: Context) -> None:
        """Train a phase to its end, with a checkpoint after every epoch."""
        data, stopping, batch_size = run.data, run.stopping, self.settings.batch_size
        context.epochs, context.optimizer = epochs, run.optimizer
        context.batches = data.num_batches("train", batch_size)
        self._dispatch("phase_started", context)
        while self.position.epoch < epochs and not stopping.done:
            lr = run.optimizer.param_groups[0]["lr"] if run.optimizer else None
            with self.meter.window("train"):
                self._train_epoch(run, interrupt, context)
            if self.position.batch:  # it was left in the middle
                if run.optimizer:  # a `Solve` cannot use the sums of half a pass, and starts the pass again
                    self._save(run.parts)
                if interrupt.signum is None:
                    raise Stopped(context.stop_reason)
                raise Interrupted(interrupt.signum)
            line = self._end_epoch(run, lr)
            if run.schedule:
                step_schedule(run.schedule, line)
            stopping.update(line, self.position.epoch, self.trainer)
            self._save(run.parts)
            self._dispatch("epoch_ended", context)
            signum = self.ranks.signalled(interrupt.signum)
            if signum is not None:
                raise Interrupted(signum)

    def _train_epoch(self, run: "_PhaseRun", interrupt: Interrupt, context: Context) -> None:
        position, phase, step_callbacks = self.position, run.phase, self.callbacks.step_callbacks
        self.trainer.train()
        phase.freeze()
        seed = derived_seed(self.settings.seed, position.stage, position.epoch)
        order = torch.Generator(self.device).manual_seed(seed)
        seed_random(self.device, self.ranks.seed(derived_seed(seed, 1)))
        batches = run.data.batches("train", self.settings.batch_size, generator=order, skip=position.batch)
        if position.batch and self._checkpoint:
            order.set_state(self._checkpoint["order"].cpu())
            set_random_state(self.device, {k: v.cpu() for k, v in self._checkpoint["random"].items()})
        self._checkpoint = None
        single_process = self.ranks.size == 1  # several ranks exchange signals at the end of an epoch
        for batch in self.ranks.inputs(batches):
            if phase.width is not None and not run.cached:
                batch = replace(batch, x=self._features(phase, batch.x, *batch.context))
            self._epoch_rows += len(batch.y)
            metrics: dict[str, Tensor] = {}
            if run.update:
                metrics = run.update(batch)
                self._add_metrics(metrics, len(batch.y))
            elif isinstance(phase, Solve) and len(batch.y):
                self._accumulate(phase, batch)
            position.batch += 1
            if step_callbacks:
                context.batch, context.metrics = batch, metrics
                self.callbacks.dispatch("step_ended", context)
            give_way()
            if single_process and (interrupt.signum is not None or context.stop_reason is not None):
                self._order_state = order.get_state()
                if next(batches, None) is not None:  # else the epoch is complete, and ends as any other
                    return
        if isinstance(phase, Solve):
            with torch.no_grad():
                if not single_process:
                    self.ranks.all_reduce_each(phase.sums())
                self._add_metrics(phase.solve(), self._epoch_rows)
        position.batch = 0

    @torch.no_grad()
    def _features(self, phase: Phase, x: Tensor, *context: Tensor) -> Tensor:
        """Return the phase's input; precomputed features and those of a batch are computed by this same function."""
        with self.autocast:
            return phase.input(x, *context)

    @torch.no_grad()
    def _accumulate(self, phase: Solve, batch: Batch) -> None:
        with self.autocast:
            phase.accumulate(batch)

    def _add_metrics(self, metrics: dict[str, Tensor], rows: int) -> None:
        for name, value in metrics.items():
            if name in self._sums:
                self._sums[name].add_(value, alpha=rows)
            else:
                self._sums[name] = value.float() * rows

    def _end_epoch(self, run: "_PhaseRun", lr: float | Tensor | None) -> dict[str, Any]:
        """Validate, return the epoch's line of metrics, and advance the position to the next epoch."""
        if "loss" not in self._sums:
            raise UserError(f"{type(self.trainer).__name__}'s gradients() returns no 'loss'")
        means, rows = self.ranks.means(self._sums, self._epoch_rows)
        self.ranks.synchronize(self.trainer)
        self.trainer.eval()
        with self.meter.window("eval"):
            validation = self._evaluated(run.measure, run.data, "val")
        self.ranks.add_joules(self.meter)
        if not math.isfinite(means["loss"]) or not math.isfinite(validation["loss"]):
            raise Diverged(f"the loss was not finite in epoch {self.position.epoch + 1}; try a smaller optim.lr")
        self._warn_inactive_units(means)
        self.position.epoch += 1
        self.position.passes += 1
        train_s = self.meter.duration_s("train")
        seconds = train_s - (self.history[-1]["train_s"] if self.history else 0.0)
        line = {
            "stage": run.index,
            "epoch": self.position.epoch,
            "passes": self.position.passes,
            "train_loss": means.pop("loss"),
            **{f"val_{name}": figure for name, figure in validation.items()},
            "lr": None if lr is None else float(lr),
            "train_s": train_s,
            "train_j": self.meter.energy_j("train"),
            "samples_per_s": rows / seconds,
        }
        if taken := line.keys() & means.keys():
            rule = type(self.trainer).__name__
            raise UserError(
                f"{rule}'s gradients() returns {', '.join(sorted(taken))}, which the loop measures itself; rename it"
            )
        line |= {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
        if self.settings.diagnose == "alignment" and isinstance(run.phase, Descent):
            batch = next(self.data.batches("val", self.settings.batch_size))
            line |= alignment_angles(self.trainer, batch, run.phase)
        self._sums, self._epoch_rows = {}, 0
        self.history.append(line)
        return line

    def _evaluated(self, measure: Measure, data: Data, split: Split) -> dict[str, float]:
        share = data.part(self.ranks.rank, self.ranks.size) if self.ranks.size > 1 else data
        batch_size, ranks = self.settings.eval_batch_size, self.ranks
        return evaluate(measure, self.trainer.task, share, split, batch_size, ranks.all_reduce_each, ranks.all_gather)

    def _warn_inactive_units(self, means: dict[str, float]) -> None:
        """Log a warning, once a run, where `off_k`, the share of block k's units that are 0 for all rows, is high."""
        off = {name: mean for name, mean in means.items() if name.startswith("off_") and mean > INACTIVE_SHARE}
        if off and not self._warned_inactive:
            self._warned_inactive = True
            blocks = ", ".join(f"block {name[4:]} {100 * share:.0f} %" for name, share in off.items())
            _log.warning(
                "units that are 0 for every row of a batch, and so hardly learn: %s; try a smaller optim.lr",
                blocks,
            )

    def _save(self, parts: dict[str, Any]) -> None:
        if not self.saves_checkpoints:
            return
        self._update_peak_memory()
        with self.meter.window("checkpoint"):
            states = {name: part.state_dict() for name, part in parts.items()}
            if "optimizer" in states:
                states["optimizer"] = on_any_device(self.ranks.full_optimizer_state(states["optimizer"]))
            if self.folder is None:
                return
            middle = {}
            if self.position.batch:
                middle = {"order": self._order_state, "random": random_state(self.device)}
            state = {
                "position": vars(self.position).copy(),
                "trainer": self.trainer.state_dict(),
                "parts": states,
                "history": self.history,
                "best_epochs": self.best_epochs,
                "sums": self._sums,
                "rows_seen": self._epoch_rows,
                "middle": middle,
                "peak_memory": self.peak_memory,
                "meter": self.meter.state(),
                "session": self.session,
            }
            self.folder.save_checkpoint(state)
            if not self.position.batch:
                self.folder.append_metrics(self.history[-1])

    def _update_peak_memory(self) -> None:
        now = self._memory.read()
        self.peak_memory = {name: _largest(now[name], self.peak_memory.get(name)) for name in now}

    def _dispatch(self, event: str, context: Context) -> None:
        """Call the callbacks, at a point that all ranks reach; raise `Stopped` if one has called `Context.stop`."""
        self.callbacks.dispatch(event, context)
        reason = next((found for found in self.ranks.all_gather_object(context.stop_reason) if found is not None), None)
        if reason is not None:
            raise Stopped(reason)

    kept = Renamed("saves_checkpoints")


@dataclass
class _PhaseRun:
    """The objects that train a phase. cached: whether `data` has the phase's features, computed once, for x."""

    index: int
    phase: Phase
    data: Data
    cached: bool
    stopping: EarlyStopping
    optimizer: torch.optim.Optimizer | None
    schedule: Any
    measure: Measure
    update: Step | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """Return the parts whose state a checkpoint saves."""
        found = {"stopping": self.stopping, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part for name, part in found.items() if part is not None}


def _predict_from_x(phase: Phase, x: Tensor, *context: Tensor) -> Tensor:
    return phase.predict(phase.input(x, *context), *context)


def _largest(*values: int | None) -> int | None:
    present = [value for value in values if value is not None]
    return max(present) if present else None
