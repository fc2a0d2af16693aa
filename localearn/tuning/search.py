"""A worker of a search, which runs trials, one at a time, until as many have ended as the search is to have."""

import contextlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.records import RunFolder
from localearn.records.folder import LockedError, locked
from localearn.training.runtime import derived_seed
from localearn.tuning.outcome import worker
from localearn.tuning.plan import Plan
from localearn.tuning.recovery import recover
from localearn.tuning.storage import ASIDE, close_storage, hidden, open_storage, reported, set_aside
from localearn.tuning.trial import InterruptedTrial, run_trial, suggested

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

MOST_RETRIES = 3


@dataclass(frozen=True)
class Limits:
    """The seconds that a worker waits for the others.

    Args:
        starting_s: within which a worker that was given a trial holds its lock.
        poll_s: between two reads of the study.
        join_s: for the study's first worker to write what is searched into it.

    """

    starting_s: float = 10.0
    poll_s: float = 1.0
    join_s: float = 30.0


class Listener(Protocol):
    """An observer of a search, which is called for each trial as it ends."""

    def ended(self, study: "Study", trial: "FrozenTrial") -> None:
        """Show a trial.

        Args:
            study: what all workers share.
            trial: the one that has ended.

        """


FAILURES = 3  # in a row, after which a search that takes nothing in ends


class Surplus(Exception):
    """A trial too many: two workers requested the last one at the same time."""


@dataclass
class Search:
    """One worker's part of a search; several, on one machine or many, that share a storage share the trials out.

    Every trial ends once: a killed worker's is found by its missing heartbeats, or by its folder's lock, and a copy
    of it goes on from its checkpoint where that can be reached.

    Attributes:
        plan: the search's.
        space: each option's distribution, by its dotted path.
        study: what all workers share.
        storage: where the study is.
        name: this worker's, among those that share the study.
        limits: how long it waits for them.
        number: of the trial that this worker has, or had last.
        ran: whether that trial's run came to an end.
        failed: the trials in a row that Optuna could not take in.

    """

    plan: Plan
    space: Mapping[str, "BaseDistribution"]
    study: "Study"
    storage: "BaseStorage"
    name: str = field(default_factory=worker)  # among the workers that share the study
    limits: Limits = Limits()
    number: int = 0  # of the trial that this worker has, or had last
    ran: bool = False  # whether that trial's run came to an end
    failed: int = 0  # trials in a row that Optuna could not take in

    @classmethod
    def join(
        cls,
        plan: Plan,
        space: Mapping[str, "BaseDistribution"],
        seed: int,
        *,
        name: str | None = None,
        limits: Limits | None = None,
    ) -> "Search":
        """Begin a study, or join one that is there.

        Args:
            plan: the search's.
            space: each option's distribution, by its dotted path.
            seed: of the sampler.
            name: this worker's; None: `worker()`.
            limits: how long it waits for the others; None: the defaults.

        Raises:
            UserError: when the study that is there searches something else.

        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if plan.aside:
            plan.out.mkdir(parents=True, exist_ok=True)
            with locked(plan.out / "aside.lock", wait=True):  # the others join what the first has made
                set_aside(plan)
                return cls._joined(plan, space, seed, name or worker(), limits or Limits())
        return cls._joined(plan, space, seed, name or worker(), limits or Limits())

    @classmethod
    def _joined(
        cls, plan: Plan, space: Mapping[str, "BaseDistribution"], seed: int, name: str, limits: Limits
    ) -> "Search":
        storage = open_storage(plan.storage, plan.heartbeat_s, retry)
        try:
            study, first = _study_in(storage, plan, space, limits)
        except BaseException:
            close_storage(storage)
            raise
        # The first worker repeats bit for bit; a later one must not suggest what the first did.
        study.sampler = _sampler(plan, derived_seed(seed, 0) % 2**32 if first else None)
        study.pruner = _pruner(plan)
        return cls(plan, space, study, storage, name, limits)

    def run(self, listener: Listener) -> None:
        """Run trials until the search is over.

        Args:
            listener: called for each trial as it ends.

        Raises:
            InterruptedTrial: after a signal.

        """
        while True:
            with reported(self.plan.storage):
                ended, running, waiting = self.standing()
                if ended >= self.plan.trials:
                    return
                ask = waiting or ended + running < self.plan.trials
                if not ask:
                    self._revive()
            if ask:
                self._one(listener)
            else:
                time.sleep(self.limits.poll_s)

    def standing(self) -> tuple[int, int, int]:
        """Return how many trials have ended (completed or pruned), run, and wait to be resumed."""
        from optuna.trial import TrialState

        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        ended = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
        return ended, states.count(TrialState.RUNNING), states.count(TrialState.WAITING)

    def _one(self, listener: Listener) -> None:
        from optuna.exceptions import StorageInternalError
        from optuna.trial import TrialState
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna's on experimental parts, which nobody can act on here
                self.study.optimize(self._objective, n_trials=1, catch=(Surplus,))
        except (StorageInternalError, SQLAlchemyError) as error:
            with reported(self.plan.storage):
                raise error
        trial = self.study.get_trials(deepcopy=False)[self.number]
        if trial.state != TrialState.FAIL:
            self.failed = 0
            listener.ended(self.study, trial)
        elif self.ran:
            self.failed += 1
            if self.failed == FAILURES:
                raise UserError(
                    f"study {self.plan.study!r} in {hidden(self.plan.storage)} took in none of {FAILURES} trials "
                    "in a row, though each was run; it is damaged, or another Optuna wrote it; give another study="
                )

    def _objective(self, trial: "Trial") -> Sequence[float]:
        self.number, self.ran = trial.number, False
        if self._is_surplus(trial.number):
            raise Surplus
        values = suggested(trial, self.space)
        origin = trial.user_attrs.get("origin", trial.number)
        folder = self.plan.out / "trials" / f"{origin:04d}"
        trial.set_user_attr("origin", origin)
        trial.set_user_attr("worker", self.name)
        with _claimed(folder):
            try:
                outcome = run_trial(trial, self.plan, values, folder)
            except InterruptedTrial:
                retry(self.study, self.study.get_trials(deepcopy=False)[trial.number], counts=False)
                raise
            finally:
                RunFolder(folder).drop_weights()
        self.ran = True
        return outcome

    def _is_surplus(self, number: int) -> bool:
        from optuna.trial import TrialState

        before = self.study.get_trials(deepcopy=False)[:number]
        return sum(trial.state != TrialState.FAIL for trial in before) >= self.plan.trials

    def _revive(self) -> None:
        """Fail the trials of workers that are gone, and have them gone on with."""
        import optuna
        from optuna.trial import TrialState

        if self.plan.storage.partition(":")[0] != "journal":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            begun = trial.datetime_start
            young = begun is None or datetime.now() - begun < timedelta(seconds=self.limits.starting_s)
            origin = trial.user_attrs.get("origin", trial.number)
            if young or not _abandoned(self.plan.out / "trials" / f"{origin:04d}"):
                continue
            with contextlib.suppress(ValueError):  # another worker was faster
                self.study.tell(trial.number, state=TrialState.FAIL)
                retry(self.study, trial)


def retry(study: "Study", trial: "FrozenTrial", counts: bool = True) -> None:
    """Enqueue a trial that was left unfinished, to be resumed from its own folder; at most three times that count.

    Args:
        study: what all workers share.
        trial: the one that was left.
        counts: whether this time counts.

    """
    retries = trial.user_attrs.get("retries", 0) + counts
    if trial.params and retries <= MOST_RETRIES:
        origin = trial.user_attrs.get("origin", trial.number)
        study.enqueue_trial(trial.params, user_attrs={"origin": origin, "retries": retries})


def _study_in(
    storage: "BaseStorage", plan: Plan, space: Mapping[str, "BaseDistribution"], limits: Limits
) -> tuple["Study", bool]:
    """Return the search's study in a storage, and whether this worker has begun it."""
    import optuna
    from optuna.study import StudyDirection

    most, least = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = [most if plan.metric.direction == "max" else least, least][: 1 + plan.names_energy]
    with reported(plan.storage):
        try:
            study = optuna.create_study(storage=storage, study_name=plan.study, directions=directions)
            first = not any((plan.out / "trials").glob("*/run.json"))
            if not first and not plan.aside:
                optuna.delete_study(study_name=plan.study, storage=storage)
                raise UserError(
                    f"{plan.out / 'trials'} holds trials that {hidden(plan.storage)} knows nothing of: it was "
                    f"emptied, or is another one; bring it back, give another out=, or {ASIDE}"
                )
            if not first:
                try:
                    recover(plan, space, study)
                except BaseException:  # half of the trials would pass for all
                    optuna.delete_study(study_name=plan.study, storage=storage)
                    raise
            study.set_user_attr("search", _identity(plan, space))
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=plan.study)
            first = False
            _check_same(plan, space, study, limits.join_s)
    return study, first


def _identity(plan: Plan, space: Mapping[str, "BaseDistribution"]) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    ranges = {path: json.loads(distribution_to_json(given)) for path, given in sorted(space.items())}
    return {"space": ranges, "overrides": sorted(plan.overrides), "objective": plan.objective}


def _check_same(plan: Plan, space: Mapping[str, "BaseDistribution"], study: "Study", join_s: float) -> None:
    """Raise UserError unless a study searches what this worker would; its first worker may just have begun it."""
    deadline = time.monotonic() + join_s
    while "search" not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.1)
    there, here = study.user_attrs.get("search"), _identity(plan, space)
    where = f"study {plan.study!r} in {hidden(plan.storage)}"
    if there is None:
        raise UserError(f"{where} was not begun by localearn; give another study=")
    objectives = len(study.directions)
    if objectives != 1 + plan.names_energy and there.get("objective") == here["objective"]:
        raise UserError(f"{where} is damaged: it has {objectives} objectives; {ASIDE}, or give another study= or out=")
    for part, verb in (("space", "searches other ranges"), ("overrides", "has other options"), ("objective", "is")):
        if there[part] != here[part]:
            raise UserError(f"{where} {verb}: {_difference(there[part], here[part])}; give another study= or out=")


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, dict):
        paths = [path for path in sorted({*there, *here}) if there.get(path) != here.get(path)]
        return ", ".join(paths)
    if isinstance(there, list):
        return f"{' '.join(o for o in there if o not in here) or 'none'} there, not " + (
            " ".join(o for o in here if o not in there) or "none"
        )
    return f"{there} there, not {here}"


def _sampler(plan: Plan, seed: int | None) -> Any:
    import optuna

    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match plan.sampler:
            case "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=True)
            case "gp":
                return samplers.GPSampler(seed=seed)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "qmc":
                return samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case _:
                return samplers.RandomSampler(seed=seed)


def _pruner(plan: Plan) -> Any:
    import optuna

    if plan.pruner == "none" or plan.names_energy:
        return optuna.pruners.NopPruner()
    if plan.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)


def _claimed(folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Hold a trial's lock while it runs: who finds it free knows that its worker is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return locked(folder.with_suffix(".lock"), wait=True)


def _abandoned(folder: Path) -> bool:
    """Return whether a trial was begun here and nobody holds its lock; without locks the heartbeat alone shows that."""
    path = folder.with_suffix(".lock")
    if not path.exists():
        return False
    try:
        with locked(path, wait=False) as free:
            return free
    except (LockedError, OSError):
        return False


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
