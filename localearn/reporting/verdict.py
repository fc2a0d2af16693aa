"""The verdict on a group of rules: two sentences, computed from its numbers."""

from collections.abc import Callable

from localearn.reporting import formatting
from localearn.reporting.comparison import TRUSTED_SEEDS, Group, Measure, Rule

JUDGED = {
    "test_accuracy": "test accuracy",
    "train_s": "training time",
    "train_j": "gross energy",
    "peak_memory_bytes": "peak memory",
}


def verdict(group: Group, baseline: str) -> str:
    """Return which differences to the baseline are larger than their 95 % interval, and which are not."""
    rules = [rule for rule in group.rules if not rule.baseline]
    if not rules:
        return (
            f"Only {baseline} completed here, so there is no rule to judge. "
            f"Train another rule on {group.dataset} with {group.net} and build this report again."
        )
    compared = [rule for rule in rules if _pairs(rule)]
    if not compared:
        reasons = sorted({measure.refusal for rule in rules for measure in rule.measures if measure.refusal})
        return (
            f"No rule can be compared with {baseline} here ({'; '.join(reasons) or 'no equal seeds'}). "
            "The numbers below stand alone, and no difference between them is claimed."
        )
    few = min(_pairs(rule) for rule in compared)
    if few < TRUSTED_SEEDS:
        seeds = "1 seed" if few == 1 else f"{few} paired seeds"
        observed = _listed(compared, lambda measure: measure.ratio is not None)
        return (
            f"With {seeds} no interval can be trusted: run at least {TRUSTED_SEEDS} before you call any difference "
            f"real. Observed against {baseline}, and no more than observed: {observed}."
        )
    larger = _listed(compared, lambda measure: measure.differs)
    smaller = _listed(compared, lambda measure: measure.ratio is not None and not measure.differs)
    refused = _listed(rules, lambda measure: measure.ratio is None)
    first = (
        f"Against {baseline} these differences are larger than their 95 % interval: {larger}."
        if larger
        else f"No difference to {baseline} is larger than its 95 % interval."
    )
    second = f"Not larger than their interval, and so not shown, are: {smaller}" if smaller else ""
    if refused:
        second = f"{second}; not compared: {refused}" if second else f"Not compared: {refused}"
    return f"{first} {second or 'No other difference was judged'}."


def _pairs(rule: Rule) -> int:
    """Return the fewest seeds that any judged ratio of the rule rests on, 0 where it has none."""
    ratios = [measure.ratio.n for measure in _judged(rule) if measure.ratio is not None and measure.paired]
    return min(ratios, default=0)


def _judged(rule: Rule) -> list[Measure]:
    return [measure for measure in rule.measures if measure.quantity.key in JUDGED]


def _listed(rules: list[Rule], chosen: Callable[[Measure], bool]) -> str:
    """Return `rule in quantity ×ratio [low, high], ...; rule in ...` of the chosen measures."""
    parts = []
    for rule in rules:
        phrases = [_phrase(measure) for measure in _judged(rule) if chosen(measure)]
        if phrases:
            parts.append(f"{rule.label} in {', '.join(phrases)}")
    return "; ".join(parts)


def _phrase(measure: Measure) -> str:
    name = JUDGED[measure.quantity.key]
    readings = {value.reading.label for value in measure.values if value.reading}
    if measure.ratio is None:
        return f"{name} ({measure.refusal})"
    said = [*sorted(readings), *(f"flagged {flag}" for flag, _ in measure.flags)]
    label = f" ({', '.join(said)})" if said else ""
    return f"{name}{label} {comparison_text(measure)}"


def comparison_text(measure: Measure) -> str:
    """Return a measure's ratio or difference with its interval, an empty string where it has none."""
    if measure.ratio is None:
        return ""
    return (
        formatting.points(measure.ratio) if measure.quantity.compared == "points" else formatting.ratio(measure.ratio)
    )
