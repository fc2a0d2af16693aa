"""Recovery of a study whose storage was lost, from the records in its trials' folders."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError
from localearn.files import read_json, read_yaml
from localearn.jobs import Job, prepare
from localearn.printing import say
from localearn.records import RunFolder, read_history, read_record
from localearn.tuning.outcome import WORKER_S
from localearn.tuning.plan import Plan
from localearn.tuning.space import as_override
from localearn.tuning.trial import QUIET, remembered, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# What reading a damaged record may raise.
_BAD_RECORD = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
_MOST_TRIALS = 100_000  # a folder of a larger number is nobody's trial: each number below it becomes a trial


def recover(plan: Plan, space: Mapping[str, "BaseDistribution"], study: "Study") -> None:
    """Put the trials whose records lie in a search's folder into a new study, each under its number.

    One that was not done is resumed from its checkpoint. A number without a record that can be used becomes a failed
    trial, so that no later trial is given its folder; a warning names the reason.

    Args:
        plan: the search's.
        space: each option's distribution, by its dotted path.
        study: the new one.

    """
    from optuna.trial import TrialState, create_trial

    began = {path.parent for name in ("config.yaml", "run.json") for path in (plan.out / "trials").glob(f"*/{name}")}
    names = {folder: folder.name for folder in began if folder.name.isdecimal() and len(folder.name) <= 20}
    folders = {int(name): folder for folder, name in names.items() if int(name) < _MOST_TRIALS}
    done, waiting = 0, []
    for number in range(max(folders, default=-1) + 1):
        trial = create_trial(state=TrialState.FAIL)
        if number in folders:
            try:
                values = _values(folders[number], space)
                job = Job(folders[number], [*plan.overrides, *(f"{path}={v}" for path, v in values.items()), *QUIET])
                if prepare(job, plan.config_dir) is None:
                    trial = _as_it_was(plan, space, values, folders[number], number)
                    done += 1
                else:
                    waiting.append((values, number))
            except (UserError, *_BAD_RECORD) as error:
                why = error if isinstance(error, UserError) else f"{type(error).__name__} {error}"
                say(f"{folders[number]} is left out of the new study: {why}", error=True)
        study.add_trial(trial)
    for values, number in waiting:
        study.enqueue_trial(values, user_attrs={"origin": number})
    _copy_seconds(plan, study)
    left = len(folders) - done - len(waiting)
    say(
        f"{plan.out / 'trials'}: in the new study by their records {done}, to go on from where they stopped "
        f"{len(waiting)}, left out {left}",
        error=True,
    )


def _values(folder: Path, space: Mapping[str, "BaseDistribution"]) -> dict[str, Any]:
    """Return what a trial had for each option of a space, by the configuration in its folder.

    Raises ValueError for a value that the space does not have: it becomes part of a command line.
    """
    from optuna.trial import TrialState, create_trial

    config = read_yaml(RunFolder(folder).config)
    values: dict[str, Any] = {}
    for path in space:
        value = config
        for part in path.split("."):
            value = value[part]
        values[path] = as_override(value) if isinstance(value, list) else value
    create_trial(state=TrialState.FAIL, params=values, distributions=dict(space))
    return values


def _as_it_was(
    plan: Plan, space: Mapping[str, "BaseDistribution"], values: Mapping[str, Any], folder: Path, number: int
) -> "FrozenTrial":
    from optuna import TrialPruned
    from optuna.trial import TrialState, create_trial

    record = read_record(folder)
    try:
        state, outcome = TrialState.COMPLETE, values_of(plan, record)
    except TrialPruned:
        state, outcome = TrialState.PRUNED, None
    return create_trial(
        state=state,
        values=outcome,
        params=dict(values),
        distributions=dict(space),
        user_attrs={**remembered(record, plan.metric), "origin": number},
        intermediate_values={} if plan.reports_nothing else _curve(folder, f"val_{plan.metric.name}"),
    )


def _curve(folder: Path, name: str) -> dict[int, float]:
    """Return a figure after each pass, as far as it can be read: a pruner compares trials by it."""
    curve: dict[int, float] = {}
    with contextlib.suppress(UserError, *_BAD_RECORD):
        for epoch in read_history(folder)[0]:
            curve[round(epoch["passes"])] = float(epoch[name])
    return curve


def _copy_seconds(plan: Plan, study: "Study") -> None:
    """Copy the seconds that each worker has searched from an earlier tune.json, if there is one."""
    with contextlib.suppress(UserError, *_BAD_RECORD):
        before = read_json(plan.out / "tune.json")
        if before["study"] == plan.study:
            for name, seconds in before["tuning"]["workers_s"].items():
                study.set_user_attr(WORKER_S + name, float(seconds))
