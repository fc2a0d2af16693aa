"""Run `python -m localearn.energy.check`, which is `localearn check-meter`."""

from localearn.cli.check_meter import main
from localearn.cli.errors import leave, run_command

if __name__ == "__main__":
    leave(run_command(main))
