"""What a run costs: energy in joules by named windows, each part measured, estimated or absent."""

from localearn.energy.meter import WINDOWS, Meter, make_meter, metered_by
from localearn.energy.sources import AbsentError, Clock, Counter, LostError, Mark

__all__ = [
    "WINDOWS",
    "AbsentError",
    "Clock",
    "Counter",
    "LostError",
    "Mark",
    "Meter",
    "make_meter",
    "metered_by",
]
