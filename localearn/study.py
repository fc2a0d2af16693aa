"""Run `python -m localearn.study`, which is `localearn study`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.study import main

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
