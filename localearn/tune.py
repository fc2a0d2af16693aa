"""Run `python -m localearn.tune`, which is `localearn tune`."""

import sys

from localearn.cli.errors import run_command
from localearn.cli.tune import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
