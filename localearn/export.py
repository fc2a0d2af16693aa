"""Run `python -m localearn.export`, which is `localearn export`."""

import sys

from localearn.cli.errors import run_command
from localearn.cli.export import main
from localearn.exporting import TOLERANCE, export

__all__ = ["TOLERANCE", "export", "main"]

if __name__ == "__main__":
    sys.exit(run_command(main))
