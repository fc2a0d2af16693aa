"""Run `python -m localearn.tune`, which is `localearn tune`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.tune import main

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
