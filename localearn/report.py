"""Run `python -m localearn.report`, which is `localearn report`."""

import sys

from localearn.cli.errors import run_command
from localearn.cli.report import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
