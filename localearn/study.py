"""Run `python -m localearn.study`, which is `localearn study`."""

import sys

from localearn.cli.errors import run_command
from localearn.cli.study import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
