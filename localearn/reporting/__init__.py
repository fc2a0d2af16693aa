"""Reports from records: what each rule gave, what it cost, and which differences are larger than their interval."""

from localearn.reporting.runs import Runs, read_runs
from localearn.reporting.tunings import Tunings, read_tunings
from localearn.reporting.writing import write_report

__all__ = ["Runs", "Tunings", "read_runs", "read_tunings", "write_report"]
