"""Run `python -m localearn.bench`, which is `localearn bench`."""

import sys

from localearn.cli.bench import main
from localearn.cli.errors import run_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
