"""Runs that a larger piece of work is made of: run once, gone on with where they stopped, kept where they are done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.composition import compose, quoted
from localearn.errors import UserError
from localearn.files import read_yaml
from localearn.outcome import report
from localearn.printing import say
from localearn.records.folder import RunFolder
from localearn.training.experiment import Choices, resumed
from localearn.training.identity import complete_rule
from localearn.trust import targets_of

FREE = ("out", "resume", "progress", "debug", "tune")  # keys that do not change a run's numbers

DONE = ("completed", "diverged", "stopped")  # how a run ends that nobody goes on with


@dataclass(frozen=True)
class Job:
    """One run: its folder, and the overrides of localearn.run that make it."""

    folder: Path
    overrides: Sequence[str]


def run_job(job: Job, config_dir: str | None = None) -> int:
    """Run a job, or go on with it, or leave it where it is done; return the exit status of localearn.run.

    Raises UserError if the folder holds a run of another configuration.
    """
    from localearn.training.experiment import execute

    prepared = prepare(job, config_dir)
    if prepared is None:
        say(f"{RunFolder(job.folder).status()} before; kept")
        return 0
    return report(execute(*prepared))


def prepare(job: Job, config_dir: str | None = None) -> tuple[Any, Choices] | None:
    """Return what `execute` takes to run a job or to go on with it; None where it is done.

    Raises UserError if the folder holds a run of another configuration.
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
    """Return the options, by their first part, that differ; one that `earlier` lacks came since, unless it is named."""
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
