"""Run `python -m localearn`, which is `localearn`."""

from localearn.cli.main import console

if __name__ == "__main__":
    console()
