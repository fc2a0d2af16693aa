"""The record of a run: its fields that are known at the start, and those that the end adds."""

import contextlib
import datetime
import json
from typing import Any

import torch

from localearn.data import Codec, Data
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.records import Record, versions
from localearn.records.folder import RunFolder
from localearn.trainers.base import Trainer
from localearn.training.loop import Loop
from localearn.training.runtime import describe_device
from localearn.training.settings import Settings

INTERRUPTED_AT_ONCE = "interrupted at once, after the last checkpoint"
MAX_NAMES = 1000  # of columns that a record lists


def new_record(
    trainer: Trainer, data: Data, settings: Settings, device: torch.device, labels: dict[str, Any]
) -> Record:
    """Return the record of a run at its start.

    Args:
        trainer: The rule on its net.
        data: The data set.
        settings: The options of the run.
        device: The run's device.
        labels: Fields that the caller of `train` sets, and `setup_s`, which is no field at this point.

    """
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
        started=timestamp(),
    )
    if data.class_names is not None:
        record.diagnostics["class_names"] = list(data.class_names)
    for name in ("feature_names", "target_names"):
        names = getattr(data, name)
        if names is not None and len(names) <= MAX_NAMES:
            record.diagnostics[name] = list(names)
    if data.notes:
        record.diagnostics["data"] = list(data.notes)
    for name, value in labels.items():
        if name != "setup_s":
            setattr(record, name, value)
    return record


def finish_record(record: Record, loop: Loop, meter: Meter) -> None:
    """Add to a record the outcome of the run: energy, history, durations, memory.

    Args:
        record: The record, changed in place.
        loop: The loop, as the run left it.
        meter: The meter, closed.

    """
    if record.ranks > 1 and (record.status == "failed" or record.error == INTERRUPTED_AT_ONCE):
        meter.invalidate("rank_lost")
    report = meter.report()
    record.finished = timestamp()
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


def write_record(folder: RunFolder, record: Record) -> None:
    """Write a run's run.json; where the run failed already, say of a full disk, a second error is suppressed.

    Args:
        folder: The run's folder.
        record: The record of the run.

    """
    with contextlib.suppress(*[UserError] if record.status == "failed" else []):
        folder.write_text(folder.record, record.to_json())


def net_metadata(trainer: Trainer, record: Record) -> dict[str, str]:
    """Return the metadata of net.safetensors, by which `load_net` builds the net again.

    Args:
        trainer: The rule on the trained net.
        record: The record of the run.

    """
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
    return {"localearn": json.dumps(values)}  # one entry, since safetensors writes several in any order


def timestamp() -> str:
    """Return the present time in UTC, in the format of ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
