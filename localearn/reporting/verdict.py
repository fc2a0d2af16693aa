"""Text of a report: the verdict on a group of rules, the method behind the numbers, and commands that repeat them."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from localearn.reporting import formatting
from localearn.reporting.comparison import TRUSTED_SEEDS, Comparison, Group, Measure, Rule
from localearn.reporting.document import Table, cell
from localearn.reporting.formatting import plain
from localearn.reporting.metrics import ACCURACY, written
from localearn.reporting.runs import Run
from localearn.tasks import Metric, better

MOST_RULES_WITH_NUMBERS = 4  # a verdict on more of them names the quantities; their numbers are in the table


def verdict(group: Group, baseline: str) -> str:
    """Return which differences to the baseline are larger than their 95 % interval, and which are not.

    Args:
        group: the rules.
        baseline: the algorithm that they are compared with.

    """
    rules = [rule for rule in group.rules if not rule.baseline]
    if not rules:
        return (
            f"Only {baseline} completed here, so there is no rule to judge. "
            f"Train another rule on {group.dataset} with {group.net} and build this report again."
        )
    compared = [rule for rule in rules if any(measure.ratio for measure in _judged(rule))]
    judged = [rule for rule in compared if _pairs(rule) >= TRUSTED_SEEDS]
    refused = _listed(rules, lambda measure: measure.ratio is None)
    if not compared:
        return (
            f"No rule can be compared with {baseline} here: {refused}. "
            "The numbers below stand alone, and no difference between them is claimed."
        )
    if not judged:
        few = max(_pairs(rule) for rule in compared)
        seeds = "no equal seeds" if few == 0 else "1 seed" if few == 1 else f"{few} paired seeds"
        observed = _listed(compared, lambda measure: measure.ratio is not None)
        return (
            f"With {seeds} no interval can be trusted: run at least {TRUSTED_SEEDS} before you call any difference "
            f"real. Observed against {baseline}, and no more than observed: {observed}."
        )
    larger = _listed(judged, lambda measure: measure.differs)
    smaller = _listed(judged, lambda measure: measure.ratio is not None and not measure.differs)
    few = ", ".join(rule.label for rule in compared if rule not in judged)
    rest = [
        f"not larger than their interval, and so not shown, are {smaller}" if smaller else "",
        f"on fewer than {TRUSTED_SEEDS} paired seeds, and so not judged, is {few}" if few else "",
        f"not compared is {refused}" if refused else "",
    ]
    second = "; ".join(clause for clause in rest if clause) or "no other difference was judged"
    first = (
        f"Against {baseline} these differences are larger than their 95 % interval: {larger}"
        if larger
        else f"No difference to {baseline} is larger than its 95 % interval"
    )
    return f"{first}. {second[0].upper()}{second[1:]}."


def _pairs(rule: Rule) -> int:
    """Return the fewest seeds that any judged ratio of the rule rests on, 0 where it has none."""
    ratios = [measure.ratio.n for measure in _judged(rule) if measure.ratio is not None and measure.paired]
    return min(ratios, default=0)


def _judged(rule: Rule) -> list[Measure]:
    return [measure for measure in rule.measures if measure.quantity.judged]


def _listed(rules: list[Rule], chosen: Callable[[Measure], bool]) -> str:
    """Return `rule in quantity ×ratio [low, high], ...; rule in ...` of the chosen measures; numbers for few rules."""
    numbers = len(rules) <= MOST_RULES_WITH_NUMBERS
    parts = []
    for rule in rules:
        measures = [measure for measure in _judged(rule) if chosen(measure)]
        reasons = {measure.refusal for measure in measures}
        if len(measures) == len(_judged(rule)) and len(reasons) == 1 and None not in reasons:
            parts.append(f"{rule.label} ({reasons.pop()})")
        elif measures:
            parts.append(f"{rule.label} in {', '.join(_phrase(measure, numbers) for measure in measures)}")
    return "; ".join(parts)


def _phrase(measure: Measure, numbers: bool) -> str:
    name = measure.quantity.judged or measure.quantity.title
    if measure.ratio is None:
        return f"{name} ({measure.refusal})"
    labels = {value.reading.label for value in measure.values if value.reading}
    remarks = [*sorted(labels), *(f"flagged {flag}" for flag, _ in measure.flags)]
    label = f" ({', '.join(remarks)})" if remarks else ""
    return f"{name}{label} {comparison_text(measure)}" if numbers else name + label


def comparison_text(measure: Measure) -> str:
    """Return a measure's ratio or difference with its interval, an empty string where it has none.

    Args:
        measure: a rule's.

    """
    if measure.ratio is None:
        return ""
    write = {"ratio": formatting.ratio, "points": formatting.points, "difference": formatting.difference}
    return write[measure.quantity.compared](measure.ratio) + _valued(measure)


def _valued(measure: Measure) -> str:
    """Return whether a difference that is larger than its interval is to the better; more accuracy is better anyway."""
    metric, ratio = measure.quantity.metric, measure.ratio
    if metric is None or ratio is None or not measure.differs or (metric.direction, metric.unit) == ("max", "fraction"):
        return ""
    return " (better)" if better(metric.direction, ratio.mean, 0) else " (worse)"


FLAGS = {
    "too_short": "the window was shorter than 50 update periods of its counter; its uncertainty stands beside it",
    "throttled": "the card lowered its clocks while the window ran (heat or power limit)",
    "foreign_process": "another process used the card while the window ran, and its joules are counted in",
    "counter_reset": "the counter began anew while a window ran; that window's joules are not known",
    "source_lost": "the source, such as the card's driver, did not answer at an end of a window; that window's joules "
    "are not known",
    "label_changed": "the run was resumed where its energy had another label; unlike joules are not added, so the "
    "window's are not known",
    "ranks_differ": "processes that trained together had energies of unlike labels, which are not added, so their sum "
    "is not known",
    "rank_lost": "processes that trained together were ended before all had told what they spent, which is not known",
}

_BETTER = {"max": "more is better", "min": "less is better"}

# What is another at each run, or shows only.
_OF_THE_RUN = ("seed", "out", "resume", "progress", "debug")


def subtitle(comparison: Comparison) -> str:
    """Return what was compared, in a line.

    Args:
        comparison: the report's.

    """
    runs = comparison.runs
    rules = sorted({rule.algo for group in comparison.groups for rule in group.rules})
    nets = sorted({f"{group.dataset} with {group.net}" for group in comparison.groups})
    seeds = sorted({run.record.seed for run in runs})
    seeds_text = _count(len(seeds), "seed")
    return (
        f"{', '.join(rules) or 'No rule'} on {', '.join(nets) or 'no data'}: {_count(len(runs), 'run')}, {seeds_text}."
    )


def reading_guide(comparison: Comparison) -> list[str]:
    """Return the legend of the tables: intervals, ratios, labels, and the flags that occur.

    Args:
        comparison: the report's.

    """
    flags = sorted({flag for run in comparison.runs for flag in run.energy.flags})
    flags = sorted(set(flags) | {flag for run in comparison.runs for flag in _window_flags(run)})
    labels = {part.reading.label for run in comparison.runs for part in run.energy.parts.values()}
    labels |= {run.energy.reading.label for run in comparison.runs}
    compared = "; ".join(_compared(metric) for metric in _judging(comparison))
    items = [
        "a ± b: the mean over seeds and the half-width of its 95 % interval; a alone where one seed gives no interval.",
        f"×r [low, high]: the ratio to {comparison.baseline} on the same seeds; {compared}. In bold where the interval "
        f"leaves out 1 (or 0) and rests on {TRUSTED_SEEDS} seeds or more.",
    ]
    meanings = {
        "measured": "measured: read from a counter of the hardware (NVML, RAPL).",
        "estimated": "estimated: computed from a model of the machine, not read from a counter.",
        "absent": "absent: there was no source. It is not zero.",
    }
    items += [meaning for label, meaning in meanings.items() if label in labels or label == "absent"]
    return items + [
        f"⚑ {flag}: {FLAGS.get(flag, 'set by the meter; this version knows no explanation')}." for flag in flags
    ]


def method(comparison: Comparison) -> list[str]:
    """Return how the numbers were computed.

    Args:
        comparison: the report's.

    """
    protocols = {group.protocol for group in comparison.groups}
    items = [
        "Intervals are Student's t over seeds, 95 %. Ratios are geometric means of the ratios of equal seeds, their "
        f"intervals those of the mean log-ratio; {_differences(_judging(comparison))} by paired differences.",
        "Each interval stands for itself: of twenty that compare equals, one leaves out equality by chance.",
        "Energy is that of training alone, of the headline part (the GPU on cuda, else the CPU); gross, and net of "
        "idle power times time. Other windows and parts stand on lines of their own and are never added across labels.",
        "Runs with different labels or sources are not averaged or compared. No ratio is given for runs that differ "
        "in net, data, batch size, precision, device, capture, processes, steps or determinism, unless asked for.",
        "Energy per sample divides gross training energy by the training samples seen, passes times samples.",
    ]
    if "matched" in protocols:
        items.append("Matched protocol: every rule makes the same passes over the training data.")
    if "converged" in protocols:
        items.append("Converged protocol: every run stops early on validation, with the same patience.")
    staged = sorted({(run.algo, run.stages) for run in comparison.runs if run.stages > 1})
    if staged:
        names = ", ".join(f"{algo} ({stages})" for algo, stages in staged)
        items.append(
            f"Some rules train stages one after another: {names}. Their passes are those of all stages together, and "
            "a pass of theirs trains a part of the net, on what the parts before give, computed once where that is "
            "fixed; so it is cheaper than a pass of a rule that trains the whole net."
        )
    for metric in dict.fromkeys(group.metric for group in comparison.groups if group.common is not None):
        name, best = written(metric), "highest" if metric.direction == "max" else "lowest"
        items.append(
            f"The common {name} of a group is the {best} validation {name} that all of its runs reached; its cost "
            "is that of training up to the first epoch there."
        )
    if any(run.co2e.label != "absent" for run in comparison.runs):
        items.append("CO2e is always an estimate, from energy and the grid intensity that stands beside it.")
    return items


def _judging(comparison: Comparison) -> list[Metric]:
    """Return the metrics that the groups are judged by, the accuracy where there is none."""
    return list(dict.fromkeys(group.metric for group in comparison.groups)) or [ACCURACY]


def _compared(metric: Metric) -> str:
    unit = "in percentage points" if metric.unit == "fraction" else "in its own unit"
    way = "" if (metric.direction, metric.unit) == ("max", "fraction") else f", of which {_BETTER[metric.direction]}"
    return f"for {written(metric)} the difference {unit}{way}"


def _differences(metrics: list[Metric]) -> str:
    if metrics == [ACCURACY]:
        return "accuracies are compared"
    names = [written(metric) for metric in metrics]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} compared"


def machine_table(comparison: Comparison) -> Table:
    """Return the machine and settings of the runs: a line per setting, with whose it is where they differ.

    Args:
        comparison: the report's.

    """
    fields: dict[str, Callable[[Run], object]] = {
        "device": lambda run: run.record.device.get("name") or run.device_type,
        "device type": lambda run: run.device_type,
        "threads": lambda run: run.record.device.get("threads"),
        "device memory": lambda run: _gibibytes(run.record.device.get("memory_bytes")),
        "batch size": lambda run: None if run.batch_size is None else f"{run.batch_size:g}",
        "precision": lambda run: run.precision,
        "capture": lambda run: run.capture,
        "processes": lambda run: run.ranks,
        "steps": lambda run: run.step,
        "deterministic": lambda run: "yes" if run.record.deterministic else "no",
        "data fingerprint": lambda run: run.fingerprint and run.fingerprint.removeprefix("sha256:")[:16],
    }
    names = sorted({name for run in comparison.runs for name in run.energy.conditions})
    for name in names:
        fields[f"condition: {name}"] = lambda run, name=name: _plain_value(run.energy.conditions.get(name))
    return _settings_table("Machine and settings", fields, comparison.runs)


def versions_table(comparison: Comparison) -> Table:
    """Return the versions of the software behind the runs.

    Args:
        comparison: the report's.

    """
    names = sorted(
        {name for run in comparison.runs for name in run.record.versions}, key=lambda n: (n != "localearn", n)
    )
    fields = {name: lambda run, name=name: run.record.versions.get(name) for name in names}
    return _settings_table("Versions", fields, comparison.runs)


def repeat_commands(group: Group) -> list[str]:
    """Return a command per rule that trains it again, with what was typed, or else its whole configuration.

    Args:
        group: the rules.

    """
    lines = []
    for rule in group.rules:
        run = rule.runs[0]
        seeds = ",".join(str(run.record.seed) for run in rule.runs)
        command = ["python", "-m", "localearn.run", *(["-m"] if len(rule.runs) > 1 else [])]
        lines.append(shlex.join([*command, *(_typed(run) or _whole_configuration(run)), f"seed={seeds}"]))
    return lines


def _settings_table(caption: str, fields: Mapping[str, Callable[[Run], object]], runs: Iterable[Run]) -> Table:
    rows = []
    for name, get in fields.items():
        holders: dict[str, set[str]] = defaultdict(set)
        for run in runs:
            value = get(run)
            holders["not recorded" if value is None else str(value)].add(run.algo)
        if set(holders) == {"not recorded"}:
            continue
        listed = [
            value if len(holders) == 1 else f"{value} ({', '.join(sorted(algos))})"
            for value, algos in list(sorted(holders.items()))[:6]
        ]
        more = len(holders) - len(listed)
        rows.append((cell(name), cell("; ".join(listed) + (f"; and {more} more" if more else ""))))
    return Table(caption, ("Setting", "Value"), tuple(rows), settings=True)


def _window_flags(run: Run) -> set[str]:
    return {flag for part in run.energy.parts.values() for window in part.windows.values() for flag in window.flags}


def _typed(run: Run) -> list[str]:
    choices = run.record.config.get("choices")
    typed = choices.get("overrides") if isinstance(choices, dict) else None
    if not isinstance(typed, list):
        return []
    return [str(argument) for argument in typed if str(argument).partition("=")[0] not in _OF_THE_RUN]


def _whole_configuration(run: Run) -> list[str]:
    names = {"algo": run.algo, "dataset": run.dataset, "net": run.record.net}
    choices = [f"{group}={_choice(run, group, name)}" for group, name in names.items()]
    return [*choices, *_overrides({name: value for name, value in run.record.config.items() if name != "choices"})]


def _choice(run: Run, section: str, fallback: str) -> str:
    choices = run.record.config.get("choices")
    for value in (choices.get(section) if isinstance(choices, dict) else None, run.record.config.get(section)):
        name = value.get("name") if isinstance(value, dict) else value
        if isinstance(name, str):
            return name
    return fallback


def _overrides(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `dotted.key=value` for every setting; what the command has already, or what Hydra owns, is left out."""
    overrides = []
    for key, value in config.items():
        dotted = prefix + key
        if dotted in ("seed", "out", "resume", "hydra", "algo.name", "dataset.name", "net.name"):
            continue
        if isinstance(value, dict):
            overrides += _overrides(value, f"{dotted}.")
        elif dotted not in ("algo", "dataset", "net") and not key.startswith("_"):
            overrides.append(f"{dotted}={_hydra(value)}")
    return overrides


def _hydra(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_hydra(item) for item in value)}]"
    return str(value)


def _plain_value(value: object) -> str | None:
    if value is None:
        return None
    return plain(value, 3) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _gibibytes(memory_bytes: object) -> str | None:
    return f"{plain(memory_bytes / 2**30, 3)} GiB" if isinstance(memory_bytes, int | float) else None


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
