"""Run `python -m localearn.sample`, which is `localearn sample`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.sample import main

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
