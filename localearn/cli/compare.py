"""`python -m localearn.compare`: train rules and a baseline over seeds, and write the report."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import (
    Command,
    Range,
    RunningOptions,
    option,
    read,
    refuse_fixed,
    refuse_other_rules,
    run_keys,
)
from localearn.cli.pages import help_status
from localearn.composition import compose, overrides_of, quoted
from localearn.errors import UserError
from localearn.grid import Grid, RunCell
from localearn.jobs import Job
from localearn.printing import say
from localearn.trainers.phases import Phase, Solve
from localearn.training.experiment import Choices

FIXED = ("algo", "seed", "resume", "protocol")
# The settings by which a report compares runs.
ALIKE = ("dataset", "net", "batch_size", "precision", "device", "deterministic", "step", "capture",
         "memory_format")  # fmt: skip


_EXAMPLE = "say algos=[backprop,mono_forward] seeds=[0,1,2] out=comparison"


@dataclass(frozen=True)
class Plan(RunningOptions):
    """The options of a comparison."""

    algos: Sequence[str] = option(
        help="the rules, the baseline among them", value="[A,B]", missing=f"algos= is missing, {_EXAMPLE}"
    )
    seeds: Sequence[int] = option((0, 1, 2), "at least 3 for an interval", range=Range(least=0))
    out: Path = option(
        help="where the runs (DIR/runs) and the report go",
        value="DIR",
        folder=True,
        missing=f"out= is missing, {_EXAMPLE}",
    )
    baseline: str = option(
        "", "what the others are compared with; backprop where it is among them, else the first", value="A"
    )
    protocols: Sequence[Literal["matched", "converged"]] = option(
        ("matched", "converged"),
        "matched: the same passes over the data for all, no early stopping; converged: each stops early on validation "
        "with the same patience",
    )
    epochs: int | None = option(None, "matched: passes; converged: at most max_epochs", value="N")
    patience: int = option(10, "of the converged protocol")
    max_epochs: int | None = option(None, "of the converged protocol; 5 times epochs where it is not given", value="N")
    warm_up: bool = option(True, "a discarded run of one epoch for each rule first")
    tuned: Path | None = option(
        None,
        "each rule with the options of its own search, DIR/ALGO/best.yaml (localearn.tune out=DIR/ALGO); the report "
        "tells what each search cost",
        value="DIR",
    )
    allow_unlike: bool = option(
        False, "run and compare rules that differ in more than the rule; the report then says so", value="true"
    )
    overrides: list[str] = run_keys(
        "any key of localearn.run, for all the runs: net=mlp optim.lr=0.01 precision=bf16 energy.country=POL; "
        "ALGO:key=value is for one rule alone: mono_forward:optim.lr=0.003"
    )

    def for_algo(self, algo: str) -> list[str]:
        """Return the overrides of one rule: those that its search found, those for all, then its own."""
        found = [f"config={self.tuned / algo / 'best.yaml'}"] if self.tuned else []
        return [*found, f"algo={algo}", "recipe=alike", *overrides_of(algo, self.algos, self.overrides)]


COMMAND = Command(
    "compare",
    SUMMARIES["compare"],
    Plan,
    """\
Runs every rule with every seed, interleaved (A B A B), on the same net and data, and writes DIR/report.html,
report.md, report.csv, report.json and plots. The same command again goes on where it stopped.
""",
    groups=True,
    usage="localearn compare algos=[backprop,mono_forward] dataset=digits seeds=[0,1,2] out=DIR [key=value ...]",
)


def main(arguments: list[str]) -> int:
    """Run the comparison and write its report; return the exit status."""
    command = "python -m localearn.compare " + " ".join(arguments)
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    plan = parse(arguments)
    jobs = schedule(plan)
    if plan.warm_up:
        warm_up(plan)
    # Not shared with other processes: a run next to another one would be measured as slower and hungrier than it is.
    status = Grid().run(
        RunCell(
            name=job.folder.name,
            title=f"[{number}/{len(jobs)}] {job.folder.name}",
            job=job,
            config_dir=plan.config_dir,
            keep_weights=True,
        )
        for number, job in enumerate(jobs, 1)
    )
    if status > 128:
        print("the same command goes on where it stopped", file=sys.stderr)
        return status
    say(write(plan, command))
    return status


def parse(arguments: Sequence[str]) -> Plan:
    """Read the command line.

    Raises:
        UserError: For what is missing, unknown or out of range.

    """
    plan = read(Plan, arguments)
    why = "the comparison itself; use algos=, seeds=, protocols="
    refuse_fixed(plan.overrides, FIXED, why)
    algos = plan.algos
    baseline = plan.baseline or ("backprop" if "backprop" in algos else algos[0])
    if baseline not in algos:
        raise UserError(f"baseline={baseline} is not among algos=[{','.join(algos)}]")
    refuse_other_rules(plan.overrides, algos, f"algos=[{','.join(algos)}]")
    return replace(plan, baseline=baseline, tuned=_searched(plan.tuned, algos) if plan.tuned else None)


def _searched(folder: Path, algos: Sequence[str]) -> Path:
    """Return a folder that has each rule's search; raise UserError, with the command, where one is missing."""
    for algo in algos:
        if not (folder / algo / "best.yaml").is_file():
            raise UserError(
                f"tuned={folder}: there is no {folder / algo / 'best.yaml'}; "
                f"localearn tune algo={algo} out={folder / algo} ... searches and writes it"
            )
    return folder


def schedule(plan: Plan) -> list[Job]:
    """Return the runs in their order: protocol by protocol, seed by seed, the rules interleaved.

    Everything is composed and built once first, so that a name, an option or a net that does not fit is reported before
    the first run rather than after some of them.

    Args:
        plan: The options of the comparison.

    Raises:
        UserError: Where a run cannot be trained, or two rules cannot be compared.

    """
    configs = {algo: compose(plan.for_algo(algo), plan.config_dir) for algo in plan.algos}
    if not plan.allow_unlike:
        _refuse_unlike(plan, {algo: config for algo, (config, _) in configs.items()})
    options = {
        (algo, protocol): _protocol_options(plan, protocol, *configs[algo])
        for algo in plan.algos
        for protocol in plan.protocols
    }
    return [
        Job(
            plan.out / "runs" / f"{protocol}-{algo}-{seed}",
            [*plan.for_algo(algo), *options[algo, protocol], f"seed={seed}", f"protocol={protocol}"],
        )
        for protocol in plan.protocols
        for seed in plan.seeds
        for algo in plan.algos
    ]


def _refuse_unlike(plan: Plan, configs: dict[str, Any]) -> None:
    """Raise UserError where two rules would be run under settings that the report then refuses to compare."""
    base = configs[plan.baseline]
    for algo, config in configs.items():
        for key in ALIKE:
            if config[key] != base[key]:
                ours, theirs = _differing(key, config[key], base[key]), _differing(key, base[key], config[key])
                raise UserError(
                    f"{algo} has {ours} where {plan.baseline} has {theirs}, so no ratio between them would be given; "
                    f"say {theirs} for all, or allow_unlike=true"
                )


def _differing(key: str, mine: Any, other: Any) -> str:
    """Return `key=value` of a setting, or of each option of a group in which the other differs."""
    if not isinstance(mine, Mapping):
        return f"{key}={mine}"
    here = {name: value for name, value in mine.items() if name not in other or other[name] != value}
    return " ".join(f"{key}.{name}={value}" for name, value in here.items()) or f"less of {key}"


def _protocol_options(plan: Plan, protocol: str, config: Any, choices: Choices) -> list[str]:
    from localearn.training.checks import check
    from localearn.training.experiment import build, settings_of

    data, trainer, _ = build(config, choices)
    epochs = plan.epochs or config.epochs
    if protocol == "matched":
        options = [f"epochs={_shared_out(choices['algo'], epochs, trainer.phases())}", "patience=null"]
    else:
        options = [f"epochs={plan.max_epochs or 5 * epochs}", f"patience={plan.patience}"]
    # As it will be run: a schedule must last as long as the protocol's epochs, not as the configuration's.
    check(trainer, data, settings_of(*compose([*plan.for_algo(choices["algo"]), *options], plan.config_dir)))
    return options


def _shared_out(algo: str, passes: int, phases: Sequence[Phase]) -> int:
    """Return the epochs of each phase with which a rule makes so many passes over the data in all."""
    single = sum(isinstance(phase, Solve) for phase in phases)
    many = len(phases) - single
    if not many:
        if passes == single:
            return 1
        raise UserError(
            f"{algo} as it is set makes {single} passes and no more, so it cannot be matched to epochs={passes}; "
            f"use epochs={single}, with max_epochs= for the converged protocol, or protocols=[converged]"
        )
    if passes <= single or (passes - single) % many:
        once = f", {single} of them for a single pass" if single else ""
        raise UserError(
            f"{algo} trains {len(phases)} phases one after another{once}, so epochs={passes} cannot be shared out "
            f"evenly; give {f'{single} more than ' if single else ''}a multiple of {many}"
        )
    return (passes - single) // many


def warm_up(plan: Plan) -> None:
    """Run an epoch of each rule and discard it: the first run pays for cold caches and lazy loading."""
    from localearn.training.experiment import execute

    with tempfile.TemporaryDirectory() as scratch:
        for algo in plan.algos:
            quiet = ["epochs=1", "energy.enabled=false", "progress=false", f"out={quoted(Path(scratch, algo))}"]
            config, choices = compose([*plan.for_algo(algo), *quiet], plan.config_dir)
            if execute(config, choices).status == "interrupted":
                raise KeyboardInterrupt


def write(plan: Plan, command: str) -> Path:
    """Write the report of the runs and return the path of its page.

    Args:
        plan: The options of the comparison.
        command: The command line, for the report.

    """
    from localearn.reporting import read_runs, read_tunings, write_report

    runs = read_runs([plan.out / "runs"])
    tunings = read_tunings([plan.tuned / algo for algo in plan.algos]) if plan.tuned else None
    return write_report(
        runs, plan.out, baseline=plan.baseline, command=command, allow_unlike=plan.allow_unlike, tunings=tunings
    )
