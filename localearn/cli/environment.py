"""`localearn report-environment`: print what an issue needs to state about a machine."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, option, read
from localearn.cli.pages import help_status
from localearn.printing import say


@dataclass(frozen=True)
class EnvironmentOptions(Options):
    """The options of a report of the environment."""

    device: str = option("auto", "the one that the meter is asked about, as a run's device=")


COMMAND = Command(
    "report-environment",
    SUMMARIES["report-environment"],
    EnvironmentOptions,
    """\
Shows what figures depend on, for an issue or a paper: versions, device, memory, threads, and from which source the
energy meter would take each part's joules on this machine: measured, estimated or absent, and why.
""",
    bare=True,
)


def main(arguments: Sequence[str]) -> int:
    """Print the environment; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(EnvironmentOptions, arguments)
    import torch

    from localearn.energy import make_meter
    from localearn.records import versions
    from localearn.training.runtime import describe_device, select_device

    device = select_device(options.device)
    described = describe_device(device)
    memory = described["memory_bytes"]
    meter = make_meter(device, None, "auto", 0.0)
    meter.open(warn=False)
    try:
        metered = meter.describe()
    finally:
        meter.close()
    lines = {
        "localearn": sys.modules["localearn"].__version__,
        "system": platform.platform(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items() if name != "localearn"),
        "device": f"{device} {described['name']}" + (f", {memory / 2**30:.0f} GiB" if memory else ""),
        "CUDA": f"{torch.version.cuda}, {torch.cuda.device_count()} devices" if torch.version.cuda else "not in torch",
        "threads": f"{torch.get_num_threads()} of torch's, {os.cpu_count()} logical CPUs",
        "meter": metered,
    }
    for name, text in lines.items():
        say(f"{name + ':':<11}{text}")
    return 0
