"""Run `python -m localearn.run`, which is `localearn run`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.run import main

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
