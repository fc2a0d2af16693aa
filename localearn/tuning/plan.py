"""A search's options, and the space that it searches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localearn.errors import UserError, suggestion
from localearn.reporting.metrics import ACCURACY
from localearn.tasks import Metric, Task

ENERGY = "_energy"  # ends an objective that asks for few joules too


@dataclass(frozen=True)
class Plan:
    """A search.

    trials: how many are to end, pruned or completed, on all machines together. objective: a metric on the validation
    split, say "accuracy", or with "_energy" behind it, which also asks for few joules of training and ends in a Pareto
    front; empty: the task's first metric, see `for_task`. metric: the one that it names. storage: a SQLAlchemy URL, or
    a journal file's path after "journal:". heartbeat_s: seconds between the signs of life of a worker on a database;
    after three without one its trial is another's to go on with. aside: whether a damaged database is set aside, and a
    new one made of the trials' records.
    overrides: what all trials have in common. ranges: overrides of the algorithm's own space, see `altered`.
    """

    out: Path
    study: str
    storage: str
    overrides: tuple[str, ...]
    ranges: tuple[str, ...] = ()
    trials: int = 20
    sampler: str = "tpe"
    pruner: str = "median"
    objective: str = ""
    heartbeat_s: int = 15
    aside: bool = False
    config_dir: str | None = None
    metric: Metric = ACCURACY

    @property
    def reports_nothing(self) -> bool:
        """Whether no trial's curve is shown to a pruner."""
        return self.names_energy or self.pruner == "none"

    @property
    def names_energy(self) -> bool:
        """Whether joules are an objective."""
        return self.objective.endswith(ENERGY)

    def for_task(self, task: Task) -> "Plan":
        """Return the plan with the metric that its objective names.

        Where none is named it is the task's first, and so is the accuracy of a task that has none.

        Raises:
            UserError: for an objective that is no metric of the task.

        """
        name, energy = self.objective.removesuffix(ENERGY), ENERGY * self.names_energy
        metric = task.metric(name)
        if metric is None and name in ("", ACCURACY.name):
            metric = task.metrics[0]
        if metric is None:
            known = [f"{metric.name}{end}" for metric in task.metrics for end in ("", ENERGY)]
            near = suggestion(self.objective, known)
            raise UserError(f"no objective {self.objective!r}{near}; there are {', '.join(known)}")
        return replace(self, objective=f"{metric.name}{energy}", metric=metric)


def altered(space: dict[str, Any], ranges: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    """Return a space with overrides of it applied, each `tune.space.OPTION=RANGE`, OPTION=null to leave it out.

    OPTION is an option's dotted path, or its last name where one group alone has it (lr for optim.lr). A range's own
    field may stand behind it: tune.space.lr.high=0.1. Raises UserError for what cannot be read or is not there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    changed = _copied(space)
    for override in ranges:
        try:
            parsed = OverridesParser.create().parse_override(override)
            value = parsed.value()
        except HydraException as error:
            raise UserError(f"cannot read {override!r}; say tune.space.lr={{low:1e-4,high:0.1,log:true}}") from error
        path = parsed.key_or_group.removeprefix("tune.space.").split(".")
        head, *rest = _located(path[0], config)
        *branch, last = [head, *rest, *path[1:]]
        node = changed
        for name in branch:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UserError(f"tune.space.{'.'.join(path)}: {name} is no group")
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return _without_empty(changed)


def _located(name: str, config: dict[str, Any]) -> list[str]:
    """Return where an option stands: at the top, or in the one group that has it."""
    if name in config:
        return [name]
    groups = [group for group, options in config.items() if isinstance(options, dict) and name in options]
    groups = [group for group in groups if group != "tune"]
    if len(groups) == 1:
        return [groups[0], name]
    if groups:
        raise UserError(f"tune.space.{name} may be {' or '.join(f'tune.space.{group}.{name}' for group in groups)}")
    options = {option for values in config.values() if isinstance(values, dict) for option in values}
    raise UserError(f"tune.space.{name}: there is no option {name}{suggestion(name, {*config, *options})}")


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: _copied(branch) if isinstance(branch, dict) else branch for name, branch in tree.items()}


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _without_empty(branch) if isinstance(branch, dict) else branch for name, branch in tree.items()}
    return {name: branch for name, branch in kept.items() if branch != {}}
