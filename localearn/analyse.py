"""Run `python -m localearn.analyse`, which is `localearn analyse`."""

import sys

from localearn.cli.analyse import main
from localearn.cli.errors import run_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
