"""The plan of a search: how many trials, of what, where, and by which metric."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from localearn.errors import UserError, suggestion
from localearn.moved import former_names
from localearn.reporting.metrics import ACCURACY
from localearn.tasks import Metric, Task

ENERGY = "_energy"  # ends an objective that asks for few joules too


@dataclass(frozen=True)
class Plan:
    """The plan of a search.

    Attributes:
        out: the search's folder.
        study: its name in the storage.
        storage: a SQLAlchemy URL, or a journal file's path after "journal:".
        overrides: what all trials have in common.
        ranges: overrides of the algorithm's own space, see `altered`.
        trials: how many are to end, pruned or completed, on all machines together.
        sampler: Optuna's, by name.
        pruner: Optuna's, by name.
        objective: a metric on the validation split, say "accuracy", or with "_energy" behind it, which also asks for
            few joules of training and ends in a Pareto front; empty: the task's first metric, see `for_task`.
        heartbeat_s: seconds between the heartbeats of a worker on a database; after three without one its trial is
            another's to go on with.
        aside: whether a damaged database is set aside, and a new one made of the trials' records.
        config_dir: a folder of the user's own configurations, if any.
        metric: the one that the objective names.

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

        Args:
            task: what the trials are trained for.

        Raises:
            UserError: when the objective is no metric of the task.

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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
