"""The checks' results for a reader: a table in Markdown, and the power over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from localearn.energy.selftest import Bench, Figures, Outcome

PLOT = "power.png"
INK, POWER, WINDOWS = "#1b1b1b", "#0072B2", ("#E69F00", "#009E73")  # of a palette for colour-blind readers

SOURCES = {
    "nvml": "**gpu, measured.** The card's own energy counter, against its own power reading: two views of one sensor "
    "on the board. That both agree shows that the windows are cut and added right, and not that the sensor is right; "
    "only an outside meter could show that.",
    "rapl": "**cpu, measured.** The packages' own counters (RAPL): the whole machine's, so other work on it counts in, "
    "and may fail a check.",
    "codecarbon": "**cpu, estimated.** CodeCarbon's model charges this process a fixed power for every second of CPU "
    "time. So the watts here are CPU time in other units: these checks show that the meter cuts its windows right and "
    "leaves idle time out, and nothing about the watts that the machine really draws. Equal work takes unequal CPU "
    "time on a machine that is busy otherwise, and the equal windows may fail there.",
}


def page(summary: Mapping[str, Any], outcomes: Sequence[Outcome], benches: Sequence[Bench]) -> str:
    """Return meter.md: a table of the checks, what they can show, and the machine.

    Args:
        summary: the command and the machine.
        outcomes: the rows.
        benches: whose sources are described, and whose power is in the plot.

    """
    counts = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in ("passed", "failed", "not run")}
    lines = [
        "# Checks on the meter",
        "",
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['not run']} not run. Every figure was measured "
        "in this run, on this machine; none is carried over from another.",
        "",
        f"    {summary['command']}",
        "",
        "| part | check | must hold | measured | verdict |",
        "|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        verdict = f"**{outcome.verdict}**" if outcome.verdict == "failed" else outcome.verdict
        reason = f": {outcome.reason}" if outcome.reason else ""
        cells = (outcome.part, outcome.check, outcome.expectation, figures_text(outcome.figures), f"{verdict}{reason}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## What these checks can show", ""]
    for bench in benches:
        lines += [SOURCES.get(bench.counter.source, bench.counter.source), "", f"Source: {bench.counter.note}.", ""]
    if any(bench.trace for bench in benches):
        lines += [f"![Power over time, the windows shaded and named]({PLOT})", ""]
    lines += ["## Machine", "", *(f"- {name}: {_text(value)}" for name, value in summary["machine"].items()), ""]
    return "\n".join(lines)


def figures_text(figures: Figures) -> str:
    """Return figures as text: `counter 3,002 J; difference 0.1 %`; their names end in their units.

    Args:
        figures: numbers by name, or a list of flags.

    """
    return "; ".join(_figure(name, value) for name, value in figures.items())


def _figure(name: str, value: float | list[str]) -> str:
    if isinstance(value, list):
        return f"{name.replace('_', ' ')} {', '.join(value) or 'none'}"
    quantity, _, unit = name.rpartition("_")
    if unit in ("j", "w", "s"):
        return f"{quantity.replace('_', ' ')} {value:,.4g} {unit.upper() if unit != 's' else unit}"
    return f"{name} {value:.1%}" if name == "difference" else f"{name} {value:.2f}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def plot(bench: Bench) -> bytes:
    """Return a PNG of a bench's power over time, its windows shaded and named.

    Args:
        bench: one that has a trace.

    """
    import io

    from matplotlib.figure import Figure

    start_s = min(bench.trace[0][0], *(span.begin_s for span in bench.spans))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for index, span in enumerate(bench.spans):
        color = WINDOWS[index % len(WINDOWS)]
        axes.axvspan(span.begin_s - start_s, span.end_s - start_s, color=color, alpha=0.25, linewidth=0)
        middle_s = (span.begin_s + span.end_s) / 2 - start_s
        axes.annotate(
            span.title,
            (middle_s, 1.02),
            xycoords=("data", "axes fraction"),
            rotation=30,
            fontsize=8,
            color=INK,
        )
        if span.power_w is not None:
            ends_s = (span.begin_s - start_s, span.end_s - start_s)
            axes.plot(ends_s, (span.power_w, span.power_w), color=INK, linewidth=1.2, zorder=3)
    times_s, watts = zip(*((now_s - start_s, power_w) for now_s, power_w in bench.trace), strict=True)
    axes.plot(times_s, watts, ".", color=POWER, markersize=2.5, label="power reading")
    axes.plot([], [], color=INK, linewidth=1.2, label="the meter's joules / seconds")
    axes.set_xlabel("seconds")
    axes.set_ylabel("power (W)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150, facecolor="white")
    return png.getvalue()
