"""Run `python -m localearn.analyse`, which is `localearn analyse`."""

from localearn.cli.analyse import main
from localearn.cli.errors import leave, run_command

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
