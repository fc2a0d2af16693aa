"""Run `python -m localearn.compare`, which is `localearn compare`."""

import sys

from localearn.cli.compare import main
from localearn.cli.errors import run_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
