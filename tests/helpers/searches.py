"""Searches that take a second, and those that are processes of their own."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import environment

TINY = (
    "algo=mono_forward", "dataset=digits", "dataset.train_size=80", "net.widths=[4]", "epochs=3", "batch_size=40",
    "energy.enabled=false",
)  # fmt: skip


def started(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start `python -m localearn.tune` with these arguments in a folder."""
    command = [sys.executable, "-m", "localearn.tune", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
