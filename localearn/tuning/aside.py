"""What `aside=true` does for a search whose database is damaged: it is set aside, and a new one made of the records."""

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError
from localearn.files import read_json, read_yaml
from localearn.jobs import Job, prepare
from localearn.printing import say
from localearn.records import RunFolder, read_history, read_record
from localearn.records.folder import Held, locked
from localearn.tuning.outcome import WORKER_S
from localearn.tuning.plan import Plan
from localearn.tuning.space import shown
from localearn.tuning.storage import JOURNAL, file_of
from localearn.tuning.trial import QUIET, remembered, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_WRONG = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)  # what a record that is none may raise
_MOST_TRIALS = 100_000  # a folder of a larger number is nobody's trial: each number below it becomes a trial

# SQLite's own files beside a database, which belong to the one that they were written for.
_BESIDE = ("", "-journal", "-wal", "-shm")


def set_aside(plan: Plan) -> None:
    """Rename the file of a search's storage where it is damaged or holds no study, to a name that nothing has.

    Raises UserError where a worker is still at a trial.
    """
    path = file_of(plan.storage)
    if path is None or not path.is_file():
        return
    fault = _fault_of_journal(path) if plan.storage.startswith(JOURNAL) else _fault(path, plan.study)
    if fault is None:
        return
    for lock in sorted((plan.out / "trials").glob("*.lock")):
        try:
            with locked(lock, wait=False):
                pass
        except Held:
            raise UserError(f"{path} is damaged, and a worker is at trial {lock.stem}; end it first") from None
    number = 1
    while any(_spare(path, number, end).exists() for end in _BESIDE):
        number += 1
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(_spare(path, number, end))
    say(f"{path} is set aside as {_spare(path, number, '').name}: {fault}", error=True)


def _spare(path: Path, number: int, end: str) -> Path:
    return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}{end}")


def _fault(path: Path, study: str) -> str | None:
    """Return why a search cannot go on with an SQLite database; None where it can, or where others' studies are there.

    Raises UserError where that cannot be seen, as of a locked one.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                return found.splitlines()[-1]
            names = [name for (name,) in database.execute("SELECT study_name FROM studies")]
            (objectives,) = database.execute("SELECT count(*) FROM study_directions").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return "it holds no study"
        raise UserError(f"{path} cannot be looked at: {error}") from error
    except sqlite3.DatabaseError as error:
        return str(error)
    if not names:
        return "it holds no study"
    return "its study has no objective" if names == [study] and not objectives else None


def _fault_of_journal(path: Path) -> str | None:
    """Return why Optuna cannot read a journal; an empty one is written on."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            json.loads(line)
        except ValueError:
            if line.endswith(b"\n"):  # else it was being written when its worker was killed, and Optuna reads over it
                return f"line {number} is no JSON"
    return None


def recover(plan: Plan, space: Mapping[str, "BaseDistribution"], study: "Study") -> None:
    """Put the trials whose records lie in a search's folder into a new study, each under its number.

    One that was not done goes on from its checkpoint. A number without a record that can be used becomes a failed
    trial, so that no later trial is given its folder; a line tells why.
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
            except (UserError, *_WRONG) as error:
                why = error if isinstance(error, UserError) else f"{type(error).__name__} {error}"
                say(f"{folders[number]} is left out of the new study: {why}", error=True)
        study.add_trial(trial)
    for values, number in waiting:
        study.enqueue_trial(values, user_attrs={"origin": number})
    _keep_seconds(plan, study)
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
        values[path] = shown(value) if isinstance(value, list) else value
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
    with contextlib.suppress(UserError, *_WRONG):
        for epoch in read_history(folder)[0]:
            curve[round(epoch["passes"])] = float(epoch[name])
    return curve


def _keep_seconds(plan: Plan, study: "Study") -> None:
    """Take over how long the workers had searched, where an earlier tune.json tells."""
    with contextlib.suppress(UserError, *_WRONG):
        before = read_json(plan.out / "tune.json")
        if before["study"] == plan.study:
            for name, seconds in before["tuning"]["workers_s"].items():
                study.set_user_attr(WORKER_S + name, float(seconds))
