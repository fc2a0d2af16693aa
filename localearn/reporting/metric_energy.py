"""The plot of a metric against energy, with the front of rules that no other beats in both."""

from dataclasses import dataclass

from localearn.records import Reading
from localearn.reporting import drawing, formatting, metrics
from localearn.reporting.comparison import Group, Rule
from localearn.reporting.document import Figure
from localearn.reporting.drawing import INK, Look
from localearn.reporting.formatting import Unit
from localearn.reporting.statistics import Estimate, mean_interval, pareto_front
from localearn.tasks import Metric


@dataclass(frozen=True, slots=True)
class _Point:
    """A rule's runs whose joules have one reading: (joules, the metric as it is shown) of each, and their means."""

    label: str
    runs: list[tuple[float, float]]
    energy_j: Estimate
    figure: Estimate


def metric_energy_figure(group: Group, looks: dict[str, Look], reading: Reading) -> Figure | None:
    """Draw the metric against joules of one reading alone: labels do not mix in a plot. None where no run has any."""
    points = [point for rule in group.rules if (point := _point(rule, reading))]
    if not points:
        return None
    unit = formatting.choose_unit(formatting.JOULE, [point.energy_j.mean for point in points])
    metric, name = group.metric, metrics.written(group.metric)
    sign = 1 if metric.direction == "max" else -1
    front = pareto_front([(point.energy_j.mean, sign * point.figure.mean) for point in points])
    drawn = [point.label for point in points]
    figure, axes = drawing.canvas(3.3, [*drawn, "Pareto front"])
    for point in points:
        look = looks[point.label]
        axes.scatter(
            [joules / unit.factor for joules, _ in point.runs], [figure for _, figure in point.runs],
            s=16, marker=look.marker, color=look.color, alpha=0.4, linewidths=0,
        )  # fmt: skip
        axes.errorbar(
            point.energy_j.mean / unit.factor, point.figure.mean,
            xerr=_half_width(point.energy_j, unit.factor), yerr=_half_width(point.figure, 1.0),
            color=look.color, marker=look.marker, markeredgecolor=look.edge, linestyle="none", markersize=8, capsize=3,
        )  # fmt: skip
        drawing.entry(axes, point.label, look)
    axes.step(
        [points[index].energy_j.mean / unit.factor for index in front],
        [points[index].figure.mean for index in front],
        where="post", color=INK, alpha=0.8, linestyle=(0, (4, 3)), linewidth=1.2, zorder=0, label="Pareto front",
    )  # fmt: skip
    least, most = (choose(point.energy_j.mean for point in points) for choose in (min, max))
    if 0 < 8 * least < most:
        drawing.logarithmic(axes, most / least)
    axes.margins(0.08)
    axes.set_xlabel(f"training energy, gross ({unit.symbol}; {reading})")
    drawing.label_y(axes, f"test {metrics.axis(metric)}")
    drawing.legend(figure, axes)
    best = f"On the Pareto front: {', '.join(points[index].label for index in front)}."
    against = f"{metrics.heading(metric)} against energy"
    caption = f"{against}: small marks are runs, large ones their means with 95 % intervals. {best}"
    missing = [rule.label for rule in group.rules if rule.label not in drawn]
    if missing:
        caption += f" Not drawn, without {reading.label} energy of this source: {', '.join(missing)}."
    said = "; ".join(_said(point, metric, unit) for point in points)
    alt = f"Test {name} against {reading} training energy: {said}. {best}"
    plot = drawing.plot_name(f"{metric.name}_energy", *group.key, reading.label, reading.source, reading.part)
    return drawing.finish(figure, plot, caption, alt)


def _point(rule: Rule, reading: Reading) -> _Point | None:
    runs = [
        (run.energy.train_j, metrics.scale(run.metric) * run.test_figure)
        for run in rule.runs
        if run.energy.reading == reading and run.energy.train_j is not None and run.test_figure is not None
    ]
    if not runs:
        return None
    joules, figures = zip(*runs, strict=True)
    return _Point(rule.label, runs, mean_interval(joules), mean_interval(figures))


def _said(point: _Point, metric: Metric, unit: Unit) -> str:
    figure = formatting.with_interval(point.figure, metrics.unit(metric))
    return f"{point.label} {figure} for {formatting.with_interval(point.energy_j, unit)}"


def _half_width(estimate: Estimate, factor: float) -> float | None:
    return None if estimate.high is None else (estimate.high - estimate.mean) / factor
