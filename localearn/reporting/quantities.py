"""Quantities of a report: how each is read from a record, in which unit, and how it is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from localearn.records import Reading
from localearn.reporting import formatting, metrics
from localearn.reporting.formatting import Unit
from localearn.reporting.runs import Epoch, Run
from localearn.tasks import Metric, better


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column of a report.

    Attributes:
        key: its name in CSV and JSON.
        title: its heading.
        unit: of the number in CSV and JSON.
        units: to choose a column's from.
        value: returns a run's number in `unit`, None where it is absent.
        compared: as a "ratio" to the baseline, or as a difference: in percentage "points", or in the number's own unit.
        reading: returns the label of joules.
        judged: its name in a verdict, None for what a verdict leaves out.
        metric: the one whose figure it is, if it is.

    """

    key: str
    title: str
    unit: str  # of the number in CSV and JSON
    units: tuple[Unit, ...]
    value: Callable[[Run], float | None]
    compared: Literal["ratio", "points", "difference"] = "ratio"
    reading: Callable[[Run], Reading] | None = None
    judged: str | None = None
    metric: Metric | None = None


def quantities(metric: Metric, common: float | None) -> list[Quantity]:
    """Return the quantities of a group of runs.

    Args:
        metric: what the runs are judged by.
        common: the figure of it that all of them reached, see `common_level`; None where it is not known.

    """
    columns = [
        _figure(metric),
        Quantity("train_s", "Training time", "s", formatting.SECOND, lambda run: run.train_s, judged="training time"),
        _joules("train_j", "Energy, gross", lambda run: run.energy.train_j, judged="gross energy"),
        _joules("train_net_j", "Energy, net of idle", lambda run: run.energy.train_net_j),
        _joules("j_per_sample", "Energy per sample", _joules_per_sample),
        Quantity(
            "peak_memory_bytes",
            "Peak memory",
            "B",
            formatting.BYTE,
            lambda run: run.peak_memory_bytes,
            judged="peak memory",
        ),
        Quantity("allocator_bytes", "Allocator's peak", "B", formatting.BYTE, lambda run: run.allocator_bytes),
        Quantity("process_bytes", "Process's peak", "B", formatting.BYTE, lambda run: run.process_bytes),
        Quantity("samples_per_s", "Throughput", "1/s", formatting.RATE, lambda run: run.samples_per_s),
        Quantity("passes", "Passes over the data", "1", formatting.COUNT, lambda run: run.passes),
    ]
    if common is not None:
        to = f"to {_reached(metric, common)}"
        columns += [
            Quantity(
                common_key(metric, "s"),
                f"Time {to}",
                "s",
                formatting.SECOND,
                lambda run: _seconds_to(run, metric, common),
            ),
            _joules(common_key(metric, "j"), f"Energy {to}", lambda run: _joules_to(run, metric, common)),
        ]
    co2e = Quantity("co2e_kg", "CO2e", "kg", formatting.MASS, lambda run: run.co2e_kg, reading=lambda run: run.co2e)
    return [*columns, co2e]


def test_key(metric: Metric) -> str:
    """Return the key of a metric's figure on the test split.

    Args:
        metric: the metric.

    """
    return f"test_{metric.name}"


def common_key(metric: Metric, unit: Literal["s", "j"]) -> str:
    """Return the key of the cost of reaching the figure that all runs reached.

    Args:
        metric: the figure's.
        unit: seconds or joules.

    """
    return f"common_{metric.name}_{unit}"


def common_level(metric: Metric, runs: Sequence[Run]) -> float | None:
    """Return the best figure on the validation split that every run with a curve reached at some epoch, if any did.

    Args:
        metric: the figure's.
        runs: a group's.

    """
    best, worst = (max, min) if metric.direction == "max" else (min, max)
    reached = [
        best(figures) for run in runs if (figures := [epoch.figure for epoch in run.epochs if epoch.figure is not None])
    ]
    return worst(reached, default=None)


def _figure(metric: Metric) -> Quantity:
    """Return the figure on the test split of runs that are judged by this metric."""
    fraction = metric.unit == "fraction"
    return Quantity(
        test_key(metric),
        f"Test {metrics.written(metric)}",
        "1" if fraction else "value",
        metrics.units(metric),
        lambda run: run.test_figure if run.metric == metric else None,
        "points" if fraction else "difference",
        judged=f"test {metrics.written(metric)}",
        metric=metric,
    )


def _reached(metric: Metric, figure: float) -> str:
    """Return a level as text: 97.22 % validation accuracy, or validation RMSE 55.31."""
    if metric.unit == "fraction":
        return f"{metrics.with_unit(metric, figure)} validation {metrics.written(metric)}"
    return f"validation {metrics.named(metric, figure)}"


def _joules(key: str, title: str, value: Callable[[Run], float | None], judged: str | None = None) -> Quantity:
    return Quantity(key, title, "J", formatting.JOULE, value, reading=lambda run: run.energy.reading, judged=judged)


def _joules_per_sample(run: Run) -> float | None:
    if run.energy.train_j is None or run.samples_seen is None:
        return None
    return run.energy.train_j / run.samples_seen


def _first_at(run: Run, metric: Metric, level: float) -> Epoch | None:
    """Return the first epoch that is as good as a level of this metric."""
    epochs = run.epochs if run.metric == metric else ()
    return next((e for e in epochs if e.figure is not None and not better(metric.direction, level, e.figure)), None)


def _seconds_to(run: Run, metric: Metric, level: float) -> float | None:
    epoch = _first_at(run, metric, level)
    return epoch.train_s if epoch else None


def _joules_to(run: Run, metric: Metric, level: float) -> float | None:
    epoch = _first_at(run, metric, level)
    return epoch.train_j if epoch and run.energy.reading.label != "absent" else None
