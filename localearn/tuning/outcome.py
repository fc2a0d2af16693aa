"""Files that a search leaves: best.yaml, tune.json and plots."""

import contextlib
import json
import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localearn.records.folder import RunFolder
from localearn.reporting import drawing, metrics
from localearn.reporting.tunings import SCHEMA, described
from localearn.tasks import Metric
from localearn.tuning.plan import Plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Joules = dict[tuple[str, str | None, str | None], float | None]


WORKER_S = "worker_s "  # begins the name under which a study stores a worker's seconds


def best_trials(study: "Study") -> list["FrozenTrial"]:
    """Return the best trial, or the Pareto front, that of the best metric first; nothing where none is completed.

    Args:
        study: what all workers share.

    """
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    if len(study.directions) == 1:
        return [study.best_trial]
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return sorted(study.best_trials, key=lambda trial: sign * trial.values[0])


def write_outcome(plan: Plan, study: "Study", name: str, seconds: float) -> None:
    """Write best.yaml (and front/<trial>.yaml of each on a Pareto front), tune.json and the plots into `plan.out`.

    Args:
        plan: the search's.
        study: what all workers share.
        name: this worker's, among those that share the study.
        seconds: how long this worker has searched; the study adds it to this worker's earlier ones.

    """
    of_worker = WORKER_S + name
    study.set_user_attr(of_worker, study.user_attrs.get(of_worker, 0.0) + seconds)
    folder = RunFolder(plan.out)
    trials = study.get_trials(deepcopy=False)
    best = best_trials(study)
    importance = importances(study)
    values = {
        "schema": SCHEMA,
        "study": plan.study,
        "trials": [_plain(trial) for trial in trials],
        "best": [trial.number for trial in best],
        "importance": importance,
        "tuning": {"energy": [_named(*spending) for spending in spent(trials).items()], "workers_s": workers_s(study)},
        "overrides": list(plan.overrides),
        "objective": plan.objective,
        **described(plan.metric),
        "sampler": plan.sampler,
        "pruner": plan.pruner,
    }
    folder.write_text(plan.out / "tune.json", json.dumps(values, indent=2, default=str) + "\n")
    for trial in best:
        if len(best) > 1:
            (plan.out / "front").mkdir(exist_ok=True)
            folder.write_text(plan.out / "front" / f"{trial.number:04d}.yaml", as_yaml(plan, trial))
    if best:
        folder.write_text(plan.out / "best.yaml", as_yaml(plan, best[0]))
        folder.write_bytes(plan.out / "history.png", history_plot(study, plan.metric))
    if importance:
        folder.write_bytes(plan.out / "importance.png", importance_plot(importance, plan.metric))


def worker() -> str:
    """Return this process's name among the workers that share a study."""
    return f"{socket.gethostname()}:{os.getpid()}"


def workers_s(study: "Study") -> dict[str, float]:
    """Return the seconds that each worker that has ended has searched, by its name.

    Args:
        study: what all workers share.

    """
    stored = sorted(study.user_attrs.items())
    return {name.removeprefix(WORKER_S): value for name, value in stored if name.startswith(WORKER_S)}


def as_yaml(plan: Plan, trial: "FrozenTrial") -> str:
    """Return a trial's configuration as `localearn.run config=FILE` takes it.

    Args:
        plan: the search's.
        trial: Optuna's.

    """
    reached = f"validation {metrics.named(plan.metric, trial.values[0])}"
    overrides = [*plan.overrides, *(f"{path}={value}" for path, value in trial.params.items())]
    lines = "".join(f"  - {json.dumps(override, ensure_ascii=False)}\n" for override in overrides)
    return f"# {reached}, trial {trial.number} of study {plan.study}\noverrides:\n{lines}"


def spent(trials: Sequence["FrozenTrial"]) -> Joules:
    """Return the joules of all trials by label, source and part: unlike figures are never added.

    None where those of a trial are not known, for the sum of the others would pass for the whole.

    Args:
        trials: that have ended.

    """
    sums: Joules = {}
    for trial in trials:
        joules, energy = trial.user_attrs.get("energy_j"), trial.user_attrs.get("energy")
        if not energy or energy["label"] == "absent":
            continue
        key = energy["label"], energy["source"], energy["part"]
        so_far = sums.get(key, 0.0)
        sums[key] = None if joules is None or so_far is None else so_far + joules
    return sums


def importances(study: "Study") -> dict[str, float]:
    """Return the share of the metric's variance that each option explains (fANOVA), empty where it cannot be computed.

    Args:
        study: what all workers share.

    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.values[0] for trial in completed if trial.values}) < 2:
        return {}
    several = len(study.directions) > 1
    target = (lambda trial: trial.values[0]) if several else None
    with contextlib.suppress(ValueError, RuntimeError):  # trials of one option's value alone
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), target=target)
        return {name: value for name, value in shares.items() if math.isfinite(value)}
    return {}


def history_plot(study: "Study", metric: Metric) -> bytes:
    """Return a PNG of each trial's figure on the validation split, pruned ones hollow, and the best so far.

    Args:
        study: what all workers share.
        metric: what is searched by.

    """
    from matplotlib.ticker import MaxNLocator
    from optuna.trial import TrialState

    scale, best_of = metrics.scale(metric), max if metric.direction == "max" else min
    points: dict[str, list[tuple[int, float]]] = {"completed": [], "pruned": []}
    best: list[tuple[int, float]] = []
    for trial in study.get_trials(deepcopy=False):
        reached = trial.user_attrs.get(f"val_{metric.name}")
        if trial.state == TrialState.COMPLETE and trial.values:
            points["completed"].append((trial.number, scale * trial.values[0]))
            best.append((trial.number, best_of(value for _, value in points["completed"])))
        elif trial.state == TrialState.PRUNED and reached is not None:
            points["pruned"].append((trial.number, scale * reached))
    with drawing.style():
        figure, axes = drawing.canvas(2.8, [*points, "best so far"])
        for (name, reached), color, fill in zip(points.items(), drawing.PALETTE, ("full", "none"), strict=False):
            if reached:
                axes.plot(*zip(*reached, strict=True), "o", color=color, fillstyle=fill, label=name)
        axes.plot(*zip(*best, strict=True), drawstyle="steps-post", color=drawing.INK, label="best so far")
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"validation {metrics.axis(metric)}")
        drawing.legend(figure, axes)
        return drawing.finish(figure, "history", "", "").png


def importance_plot(importance: Mapping[str, float], metric: Metric) -> bytes:
    """Return a PNG of the share of the metric's variance that each option explains.

    Args:
        importance: what `importances` returned.
        metric: what is searched by.

    """
    with drawing.style():
        figure, axes = drawing.canvas(0.8 + 0.35 * len(importance), [])
        names = [drawing.short(name) for name in importance]
        axes.barh(range(len(names)), list(importance.values()), color=drawing.PALETTE[0])
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"part of the validation {drawing.short(metrics.written(metric))}'s variance")
        return drawing.finish(figure, "importance", "", "").png


def _plain(trial: "FrozenTrial") -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "params": trial.params,
        "values": trial.values,
        **{name: value for name, value in trial.user_attrs.items()},
    }


def _named(key: tuple[str, str | None, str | None], joules: float | None) -> dict[str, Any]:
    label, source, part = key
    return {"energy_j": joules, "label": label, "source": source, "part": part}
