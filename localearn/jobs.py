"""Jobs: the runs of a comparison, search or study, which are run once, resumed if interrupted, reused if complete."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.composition import compose, quoted
from localearn.errors import UserError
from localearn.files import read_yaml
from localearn.printing import say
from localearn.records import LOSS, Record
from localearn.records.folder import RunFolder
from localearn.training.experiment import Choices
from localearn.training.identity import upgrade_configuration
from localearn.training.loading import resumed
from localearn.trust import is_known, targets_of

FREE = ("out", "resume", "progress", "debug", "tune")  # keys that do not change a run's numbers


@dataclass(frozen=True)
class Job:
    """One run of a comparison, search or study.

    Args:
        folder: The run's folder.
        overrides: Its overrides, as localearn.run takes them.

    """

    folder: Path
    overrides: Sequence[str]


def run_job(job: Job, config_dir: str | None = None) -> int:
    """Run a job, resume it, or reuse it where it is complete; return the exit status, as of localearn.run.

    Args:
        job: The run.
        config_dir: A folder of the user's own configuration files.

    Raises:
        UserError: Where the folder has a run of another configuration.

    """
    from localearn.training.experiment import execute

    prepared = prepare(job, config_dir)
    if prepared is None:
        say(f"{RunFolder(job.folder).status()} already; reused")
        return 0
    return report(execute(*prepared))


def prepare(job: Job, config_dir: str | None = None) -> tuple[Any, Choices] | None:
    """Return the arguments of `execute` that run or resume a job; None where it is complete.

    Args:
        job: The run.
        config_dir: A folder of the user's own configuration files.

    Raises:
        UserError: Where the folder has a run of another configuration.

    """
    from omegaconf import OmegaConf

    config, choices = compose([*job.overrides, f"out={quoted(job.folder)}"], config_dir)
    if config.parallel != "none":
        raise UserError(
            f"parallel={config.parallel} is for a single run, which torchrun starts as localearn.run; leave it out"
        )
    folder = RunFolder(job.folder)
    if not folder.config.exists():
        return config, choices
    earlier = read_yaml(folder.config)
    if not isinstance(earlier, dict):
        raise UserError(f"{folder.config} is not a configuration of localearn.run; give another out=")
    upgrade_configuration(earlier)
    requested: Any = OmegaConf.to_container(config, resolve=True)
    named = {override.lstrip("+~").partition("=")[0] for override in job.overrides}
    differing = _differing(requested, earlier, named)
    if differing:
        raise UserError(f"{job.folder} has a run with another {', '.join(differing)}; give another out=")
    return (
        None
        if folder.is_finished()
        else resumed(str(job.folder), [], trust={str(target) for _, target in targets_of(requested)})
    )


def _differing(requested: dict[str, Any], earlier: dict[str, Any], named: set[str]) -> list[str]:
    """Return the options, by their first part, that differ; one missing in `earlier` counts only if it is named."""
    new, old = _flat(requested), _flat({key: value for key, value in earlier.items() if key in requested})
    paths = [path for path in new.keys() & old.keys() if new[path] != old[path]]
    paths += [path for path in old.keys() - new.keys()]
    paths += [path for path in new.keys() - old.keys() if path in named]
    return sorted({path.partition(".")[0] for path in paths} - set(FREE))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted paths; an empty branch is a leaf."""
    leaves = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        leaves.update(_flat(value, f"{path}.") if isinstance(value, dict) and value else {path: value})
    return leaves


_STATUS = {"completed": 0, "diverged": 3, "stopped": 3}


def report(record: Record) -> int:
    """Print the outcome of a run, on rank 0, and return its exit status.

    Args:
        record: The record of the run.

    Returns:
        0 where it completed, 3 where it diverged or was stopped, 128 + the signal's number where it was interrupted.

    """
    if os.environ.get("RANK", "0") != "0":
        return _STATUS[record.status] if record.status in _STATUS else 128 + int(record.diagnostics["signal"])
    out = record.config.get("out")
    if record.status == "completed":
        joules = record.energy.get("train_j")
        energy = "energy absent" if joules is None else f"{joules:,.1f} J {record.energy['label']}"
        say(
            f"{record.algo} on {record.dataset}: {_test_metrics(record)}, "
            f"{record.passes:g} passes, training {record.train_s:.1f} s, {energy}; {out}"
        )
        return 0
    say(f"{record.status}: {record.error}", error=True)
    if record.status == "interrupted":
        not_known = {str(target) for _, target in targets_of(record.config) if not is_known(target)}
        trust = f" trust=[{','.join(sorted(not_known))}]" if not_known else ""
        say(f"resume with: localearn run resume={out}{trust}", error=True)
        return 128 + int(record.diagnostics["signal"])
    saved = "the last good checkpoint and the record are" if record.epochs else "no epoch was good; the record is"
    say(f"{saved} in {out}", error=True)
    return 3


def _test_metrics(record: Record) -> str:
    """Return the metrics of the test split as a text."""
    formats = {"fraction": lambda figure: f"{100 * figure:.2f} %", "value": lambda figure: f"{figure:.4g}"}
    metrics = {name: figures for name, figures in record.metrics.items() if name != LOSS.name}
    return ", ".join(f"test {name.replace('_', ' ')} {formats[m['unit']](m['test'])}" for name, m in metrics.items())
