"""Run `python -m localearn.sample`, which is `localearn sample`."""

import sys

from localearn.cli.errors import run_command
from localearn.cli.sample import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
