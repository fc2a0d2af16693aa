"""From a rule, data and settings to a record."""

import contextlib
import datetime
import json
import time
from dataclasses import fields
from typing import Any

import torch

from localearn.data import Data
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.trainers.base import Trainer
from localearn.training.device import describe_device, deterministic_algorithms, select_device
from localearn.training.folder import RunFolder
from localearn.training.interrupt import Interrupt
from localearn.training.loop import Diverged, Interrupted, Loop
from localearn.training.progress import Progress, Several, make_progress
from localearn.training.record import Record, versions
from localearn.training.settings import Settings


def fit(trainer: Trainer, data: Data, *, resume: bool = False, **options: Any) -> Record:
    """Train a rule on data and return the record of the run; the options are the fields of `Settings`.

    The trainer and the data end on the settings' device; the trained net is `trainer.net`. resume: go on with the run in
    `out`, the trainer being built as it was then. Raises UserError for options that are wrong or do not go together,
    and KeyboardInterrupt after Ctrl-C where there is no `out` to keep what was learned.
    """
    settings = Settings.of(**options)
    record = train(trainer, data, settings, resume=resume)
    if record.status == "interrupted" and settings.out is None:
        raise KeyboardInterrupt
    return record


def train(
    trainer: Trainer,
    data: Data,
    settings: Settings,
    labels: dict[str, Any] | None = None,
    *,
    resume: bool = False,
    config: str | None = None,
) -> Record:
    """Train, as `fit` does.

    labels: fields of the record that the caller knows (algo, net, config, ...). config: what stands in config.yaml.
    """
    started_s = time.perf_counter()
    device = select_device(settings.device)
    type(trainer).supports(trainer.net, data)
    _check_optimizer(settings)
    folder = None if settings.out is None else RunFolder(settings.out)
    if folder and not resume:
        folder.create()
        folder.write_text(folder.config, config or _described(settings))
    record = _new_record(trainer, data, settings, device, labels or {})
    meter = Meter(
        device, country=settings.country, sources="auto" if settings.energy else "none", idle_s=settings.idle_s
    )
    progress = _progress(settings)
    with deterministic_algorithms(settings.deterministic), Interrupt() as interrupt, contextlib.ExitStack() as cleanup:
        cleanup.callback(meter.close)
        cleanup.callback(progress.close)
        trainer.to(device)
        loop = Loop(trainer, data.to(device), settings, device, meter, progress, folder)
        if resume and folder:
            _resume(loop, folder, record, device)
        meter.open()
        record.setup_s = (labels or {}).get("setup_s", 0.0) + time.perf_counter() - started_s
        try:
            _run(loop, interrupt, record)
        finally:
            progress.close()
            meter.close()
            _finish(record, loop, meter)
            if folder:
                folder.write_text(folder.record, record.to_json())
        if folder and record.status == "completed":
            folder.save_net(trainer.net, _metadata(trainer, record))
    return record


def _check_optimizer(settings: Settings) -> None:
    try:
        optimizer = settings.optim([torch.nn.Parameter(torch.zeros(1))])
        if settings.schedule:
            settings.schedule(optimizer)
    except (TypeError, ValueError) as error:
        raise UserError(f"optim or schedule: {error}") from error


def _progress(settings: Settings) -> Progress:
    shown = make_progress(settings.progress)
    if settings.log == "none":
        return shown
    from localearn.training.tensorboard import TensorBoard

    return Several(shown, TensorBoard(settings.out))


def _described(settings: Settings) -> str:
    return "".join(f"{f.name}: {getattr(settings, f.name)!r}\n" for f in fields(settings))


def _run(loop: Loop, interrupt: Interrupt, record: Record) -> None:
    try:
        loop.run(interrupt)
        for split in ("val", "test"):
            result = loop.evaluate(split)
            setattr(record, f"{split}_accuracy", result["accuracy"])
        record.test_loss = result["loss"]
        record.status = "completed"
    except Interrupted as interrupted:
        record.status, record.error = "interrupted", str(interrupted)
        record.diagnostics["signal"] = interrupted.signum
    except Diverged as diverged:
        record.status, record.error = "diverged", str(diverged)
    except torch.OutOfMemoryError as error:
        record.status, record.error = "failed", "out of memory"
        size = loop.settings.batch_size
        raise UserError(f"the device's memory is full at batch_size={size}; try a smaller one or net") from error
    except BaseException as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
        raise


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
        versions=versions(),
        data_fingerprint=data.fingerprint(),
        started=_now(),
    )
    for name, value in labels.items():
        setattr(record, name, value)
    return record


def _resume(loop: Loop, folder: RunFolder, record: Record, device: torch.device) -> None:
    folder.open()
    state = folder.load_checkpoint(device)
    if state is None:  # stopped before its first epoch was over: begin again
        return
    loop.load(state)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        earlier = json.loads(folder.record.read_text())
        record.started, record.seams = earlier["started"], earlier["seams"]
    position = loop.position
    record.seams.append({"resumed": _now(), "stage": position.stage, "epoch": position.epoch, "batch": position.batch})


def _finish(record: Record, loop: Loop, meter: Meter) -> None:
    report = meter.report()
    record.finished = _now()
    record.energy, record.co2e = report["energy"], report["co2e"]
    record.co2e_kg = report["co2e_kg"]
    record.history = loop.history
    record.stages = len(loop.stages)
    record.epochs, record.passes = len(loop.history), loop.position.passes
    record.best_epoch = loop.best_epochs[-1] if loop.best_epochs else None
    record.train_s, record.eval_s = meter.duration_s("train"), meter.duration_s("eval")
    if record.train_s:
        record.samples_per_s = record.passes * record.train_samples / record.train_s
    record.memory = loop.peak_memory
    peak = record.memory.get("allocator_bytes") or record.memory.get("process_bytes")
    record.peak_memory_bytes = peak
    if record.val_accuracy is None and loop.history:
        record.val_accuracy = loop.history[-1]["val_accuracy"]


def _metadata(trainer: Trainer, record: Record) -> dict[str, str]:
    net = trainer.net
    values = {"input_shape": net.input_shape, "classes": net.classes, "net": record.config.get("net")}
    return {"format": "pt", "localearn": json.dumps(values)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
