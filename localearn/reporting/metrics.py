"""The metric that runs are judged by, as a report writes it: its name, and its figures with their unit."""

from typing import TYPE_CHECKING

from localearn.moved import former_names
from localearn.reporting import formatting
from localearn.reporting.drawing import short
from localearn.reporting.formatting import Unit
from localearn.tasks import Classification, Metric

ACCURACY = Classification.metrics[0]
_WRITTEN = {
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "mse": "MSE",
    "psnr": "PSNR",
    "auc": "AUC",
    "log_loss": "log loss",
}
_SYMBOLS = {"psnr": "dB"}  # of metrics whose unit is not the targets' own


def written(metric: Metric) -> str:
    """Return a metric's name within a sentence: accuracy, RMSE.

    Args:
        metric: the metric.

    """
    return _WRITTEN.get(metric.name, metric.name.replace("_", " "))


def heading(metric: Metric) -> str:
    """Return a metric's name where a title begins with it.

    Args:
        metric: the metric.

    """
    name = written(metric)
    return name[:1].upper() + name[1:]


def full(metric: Metric) -> str:
    """Return a metric's full description: metrics of one name that go different ways are two.

    Args:
        metric: the metric.

    """
    return f"{metric.name} ({metric.direction}, {metric.unit})"


def scale(metric: Metric) -> int:
    """Return the factor on a figure in tables and plots: a fraction is in per cent.

    Args:
        metric: the figure's.

    """
    return 100 if metric.unit == "fraction" else 1


def unit(metric: Metric) -> Unit:
    """Return the unit of figures as written, which is empty where the metric has the targets' own.

    Args:
        metric: the figures'.

    """
    return Unit("%" if metric.unit == "fraction" else _SYMBOLS.get(metric.name, ""), 1.0)


def units(metric: Metric) -> tuple[Unit, ...]:
    """Return the units of a column of the record's figures.

    Args:
        metric: the figures'.

    """
    return formatting.PERCENT if metric.unit == "fraction" else (unit(metric),)


def with_unit(metric: Metric, figure: float) -> str:
    """Return a record's figure with its unit: 97.22 %, 31.20 dB, or 55.31.

    Args:
        metric: the figure's.
        figure: as the record has it.

    """
    if metric.unit == "fraction":
        return f"{100 * figure:.2f} %"
    return f"{formatting.plain(figure)} {unit(metric).symbol}".rstrip()


def named(metric: Metric, figure: float) -> str:
    """Return a record's figure with its unit, after the metric's name: accuracy 97.22 %, RMSE 55.31.

    Args:
        metric: the figure's.
        figure: as the record has it.

    """
    return f"{written(metric)} {with_unit(metric, figure)}"


def axis(metric: Metric) -> str:
    """Return a metric's name as the label of an axis: with its unit, and with its direction where less is better.

    Args:
        metric: the metric.

    """
    notes = [unit(metric).symbol] * bool(unit(metric).symbol) + ["less is better"] * (metric.direction == "min")
    return short(written(metric)) + (f" ({', '.join(notes)})" if notes else "")


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
