"""`python -m localearn.tune`: search for the options with which a rule is best on the validation split."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, RunningOptions, option, read, refuse_fixed, run_keys
from localearn.cli.pages import help_status
from localearn.composition import compose, expanded
from localearn.errors import UserError
from localearn.printing import one_line, say
from localearn.reporting import metrics
from localearn.reporting.metrics import ACCURACY
from localearn.tasks import Metric
from localearn.tuning.outcome import best_trials, spent, write_outcome
from localearn.tuning.plan import ENERGY, Plan
from localearn.tuning.search import Limits, Search
from localearn.tuning.space import altered, ends, read_space
from localearn.tuning.storage import close_storage, reported
from localearn.tuning.trial import InterruptedTrial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from localearn.trainers.base import Trainer

FIXED = ("resume", "protocol")


@dataclass(frozen=True)
class TuneOptions(RunningOptions):
    """The options of a search."""

    trials: int = option(20, "how many trials are to end, on all machines together")
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc"] = option("tpe", "what proposes the next trial")
    pruner: Literal["median", "hyperband", "none"] | None = option(
        None,
        "median, hyperband or none; ends a trial that its validation curve shows to be a bad one",
        value="median",
    )
    objective: str = option(
        "",
        "on the validation split, or another metric of the task; its first one where none is named. accuracy_energy: "
        "also few joules of training, a Pareto front",
        value="accuracy",
    )
    storage: str | None = option(
        None,
        "sqlite:///OUT/study.db where none is given; postgresql://user@host/name for many machines, or "
        "journal:/shared/study.log on a disk that they share",
        value="URL",
    )
    study: str | None = option(
        None, "the study's name in the storage; <algo>-<dataset>-<net> where none is given", value="NAME"
    )
    out: Path | None = option(
        None,
        "tuning/<study> where none is given; on a disk that the machines share, another worker goes on with a killed "
        "one's trial from its checkpoint",
        value="DIR",
        folder=True,
    )
    heartbeat_s: int = option(
        15, "seconds between a worker's signs of life on a database; after three without, its trial is retried"
    )
    aside: bool = option(
        False,
        "where the study's database is damaged or was emptied: it is renamed, study.damaged-1.db, and a new one made "
        "of the trials' records; a trial that was not done goes on from its checkpoint",
        value="true",
    )
    overrides: list[str] = run_keys(
        "any key of localearn.run, for all trials: epochs=10 net=mlp seed=1; tune.space.OPTION={low:1e-4,high:0.1,"
        "log:true} is another range than the rule's own, or {choices:[a,b]}; null leaves the option out; tune.space.lr "
        "is short for tune.space.optim.lr"
    )


COMMAND = Command(
    "tune",
    SUMMARIES["tune"],
    TuneOptions,
    """\
Searches with Optuna for the options with which a rule does best on the validation split; the test split is never
looked at. Writes OUT/best.yaml, which `localearn run config=OUT/best.yaml` runs, OUT/tune.json, plots of
the history and of each option's importance, and every trial's record. The same command again goes on where it stopped,
and on another machine, with a storage= that both reach, it joins in.
""",
    groups=True,
    usage="localearn tune algo=NAME dataset=NAME [trials=20] [key=value ...]",
)


class Lines:
    """Print a line for each trial of this worker."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def ended(self, study: "Study", trial: "FrozenTrial") -> None:
        """Print a trial's line."""
        from optuna.trial import TrialState

        states = (TrialState.COMPLETE, TrialState.PRUNED)
        count = len(study.get_trials(deepcopy=False, states=states))
        summary, best = _trial_summary(trial, self.plan.metric), _best(study, self.plan.metric)
        say(f"[{count}/{self.plan.trials}] trial {trial.number}: {summary}; {best}")


class Bar:
    """Show a progress bar on a terminal, with a line for each trial above it."""

    def __init__(self, plan: Plan):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns)
        self.metric = plan.metric
        self.task = self.progress.add_task("", total=plan.trials)
        self.progress.start()

    def ended(self, study: "Study", trial: "FrozenTrial") -> None:
        """Print a trial's line and advance the bar."""
        from optuna.trial import TrialState

        states = (TrialState.COMPLETE, TrialState.PRUNED)
        self.progress.console.print(
            one_line(f"trial {trial.number}: {_trial_summary(trial, self.metric)}"), highlight=False, markup=False
        )
        count = len(study.get_trials(deepcopy=False, states=states))
        self.progress.update(self.task, completed=count, description=_best(study, self.metric))

    def close(self) -> None:
        """Restore the terminal."""
        self.progress.stop()


def main(arguments: list[str], *, name: str | None = None, limits: Limits | None = None) -> int:
    """Search, or join a search; return the exit status.

    Args:
        arguments: Those of the command line.
        name: This worker's name, unique among those that share the study; None makes it of the machine and the process.
        limits: How long it waits for the others.

    """
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    plan = parse(arguments)
    plan, config, space = _checked(plan)
    started_s = time.monotonic()
    search = Search.join(plan, space, config["seed"], name=name, limits=limits)
    try:
        status = _run(search)
        with reported(plan.storage):
            write_outcome(plan, search.study, search.name, time.monotonic() - started_s)
            _conclude(plan, search.study)
    finally:
        close_storage(search.storage)
    return status


def parse(arguments: Sequence[str]) -> Plan:
    """Read the command line.

    Raises:
        UserError: For what is missing, unknown, out of range or does not go together.

    """
    options = read(TuneOptions, arguments)
    refuse_fixed(options.overrides, FIXED, "the search itself; the same command goes on with it")
    ranges = [word.lstrip("+") for word in options.overrides if word.lstrip("+").startswith("tune.space.")]
    overrides = [word for word in options.overrides if not word.lstrip("+").startswith("tune.space.")]
    if options.objective == "energy":
        raise UserError("no objective 'energy'; joules are one beside a metric, objective=accuracy_energy")
    _, chosen = compose(overrides, options.config_dir)
    study = options.study or f"{chosen['algo']}-{chosen['dataset']}-{chosen['net']}"
    out = options.out or Path("tuning") / study
    plan = Plan(
        out=out,
        study=study,
        storage=options.storage or _database(out / "study.db"),
        overrides=tuple(expanded(overrides)),
        ranges=tuple(ranges),
        trials=options.trials,
        heartbeat_s=options.heartbeat_s,
        aside=options.aside,
        config_dir=options.config_dir,
        sampler=options.sampler,
        pruner=options.pruner or Plan.pruner,
        objective=options.objective,
    )
    _check(plan, options.pruner is not None)
    return plan


def _database(path: Path) -> str:
    """Return the URL of a file; as a URI where a character of its path means something else in a URL."""
    if not re.search(r"[?#%{}]", str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    return URL.create("sqlite", database=f"file:{quote(str(path))}", query={"uri": "true"}).render_as_string()


def _check(plan: Plan, pruner_named: bool) -> None:
    if re.fullmatch(r"sqlite(\+\w+)?:(//)?/?(:memory:)?(\?.*)?", plan.storage) or "mode=memory" in plan.storage:
        raise UserError(f"storage={plan.storage} ends with the process, trials and all; give sqlite:///FILE")
    if not plan.storage.startswith("journal:") and re.search(r"[{}]", plan.storage):
        raise UserError(f"storage={plan.storage}: write %7B and %7D for braces")
    alone = plan.objective.removesuffix(ENERGY)
    if plan.names_energy and plan.sampler == "cmaes":
        raise UserError(f"cmaes searches for one objective alone; use objective={alone}, or sampler=tpe")
    if plan.names_energy and pruner_named and plan.pruner != "none":
        raise UserError(f"pruner={plan.pruner} compares one objective alone; use objective={alone}, or pruner=none")


def _run(search: Search) -> int:
    listener = Bar(search.plan) if sys.stdout.isatty() else Lines(search.plan)
    try:
        search.run(listener)
    except InterruptedTrial as interrupted:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 128 + interrupted.signum
    finally:
        if isinstance(listener, Bar):
            listener.close()
    return 0


def _checked(plan: Plan) -> tuple[Plan, dict[str, Any], dict[str, "BaseDistribution"]]:
    """Return the plan for its task, the configuration that all trials share and the space.

    Raises UserError if they cannot be run.
    """
    from omegaconf import OmegaConf

    from localearn.trainers.phases import Solve
    from localearn.training.checks import check
    from localearn.training.experiment import build

    config, choices = compose(plan.overrides, plan.config_dir)
    data, trainer, settings = build(config, choices)
    check(trainer, data, settings)
    plan = plan.for_task(data.task)
    if all(isinstance(phase, Solve) for phase in trainer.phases()) and plan.pruner == "hyperband":
        raise UserError(f"{choices['algo']} is solved in one pass, so there is no curve to prune by; use pruner=none")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if plan.names_energy and not plain["energy"]["enabled"]:
        raise UserError(f"objective={plan.objective} needs energy.enabled=true")
    plain["tune"]["space"] = altered(plain["tune"]["space"], plan.ranges, plain)
    space = read_space(plain)
    _check_ends(plan, trainer, space)
    return plan, plain, space


def _check_ends(plan: Plan, trainer: "Trainer", space: Mapping[str, "BaseDistribution"]) -> None:
    """Raise UserError where an end of a range gives an optimizer or a schedule that fails in the longest run."""
    from localearn.training.checks import check_steps
    from localearn.training.experiment import settings_of
    from localearn.training.runtime import select_device

    longest = [f"epochs={max(ends(space['epochs']))}"] if "epochs" in space else []
    options = {path: given for path, given in space.items() if path.startswith(("optim.", "schedule."))}
    composed, choices = compose(plan.overrides, plan.config_dir)
    for tried in [[], *([f"{path}={value}"] for path, given in options.items() for value in ends(given))]:
        config = composed.copy()
        config.merge_with_dotlist([*longest, *tried])
        try:
            settings = settings_of(config, choices)
            check_steps(trainer, settings, select_device(settings.device))
        except UserError as error:
            raise UserError(f"with {' '.join([*longest, *tried]) or 'these options'}, {error}") from error


def _trial_summary(trial: "FrozenTrial", metric: Metric) -> str:
    options = " ".join(f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}"
                       for path, value in trial.params.items())  # fmt: skip
    figure = trial.user_attrs.get(f"val_{metric.name}")
    shown = f"no {metrics.written(metric)}" if figure is None else f"validation {_figure(metric, figure)}"
    joules = f", {trial.values[1]:,.1f} J" if trial.values and len(trial.values) > 1 else ""
    return f"{shown}{joules}{', pruned' if trial.state.name == 'PRUNED' else ''}, {options}"


def _figure(metric: Metric, figure: float) -> str:
    """Return a figure as a line shows it; a percentage without a name is the accuracy."""
    return metrics.with_unit(metric, figure) if metric == ACCURACY else metrics.named(metric, figure)


def _best(study: "Study", metric: Metric) -> str:
    best = best_trials(study)
    if not best:
        return "none completed yet"
    more = f", {len(best)} on the front" if len(study.directions) > 1 else ""
    return f"best {_figure(metric, best[0].values[0])} (trial {best[0].number}{more})"


def _conclude(plan: Plan, study: "Study") -> None:
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name.lower() for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned") if state in states)
    say(f"{counts or 'no trial has ended'}; {_best(study, plan.metric)}")
    for (label, source, part), joules in spent(trials).items():
        took = "joules that are not known in full," if joules is None else f"{joules:,.1f} J"
        say(f"tuning took {took} {label} ({source}, {part})")
    if best_trials(study):
        say(f"localearn run config={plan.out / 'best.yaml'}")
