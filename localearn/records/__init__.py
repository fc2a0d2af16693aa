"""The record of a run: its definition, its folder, and the reader of every schema so far."""

from localearn.records.fields import BadRecordError
from localearn.records.folder import RunFolder
from localearn.records.reading import parse_record, read_history, read_record
from localearn.records.record import LOSS, SCHEMA, Energy, Figures, Part, Reading, Record, Window, versions

__all__ = [
    "LOSS",
    "SCHEMA",
    "BadRecordError",
    "Energy",
    "Figures",
    "Part",
    "Reading",
    "Record",
    "RunFolder",
    "Window",
    "parse_record",
    "read_history",
    "read_record",
    "versions",
]
