"""Run `python -m localearn.report`, which is `localearn report`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.report import main

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
