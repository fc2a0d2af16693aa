"""The verdict on a group of rules: two sentences, computed from its numbers."""

from collections.abc import Callable

from localearn.reporting import formatting
from localearn.reporting.comparison import TRUSTED_SEEDS, Group, Measure, Rule
from localearn.tasks import better

MOST_RULES_WITH_NUMBERS = 4  # a verdict on more of them names the quantities; their numbers stand in the table


def verdict(group: Group, baseline: str) -> str:
    """Return which differences to the baseline are larger than their 95 % interval, and which are not."""
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
    second = "; ".join(words for words in rest if words) or "no other difference was judged"
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
    said = [*sorted(labels), *(f"flagged {flag}" for flag, _ in measure.flags)]
    label = f" ({', '.join(said)})" if said else ""
    return f"{name}{label} {comparison_text(measure)}" if numbers else name + label


def comparison_text(measure: Measure) -> str:
    """Return a measure's ratio or difference with its interval, an empty string where it has none."""
    if measure.ratio is None:
        return ""
    write = {"ratio": formatting.ratio, "points": formatting.points, "difference": formatting.difference}
    return write[measure.quantity.compared](measure.ratio) + _valued(measure)


def _valued(measure: Measure) -> str:
    """Return whether a difference that is larger than its interval is to the better; more accuracy needs no word."""
    metric, ratio = measure.quantity.metric, measure.ratio
    if metric is None or ratio is None or not measure.differs or (metric.direction, metric.unit) == ("max", "fraction"):
        return ""
    return " (better)" if better(metric.direction, ratio.mean, 0) else " (worse)"
