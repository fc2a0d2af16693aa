"""Identity of a run: the names and the options of what it has built."""

import inspect
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from torch import nn

from localearn import trainers
from localearn.moved import former_names
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent

# Former defaults, for records that do not name an option: one that was added later, or that the user's own file left
# to the constructor, whose default was another. Whoever changes a default in a rule's signature adds the former one.
BEFORE_OF_RULES = {
    "localearn.DirectFeedbackAlignment": {"scale": "width"},
    "localearn.ForwardGradient": {"guess": "noise"},
    "localearn.ForwardForward": {"peer_scale": "port", "readout_lr": None},
    "localearn.LikelihoodRatio": {"copies": 2},
}
# The present paths of classes that the configurations of older runs name by another one.
FORMER_TARGETS = {
    f"localearn.training.schedules.{name}": f"localearn.training.optimization.{name}"
    for name in ("CoolDown", "FractionSteps", "StepWithDecay")
}
_PLAIN = bool | int | float | str


def names_built(config: Mapping[str, Any], choices: Mapping[str, Any], shipped: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the rule, the data set and the net that a configuration builds.

    A chosen file's name is used only while its `_target_`, and a data set's `name`, are those of the file; otherwise
    the class, or the data set, has its own name.

    Args:
        config: The resolved configuration.
        choices: The names chosen for algo, dataset and net, and the overrides.
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
    """Return a trainer's plain options and its modules with theirs, such as dropout and activations, as a text.

    Args:
        trainer: The rule on its net.

    """
    # Other attributes may be counters; what is None may be set during training, or on some ranks only.
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


def upgrade_configuration(config: MutableMapping[str, Any]) -> None:
    """Upgrade the configuration of an older run to the one that a run of this release has.

    Schedules get their present `_target_`, and the rule the options that are missing, with their defaults at that time.

    Args:
        config: The configuration, changed in place.

    """
    schedule = config.get("schedule")
    if isinstance(schedule, MutableMapping) and schedule.get("_target_") in FORMER_TARGETS:
        schedule["_target_"] = FORMER_TARGETS[schedule["_target_"]]
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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
