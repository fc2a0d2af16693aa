"""Run `python -m localearn.bench`, which is `localearn bench`."""

from localearn.cli.bench import main
from localearn.cli.errors import leave, run_command

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
