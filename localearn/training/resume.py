"""Resuming a run from its checkpoint: which options must be the same, and which may extend it."""

import copy
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from localearn.errors import UserError
from localearn.records import Record
from localearn.records.folder import RunFolder
from localearn.trainers.former_names import former_description
from localearn.trainers.phases import Solve
from localearn.training.early_stopping import FORMER_DEFAULT
from localearn.training.identity import upgrade_configuration
from localearn.training.loop import Loop
from localearn.training.run_record import timestamp

# Options that may differ at a resume, since they change no number beyond rounding; a data set that was moved is checked
# by its fingerprint.
FREE = (
    "out", "resume", "progress", "debug", "log", "parallel", "rank_timeout_s", "device", "memory_format", "capture",
    "dataset.path", "dataset.data_dir",
)  # fmt: skip

# Options that extend a run at a resume, from the command line or from Python: they set how long to train.
EXTENDING = ("epochs", "patience")

# Schedules whose learning rates do not depend on how many epochs there are.
_ENDLESS = ("ConstantLR", "StepLR", "MultiStepLR", "StepWithDecay", "ExponentialLR", "ReduceLROnPlateau")

# Fields of the record that must not change in a resumed run: its checkpoint means nothing otherwise.
UNCHANGED = ("rule", "seed", "batch_size", "precision", "data_fingerprint")


def resume_run(
    loop: Loop, folder: RunFolder | None, record: Record, identity: dict[str, Any], extend: Mapping[str, Any]
) -> None:
    """Restore loop and record from the last checkpoint; without one the run starts from the beginning.

    Args:
        loop: The loop of the run, not started.
        folder: The run's folder, on rank 0.
        record: The record of the run at its start.
        identity: The present `config` and `described`, which must be those of the checkpoint.
        extend: The options, of `EXTENDING`, that may differ.

    Raises:
        UserError: Where the checkpoint is of another run, is damaged, or has nothing left to train.

    """
    # Several ranks broadcast it on the CPU, from where each moves it to its own device.
    map_location = loop.device if loop.ranks.size == 1 else torch.device("cpu")
    state = loop.ranks.broadcast_from_rank_0(lambda: folder.load_checkpoint(map_location) if folder else None)
    where = f"resume={folder.path}" if folder else "the checkpoint"
    completed = loop.ranks.broadcast_from_rank_0(lambda: folder is not None and folder.status() == "completed")
    if state is None:
        if completed:
            raise UserError(f"{where}: that run is completed and has no checkpoint to continue from")
        if folder:
            folder.write_metrics([])
        return
    try:
        session = state["session"]
        changed = [name for name in UNCHANGED if session[name] != getattr(record, name)]
        if changed:
            raise UserError(f"{where}: that run had another {', '.join(changed)}; use the same")
        saved = session.get("config", {})  # which older checkpoints lack
        check_resumed(where, saved, identity["config"], extend)
        described = identity["described"]
        if session.get("described", described) not in (described, former_description(described)):
            change = first_change(session["described"], described)
            raise UserError(f"{where}: that run's rule or net was built with other options: {change}")
        extended = {name: value for name, value in extend.items() if name not in saved or saved[name] != value}
        if extended or completed:
            stopping = state["parts"]["stopping"]
            patience = loop.settings.patience
            check_extension(
                where,
                trained=state["position"]["epoch"],
                epochs=loop.settings.epochs,
                stages=len(loop.phases),
                schedule=schedule_class(loop.settings.schedule),
                one_pass=all(isinstance(phase, Solve) for phase in loop.phases),
                longer="epochs" in extended,
                stopped=patience is not None and stopping["stale"] >= patience,
            )
        loop.load(state)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        broken = folder.checkpoint if folder else "the checkpoint"
        raise UserError(f"{broken} is not of this rule on this net: {str(error).splitlines()[0]}") from error
    record.started, record.setup_s = session["started"], session["setup_s"]
    position = loop.position
    seam = {"resumed": timestamp(), "stage": position.stage, "epoch": position.epoch, "batch": position.batch}
    if extended:
        seam["with"] = extended
    record.seams = [*session["seams"], seam]


def check_resumed(where: str, saved: Mapping[str, Any], now: Mapping[str, Any], extend: Mapping[str, Any]) -> None:
    """Check that a resumed run's options are those of its checkpoint.

    Args:
        where: The file or the option at fault, for the error message.
        saved: The configuration in the checkpoint.
        now: The present configuration.
        extend: The options of this resume, of `EXTENDING`, which may differ.

    Raises:
        UserError: Where they are not, naming each difference.

    """
    saved = copy.deepcopy(dict(saved))
    upgrade_configuration(saved)
    if saved.get("monitor") == FORMER_DEFAULT and now.get("monitor", FORMER_DEFAULT) is None:
        saved["monitor"] = None  # which meant the task's first metric, too
    differences = []
    for name, before, after in _differences(saved, now):
        if name not in extend:
            differences.append(f"{name} was {before!r} and is {after!r}")
    if differences:
        hint = " (or give epochs=N on the command line)" if any(t.startswith(EXTENDING) for t in differences) else ""
        raise UserError(
            f"{where}: that run was trained with other options: {'; '.join(differences)}; restore them{hint}"
        )


def _differences(saved: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted names with both values; options that the checkpoint predates are skipped."""
    for name, before in saved.items():
        path = f"{prefix}{name}"
        after = now.get(name) if isinstance(now, Mapping) else None
        if path in FREE or " at 0x" in f"{before}{after}":
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{path}.")
            for added in after.keys() - before.keys():
                if prefix or name in ("algo", "net", "dataset", "optim", "schedule"):
                    yield f"{path}.{added}", None, after[added]
        elif _plain(before) != _plain(after):
            yield path, before, after


def _plain(value: Any) -> Any:
    """Return lists in place of tuples, and strings in place of paths, as a file stores them."""
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return str(value) if isinstance(value, Path) else value


def first_change(before: str, after: str) -> str:
    """Return, as a text, the first line in which two results of `described` differ.

    Args:
        before: The result in the checkpoint.
        after: The present result.

    """
    old, new = before.splitlines(), after.splitlines()
    for was, now in itertools.zip_longest(old, new, fillvalue="nothing"):
        if was != now:
            return f"{was.strip()!r} is now {now.strip()!r}"
    return "nothing"


def check_extension(
    where: str,
    trained: int,
    epochs: int,
    stages: int,
    schedule: object,
    *,
    one_pass: bool,
    longer: bool,
    stopped: bool,
) -> None:
    """Check that a run can be trained for another number of epochs, and has epochs left to train.

    Args:
        where: The option that names the run, for the error message.
        trained: Epochs that the checkpoint has completed.
        epochs: Epochs of the resumed run.
        stages: Phases that are trained one after another.
        schedule: The schedule's class, or None.
        one_pass: Whether the rule is solved in a single pass.
        longer: Whether this resume sets another number of epochs.
        stopped: Whether the patience of the resumed run has run out already.

    Raises:
        UserError: Where it cannot, or has none.

    """
    if one_pass or stages > 1:
        how = "is solved in one pass" if one_pass else f"trains {stages} stages one after another"
        raise UserError(f"{where}: that rule {how}, so it cannot be trained for more epochs; start a new run")
    name = getattr(schedule, "__name__", type(schedule).__name__)
    if longer and schedule is not None and name not in _ENDLESS:
        raise UserError(
            f"{where}: the learning rates of {name} are those of the epochs that the run began with, so more epochs "
            "would be another run; start a new one, or use schedule=constant in it"
        )
    if epochs <= trained:
        raise UserError(f"{where}: that run has completed {trained} epochs already; give a larger epochs=")
    if stopped:
        raise UserError(
            f"{where}: that run was stopped early, its patience having run out; give a larger patience=, or null"
        )


def schedule_class(factory: Any) -> Any:
    """Return the class whose options a factory binds; None for None.

    Args:
        factory: A functools.partial of the class, the class itself, or None.

    """
    return factory.func if isinstance(factory, functools.partial) else factory
