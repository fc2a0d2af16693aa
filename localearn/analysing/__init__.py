"""Analysis of trained rules: sparsity of activities, units that respond to a class, linear probes, similar blocks."""

from localearn.analysing.findings import Findings, examine
from localearn.analysing.measures import Probe, dead_units, ensembles, hoyer, iou, iou_by_chance, linear_cka
from localearn.analysing.reading import read_findings
from localearn.analysing.writing import write_analysis

__all__ = [
    "Findings",
    "Probe",
    "dead_units",
    "ensembles",
    "examine",
    "hoyer",
    "iou",
    "iou_by_chance",
    "linear_cka",
    "read_findings",
    "write_analysis",
]
