"""Run `python -m localearn.export`, which is `localearn export`."""

from localearn.cli.errors import leave, run_command
from localearn.cli.export import main
from localearn.exporting import TOLERANCE, export

__all__ = ["TOLERANCE", "export", "main"]

if __name__ == "__main__":
    leave(run_command(main))
