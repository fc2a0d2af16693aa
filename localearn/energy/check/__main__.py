"""Run `python -m localearn.energy.check`, which is `localearn check-meter`."""

import sys

from localearn.cli.check_meter import main
from localearn.cli.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
