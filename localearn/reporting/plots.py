"""The plots of a report: ratios, learning curves, memory, the metric against energy, memory against depth."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localearn.moved import former_names
from localearn.records import Reading
from localearn.reporting import drawing, formatting, metrics
from localearn.reporting.comparison import Comparison, Group, Rule
from localearn.reporting.document import Figure
from localearn.reporting.drawing import INK, PlotStyle, short
from localearn.reporting.formatting import Unit
from localearn.reporting.runs import Epoch, Run
from localearn.reporting.statistics import Estimate, mean_interval, pareto_front
from localearn.reporting.verdict import comparison_text
from localearn.tasks import Metric

Styles = dict[str, PlotStyle]


def rule_styles(comparison: Comparison) -> Styles:
    """Return the style of every rule, the same in all plots of a report.

    Args:
        comparison: the report's.

    """
    return drawing.plot_styles((rule.label, rule.baseline) for group in comparison.groups for rule in group.rules)


def group_figures(group: Group, styles: Styles) -> list[Figure]:
    """Return the plots of a group; one whose numbers are absent is left out.

    Args:
        group: the rules.
        styles: each rule's style.

    """
    readings = sorted({run.energy.reading for rule in group.rules for run in rule.runs}, key=str)
    figures = [_ratios(group, styles)]
    figures += [metric_energy_figure(group, styles, reading) for reading in readings if reading.label != "absent"]
    figures += [_curves(group, styles, "epochs", "epoch", lambda epoch: None)]
    figures += [_curves(group, styles, "seconds", "training time (s)", lambda epoch: epoch.train_s)]
    for reading in readings:
        if reading.label != "absent":
            label = f"training energy, gross (J; {reading})"
            figures.append(_curves(group, styles, "joules", label, lambda epoch: epoch.train_j, reading))
    figures.append(_memory(group, styles))
    return [figure for figure in figures if figure]


def _ratios(group: Group, styles: Styles) -> Figure | None:
    """Draw each rule's ratios to the baseline with their intervals; the line at 1 is the baseline."""
    judged = {
        measure.quantity.key: measure.quantity.judged
        for rule in group.rules
        for measure in rule.measures
        if measure.quantity.judged and measure.quantity.compared == "ratio"
    }
    known = {
        key: [rule.label for rule in group.rules if (measure := rule.measure(key)) and measure.ratio] for key in judged
    }
    columns = [(key, name) for key, name in judged.items() if known[key]]
    rules = [rule for rule in group.rules if any(rule.label in known[key] for key, _ in columns)]
    if not rules:
        return None
    figure, axes = drawing.canvas(0.8 + 0.26 * len(columns) * (len(rules) + 0.6), [rule.label for rule in rules])
    spoken, ends = [], []
    for row, (key, name) in enumerate(columns):
        for index, rule in enumerate(rules):
            measure = rule.measure(key)
            if measure is None or measure.ratio is None:
                continue
            ratio, style = measure.ratio, styles[rule.label]
            height = row * (len(rules) + 0.6) + index
            low, high = (ratio.mean if bound is None else bound for bound in (ratio.low, ratio.high))
            axes.errorbar(
                ratio.mean, height, xerr=[[ratio.mean - low], [high - ratio.mean]],
                color=style.color, marker=style.marker, markeredgecolor=style.edge, linestyle="none", capsize=3,
                markersize=6,
            )  # fmt: skip
            ends += [low, high, ratio.mean]
            spoken.append(f"{rule.label}, {name} {comparison_text(measure)}")
    left, right = min(*ends, 0.8) / 1.12, max(*ends, 1.25) * 1.12
    drawing.logarithmic(axes, right / left)
    axes.set_xlim(left, right)
    axes.axvline(1, color=INK, linewidth=1)
    middle = (len(rules) - 1) / 2
    axes.set_yticks([row * (len(rules) + 0.6) + middle for row in range(len(columns))], [name for _, name in columns])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(columns) * (len(rules) + 0.6) - 0.8, -0.8)
    axes.set_xlabel("ratio to the baseline (the line at 1)")
    for rule in rules:
        drawing.entry(axes, rule.label, styles[rule.label])
    drawing.legend(figure, axes)
    caption = "Ratio to the baseline; bars are 95 % intervals over paired seeds."
    return drawing.finish(
        figure, drawing.plot_name("ratios", *group.key), caption, f"Ratios to the baseline: {'; '.join(spoken)}."
    )


def _curves(
    group: Group,
    styles: Styles,
    kind: str,
    label: str,
    along: Callable[[Epoch], float | None],
    reading: Reading | None = None,
) -> Figure | None:
    """Draw the validation metric over epochs, seconds or joules: a thin line a run, a thick one the mean by epoch."""
    from matplotlib.ticker import MaxNLocator

    curves: dict[str, list[list[tuple[float, float]]]] = defaultdict(list)
    for rule in group.rules:
        for run in rule.runs:
            if reading is None or run.energy.reading == reading:
                curve = _curve(run, kind, along)
                if curve:
                    curves[rule.label].append(curve)
    if not curves:
        return None
    figure, axes = drawing.canvas(3.3, list(curves))
    for rule, runs in curves.items():
        style = styles[rule]
        for curve in runs if len(runs) > 1 else []:
            axes.plot(*zip(*curve, strict=True), color=style.color, linestyle=style.dashes, linewidth=0.8, alpha=0.35)
        mean = [
            (sum(x for x, _ in epoch) / len(epoch), sum(y for _, y in epoch) / len(epoch))
            for epoch in zip(*runs, strict=False)  # as far as every seed went
        ]
        axes.plot(
            *zip(*mean, strict=True), color=style.color, linestyle=style.dashes, linewidth=2, label=short(rule),
            marker=style.marker, markeredgecolor=style.edge, markersize=5, markevery=max(1, len(mean) // 8),
        )  # fmt: skip
    if kind == "epochs":
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if all(len(curve) == 1 for runs in curves.values() for curve in runs):
            axes.set_xlim(0, 2)  # around a single epoch there would be fractions of it alone
    axes.set_xlabel(label)
    drawing.label_y(axes, f"validation {metrics.axis(group.metric)}")
    drawing.legend(figure, axes)
    over = f"{reading.label} joules" if reading else kind
    final = "; ".join(
        f"{rule} ends at {_ended(group.metric, sum(curve[-1][1] for curve in runs) / len(runs))} "
        f"after {formatting.plain(sum(curve[-1][0] for curve in runs) / len(runs), 3)} {kind}"
        for rule, runs in curves.items()
    )
    caption = f"Learning curves over {over}: thin lines are runs, thick ones their means."
    alt = f"Validation {metrics.written(group.metric)} over {over}; means over runs: {final}."
    return drawing.finish(
        figure, drawing.plot_name(f"curves_{kind}", *group.key, *_reading_parts(reading)), caption, alt
    )


def _ended(metric: Metric, figure: float) -> str:
    return f"{figure:.2f} %" if metric.unit == "fraction" else formatting.plain(figure)


def _curve(run: Run, kind: str, along: Callable[[Epoch], float | None]) -> list[tuple[float, float]]:
    curve = []
    for number, epoch in enumerate(run.epochs, start=1):
        x = float(number) if kind == "epochs" else along(epoch)
        if x is not None and epoch.figure is not None:
            curve.append((x, metrics.scale(run.metric) * epoch.figure))
    return curve


def _memory(group: Group, styles: Styles) -> Figure | None:
    """Draw each rule's peak memory as a bar from zero, with its runs as dots."""
    measured = [(rule, [run.peak_memory_bytes for run in rule.runs if run.peak_memory_bytes]) for rule in group.rules]
    measured = [(rule, peaks) for rule, peaks in measured if peaks]
    if not measured:
        return None
    means = [sum(peaks) / len(peaks) for _, peaks in measured]
    unit = formatting.choose_unit(formatting.BYTE, means)
    figure, axes = drawing.canvas(0.7 + 0.42 * len(measured), [])
    for row, ((rule, peaks), mean) in enumerate(zip(measured, means, strict=True)):
        axes.barh(row, mean / unit.factor, height=0.6, color=styles[rule.label].color, alpha=0.85)
        axes.annotate(
            f"{formatting.plain(mean / unit.factor)} {unit.symbol}", (max(peaks) / unit.factor, row),
            xytext=(6, 0), textcoords="offset points", va="center",
        )  # fmt: skip
        axes.scatter([peak / unit.factor for peak in peaks], [row] * len(peaks), s=14, color="white", edgecolors=INK)
    axes.set_yticks(range(len(measured)), [short(rule.label, 30) for rule, _ in measured])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(max(peaks) for _, peaks in measured) / unit.factor * 1.35)
    axes.set_xlabel(f"peak memory ({unit.symbol})")
    spoken = "; ".join(
        f"{rule.label} {formatting.plain(mean / unit.factor)} {unit.symbol}"
        for (rule, _), mean in zip(measured, means, strict=True)
    )
    caption = "Peak memory: bars are means over runs, dots the runs."
    return drawing.finish(figure, drawing.plot_name("memory", *group.key), caption, f"Peak memory per rule: {spoken}.")


def _reading_parts(reading: Reading | None) -> tuple[str | None, ...]:
    return (reading.label, reading.source, reading.part) if reading else ()


@dataclass(frozen=True, slots=True)
class _Point:
    """A rule's runs whose joules have one reading: (joules, the metric as it is shown) of each, and their means."""

    label: str
    runs: list[tuple[float, float]]
    energy_j: Estimate
    figure: Estimate


def metric_energy_figure(group: Group, styles: dict[str, PlotStyle], reading: Reading) -> Figure | None:
    """Draw the metric against joules of one reading alone: labels do not mix in a plot. None where no run has any.

    Args:
        group: the rules.
        styles: each rule's style.
        reading: the joules'.

    """
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
        style = styles[point.label]
        axes.scatter(
            [joules / unit.factor for joules, _ in point.runs], [figure for _, figure in point.runs],
            s=16, marker=style.marker, color=style.color, alpha=0.4, linewidths=0,
        )  # fmt: skip
        axes.errorbar(
            point.energy_j.mean / unit.factor, point.figure.mean,
            xerr=_half_width(point.energy_j, unit.factor), yerr=_half_width(point.figure, 1.0),
            color=style.color, marker=style.marker, markeredgecolor=style.edge, linestyle="none", markersize=8,
            capsize=3,
        )  # fmt: skip
        drawing.entry(axes, point.label, style)
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
    listed = "; ".join(_point_text(point, metric, unit) for point in points)
    alt = f"Test {name} against {reading} training energy: {listed}. {best}"
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


def _point_text(point: _Point, metric: Metric, unit: Unit) -> str:
    figure = formatting.with_interval(point.figure, metrics.unit(metric))
    return f"{point.label} {figure} for {formatting.with_interval(point.energy_j, unit)}"


def _half_width(estimate: Estimate, factor: float) -> float | None:
    return None if estimate.high is None else (estimate.high - estimate.mean) / factor


def net_depth(run: Run) -> tuple[int, str] | None:
    """Return the net's number of blocks and the name that nets of its kind share at every depth; None if not known.

    It is read from a configured `depth` or `layers`, or a list of equal `widths` (or `channels`, `hidden`), or else a
    name like `mlp_2x256`.

    Args:
        run: whose net.

    """
    config: dict[str, Any] = dict(run.record.config["net"]) if isinstance(run.record.config.get("net"), dict) else {}
    config.pop("name", None)
    for key in ("depth", "layers"):
        if isinstance(config.get(key), int):
            depth = config.pop(key)
            return depth, json.dumps(config, sort_keys=True, default=str)
    for key in ("widths", "channels", "hidden"):  # a CNN's `hidden` are Linear layers after its channels
        widths = config.get(key)
        if isinstance(widths, list) and widths and all(width == widths[0] for width in widths):
            return len(widths), json.dumps(config | {key: widths[0]}, sort_keys=True, default=str)
    named = re.fullmatch(r"(.*?)(\d+)(x\d+.*)", run.record.net)
    return (int(named[2]), named[1] + named[3]) if named else None


def depth_figures(comparison: Comparison, styles: dict[str, PlotStyle]) -> list[Figure]:
    """Return a plot of peak memory against depth per family of nets that was run at two depths or more.

    Args:
        comparison: the report's.
        styles: each rule's style.

    """
    families: dict[tuple[str, ...], dict[str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for group in comparison.groups:
        for rule in group.rules:
            for run in rule.runs:
                depth = net_depth(run)
                if depth and run.peak_memory_bytes:
                    family = (depth[1], group.dataset, group.protocol or "", str(run.batch_size), run.device_type)
                    families[family][rule.label][depth[0]].append(run.peak_memory_bytes)
    wide = [(family, rules) for family, rules in sorted(families.items()) if _depths(rules) > 1]
    return [_depth_figure(number, family, rules, styles) for number, (family, rules) in enumerate(wide, start=1)]


def _depths(rules: dict[str, dict[int, list[float]]]) -> int:
    return max(len(depths) for depths in rules.values())


def _depth_figure(
    number: int, family: tuple[str, ...], rules: dict[str, dict[int, list[float]]], styles: dict[str, PlotStyle]
) -> Figure:
    means = {
        rule: {depth: sum(peaks) / len(peaks) for depth, peaks in sorted(depths.items())}
        for rule, depths in rules.items()
    }
    unit = formatting.choose_unit(formatting.BYTE, [mean for depths in means.values() for mean in depths.values()])
    figure, axes = drawing.canvas(3.1, list(means))
    spoken = []
    for rule, depths in means.items():
        style = styles[rule]
        heights = [mean / unit.factor for mean in depths.values()]
        axes.plot(
            list(depths), heights, color=style.color, marker=style.marker, markeredgecolor=style.edge,
            linestyle=style.dashes, markersize=7, label=short(rule),
        )  # fmt: skip
        listed = ", ".join(
            f"{formatting.plain(height)} at {depth}" for depth, height in zip(depths, heights, strict=True)
        )
        spoken.append(f"{rule} {listed}")
    axes.set_xticks(sorted({depth for depths in means.values() for depth in depths}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("depth (blocks)")
    axes.set_ylabel(f"peak memory ({unit.symbol})")
    drawing.legend(figure, axes)
    of = " · ".join(part for part in (family[1], family[2] and f"{family[2]} protocol") if part)
    alt = f"Peak memory ({unit.symbol}) against depth in blocks: {'; '.join(spoken)}."
    return drawing.finish(figure, f"memory_depth-{number}", f"Peak memory against depth ({of}); means over runs.", alt)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
