"""The record of a run: what run.json and metrics.jsonl hold."""

from localearn.records.record import Record, versions

__all__ = ["Record", "versions"]
