"""Jobs: the runs of a comparison, search or study, each run once, resumed where it stopped, reused where it is done."""

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
from localearn.training.experiment import Choices, resumed
from localearn.training.identity import complete_rule
from localearn.trust import is_known, targets_of

FREE = ("out", "resume", "progress", "debug", "tune")  # keys that do not change a run's numbers

DONE = ("completed", "diverged", "stopped")  # the statuses of runs that are not resumed


@dataclass(frozen=True)
class Job:
    """One run of a larger piece of work.

    Args:
        folder: The run's folder.
        overrides: The overrides of localearn.run that start it.

    """

    folder: Path
    overrides: Sequence[str]


def run_job(job: Job, config_dir: str | None = None) -> int:
    """Run a job, or resume it, or reuse it where it is done; return the exit status of localearn.run.

    Args:
        job: The run.
        config_dir: A folder of the user's own configuration files.

    Raises:
        UserError: Where the folder has a run of another configuration.

    """
    from localearn.training.experiment import execute

    prepared = prepare(job, config_dir)
    if prepared is None:
        say(f"{RunFolder(job.folder).status()} before; kept")
        return 0
    return report(execute(*prepared))


def prepare(job: Job, config_dir: str | None = None) -> tuple[Any, Choices] | None:
    """Return the arguments of `execute` that run or resume a job; None where it is done.

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
            f"parallel={config.parallel} is for one run, which torchrun starts as localearn.run; leave it out"
        )
    folder = RunFolder(job.folder)
    if not folder.config.exists():
        return config, choices
    earlier = read_yaml(folder.config)
    if not isinstance(earlier, dict):
        raise UserError(f"{folder.config} is no configuration of localearn.run; give another out=")
    complete_rule(earlier)
    wanted: Any = OmegaConf.to_container(config, resolve=True)
    named = {override.lstrip("+~").partition("=")[0] for override in job.overrides}
    differing = _differing(wanted, earlier, named)
    if differing:
        raise UserError(f"{job.folder} holds a run with another {', '.join(differing)}; give another out=")
    return (
        None
        if folder.status() in DONE
        else resumed(str(job.folder), [], trust={str(target) for _, target in targets_of(wanted)})
    )


def _differing(wanted: dict[str, Any], earlier: dict[str, Any], named: set[str]) -> list[str]:
    """Return the options, by their first part, that differ; one missing in `earlier` is newer, unless it is named."""
    now, then = _flat(wanted), _flat({key: value for key, value in earlier.items() if key in wanted})
    paths = [path for path in now.keys() & then.keys() if now[path] != then[path]]
    paths += [path for path in then.keys() - now.keys()]
    paths += [path for path in now.keys() - then.keys() if path in named]
    return sorted({path.partition(".")[0] for path in paths} - set(FREE))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves by their dotted paths; a branch without leaves is one."""
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
            f"{record.algo} on {record.dataset}: {_tested(record)}, "
            f"{record.passes:g} passes, training {record.train_s:.1f} s, {energy}; {out}"
        )
        return 0
    say(f"{record.status}: {record.error}", error=True)
    if record.status == "interrupted":
        foreign = {str(target) for _, target in targets_of(record.config) if not is_known(target)}
        word = f" trust=[{','.join(sorted(foreign))}]" if foreign else ""
        say(f"go on with: localearn run resume={out}{word}", error=True)
        return 128 + int(record.diagnostics["signal"])
    kept = "the last good checkpoint and the record are" if record.epochs else "no epoch was good; the record is"
    say(f"{kept} in {out}", error=True)
    return 3


def _tested(record: Record) -> str:
    """Return the test split's metrics in words."""
    shown = {"fraction": lambda figure: f"{100 * figure:.2f} %", "value": lambda figure: f"{figure:.4g}"}
    judged = {name: figures for name, figures in record.metrics.items() if name != LOSS.name}
    return ", ".join(f"test {name.replace('_', ' ')} {shown[m['unit']](m['test'])}" for name, m in judged.items())
