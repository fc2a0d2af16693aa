"""Train a rule on data under settings, and record the run.

`fit` is the public command. `train` is what it and `localearn.run` share: it joins the ranks, checks that rule, net and
data go together, opens the meter and the run's folder, resumes from a checkpoint where one is asked for, trains by
`localearn.training.loop.Loop`, evaluates and writes the record. `claimed` keeps two fits from training the same
tensors.
"""

import contextlib
import datetime
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from localearn.data import Codec, Data, as_data
from localearn.defaults import fit_options, kind_of
from localearn.energy import Meter, make_meter
from localearn.energy.codecarbon import grid
from localearn.errors import UserError
from localearn.nets.physical import drifting
from localearn.records import Record, versions
from localearn.records.folder import RunFolder
from localearn.trainers.base import Trainer, register_fit
from localearn.trainers.phases import Descent, Solve
from localearn.training.callbacks import Callback, checked_callbacks, make_progress
from localearn.training.diagnostics import check_alignment
from localearn.training.distributed import Ranks, joined, normalises_jointly
from localearn.training.evaluate import monitored
from localearn.training.generator import own_random_numbers
from localearn.training.identity import (
    EXTENDING,
    check_extension,
    check_resumed,
    described,
    first_change,
    schedule_class,
)
from localearn.training.loggers import make_logger
from localearn.training.loop import Diverged, Interrupt, Interrupted, Loop, Stopped
from localearn.training.optimization import check_optimization
from localearn.training.runtime import (
    describe_device,
    deterministic_algorithms,
    full_memory_told,
    lay_out,
    select_device,
)
from localearn.training.settings import Settings

AT_ONCE = "interrupted at once, after the last checkpoint"
_NAMES = 1000  # of columns, at most, that a record lists
# Fields of the record that must not change in a resumed run: its checkpoint means nothing otherwise.
_IDENTITY = ("rule", "seed", "batch_size", "precision", "data_fingerprint")


@register_fit
def fit(
    trainer: Trainer, data: Any, *, resume: bool = False, callbacks: Sequence[Callback] = (), **options: Any
) -> Record:
    """Train a rule on data and return the record of the run.

    torch's global generators are left as they were. Fits in several threads take turns by the batch, and each gives
    what it gives alone; build their trainers before the threads begin, for their weights are drawn from a generator
    that all threads share.

    Args:
        trainer: The rule on its net. Both end on the settings' device, and the trained net is `trainer.net`.
        data: A `Data`, or what `localearn.data.as_data` converts into one: (x, y) or (x, y, x_test, y_test) of NumPy or
            torch, a torch Dataset or DataLoader, a torch_geometric Data.
        resume: Whether to continue the run in `out` from its last checkpoint, the trainer being built as it was then.
            Larger epochs, or another patience, train it longer, also where it is completed.
        callbacks: Callbacks called while it trains, see `localearn.Callback`; pass them again when a run is resumed.
        options: The fields of `Settings`. Where they are not given, those of how it learns (epochs, batch_size, optim,
            schedule, monitor, ...) are the rule's recipe for this kind of net, as on the command line, and the epochs
            those of a data set that localearn ships. `localearn.recipe` shows the recipe, with its options for the net
            and the data, which are built before they come here.

    Returns:
        The record of the run.

    Raises:
        UserError: For options that are wrong or do not go together, and for a trainer or a net that another fit is
            training.
        KeyboardInterrupt: After Ctrl-C where there is no `out` in which to save what was learned.

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
    """Train a rule on data under settings that are complete, as `fit` does, and return the record.

    Args:
        trainer: The rule on its net, moved to the settings' device.
        data: The data set.
        settings: All options of the run; no recipe is looked up.
        labels: Fields of the record that the caller knows (algo, net, config, ...), and `setup_s`, seconds spent
            before.
        resume: Whether to continue the run in `settings.out`.
        config: The text of the folder's config.yaml; None writes the settings.
        callbacks: Callbacks in the order in which they are called, after progress and logger.
        test: Whether the test split is evaluated when the run is completed; a search for options must not.
        extend: Epochs or patience given for this resume, which may differ from the checkpoint's.

    Returns:
        The record; its status is "completed", "interrupted", "stopped" or "diverged".

    Raises:
        UserError: Where rule, net, data and settings do not go together, or the folder cannot be used.

    """
    started_s = time.perf_counter()
    labels = {"config": settings.plain()} | (labels or {})
    with contextlib.ExitStack() as cleanup:
        # A caller's no_grad or inference_mode would leave nothing to train by.
        cleanup.enter_context(torch.inference_mode(False))
        cleanup.enter_context(torch.enable_grad())
        cleanup.enter_context(claimed(trainer))
        ranks, device = cleanup.enter_context(joined(settings, _identity(trainer, data, settings)))
        cleanup.enter_context(own_random_numbers(device))
        resume = ranks.from_first(lambda: resume or _restarted(settings))
        folder = ranks.together(lambda: _checked(trainer, data, settings, ranks, resume, extend or {}))
        meter = make_meter(device, settings.country, "auto" if settings.energy else "none", settings.idle_s)
        cleanup.callback(meter.close)
        open_meter(meter, ranks)  # first, for a slow source starts on a thread while the rest is set up
        check_steps(trainer, settings, device)
        callbacks = [*_shown(settings, ranks), *callbacks]
        ranks.together(lambda: _begin(folder, resume, config or _described(settings), cleanup, extend or {}))
        record = _new_record(trainer, data, settings, device, labels)
        record.ranks = ranks.size
        cleanup.enter_context(deterministic_algorithms(settings.deterministic))
        interrupt = cleanup.enter_context(Interrupt())
        cleanup.enter_context(
            full_memory_told(
                f"batch_size={settings.batch_size}", "a smaller one, a smaller net, or fewer copies or tangents"
            )
        )
        trainer.task = data.task
        if data.codec is not None:
            trainer.net.codec = data.codec
        trainer.to(device)
        cleanup.callback(lay_out(trainer, settings.memory_format, settings.precision))
        cleanup.callback(ranks.release, trainer)
        loop = Loop(trainer, data.to(device), settings, device, meter, folder, callbacks, ranks)
        plain = json.loads(json.dumps(record.config, default=str))  # a checkpoint holds nothing but plain values
        own = {"config": plain, "described": described(trainer)}
        if resume:
            _resume(loop, folder, record, own, extend or {})
            if folder and extend:
                folder.write_text(folder.config, config or _described(settings))
                folder.unfinish()
        record.setup_s += labels.get("setup_s", 0.0) + time.perf_counter() - started_s
        loop.session = {name: getattr(record, name) for name in (*_IDENTITY, "started", "setup_s", "seams")} | own
        try:
            _run(loop, interrupt, record, test)
        finally:
            cleanup.callback(loop.end, record)
            meter.close()
            _finish(record, loop, meter)
            if folder:
                _leave(folder, record)
    return record


def open_meter(meter: Meter, ranks: Ranks) -> None:
    """Open the meter of each rank; rank 0 warns of missing sources, once where ranks lack the same.

    Args:
        meter: This rank's meter.
        ranks: The ranks of the run.

    """
    meter.open(warn=False)
    absences = ranks.gathered(meter.absence)
    if ranks.first:
        meter.warn(absences)


def _identity(trainer: Trainer, data: Data, settings: Settings) -> dict[str, Any]:
    """Return the values, by name, that must be the same on all ranks; none where there is one rank."""
    if settings.parallel == "none":
        return {}
    own = ("device", "out", "progress", "log")  # what may differ, for it changes no number
    options = {name: value for name, value in settings.plain().items() if name not in own}
    return {
        **{name: value for name, value in versions().items() if name in ("localearn", "torch")},
        "rule": type(trainer).__name__,
        "data": data.fingerprint(),
        **{name: value for name, value in options.items() if " at 0x" not in str(value)},
    }


def _restarted(settings: Settings) -> bool:
    """Return whether torchrun restarted the ranks after one was lost, so that the run resumes from its checkpoint."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return bool(settings.parallel != "none" and again and settings.out and RunFolder(settings.out).checkpoint.exists())


def _checked(
    trainer: Trainer, data: Data, settings: Settings, ranks: Ranks, resume: bool, extend: Mapping[str, Any]
) -> RunFolder | None:
    """Raise UserError for what cannot be trained; return the folder, on rank 0 alone."""
    _check_together(trainer, data, settings, ranks.size)
    return _folder(settings, resume, extend) if ranks.first else None


def _begin(
    folder: RunFolder | None, resume: bool, config: str, cleanup: contextlib.ExitStack, extend: Mapping[str, Any]
) -> None:
    """Create a run's folder, and hold its lock until the end."""
    if folder is None:
        return
    if not resume:
        folder.create()
    cleanup.enter_context(folder.lock())
    # Checked again under the lock: another process may have begun, or completed, a run there since.
    if resume:
        folder.open(extending=bool(extend))
        folder.clear_temporary()
    else:
        folder.create()
        folder.write_text(folder.config, config)


def check(trainer: Trainer, data: Data, settings: Settings, ranks: int = 1) -> None:
    """Check that rule, data and settings can be trained together, without changing or training anything.

    Args:
        trainer: The rule on its net.
        data: The data set.
        settings: The options of the run.
        ranks: The number of processes that would train them, 1 or more.

    Raises:
        UserError: Where they cannot, naming what to change.

    """
    _check_together(trainer, data, settings, ranks)
    check_steps(trainer, settings, select_device(settings.device))


def check_steps(trainer: Trainer, settings: Settings, device: torch.device) -> None:
    """Check that optimizer and schedule can be built, and stepped to the end of each phase.

    Args:
        trainer: The rule, whose phases say how many epochs there are: those of the settings, or one of a closed form.
        settings: The options `optim`, `schedule` and `epochs`.
        device: The device of the optimizer's state.

    Raises:
        UserError: Where one of them cannot be built or stepped.

    """
    several = any(isinstance(phase, Descent) for phase in trainer.phases())
    check_optimization(settings.optim, settings.schedule, device, settings.epochs if several else 1)


def _check_together(trainer: Trainer, data: Data, settings: Settings, ranks: int) -> None:
    """Raise UserError where rule, net and data cannot be trained together; optimizer steps are not checked."""
    type(trainer).supports(trainer.net, data)
    trainer.check_task(data.task)
    monitored(settings.monitor, data.task)
    if settings.country is not None:
        grid(settings.country)
    _check_parameters(trainer)
    _check_rows(trainer, data, settings)
    if ranks > 1:
        data.part(0, ranks)
    if settings.parallel == "data" and settings.batch_size % ranks:
        even = settings.batch_size - settings.batch_size % ranks
        nearest = f"{even} or {even + ranks}" if even else f"{ranks}"
        raise UserError(f"batch_size={settings.batch_size} cannot be divided over {ranks} ranks; use {nearest}")
    if settings.parallel == "data" and (moved := next(iter(drifting(trainer)), None)):
        raise UserError(
            f"{moved} drifts by each rank's own batches, so that ranks would not train one net; use parallel=layers, "
            "net.drift_rate=0, or one process"
        )
    last = data.sizes["train"] % settings.batch_size
    if settings.parallel == "data" and 1 < last < ranks and normalises_jointly(trainer):
        raise UserError(
            f"batch normalisation needs a row of each batch on each of {ranks} ranks, and the last of {data.name}'s "
            f"has {last}; use another batch_size, or dataset.train_size={data.sizes['train'] - last}"
        )
    if settings.diagnose == "alignment":
        check_alignment(trainer)


def _check_rows(trainer: Trainer, data: Data, settings: Settings) -> None:
    """Raise UserError unless every split has rows, of the net's precision and enough of them for its layers."""
    for split, size in data.sizes.items():
        if not size:
            raise UserError(f"{data.name} has no labelled rows in its {split} split; every split needs one or more")
    given = next(data.batches("val", 1)).x.dtype
    cast = settings.precision == "bf16" and trainer.autocasts
    taken = (torch.float32, torch.bfloat16) if cast else (given,)
    if not given.is_floating_point:  # token ids, which a net of any precision takes
        taken = {p.dtype for p in trainer.net.parameters()}
    wrong = next((p.dtype for p in trainer.net.parameters() if p.dtype not in taken), None)
    if wrong is not None:
        alone = settings.precision == "bf16" and not trainer.autocasts
        aside = f", and {type(trainer).__name__} computes in the net's" if alone else ""
        raise UserError(f"{data.name} gives {given} and the net's parameters are {wrong}{aside}; use net.to({given})")
    rows = data.sizes["train"] if data.kind == "graph" else min(data.sizes["train"], settings.batch_size)
    if rows < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in trainer.modules()):
        raise UserError("batch normalisation needs 2 rows or more a step; use a larger batch_size, or net.norm=none")


def _check_parameters(trainer: Trainer) -> None:
    """Raise UserError unless there is something to train, in the net and in every phase."""
    if any(t.is_inference() for t in (*trainer.parameters(), *trainer.buffers())):
        raise UserError("the net was built in inference_mode, where no tensor can be trained; build it outside")
    if any(p.is_meta for p in trainer.parameters()):
        raise UserError("the net is on the meta device, where parameters have no values; build it on another one")
    if not trainer.phases():
        raise UserError(f"{type(trainer).__name__}.phases() returns none, so there is nothing to train")
    trained = {"the net": trainer.net.parameters()}
    trained |= {f"phase {phase.name!r}": phase.parameters for phase in trainer.phases() if isinstance(phase, Descent)}
    for what, parameters in trained.items():
        if not any(p.requires_grad for p in parameters):
            raise UserError(f"{what} has nothing to train: all its parameters are frozen; set requires_grad of some")


def _folder(settings: Settings, resume: bool, extend: Mapping[str, Any]) -> RunFolder | None:
    if settings.out is None:
        if resume:
            raise UserError("resume=True needs out=, the folder of the run to go on with")
        return None
    folder = RunFolder(settings.out)
    if resume:
        folder.open(extending=bool(extend))
    return folder


def _described(settings: Settings) -> str:
    # JSON's values are YAML's too.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.plain().items())


def _shown(settings: Settings, ranks: Ranks) -> list[Callback]:
    """Return the callbacks that show the run, progress and a logger, on rank 0."""
    shown: list[Callback] = []
    if ranks.first and settings.progress:
        shown.append(make_progress())
    if ranks.first and settings.log != "none":
        shown.append(make_logger(settings.log, settings.out))
    return shown


def _run(loop: Loop, interrupt: Interrupt, record: Record, test: bool) -> None:
    """Train and evaluate; set the record's status and error to how it ended."""
    try:
        loop.run(interrupt)
        _evaluate(loop, record, "val")
        if test:
            _evaluate(loop, record, "test")
        if loop.folder:
            net = loop.trainer.net
            loop.folder.save_net(net, _metadata(loop.trainer, record), net.own_weights())
        loop.peak_memory = loop.ranks.largest(loop.peak_memory)
        loop.meter.close()
        loop.ranks.add_joules(loop.meter)
        record.status = "completed"
    except Interrupted as interrupted:
        record.status, record.error = "interrupted", str(interrupted)
        record.diagnostics["signal"] = interrupted.signum
    except KeyboardInterrupt:  # a second signal, which did not wait for the batch to end
        record.status, record.error = "interrupted", AT_ONCE
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
    """Evaluate a split into the record; for a rule that draws in predicting, means over its inference seeds."""
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


def _new_record(
    trainer: Trainer, data: Data, settings: Settings, device: torch.device, labels: dict[str, Any]
) -> Record:
    rule = type(trainer)
    record = Record(
        algo=rule.__name__,
        rule=f"{rule.__module__}.{rule.__qualname__}",
        dataset=data.name,
        net=type(trainer.net).__name__,
        seed=settings.seed,
        train_samples=data.sizes["train"],
        val_samples=data.sizes["val"],
        test_samples=data.sizes["test"],
        parameters=sum(p.numel() for p in trainer.parameters()),
        device=describe_device(device),
        precision=settings.precision,
        batch_size=data.sizes["train"] if data.kind == "graph" else settings.batch_size,
        deterministic=settings.deterministic,
        parallel=settings.parallel,
        versions=versions(),
        data_fingerprint=data.fingerprint(),
        started=_now(),
    )
    if data.class_names is not None:
        record.diagnostics["class_names"] = list(data.class_names)
    for name in ("feature_names", "target_names"):
        names = getattr(data, name)
        if names is not None and len(names) <= _NAMES:
            record.diagnostics[name] = list(names)
    if data.notes:
        record.diagnostics["data"] = list(data.notes)
    for name, value in labels.items():
        if name != "setup_s":
            setattr(record, name, value)
    return record


def _resume(
    loop: Loop, folder: RunFolder | None, record: Record, own: dict[str, Any], extend: Mapping[str, Any]
) -> None:
    """Restore loop and record from the last checkpoint; where there is none the run starts again."""
    # Several ranks read it to the CPU, from where each moves it to its own device.
    held_by = loop.device if loop.ranks.size == 1 else torch.device("cpu")
    state = loop.ranks.from_first(lambda: folder.load_checkpoint(held_by) if folder else None)
    where = f"resume={folder.path}" if folder else "the checkpoint"
    completed = loop.ranks.from_first(lambda: folder is not None and folder.status() == "completed")
    if state is None:
        if completed:
            raise UserError(f"{where}: that run is completed and has no checkpoint to be trained on from")
        if folder:
            folder.write_metrics([])
        return
    try:
        session = state["session"]
        changed = [name for name in _IDENTITY if session[name] != getattr(record, name)]
        if changed:
            raise UserError(f"{where}: that run had another {', '.join(changed)}; give them as they were")
        saved = session.get("config", {})  # which older checkpoints lack
        check_resumed(where, saved, own["config"], extend)
        if session.get("described", own["described"]) != own["described"]:
            change = first_change(session["described"], own["described"])
            raise UserError(f"{where}: that run's rule or net was built with other options: {change}")
        given = {name: value for name, value in extend.items() if name not in saved or saved[name] != value}
        if given or completed:
            stopping = state["parts"]["stopping"]
            patience = loop.settings.patience
            check_extension(
                where,
                trained=state["position"]["epoch"],
                epochs=loop.settings.epochs,
                stages=len(loop.phases),
                schedule=schedule_class(loop.settings.schedule),
                one_pass=all(isinstance(phase, Solve) for phase in loop.phases),
                longer="epochs" in given,
                stopped=patience is not None and stopping["stale"] >= patience,
            )
        loop.load(state)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        broken = folder.checkpoint if folder else "the checkpoint"
        raise UserError(f"{broken} is not of this rule on this net: {str(error).splitlines()[0]}") from error
    record.started, record.setup_s = session["started"], session["setup_s"]
    position = loop.position
    seam = {"resumed": _now(), "stage": position.stage, "epoch": position.epoch, "batch": position.batch}
    if given:
        seam["with"] = given
    record.seams = [*session["seams"], seam]


def _finish(record: Record, loop: Loop, meter: Meter) -> None:
    if record.ranks > 1 and (record.status == "failed" or record.error == AT_ONCE):
        meter.lose("rank_lost")
    report = meter.report()
    record.finished = _now()
    record.energy, record.co2e = report["energy"], report["co2e"]
    record.co2e_kg = report["co2e_kg"]
    record.history = loop.history
    record.stages = len(loop.phases)
    record.epochs, record.passes = len(loop.history), loop.position.passes
    record.best_epoch = loop.best_epochs[-1] if loop.best_epochs else None
    record.train_s, record.eval_s = meter.duration_s("train"), meter.duration_s("eval")
    if record.train_s:
        record.samples_per_s = record.passes * record.train_samples / record.train_s
    record.capture = ", ".join(sorted(loop.captures - {"off"})) or "off"
    record.memory = loop.peak_memory
    peak = record.memory.get("allocator_bytes") or record.memory.get("process_bytes")
    record.peak_memory_bytes = peak
    if not record.metrics and loop.history:
        last = loop.history[-1]
        figures = {name[4:]: figure for name, figure in last.items() if name.startswith("val_")}
        record.evaluated(loop.trainer.task.metrics, "val", figures)


def _leave(folder: RunFolder, record: Record) -> None:
    """Write run.json. Where the run failed already, say of a full disk, that error is the one to report."""
    with contextlib.suppress(*[UserError] if record.status == "failed" else []):
        folder.write_text(folder.record, record.to_json())


def _metadata(trainer: Trainer, record: Record) -> dict[str, str]:
    net = trainer.net
    values = {"input_shape": net.input_shape, "classes": net.classes, "net": record.config.get("net") or net.options}
    if net.takes.vocabulary is not None:
        values["vocabulary"] = net.takes.vocabulary
    if net.takes.categories:
        values["categories"] = net.takes.categories
    if isinstance(net.codec, Codec):
        values["codec"] = net.codec.describe()
    if "class_names" in record.diagnostics:
        values["class_names"] = record.diagnostics["class_names"]
    names = net.own_names()
    if any(name != own for name, own in names.items()):
        values["names"] = names
    if not net.task.has_classes:
        values["task"] = net.task.describe()
    return {"localearn": json.dumps(values)}  # one entry, for safetensors writes several in any order


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


_guard = threading.Lock()
_claimed: set[int] = set()


@contextlib.contextmanager
def claimed(trainer: Trainer) -> Iterator[None]:
    """Exclude other fits from a rule and its net inside the block.

    Args:
        trainer: The rule; it and each of its parameters are claimed.

    Raises:
        UserError: Where another fit is training any part of them.

    """
    own = {id(part) for part in (trainer, *trainer.parameters())}
    with _guard:
        if own & _claimed:
            raise UserError(
                f"this {type(trainer).__name__}, or a part of its net, is being trained by another fit; wait for that, "
                "or train a copy.deepcopy of it"
            )
        _claimed.update(own)
    try:
        yield
    finally:
        with _guard:
            _claimed.difference_update(own)
