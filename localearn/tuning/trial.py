"""A trial of a search: a run on the validation split, whose test split is never evaluated."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError
from localearn.jobs import Job, prepare
from localearn.printing import say
from localearn.records import Record, RunFolder, read_record
from localearn.records.reading import parse_energy
from localearn.tasks import Metric
from localearn.training.callbacks import Callback, Context
from localearn.training.experiment import execute
from localearn.training.loading import resumed
from localearn.trust import words
from localearn.tuning.plan import Plan

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

QUIET = ("progress=false", "log=none")


class InterruptedTrial(KeyboardInterrupt):
    """A signal ended a trial's run, whose checkpoint stays.

    Args:
        signum: the signal's number.

    """

    def __init__(self, signum: int):
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


def run_trial(trial: "Trial", plan: Plan, values: Mapping[str, Any], folder: Path) -> list[float]:
    """Run a trial, or resume it in a folder where another worker left it; return its objectives.

    Args:
        trial: Optuna's.
        plan: the search's.
        values: the trial's value of each option, by its dotted path.
        folder: where the run is.

    Raises:
        TrialPruned: when the pruner ended it or its loss was not finite.
        InterruptedTrial: after a signal.

    """
    overrides = [*plan.overrides, *(f"{path}={value}" for path, value in values.items()), *QUIET]
    set_broken_aside(folder, words(overrides)[1])
    prepared = prepare(Job(folder, overrides), plan.config_dir)
    pruning = [] if plan.reports_nothing else [Pruning(trial, plan.metric)]
    record = read_record(folder) if prepared is None else execute(*prepared, callbacks=pruning, test=False)
    for name, value in remembered(record, plan.metric).items():
        trial.set_user_attr(name, value)
    if record.status == "interrupted":
        raise InterruptedTrial(record.diagnostics["signal"])
    return values_of(plan, record)


def values_of(plan: Plan, record: Record) -> list[float]:
    """Return the objectives of a run that is done: the metric, and the joules where they are an objective.

    Args:
        plan: the search's.
        record: the run's.

    Raises:
        TrialPruned: when the run has none of that.
        UserError: when no run of this search will have it.

    """
    from optuna import TrialPruned

    if record.status != "completed":
        raise TrialPruned(record.error)
    name = plan.metric.name
    figure = record.metric(name, "val")
    if figure is None:
        raise UserError(f"a search is by the {name} on the validation split, and the run's record has none")
    if not plan.names_energy:
        return [figure]
    energy = parse_energy(record.energy)
    joules = energy.train_j
    if joules is None and energy.reading.label == "absent":
        raise UserError(f"objective={plan.objective} needs joules, and none were had here; use objective={name}")
    if joules is None:  # of this trial alone: a driver that went away must not end the study
        raise TrialPruned(f"the training's joules are not known: {', '.join(energy.flags)}")
    return [figure, joules]


def remembered(record: Record, metric: Metric) -> dict[str, Any]:
    """Return a run's values for the study's storage: how it ended, and what it cost in all its windows.

    Args:
        record: the run's.
        metric: what was searched by.

    """
    energy = parse_energy(record.energy)
    part = energy.parts.get(energy.reading.part or "")
    joules = [window.energy_j for window in part.windows.values()] if part else []
    known = [figure for figure in joules if figure is not None]
    return {
        **{name: getattr(record, name) for name in ("algo", "dataset", "net", "status")},
        "folder": str(record.config.get("out")),
        f"val_{metric.name}": record.metric(metric.name, "val"),
        "passes": record.passes,
        "train_s": record.train_s,
        "energy_j": sum(known) if known and len(known) == len(joules) else None,
        "energy": {name: getattr(energy.reading, name) for name in ("label", "source", "part")},
    }


def suggested(trial: "Trial", space: Mapping[str, "BaseDistribution"]) -> dict[str, Any]:
    """Return a trial's value for each option of a space.

    Args:
        trial: Optuna's.
        space: each option's distribution, by its dotted path.

    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values: dict[str, Any] = {}
    for path, given in space.items():
        if isinstance(given, FloatDistribution):
            values[path] = trial.suggest_float(path, given.low, given.high, log=given.log, step=given.step)
        elif isinstance(given, IntDistribution):
            values[path] = trial.suggest_int(path, given.low, given.high, log=given.log, step=given.step)
        elif isinstance(given, CategoricalDistribution):
            values[path] = trial.suggest_categorical(path, list(given.choices))
    return values


class Pruning(Callback):
    """A callback that reports each epoch's metric to Optuna, and stops the run where the study's pruner prunes it.

    Args:
        trial: Optuna's.
        metric: what is searched by.

    """

    def __init__(self, trial: "Trial", metric: Metric):
        self.trial, self.metric = trial, metric

    def epoch_ended(self, context: Context) -> None:
        """Report, and ask the pruner."""
        step = round(context.line["passes"])  # not counted here: a run may go on from the checkpoint before the last
        self.trial.report(context.line[f"val_{self.metric.name}"], step)
        if self.trial.should_prune():
            context.stop(f"pruned after {step} epochs")


def set_broken_aside(folder: Path, trust: Collection[str] = ()) -> None:
    """Rename the remains of a trial where it cannot be resumed, as after a full disk: the trial starts again.

    Args:
        folder: the trial's.
        trust: what its configuration may name, see `localearn.trust`.

    """
    from torch import device

    run = RunFolder(folder)
    begun = run.config.exists() or run.checkpoint.exists()
    if not begun or run.is_finished():
        return
    try:
        resumed(str(folder), [], trust)
        run.load_checkpoint(device("cpu"))
    except UserError as error:
        number = sum(1 for _ in folder.parent.glob(f"{folder.name}.broken-*"))
        spare = folder.with_name(f"{folder.name}.broken-{number}")
        folder.rename(spare)
        say(f"trial {folder.name} starts again, what was left of it is {spare}: {error}", error=True)
