"""Checks on the meter itself, on the machine at hand: `python -m localearn.energy.check`."""
