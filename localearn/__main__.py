"""Run `python -m localearn`, which is `localearn`."""

import sys

from localearn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
