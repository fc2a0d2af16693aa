"""Train a rule on data under settings, and record the run.

`fit` is the public command. `train` is what it and `localearn.run` share: it joins the ranks, checks that rule, net and
data go together, opens the meter and the run's folder, resumes from a checkpoint, trains by
`localearn.training.loop.Loop`, evaluates and writes the record.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from localearn.data import Data, as_data
from localearn.defaults import fit_options, kind_of
from localearn.energy import Meter, make_meter
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.records import Record, versions
from localearn.records.folder import RunFolder
from localearn.trainers.base import Trainer, register_fit
from localearn.training.callbacks import Callback, checked_callbacks
from localearn.training.checks import check_steps, check_together
from localearn.training.claims import claimed
from localearn.training.distributed import Ranks, join_process_group
from localearn.training.generator import own_random_numbers
from localearn.training.identity import described
from localearn.training.interrupt import Diverged, Interrupt, Interrupted, Stopped
from localearn.training.layout import apply_memory_format
from localearn.training.loggers import make_logger
from localearn.training.loop import Loop
from localearn.training.memory import out_of_memory_error
from localearn.training.progress import make_progress
from localearn.training.resume import (
    EXTENDING,
    UNCHANGED,
    resume_run,
)
from localearn.training.run_record import INTERRUPTED_AT_ONCE, finish_record, net_metadata, new_record, write_record
from localearn.training.runtime import deterministic_algorithms
from localearn.training.settings import Settings


@register_fit
def fit(
    trainer: Trainer, data: Any, *, resume: bool = False, callbacks: Sequence[Callback] = (), **options: Any
) -> Record:
    """Train a rule on data and return the record of the run.

    torch's global generators are restored afterwards. Fits in several threads take turns, batch by batch, and each has
    the result that it has alone; build their trainers before the threads start, since weights are drawn from a
    generator that all threads share.

    Args:
        trainer: The rule on its net. Both end on the settings' device, and the trained net is `trainer.net`.
        data: A `Data`, or what `localearn.data.as_data` converts into one: (x, y) or (x, y, x_test, y_test) of NumPy or
            torch, a torch Dataset or DataLoader, a torch_geometric Data.
        resume: Whether to continue the run in `out` from its last checkpoint, with a trainer that is built as it was.
            Larger `epochs`, or another `patience`, extend the run, also where it is completed.
        callbacks: Callbacks called while it trains, see `localearn.Callback`; pass them again when a run is resumed.
        options: The fields of `Settings`. The defaults of those that concern learning (epochs, batch_size, optim,
            schedule, monitor, ...) are the rule's recipe for this kind of net, as on the command line; for a data set
            that localearn ships, its own epochs. `localearn.recipe` returns the recipe, including its options for net
            and data, which are built before `fit` is called.

    Returns:
        The record of the run.

    Raises:
        UserError: For options that are wrong or contradict each other, and for a trainer or a net that another fit is
            training.
        KeyboardInterrupt: After Ctrl-C, where there is no `out` to save a checkpoint to.

    Example:
        data = localearn.load("digits")
        net = localearn.MLP(data.input_shape, data.classes, widths=(256, 256))
        record = localearn.fit(localearn.MonoForward(net), data, epochs=5)

    """
    Settings.of(**options)  # first, so that a wrong option is reported before data are converted
    data = as_data(data)
    settings = Settings.of(**_recipe(trainer, data, options) | options)
    callbacks = checked_callbacks(callbacks)
    extend = {name: options[name] for name in EXTENDING if name in options} if resume else {}
    record = train(trainer, data, settings, resume=resume, callbacks=callbacks, extend=extend)
    if record.status == "interrupted" and settings.out is None:
        raise KeyboardInterrupt
    return record


def _recipe(trainer: Trainer, data: Data, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the learning options of the rule's recipe for its kind of net."""
    values = not data.task.exclusive
    return fit_options(type(trainer), kind_of(trainer.net), data.name, options.get("epochs"), values=values)


def train(
    trainer: Trainer,
    data: Data,
    settings: Settings,
    labels: dict[str, Any] | None = None,
    *,
    resume: bool = False,
    config: str | None = None,
    callbacks: Sequence[Callback] = (),
    test: bool = True,
    extend: Mapping[str, Any] | None = None,
) -> Record:
    """Train a rule on data under complete settings, and return the record of the run.

    Args:
        trainer: The rule on its net, moved to the settings' device.
        data: The data set.
        settings: All options of the run; no recipe is looked up.
        labels: Fields of the record that the caller sets (algo, net, config, ...), and `setup_s`, the seconds of setup
            before this call.
        resume: Whether to continue the run in `settings.out`.
        config: The text of the folder's config.yaml; None writes the settings.
        callbacks: Callbacks in the order in which they are called, after progress and logger.
        test: Whether to evaluate the test split at the end; a search for options must not.
        extend: The epochs or patience of this resume, which may differ from the checkpoint's.

    Returns:
        The record; its status is "completed", "interrupted", "stopped" or "diverged".

    Raises:
        UserError: Where rule, net, data and settings are not compatible, or the folder cannot be used.

    """
    started_s = time.perf_counter()
    labels = {"config": settings.plain()} | (labels or {})
    with contextlib.ExitStack() as cleanup:
        # A caller's no_grad or inference_mode would leave no gradients.
        cleanup.enter_context(torch.inference_mode(False))
        cleanup.enter_context(torch.enable_grad())
        cleanup.enter_context(claimed(trainer))
        ranks, device = cleanup.enter_context(join_process_group(settings, _identity(trainer, data, settings)))
        cleanup.enter_context(own_random_numbers(device))
        resume = ranks.broadcast_from_rank_0(lambda: resume or _restarted(settings))
        folder = ranks.run_on_all_ranks(lambda: _check_and_open(trainer, data, settings, ranks, resume, extend or {}))
        meter = make_meter(device, settings.country, "auto" if settings.energy else "none", settings.idle_s)
        cleanup.callback(meter.close)
        open_meter(meter, ranks)  # first, since a slow source starts on a thread during the rest of the setup
        check_steps(trainer, settings, device)
        callbacks = [*_display_callbacks(settings, ranks), *callbacks]
        text = config or _settings_as_yaml(settings)
        ranks.run_on_all_ranks(lambda: _start_folder(folder, resume, text, cleanup, extend or {}))
        record = new_record(trainer, data, settings, device, labels)
        record.ranks = ranks.size
        cleanup.enter_context(deterministic_algorithms(settings.deterministic))
        interrupt = cleanup.enter_context(Interrupt())
        cleanup.enter_context(
            out_of_memory_error(
                f"batch_size={settings.batch_size}", "a smaller one, a smaller net, or fewer copies or tangents"
            )
        )
        trainer.task = data.task
        if data.codec is not None:
            trainer.net.codec = data.codec
        trainer.to(device)
        cleanup.callback(apply_memory_format(trainer, settings.memory_format, settings.precision))
        cleanup.callback(ranks.teardown, trainer)
        loop = Loop(trainer, data.to(device), settings, device, meter, folder, callbacks, ranks)
        plain = json.loads(json.dumps(record.config, default=str))  # a checkpoint has plain values only
        identity = {"config": plain, "described": described(trainer)}
        if resume:
            resume_run(loop, folder, record, identity, extend or {})
            if folder and extend:
                folder.write_text(folder.config, text)
                folder.unfinish()
        record.setup_s += labels.get("setup_s", 0.0) + time.perf_counter() - started_s
        loop.session = {name: getattr(record, name) for name in (*UNCHANGED, "started", "setup_s", "seams")} | identity
        try:
            _run(loop, interrupt, record, test)
        finally:
            cleanup.callback(loop.end, record)
            meter.close()
            finish_record(record, loop, meter)
            if folder:
                write_record(folder, record)
    return record


def open_meter(meter: Meter, ranks: Ranks) -> None:
    """Open the meter on each rank; rank 0 warns of missing sources, once where several ranks lack the same.

    Args:
        meter: This rank's meter.
        ranks: The ranks of the run.

    """
    meter.open(warn=False)
    absences = ranks.all_gather_object(meter.absence)
    if ranks.is_rank_0:
        meter.warn(absences)


def _identity(trainer: Trainer, data: Data, settings: Settings) -> dict[str, Any]:
    """Return the values that must be equal on all ranks, by name; none where there is one rank."""
    if settings.parallel == "none":
        return {}
    own = ("device", "out", "progress", "log")  # may differ, since they change no number
    options = {name: value for name, value in settings.plain().items() if name not in own}
    return {
        **{name: value for name, value in versions().items() if name in ("localearn", "torch")},
        "rule": type(trainer).__name__,
        "data": data.fingerprint(),
        **{name: value for name, value in options.items() if " at 0x" not in str(value)},
    }


def _restarted(settings: Settings) -> bool:
    """Return whether torchrun restarted the ranks after one was lost, so that the run resumes from a checkpoint."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return bool(settings.parallel != "none" and again and settings.out and RunFolder(settings.out).checkpoint.exists())


def _check_and_open(
    trainer: Trainer, data: Data, settings: Settings, ranks: Ranks, resume: bool, extend: Mapping[str, Any]
) -> RunFolder | None:
    """Raise UserError for what cannot be trained; return the run's folder, on rank 0 only."""
    check_together(trainer, data, settings, ranks.size)
    return _find_folder(settings, resume, extend) if ranks.is_rank_0 else None


def _find_folder(settings: Settings, resume: bool, extend: Mapping[str, Any]) -> RunFolder | None:
    if settings.out is None:
        if resume:
            raise UserError("resume=True needs out=, the folder of the run to resume")
        return None
    folder = RunFolder(settings.out)
    if resume:
        folder.open(extending=bool(extend))
    return folder


def _start_folder(
    folder: RunFolder | None, resume: bool, config: str, cleanup: contextlib.ExitStack, extend: Mapping[str, Any]
) -> None:
    """Create the run's folder, or open it to resume, and lock it until the end."""
    if folder is None:
        return
    if not resume:
        folder.create()
    cleanup.enter_context(folder.lock())
    # Checked again under the lock: another process may have started, or completed, a run there since.
    if resume:
        folder.open(extending=bool(extend))
        folder.clear_temporary()
    else:
        folder.create()
        folder.write_text(folder.config, config)


def _settings_as_yaml(settings: Settings) -> str:
    # JSON values are YAML.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.plain().items())


def _display_callbacks(settings: Settings, ranks: Ranks) -> list[Callback]:
    """Return the callbacks of the settings, progress and a logger, on rank 0."""
    callbacks: list[Callback] = []
    if ranks.is_rank_0 and settings.progress:
        callbacks.append(make_progress())
    if ranks.is_rank_0 and settings.log != "none":
        callbacks.append(make_logger(settings.log, settings.out))
    return callbacks


def _run(loop: Loop, interrupt: Interrupt, record: Record, test: bool) -> None:
    """Train and evaluate; set the record's status and error."""
    try:
        loop.run(interrupt)
        _evaluate(loop, record, "val")
        if test:
            _evaluate(loop, record, "test")
        if loop.folder:
            net = loop.trainer.net
            loop.folder.save_net(net, net_metadata(loop.trainer, record), net.own_weights())
        loop.peak_memory = loop.ranks.all_reduce_max(loop.peak_memory)
        loop.meter.close()
        loop.ranks.add_joules(loop.meter)
        record.status = "completed"
    except Interrupted as interrupted:
        record.status, record.error = "interrupted", str(interrupted)
        record.diagnostics["signal"] = interrupted.signum
    except KeyboardInterrupt:  # of a second signal, in the middle of a batch
        record.status, record.error = "interrupted", INTERRUPTED_AT_ONCE
        record.diagnostics["signal"] = interrupt.signum or int(signal.SIGINT)
    except Stopped as stopped:
        record.status, record.error = "stopped", str(stopped)
    except Diverged as diverged:
        record.status, record.error = "diverged", str(diverged)
    except BaseException as error:
        record.status = "failed"
        record.error = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise


def _evaluate(loop: Loop, record: Record, split: Literal["val", "test"]) -> None:
    """Evaluate a split into the record; for a rule with random predictions, as means over its inference seeds."""
    trainer = loop.trainer
    seeds = trainer.inference_seeds
    if not seeds:
        record.evaluated(trainer.task.metrics, split, loop.evaluate(split))
        return
    runs = []
    for seed in seeds:
        trainer.redraw(seed)
        runs.append(loop.evaluate(split))
    trainer.redraw(seeds[0])
    each = {name: [figures[name] for figures in runs] for name in runs[0]}
    means = {name: sum(values) / len(seeds) for name, values in each.items()}
    record.evaluated(trainer.task.metrics, split, means)
    record.diagnostics.setdefault("inference", {"seeds": list(seeds)})[split] = each


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
