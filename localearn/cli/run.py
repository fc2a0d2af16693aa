"""`python -m localearn.run`: train one rule on one data set."""

import argparse
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED_S = time.perf_counter()

from localearn.cli.commands import SUMMARIES  # noqa: E402
from localearn.cli.errors import drop_output, run_reporting_errors, value_of  # noqa: E402
from localearn.cli.options import Command, RunningOptions, option  # noqa: E402
from localearn.cli.pages import config_keys_page, help_status  # noqa: E402
from localearn.defaults import CONF  # noqa: E402
from localearn.errors import UserError  # noqa: E402
from localearn.printing import say  # noqa: E402

# The supported flags of Hydra: the values that each takes, None where it takes none.
FLAGS: dict[str, tuple[str, ...] | None] = {
    "-m": None,
    "--multirun": None,
    "-c": ("job", "hydra", "all"),
    "--cfg": ("job", "hydra", "all"),
    "--resolve": None,
}


@dataclass(frozen=True)
class RunOptions(RunningOptions):
    """The options of a run in addition to the keys of its configuration, which Hydra reads."""

    out: str | None = option(
        None, "the run's folder; runs/<date>-<algo>-<dataset>-<seed> where none is given", value="DIR"
    )
    resume: str | None = option(
        None,
        "go on with an interrupted run; with epochs=N, or another patience=, train a completed one longer",
        value="DIR",
    )
    recipe: str = option(
        "default", "the published recipe of the rule; by default the one for this kind of net", value="paper"
    )
    config: str | None = option(
        None,
        "the overrides that stand in a file, as localearn.tune writes its best; what follows wins",
        value="FILE",
    )
    algo: str | None = option(
        None, "a rule, see below; algo._target_=my_rules.MyRule: your own, from a module in this folder", value="NAME"
    )
    callbacks: str | None = option(
        None, "your own code in the loop, a localearn.Callback", value="[{_target_:my_module.MyCallback}]"
    )
    trust: str | None = option(
        None, "let a file that is read (config=, resume=) name a class of your own", value="my_rules.MyRule"
    )
    sweep: bool = option(False, "a sweep: -m seed=0,1,2 algo=backprop,mono_forward", flag=("-m", "--multirun"))
    show: str | None = option(
        None, "show the configuration, do not train; --resolve as well resolves it", value="job", flag=("--cfg", "-c")
    )


COMMAND = Command(
    "run",
    SUMMARIES["run"],
    RunOptions,
    """\
Trains a network, by default Mono-Forward on scikit-learn's digits, and leaves a folder with its record: run.json,
metrics.jsonl, config.yaml, checkpoint.pt, net.safetensors.
""",
    lambda: (
        f"""\
Keys, with their defaults; --cfg job shows those of the chosen files too. A rule's recipe for the kind of net may set
others (localearn list presets), and what is typed here wins:

{config_keys_page()}

In a sweep, with -m, each run has a folder of its own below runs/; hydra.sweep.dir=DIR puts them elsewhere, and
'out=DIR-${{seed}}' names them by what differs.

A group takes a class or function of your own: algo._target_=my_rules.MyRule, net._target_=my_nets.MyNet,
dataset._target_=my_data.load. Its options are its own, key=value each; those of the chosen file that it does not take
are left out.

Exit status: 0 completed, 2 an error that you can mend, 3 diverged or stopped by a callback,
130 or 143 interrupted by Ctrl-C or SIGTERM.
"""
    ),
    groups=True,
    bare=True,
    usage="localearn run [algo=NAME] [dataset=NAME] [net=NAME] [key=value ...]",
)


class JobFailed(Exception):
    """Raised where a sweep's run failed in a process of its own, which has printed the error."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


def main(arguments: list[str]) -> int:
    """Train, or show what would be trained; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    config_dir = take_option(arguments, "--config-dir", "-cd")
    flags = [argument for argument in arguments if argument.startswith("-")]
    resume = value_of("resume", arguments)
    value_of("out", arguments)  # which is refused where it is empty
    if flags and resume:
        raise UserError(f"resume= goes on with one run; leave out {' '.join(flags)}")
    if flags:
        return _through_hydra(arguments, config_dir)
    from localearn.composition import compose  # imported late, so that --help needs no torch
    from localearn.training.loading import resumed

    config, choices = resumed(resume, arguments) if resume else compose(arguments, config_dir)
    return _run(config, choices, started_s=STARTED_S)


def _run(config: Any, choices: dict[str, Any], started_s: float | None = None) -> int:
    """Train, print the outcome and the illustration's lines, and return the exit status."""
    from localearn.jobs import report
    from localearn.training.experiment import execute
    from localearn.training.illustration import Illustration

    illustration = Illustration()
    status = report(execute(config, choices, started_s=started_s, callbacks=[illustration]))
    for line in illustration.lines:
        say(line)
    return status


def _through_hydra(arguments: list[str], config_dir: str | None) -> int:
    """Let Hydra handle its own flags: sweeps, --cfg, --info."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from localearn.composition import as_typed, compose, config_errors, existing_folder, expanded, explain, opened

    worst = 0
    here = (socket.gethostname(), os.getpid())

    def task(_: DictConfig) -> None:
        nonlocal worst
        hydra_config = HydraConfig.get()
        number = hydra_config.job.num
        overrides = [as_typed(override) for override in hydra_config.overrides.task]
        try:
            say(f"[{number + 1}] {' '.join(overrides)}")
        except BrokenPipeError:  # of which Hydra would say more
            drop_output()
            sys.exit(141)
        elsewhere = here != (socket.gethostname(), os.getpid())  # in one of the processes of a launcher

        def job() -> int:
            if number and out and not re.search(r"\$\{|,|\(", out):
                raise UserError(
                    f"out={out} is one folder for all runs of a sweep; make each its own by what differs, say "
                    f"'out={out}-${{seed}}', or by hydra.sweep.dir={out}"
                )
            config, choices = compose(overrides, config_dir)  # again, with the rule's recipe
            if config.out is None:
                config.out = str(_sweeps_folder(hydra_config.sweep, config, choices, number if elsewhere else None))
            return _run(config, choices)

        status = run_reporting_errors(job, arguments)
        if status and elsewhere:  # of which the first process learns by an exception only
            raise JobFailed(status)
        if status > 128:
            sys.exit(status)
        worst = max(worst, status)

    arguments = opened(flags_first(expanded(arguments)))
    out = value_of("out", arguments)
    if arguments[:2] == ["--cfg", "job"] and not {"-m", "--multirun"} & set(arguments):
        return _show(arguments, config_dir)
    if {"-m", "--multirun"} & set(arguments):
        _check_sweep(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised to here, for a one-line report, not printed by Hydra
    extra = [] if config_dir is None else ["--config-dir", existing_folder(config_dir)]
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    sys.argv = [sys.argv[0], *extra, *arguments]
    try:
        with _any_help():
            hydra.main(config_path=str(CONF), config_name="config", version_base=None)(task)()
    except JobFailed as failed:
        return failed.status
    except config_errors() as error:
        raise UserError(explain(error, overrides, config_dir)) from error
    return worst


@contextlib.contextmanager
def _any_help() -> Iterator[None]:
    """Let Hydra build its argument parser on Python 3.14, where `argparse` checks each help text as it is added.

    The help of Hydra's --shell-completion is an object that makes the text when it is printed, which the check refuses
    (facebookresearch/hydra issue 3121).
    """
    parsers: Any = argparse.ArgumentParser
    check = getattr(parsers, "_check_help", None)
    if check is None:
        yield
        return

    def check_text(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(parser, action)

    parsers._check_help = check_text
    try:
        yield
    finally:
        del parsers._check_help


def _check_sweep(arguments: Sequence[str]) -> None:
    """Raise UserError where a sweep is over no value, so that it would have no run."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:  # a flag, or an error that Hydra reports
            continue
        if override.is_sweep_override() and next(override.sweep_string_iterator(), None) is None:
            raise UserError(f"{argument} has no value, so that the sweep would have no run")


def _sweeps_folder(sweep: Any, config: Any, choices: dict[str, Any], job: int | None) -> Path:
    """Return the folder of a sweep's run: hydra.sweep.dir/hydra.sweep.subdir, or one of its own in hydra.sweep.dir.

    Args:
        sweep: Hydra's own options of the sweep.
        config: The run's configuration.
        choices: The names that it chose.
        job: The run's number, which its own folder's name has, where runs may begin in the same second.

    """
    from localearn.training.experiment import default_out

    folder, own = Path(str(sweep.dir)), str(sweep.subdir)
    return default_out(config.seed, choices, job, folder) if own == "." else folder / own


def _show(arguments: list[str], config_dir: str | None) -> int:
    """Print the configuration of a run with these arguments, its recipe applied."""
    from omegaconf import OmegaConf

    from localearn.composition import compose

    config, choices = compose([argument for argument in arguments[2:] if "=" in argument], config_dir)
    print(f"recipe: {choices['recipe']}")
    print(OmegaConf.to_yaml(config, resolve="--resolve" in arguments), end="")
    return 0


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with Hydra's flags before the overrides, as Hydra requires.

    Args:
        arguments: Those of the command line.

    Raises:
        UserError: For a flag that is not in FLAGS or a value that it does not take.

    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag not in FLAGS:
            name = flag.lstrip("-") or "key"
            raise UserError(f"no flag {flag!r}; --help lists them, and keys have no dashes: {name}=VALUE")
        flags.append(flag)
        values = FLAGS[flag]
        if values is not None:
            value = value if equals else rest.pop(0) if rest else ""
            if value not in values:
                raise UserError(f"{flag} takes {' or '.join(values)}, not {value!r}")
            flags.append(value)
    shows = [flag for flag in flags if flag in ("--cfg", "-c")]
    if shows and {"-m", "--multirun"} & set(flags):
        raise UserError(f"{shows[0]} shows the configuration of one run; leave out -m")
    if "--resolve" in flags and not shows:
        raise UserError("--resolve goes with --cfg job, which shows the configuration; give both")
    return flags + overrides


def take_option(arguments: list[str], *names: str) -> str | None:
    """Remove `--name VALUE` or `--name=VALUE` from the arguments and return the value.

    Args:
        arguments: Those of the command line, changed in place.
        names: The names of the option, with their dashes.

    Returns:
        The value, None where the option is not there.

    """
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in names:
            continue
        words = 1 if equals else 2
        value = value if equals else "".join(arguments[index + 1 : index + 2])
        if not value:
            raise UserError(f"{flag} needs a value")
        del arguments[index : index + words]
        return value
    return None
