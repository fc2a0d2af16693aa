"""The plots of a report: the metric against energy, ratios, learning curves, memory."""

from collections import defaultdict
from collections.abc import Callable

from localearn.records import Reading
from localearn.reporting import drawing, formatting, metrics
from localearn.reporting.comparison import Comparison, Group
from localearn.reporting.document import Figure
from localearn.reporting.drawing import INK, Look, short
from localearn.reporting.metric_energy import metric_energy_figure
from localearn.reporting.runs import Epoch, Run
from localearn.reporting.verdict import comparison_text
from localearn.tasks import Metric

Looks = dict[str, Look]


def rule_looks(comparison: Comparison) -> Looks:
    """Return the look of every rule, the same in all plots of a report."""
    return drawing.looks((rule.label, rule.baseline) for group in comparison.groups for rule in group.rules)


def group_figures(group: Group, looks: Looks) -> list[Figure]:
    """Return the plots of a group; one whose numbers are absent is left out."""
    readings = sorted({run.energy.reading for rule in group.rules for run in rule.runs}, key=str)
    figures = [_ratios(group, looks)]
    figures += [metric_energy_figure(group, looks, reading) for reading in readings if reading.label != "absent"]
    figures += [_curves(group, looks, "epochs", "epoch", lambda epoch: None)]
    figures += [_curves(group, looks, "seconds", "training time (s)", lambda epoch: epoch.train_s)]
    for reading in readings:
        if reading.label != "absent":
            label = f"training energy, gross (J; {reading})"
            figures.append(_curves(group, looks, "joules", label, lambda epoch: epoch.train_j, reading))
    figures.append(_memory(group, looks))
    return [figure for figure in figures if figure]


def _ratios(group: Group, looks: Looks) -> Figure | None:
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
    kept = [(key, name) for key, name in judged.items() if known[key]]
    rules = [rule for rule in group.rules if any(rule.label in known[key] for key, _ in kept)]
    if not rules:
        return None
    figure, axes = drawing.canvas(0.8 + 0.26 * len(kept) * (len(rules) + 0.6), [rule.label for rule in rules])
    spoken, ends = [], []
    for row, (key, name) in enumerate(kept):
        for index, rule in enumerate(rules):
            measure = rule.measure(key)
            if measure is None or measure.ratio is None:
                continue
            ratio, look = measure.ratio, looks[rule.label]
            height = row * (len(rules) + 0.6) + index
            low, high = (ratio.mean if bound is None else bound for bound in (ratio.low, ratio.high))
            axes.errorbar(
                ratio.mean, height, xerr=[[ratio.mean - low], [high - ratio.mean]],
                color=look.color, marker=look.marker, markeredgecolor=look.edge, linestyle="none", capsize=3,
                markersize=6,
            )  # fmt: skip
            ends += [low, high, ratio.mean]
            spoken.append(f"{rule.label}, {name} {comparison_text(measure)}")
    left, right = min(*ends, 0.8) / 1.12, max(*ends, 1.25) * 1.12
    drawing.logarithmic(axes, right / left)
    axes.set_xlim(left, right)
    axes.axvline(1, color=INK, linewidth=1)
    middle = (len(rules) - 1) / 2
    axes.set_yticks([row * (len(rules) + 0.6) + middle for row in range(len(kept))], [name for _, name in kept])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(kept) * (len(rules) + 0.6) - 0.8, -0.8)
    axes.set_xlabel("ratio to the baseline (the line at 1)")
    for rule in rules:
        drawing.entry(axes, rule.label, looks[rule.label])
    drawing.legend(figure, axes)
    caption = "Ratio to the baseline; bars are 95 % intervals over paired seeds."
    return drawing.finish(
        figure, drawing.plot_name("ratios", *group.key), caption, f"Ratios to the baseline: {'; '.join(spoken)}."
    )


def _curves(
    group: Group,
    looks: Looks,
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
        look = looks[rule]
        for curve in runs if len(runs) > 1 else []:
            axes.plot(*zip(*curve, strict=True), color=look.color, linestyle=look.dashes, linewidth=0.8, alpha=0.35)
        mean = [
            (sum(x for x, _ in epoch) / len(epoch), sum(y for _, y in epoch) / len(epoch))
            for epoch in zip(*runs, strict=False)  # as far as every seed went
        ]
        axes.plot(
            *zip(*mean, strict=True), color=look.color, linestyle=look.dashes, linewidth=2, label=short(rule),
            marker=look.marker, markeredgecolor=look.edge, markersize=5, markevery=max(1, len(mean) // 8),
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
    return drawing.finish(figure, drawing.plot_name(f"curves_{kind}", *group.key, *_words(reading)), caption, alt)


def _ended(metric: Metric, shown: float) -> str:
    return f"{shown:.2f} %" if metric.unit == "fraction" else formatting.plain(shown)


def _curve(run: Run, kind: str, along: Callable[[Epoch], float | None]) -> list[tuple[float, float]]:
    curve = []
    for number, epoch in enumerate(run.epochs, start=1):
        x = float(number) if kind == "epochs" else along(epoch)
        if x is not None and epoch.figure is not None:
            curve.append((x, metrics.scale(run.metric) * epoch.figure))
    return curve


def _memory(group: Group, looks: Looks) -> Figure | None:
    """Draw each rule's peak memory as a bar from zero, with its runs as dots."""
    held = [(rule, [run.peak_memory_bytes for run in rule.runs if run.peak_memory_bytes]) for rule in group.rules]
    held = [(rule, peaks) for rule, peaks in held if peaks]
    if not held:
        return None
    means = [sum(peaks) / len(peaks) for _, peaks in held]
    unit = formatting.choose_unit(formatting.BYTE, means)
    figure, axes = drawing.canvas(0.7 + 0.42 * len(held), [])
    for row, ((rule, peaks), mean) in enumerate(zip(held, means, strict=True)):
        axes.barh(row, mean / unit.factor, height=0.6, color=looks[rule.label].color, alpha=0.85)
        axes.annotate(
            f"{formatting.plain(mean / unit.factor)} {unit.symbol}", (max(peaks) / unit.factor, row),
            xytext=(6, 0), textcoords="offset points", va="center",
        )  # fmt: skip
        axes.scatter([peak / unit.factor for peak in peaks], [row] * len(peaks), s=14, color="white", edgecolors=INK)
    axes.set_yticks(range(len(held)), [short(rule.label, 30) for rule, _ in held])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(max(peaks) for _, peaks in held) / unit.factor * 1.35)
    axes.set_xlabel(f"peak memory ({unit.symbol})")
    spoken = "; ".join(
        f"{rule.label} {formatting.plain(mean / unit.factor)} {unit.symbol}"
        for (rule, _), mean in zip(held, means, strict=True)
    )
    caption = "Peak memory: bars are means over runs, dots the runs."
    return drawing.finish(figure, drawing.plot_name("memory", *group.key), caption, f"Peak memory per rule: {spoken}.")


def _words(reading: Reading | None) -> tuple[str | None, ...]:
    return (reading.label, reading.source, reading.part) if reading else ()
