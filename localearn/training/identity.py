"""Identity of a run: the names of what it has built, and which options may differ when it is resumed."""

import copy
import functools
import inspect
import itertools
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from torch import nn

from localearn import trainers
from localearn.errors import UserError
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent
from localearn.training.evaluate import FORMER_DEFAULT

# Options that may change at a resume, for they change no number but by rounding; a data set that was moved is checked
# by its fingerprint.
FREE = (
    "out", "resume", "progress", "debug", "log", "parallel", "rank_timeout_s", "device", "memory_format", "capture",
    "dataset.path", "dataset.data_dir",
)  # fmt: skip
# Options that may be given again at a resume, on the command line or in Python: they set how long to train.
EXTENDING = ("epochs", "patience")

# Schedules whose learning rates do not depend on how many epochs there are.
_ENDLESS = ("ConstantLR", "StepLR", "MultiStepLR", "StepWithDecay", "ExponentialLR", "ReduceLROnPlateau")

# Former defaults, for records that do not name an option: one that was added later, or that the user's own file left
# to the constructor, whose default was another. Whoever changes a default in a rule's signature adds the former one.
BEFORE_OF_RULES = {
    "localearn.DirectFeedbackAlignment": {"scale": "width"},
    "localearn.ForwardGradient": {"guess": "noise"},
    "localearn.ForwardForward": {"peer_scale": "port", "readout_lr": None},
    "localearn.LikelihoodRatio": {"copies": 2},
}

_PLAIN = bool | int | float | str


def names_built(config: Mapping[str, Any], choices: Mapping[str, Any], shipped: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the rule, the data set and the net that a configuration builds.

    A chosen file's name is used only while its `_target_`, and a data set's `name`, are those of the file; otherwise
    the class, or the data set, has its own name.

    Args:
        config: The resolved configuration.
        choices: The names chosen for algo, dataset and net, and the overrides that were given.
        shipped: For each of the three the options in the file of the chosen name that localearn ships; empty for a
            user's own file.

    """
    names = {}
    typed = {str(override).partition("=")[0].lstrip("+") for override in choices.get("overrides", ())}
    for group in ("algo", "dataset", "net"):
        built, file = config[group], shipped[group]
        target = str(built.get("_target_"))
        replaced = target != file.get("_target_") if file else f"{group}._target_" in typed
        name = built.get("name") if group == "dataset" else None
        if replaced and group != "dataset":
            names[group] = target.rpartition(".")[2]
        elif group == "dataset" and (replaced or (file and name != file.get("name"))):
            names[group] = str(name or target.rpartition(".")[2]).replace("/", "-")
        else:
            names[group] = choices[group]
    return names


def described(trainer: nn.Module) -> str:
    """Return a trainer's modules with their options, dropout and activations included, and its plain options."""
    # Other attributes may be counters; what is None may be set while the rule trains, or on some ranks alone.
    known = inspect.signature(type(trainer)).parameters
    options = {name: value for name, value in vars(trainer).items() if name in known and isinstance(value, _PLAIN)}
    if isinstance(trainer, Trainer):
        steps = [phase.steps for phase in trainer.phases() if isinstance(phase, Descent)]
        if max(steps, default=1) > 1:
            options["steps"] = str(steps)
        if not trainer.task.has_classes:  # older checkpoints do not name a task with classes
            options["task"] = str(trainer.task)
    lines = f"{options}\n{trainer!r}".splitlines()
    return "\n".join(line for line in lines if " at 0x" not in line)  # an address differs from process to process


def first_change(before: str, after: str) -> str:
    """Return the first line in which two results of `described` differ, before and after."""
    old, new = before.splitlines(), after.splitlines()
    for was, now in itertools.zip_longest(old, new, fillvalue="nothing"):
        if was != now:
            return f"{was.strip()!r} is now {now.strip()!r}"
    return "nothing"


def complete_rule(config: MutableMapping[str, Any]) -> None:
    """Add to a configuration from a run's folder the rule's options that it lacks, with their values at that time.

    Args:
        config: The configuration, changed in place.

    """
    rule = config.get("algo")
    if isinstance(rule, MutableMapping):
        target = str(rule.get("_target_"))
        for name, value in {**_signature(target), **BEFORE_OF_RULES.get(target, {})}.items():
            rule.setdefault(name, value)


def _signature(target: str) -> dict[str, Any]:
    """Return the defaults in a localearn rule's signature; newer records name all of its options."""
    package, _, name = target.rpartition(".")
    rule = getattr(trainers, name, None) if package == "localearn" else None
    if rule is None:
        return {}
    parameters = inspect.signature(rule).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def check_resumed(where: str, saved: Mapping[str, Any], now: Mapping[str, Any], extend: Mapping[str, Any]) -> None:
    """Check that a resumed run's options are those of its checkpoint.

    Args:
        where: The file or the option at fault, for the error message.
        saved: The configuration in the checkpoint.
        now: The present configuration.
        extend: Options, of `EXTENDING`, that were given for this resume and may differ.

    Raises:
        UserError: Where they are not, naming each difference.

    """
    saved = copy.deepcopy(dict(saved))
    complete_rule(saved)
    if saved.get("monitor") == FORMER_DEFAULT and now.get("monitor", FORMER_DEFAULT) is None:
        saved["monitor"] = None  # which meant the task's first metric, too
    told = []
    for name, before, after in _differences(saved, now):
        if name not in extend:
            told.append(f"{name} was {before!r} and is {after!r}")
    if told:
        hint = " (or say epochs=N on the command line)" if any(t.startswith(EXTENDING) for t in told) else ""
        raise UserError(f"{where}: that run was trained with other options: {'; '.join(told)}; put them back{hint}")


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
        epochs: Epochs that are asked for.
        stages: Phases that are trained one after another.
        schedule: The schedule's class, or None.
        one_pass: Whether the rule is solved in a single pass.
        longer: Whether another number of epochs was given.
        stopped: Whether patience has run out already, under the patience that is asked for.

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
        raise UserError(f"{where}: that run has made {trained} epochs already; give a larger epochs=")
    if stopped:
        raise UserError(
            f"{where}: that run was stopped early, its patience having run out; give a larger patience=, or null"
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
    """Return lists for tuples, and texts for paths, as a file stores them."""
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return str(value) if isinstance(value, Path) else value


def schedule_class(factory: Any) -> Any:
    """Return the class whose options a factory binds; None for None."""
    return factory.func if isinstance(factory, functools.partial) else factory
