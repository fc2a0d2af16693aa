"""Run `python -m localearn.compare`, which is `localearn compare`."""

from localearn.cli.compare import main
from localearn.cli.errors import leave, run_command

__all__ = ["main"]

if __name__ == "__main__":
    leave(run_command(main))
