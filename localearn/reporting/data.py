"""The numbers of a report as CSV (a row per rule, quantity and label) and as JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from localearn.reporting.comparison import Comparison, Group, Measure, Rule, Value
from localearn.reporting.plain_text import cell
from localearn.reporting.statistics import Estimate
from localearn.reporting.tunings import Tuning, described
from localearn.reporting.verdict import verdict

KIND = "localearn report"
COLUMNS = (
    *("protocol", "dataset", "net", "rule", "algo", "seeds", "quantity", "unit"),
    *("mean", "low", "high", "n", "label", "source", "part", "flags"),
    *("compared_as", "ratio", "ratio_low", "ratio_high", "ratio_n", "paired", "not_compared", "unlike_settings"),
)


def as_csv(comparison: Comparison) -> str:
    """Return the measures in the records' own units; an absent number is an empty field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in _rows(comparison))
    return stream.getvalue()


def as_json(comparison: Comparison, title: str, command: str | None, files: Iterable[str]) -> str:
    """Return the measures, the verdicts, the notes and the runs behind them; an absent number is null."""
    report = {
        "kind": KIND,
        "schema": 1,
        "title": title,
        "command": command,
        "baseline": comparison.baseline,
        "allow_unlike": comparison.allow_unlike,
        "files": sorted(files),
        "groups": [_group(group, comparison) for group in comparison.groups],
        "tunings": [_tuning(tuning) for tuning in comparison.tunings],
        "not_completed": [
            {
                "folder": run.folder,
                "algo": run.algo,
                "seed": run.record.seed,
                "status": run.record.status,
                "error": run.record.error,
            }
            for run in comparison.excluded
        ],
        "notes": list(comparison.notes),
    }
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for group in comparison.groups:
        for rule in group.rules:
            head = {
                "protocol": group.protocol,
                "dataset": group.dataset,
                "net": group.net,
                "rule": rule.label,
                "algo": rule.algo,
                "seeds": " ".join(str(run.record.seed) for run in rule.runs),
                "unlike_settings": "; ".join(rule.unlike),
            }
            for measure in rule.measures:
                for value in measure.values or (None,):
                    yield head | _measure_fields(measure) | _value_fields(value, measure)


def _measure_fields(measure: Measure) -> dict[str, Any]:
    ratio = measure.ratio
    return {
        "quantity": measure.quantity.key,
        "unit": measure.quantity.unit,
        "flags": " ".join(f"{flag}:{count}" for flag, count in measure.flags),
        "compared_as": "ratio" if measure.quantity.compared == "ratio" else "difference",
        "ratio": ratio and ratio.mean,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "ratio_n": ratio and ratio.n,
        "paired": measure.paired if ratio else None,
        "not_compared": measure.refusal,
    }


def _value_fields(value: Value | None, measure: Measure) -> dict[str, Any]:
    labelled = measure.quantity.reading is not None
    if value is None:
        return {"n": 0, "label": "absent" if labelled else None}
    reading, estimate = value.reading, value.estimate
    return {
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "label": reading and reading.label,
        "source": reading and reading.source,
        "part": reading and reading.part,
    }


def _group(group: Group, comparison: Comparison) -> dict[str, Any]:
    return {
        "protocol": group.protocol,
        "dataset": group.dataset,
        "net": group.net,
        f"common_{group.metric.name}": group.common,
        **described(group.metric),
        "verdict": verdict(group, comparison.baseline),
        "rules": [_rule(rule) for rule in group.rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.label,
        "algo": rule.algo,
        "baseline": rule.baseline,
        "unlike_settings": list(rule.unlike),
        "runs": [{"folder": run.folder, "seed": run.record.seed, "flags": list(run.energy.flags)} for run in rule.runs],
        "measures": {measure.quantity.key: _measure(measure) for measure in rule.measures},
    }


def _tuning(tuning: Tuning) -> dict[str, Any]:
    return {
        **{name: getattr(tuning, name) for name in ("folder", "algo", "dataset", "net")},
        f"val_{tuning.metric.name}": tuning.val,
        **described(tuning.metric),
        "train_s": tuning.train_s,
        "trials": dict(tuning.trials),
        "options": dict(tuning.options),
        "energy": [
            {"energy_j": joules, "label": reading.label, "source": reading.source, "part": reading.part}
            for reading, joules in tuning.joules.items()
        ],
        "sampler": tuning.sampler,
        "pruner": tuning.pruner,
    }


def _measure(measure: Measure) -> dict[str, Any]:
    labelled = measure.quantity.reading is not None
    values = [
        _estimate(value.estimate)
        | (
            {"label": value.reading.label, "source": value.reading.source, "part": value.reading.part}
            if value.reading
            else {}
        )
        for value in measure.values
    ]
    return {
        "unit": measure.quantity.unit,
        "values": values or ([{"mean": None, "label": "absent"}] if labelled else []),
        "flags": dict(measure.flags),
        "compared_as": "ratio" if measure.quantity.compared == "ratio" else "difference",
        "to_baseline": None if measure.ratio is None else _estimate(measure.ratio) | {"paired": measure.paired},
        "not_compared": measure.refusal,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}
