"""The tables of a report: each rule's results, each part's energy, and the runs that did not complete."""

from collections import defaultdict
from collections.abc import Sequence

from localearn.records import Reading
from localearn.reporting import formatting
from localearn.reporting.comparison import Comparison, Group, Measure, Rule
from localearn.reporting.document import Cell, Line, Table, cell
from localearn.reporting.metrics import heading, written
from localearn.reporting.quantities import common_key, test_key
from localearn.reporting.runs import Run
from localearn.reporting.statistics import mean_interval
from localearn.reporting.verdict import comparison_text
from localearn.tasks import Metric

WINDOWS = ("setup", "compile", "train", "eval", "checkpoint", "tune")


def rule_tables(group: Group) -> list[Table]:
    """Return the tables of a group: a row per rule, means over seeds and ratios to the baseline.

    Args:
        group: the rules.

    """
    return [table for caption, keys in _split(group.metric) if (table := _rule_table(group, caption, keys))]


def _split(metric: Metric) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each table's caption and columns; five are what a printed page and a cell's lines leave room for."""
    time, joules = common_key(metric, "s"), common_key(metric, "j")
    return (
        (
            f"{heading(metric)}, time and energy of training",
            (test_key(metric), "train_s", "train_j", "train_net_j", "j_per_sample"),
        ),
        ("Memory and speed", ("peak_memory_bytes", "allocator_bytes", "process_bytes", "samples_per_s", "passes")),
        (f"Cost of a common {written(metric)}, and carbon", (time, joules, "co2e_kg")),
    )


def _rule_table(group: Group, caption: str, keys: Sequence[str]) -> Table | None:
    present = [key for key in keys if _worth_showing(group, key)]
    if not present:
        return None
    columns = [[rule.measure(key) for rule in group.rules] for key in present]
    titles = [next(measure.quantity.title for measure in column if measure) for column in columns]
    cells = [_column(column, group) for column in columns]
    rows = [(_head(rule), *(column[index] for column in cells)) for index, rule in enumerate(group.rules)]
    return Table("Carbon" if present == ["co2e_kg"] else caption, ("Rule", *titles), tuple(rows))


def _worth_showing(group: Group, key: str) -> bool:
    """Return whether a column is shown: joules even if absent, a kind of memory only where it adds to the peak."""
    measures = [measure for rule in group.rules if (measure := rule.measure(key))]
    if key not in ("allocator_bytes", "process_bytes"):
        return bool(measures)
    return any(getattr(run, key) not in (None, run.peak_memory_bytes) for rule in group.rules for run in rule.runs)


def _head(rule: Rule) -> Cell:
    count = len(rule.runs)
    seeds = ", ".join(str(run.record.seed) for run in rule.runs) if count <= 8 else f"{count} of them"
    lines = [Line(rule.label), Line(f"seed{'s' if count > 1 else ''} {seeds}", "label")]
    if rule.baseline:
        lines.append(Line("the baseline", "label"))
    return tuple(lines)


def _column(measures: Sequence[Measure | None], group: Group) -> list[Cell]:
    present = [measure for measure in measures if measure]
    means = [value.estimate.mean for measure in present for value in measure.values]
    unit = formatting.choose_unit(present[0].quantity.units, means)
    return [
        () if measure is None else _measure_cell(measure, unit, rule)
        for measure, rule in zip(measures, group.rules, strict=True)
    ]


def _measure_cell(measure: Measure, unit: formatting.Unit, rule: Rule) -> Cell:
    lines = []
    for value in measure.values:
        text = formatting.with_interval(value.estimate, unit)
        fewer = len(measure.values) > 1 or measure.missing
        lines.append(Line(f"{text} ({value.estimate.n} of {len(rule.runs)} runs)" if fewer else text))
        if value.reading:
            lines.append(Line(str(value.reading), "label"))
    if not measure.values:
        lines.append(Line("absent", "refusal"))
    lines += [Line(f"⚑ {flag} ({count} of {len(rule.runs)})", "flag") for flag, count in measure.flags]
    if measure.ratio is not None:
        unlike = ", unlike settings" if rule.unlike else ""
        unpaired = "" if measure.paired else ", no equal seeds, no interval"
        lines.append(Line(comparison_text(measure) + unpaired + unlike, "ratio", strong=measure.differs))
    elif measure.refusal and measure.refusal != "absent":
        lines.append(Line(measure.refusal, "refusal"))
    return tuple(lines)


def window_table(group: Group) -> Table:
    """Return the joules of every window and part: they are never added up over parts, which are labelled apart.

    Args:
        group: the rules.

    """
    columns = [name for name in WINDOWS if _windowed(group, name)]
    rows = []
    for rule in group.rules:
        readings: dict[Reading, list[Run]] = defaultdict(list)
        for run in rule.runs:
            for part in run.energy.parts.values():
                if part.reading.label != "absent":
                    readings[part.reading].append(run)
        for reading, runs in sorted(readings.items(), key=lambda item: str(item[0])):
            part = str(reading.part)
            head = (
                Line(rule.label),
                Line(str(reading), "label"),
                Line(f"{len(runs)} of {len(rule.runs)} runs", "label"),
            )
            rows.append((head, *(_window_cell(runs, part, name) for name in columns), _idle_cell(runs, part)))
        if not readings:
            rows.append(((Line(rule.label),), *[(Line("absent", "refusal"),)] * (len(columns) + 1)))
    return Table(
        "Energy by part and window, gross (means over runs)", ("Rule, part", *columns, "Idle power"), tuple(rows)
    )


def absent_parts(group: Group) -> str | None:
    """Return a sentence on the parts of the machine that no source read, None where every part was read.

    Args:
        group: the rules.

    """
    reasons: dict[str, set[str]] = defaultdict(set)
    for rule in group.rules:
        for run in rule.runs:
            for name, part in run.energy.parts.items():
                if part.reading.label == "absent":
                    reasons[name] |= {part.note} if part.note else set()
    parts = [f"{name} ({'; '.join(sorted(notes))})" if notes else name for name, notes in sorted(reasons.items())]
    return f"Absent, which is not zero: {', '.join(parts)}." if parts else None


def _windowed(group: Group, name: str) -> bool:
    runs = [run for rule in group.rules for run in rule.runs]
    return name == "train" or any(name in part.windows for run in runs for part in run.energy.parts.values())


def _window_cell(runs: Sequence[Run], part: str, name: str) -> Cell:
    windows = [run.energy.parts[part].windows.get(name) for run in runs]
    joules = [window.energy_j for window in windows if window and window.energy_j is not None]
    if not joules:
        return (Line("absent", "refusal"),)
    mean = mean_interval(joules).mean
    unit = formatting.choose_unit(formatting.JOULE, [mean])
    lines = [Line(f"{formatting.plain(mean / unit.factor)} {unit.symbol}")]
    uncertainties = [window.uncertainty_j for window in windows if window and window.uncertainty_j is not None]
    if uncertainties:
        unit = formatting.choose_unit(formatting.JOULE, uncertainties)
        lines.append(Line(f"each ±{formatting.plain(max(uncertainties) / unit.factor, 2)} {unit.symbol}", "label"))
    flags = sorted({flag for window in windows if window for flag in window.flags})
    return (*lines, *(Line(f"⚑ {flag}", "flag") for flag in flags))


def _idle_cell(runs: Sequence[Run], part: str) -> Cell:
    lines = []
    for when in ("before", "after"):
        watts = [getattr(run.energy.parts[part], f"idle_{when}_w") for run in runs]
        known = [power for power in watts if power is not None]
        if known:
            lines.append(Line(f"{formatting.plain(mean_interval(known).mean, 3)} W {when}"))
    return tuple(lines) or (Line("absent", "refusal"),)


def excluded_table(comparison: Comparison) -> Table:
    """Return the runs that did not complete: they are in no mean.

    Args:
        comparison: the report's.

    """
    rows = [
        (
            (Line(run.algo), Line(f"seed {run.record.seed}", "label")),
            cell(run.record.status),
            cell(f"{run.dataset} · {run.record.net}"),
            cell(run.record.error or "no reason recorded"),
            cell(run.folder),
        )
        for run in comparison.excluded
    ]
    return Table("Runs that did not complete", ("Rule", "Status", "Data · net", "Reason", "Folder"), tuple(rows))
