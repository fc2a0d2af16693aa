"""What a report says of each run: how it is read from a record, in which unit, and how it is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from localearn.records import Reading
from localearn.reporting import formatting
from localearn.reporting.formatting import Unit
from localearn.reporting.runs import Epoch, Run


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column. `value` gives a number in `unit`, None where it is absent; `reading` gives the label of joules."""

    key: str
    title: str
    unit: str  # of the number in CSV and JSON
    units: tuple[Unit, ...]
    value: Callable[[Run], float | None]
    compared: Literal["ratio", "points"] = "ratio"
    reading: Callable[[Run], Reading] | None = None


def quantities(common_accuracy: float | None) -> list[Quantity]:
    """Return the quantities of a group of runs; `common_accuracy` is what all of them reached (0 to 1), if known."""
    found = [
        Quantity("test_accuracy", "Test accuracy", "1", formatting.PERCENT, lambda run: run.test_accuracy, "points"),
        Quantity("train_s", "Training time", "s", formatting.SECOND, lambda run: run.train_s),
        _joules("train_j", "Energy, gross", lambda run: run.energy.train_j),
        _joules("train_net_j", "Energy, net of idle", lambda run: run.energy.train_net_j),
        _joules("j_per_sample", "Energy per sample", _joules_per_sample),
        Quantity("peak_memory_bytes", "Peak memory", "B", formatting.BYTE, lambda run: run.peak_memory_bytes),
        Quantity("allocator_bytes", "Allocator's peak", "B", formatting.BYTE, lambda run: run.allocator_bytes),
        Quantity("process_bytes", "Process's peak", "B", formatting.BYTE, lambda run: run.process_bytes),
        Quantity("samples_per_s", "Throughput", "1/s", formatting.RATE, lambda run: run.samples_per_s),
        Quantity("passes", "Passes over the data", "1", formatting.COUNT, lambda run: run.passes),
    ]
    if common_accuracy is not None:
        to = f"to {100 * common_accuracy:.2f} % validation accuracy"
        found += [
            Quantity(
                "common_accuracy_s", f"Time {to}", "s", formatting.SECOND, lambda run: _seconds_to(run, common_accuracy)
            ),
            _joules("common_accuracy_j", f"Energy {to}", lambda run: _joules_to(run, common_accuracy)),
        ]
    co2e = Quantity("co2e_kg", "CO2e", "kg", formatting.MASS, lambda run: run.co2e_kg, reading=lambda run: run.co2e)
    return [*found, co2e]


def common_accuracy(runs: Sequence[Run]) -> float | None:
    """Return the highest validation accuracy that every run with a curve reached at some epoch; None without curves."""
    best = [max((epoch.accuracy for epoch in run.epochs if epoch.accuracy is not None), default=None) for run in runs]
    reached = [accuracy for accuracy in best if accuracy is not None]
    return min(reached, default=None)


def _joules(key: str, title: str, value: Callable[[Run], float | None]) -> Quantity:
    return Quantity(key, title, "J", formatting.JOULE, value, reading=lambda run: run.energy.reading)


def _joules_per_sample(run: Run) -> float | None:
    if run.energy.train_j is None or run.samples_seen is None:
        return None
    return run.energy.train_j / run.samples_seen


def _first_at(run: Run, accuracy: float) -> Epoch | None:
    return next((epoch for epoch in run.epochs if epoch.accuracy is not None and epoch.accuracy >= accuracy), None)


def _seconds_to(run: Run, accuracy: float) -> float | None:
    epoch = _first_at(run, accuracy)
    return epoch.train_s if epoch else None


def _joules_to(run: Run, accuracy: float) -> float | None:
    epoch = _first_at(run, accuracy)
    return epoch.train_j if epoch and run.energy.reading.label != "absent" else None
