"""Files of a report, written all together, over those of an earlier report, and over nothing else."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError
from localearn.files import read_json, replace_bytes
from localearn.moved import former_names
from localearn.reporting import drawing, tables
from localearn.reporting.comparison import Comparison, Group, Measure, Rule, Value, compare
from localearn.reporting.document import (
    Block,
    Bullets,
    Commands,
    Document,
    Figure,
    Figures,
    Paragraph,
    Section,
    as_html,
    as_markdown,
)
from localearn.reporting.metrics import written
from localearn.reporting.plots import depth_figures, group_figures, rule_styles
from localearn.reporting.runs import Runs, cell
from localearn.reporting.statistics import Estimate
from localearn.reporting.tunings import Tuning, Tunings, described, tuning_table
from localearn.reporting.verdict import (
    machine_table,
    method,
    reading_guide,
    repeat_commands,
    subtitle,
    verdict,
    versions_table,
)

PLOTS = "plots"


def write_report(
    runs: Runs,
    out: str | Path,
    title: str = "Learning rules compared",
    baseline: str = "backprop",
    command: str | None = None,
    allow_unlike: bool = False,
    tunings: Tunings | None = None,
) -> Path:
    """Write report.html, report.md, report.csv, report.json and plots/*.png, and return the path of the page.

    The same records give the same bytes. Files of an earlier report are replaced; its plots that this one does not
    have are removed.

    Args:
        runs: what `read_runs` returned.
        out: the folder to write into.
        title: the report's heading.
        baseline: the algorithm that the others are compared with.
        command: the command line that repeats all of it; each rule's own command is printed in any case.
        allow_unlike: give ratios between runs that differ in more than the rule; the tables then say so.
        tunings: the searches that found the rules' options, see `read_tunings`.

    Raises:
        UserError: when a file is in the way that is not a report's, or `out` cannot be written.

    """
    comparison = compare(runs, baseline, allow_unlike, tunings)
    write_files(Path(out), "report", KIND, PLOTS, _contents(comparison, title, command))
    return Path(out) / "report.html"


def write_files(out: Path, stem: str, kind: str, plots: str, contents: Mapping[str, bytes]) -> None:
    """Write files below a folder, over those of an earlier one of their kind and over nothing else.

    Args:
        out: the folder, which is made where it is not there.
        stem: `<stem>.json`, `.md`, `.html` and `.csv` are its files.
        kind: the field `kind` of `<stem>.json`, by which an earlier one is recognised.
        plots: the folder, below `out`, of its plots, PNG files.
        contents: each file by its name below `out`.

    Raises:
        UserError: when a file is in the way that is not of an earlier one, or `out` cannot be written.

    """
    try:
        earlier = _earlier_files(out, stem, kind, plots)
        in_the_way = [name for name in contents if (out / name).exists() and name not in earlier]
        if in_the_way:
            raise UserError(f"{out / in_the_way[0]} exists and is not an earlier {stem}'s; choose another out=")
        (out / plots).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            replace_bytes(out / name, content)
        for name in earlier - contents.keys():
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the {stem} cannot be written to {out}: {error.strerror or error}") from error


def _contents(comparison: Comparison, title: str, command: str | None) -> dict[str, bytes]:
    """Return every file by its name below `out`; report.json, which names them all, comes first."""
    styles = rule_styles(comparison)
    with drawing.style():
        figures = {group.name: group_figures(group, styles) for group in comparison.groups}
        depth = depth_figures(comparison, styles)
    document = assemble(comparison, figures, depth, title, command)
    plots = {f"{PLOTS}/{figure.name}.png": figure.png for group in [*figures.values(), depth] for figure in group}
    texts = {
        "report.md": as_markdown(document, PLOTS),
        "report.html": as_html(document),
        "report.csv": as_csv(comparison),
    }
    summary = as_json(comparison, title, command, ["report.json", *texts, *plots])
    return {"report.json": summary.encode(), **{name: text.encode() for name, text in texts.items()}, **plots}


def _earlier_files(out: Path, stem: str, kind: str, plots: str) -> set[str]:
    """Return the files of an earlier one in `out`, by its own <stem>.json; none where there is none."""
    try:
        report = read_json(out / f"{stem}.json")
    except UserError:
        return set()
    if report.get("kind") != kind:
        return set()
    named = {name for name in report.get("files", ()) if isinstance(name, str)}
    drawn = {path.relative_to(out).as_posix() for path in (out / plots).glob("*.png")}
    return named & (drawn | {f"{stem}.{suffix}" for suffix in ("json", "md", "html", "csv")})


def assemble(
    comparison: Comparison,
    figures: dict[str, list[Figure]],
    depth: list[Figure],
    title: str,
    command: str | None,
) -> Document:
    """Return the whole report.

    Args:
        comparison: what `compare` returned.
        figures: each group's plots by the group's name.
        depth: the plots over depth.
        title: the report's heading.
        command: the command line that repeats all of it.

    """
    sections = [Section("Verdict", tuple(_verdicts(comparison)))]
    sections += [Section(group.name, tuple(_group(group, figures.get(group.name, [])))) for group in comparison.groups]
    if depth:
        sections.append(Section("Memory against depth", (Figures(tuple(depth)),)))
    if comparison.tunings:
        text = "Each search saw the validation split alone. Its cost is no part of the training's, and of no ratio."
        sections.append(Section("Tuning", (Paragraph(text), tuning_table(comparison.tunings))))
    if comparison.excluded:
        table = tables.excluded_table(comparison)
        sections.append(Section("Not completed", (Paragraph("These runs are in no mean, ratio or plot."), table)))
    if comparison.notes:
        sections.append(Section("Notes", (Bullets(comparison.notes),)))
    sections.append(Section("How to read the numbers", (Bullets(tuple(reading_guide(comparison))),)))
    sections.append(Section("Method", (Bullets(tuple(method(comparison))),)))
    if comparison.runs:
        machine = (machine_table(comparison), versions_table(comparison))
        sections.append(Section("Machine and versions", tuple(table for table in machine if table.rows)))
        sections.append(Section("Commands that repeat it", (Commands(tuple(_commands(comparison, command))),)))
    return Document(title, subtitle(comparison), tuple(sections))


def _verdicts(comparison: Comparison) -> Iterable[Block]:
    if not comparison.groups:
        yield Paragraph("No run completed, so there is nothing to compare. The runs are listed below.", lead=True)
    for group in comparison.groups:
        text = verdict(group, comparison.baseline)
        yield Paragraph(text if len(comparison.groups) == 1 else f"{group.name}. {text}", lead=True)


def _group(group: Group, figures: list[Figure]) -> Iterable[Block]:
    yield from tables.rule_tables(group)
    if figures:
        yield Figures(tuple(figures))
    if not any(run.energy.train_j is not None for rule in group.rules for run in rule.runs):
        yield Paragraph(
            f"No run of this group has energy, so {written(group.metric)} against energy is not drawn: "
            "it is absent, not zero."
        )
    if not any(run.epochs for rule in group.rules for run in rule.runs):
        yield Paragraph("No run of this group has a readable metrics.jsonl, so there are no learning curves.")
    yield tables.window_table(group)
    absent = tables.absent_parts(group)
    if absent:
        yield Paragraph(absent)


def _commands(comparison: Comparison, command: str | None) -> list[str]:
    lines = [command] if command else []
    for group in comparison.groups:
        lines += [line for line in repeat_commands(group) if line not in lines]
    return lines


KIND = "localearn report"
COLUMNS = (
    *("protocol", "dataset", "net", "rule", "algo", "seeds", "quantity", "unit"),
    *("mean", "low", "high", "n", "label", "source", "part", "flags"),
    *("compared_as", "ratio", "ratio_low", "ratio_high", "ratio_n", "paired", "not_compared", "unlike_settings"),
)


def as_csv(comparison: Comparison) -> str:
    """Return the measures in the records' own units, a row per rule, quantity and label; an absent number is empty.

    Args:
        comparison: what `compare` returned.

    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in _rows(comparison))
    return stream.getvalue()


def as_json(comparison: Comparison, title: str, command: str | None, files: Iterable[str]) -> str:
    """Return the measures, the verdicts, the notes and the runs behind them; an absent number is null.

    Args:
        comparison: what `compare` returned.
        title: the report's heading.
        command: the command line that repeats all of it.
        files: the report's own.

    """
    report = {
        "kind": KIND,
        "schema": 1,
        "title": title,
        "command": command,
        "baseline": comparison.baseline,
        "allow_unlike": comparison.allow_unlike,
        "files": sorted(files),
        "groups": [_group_values(group, comparison) for group in comparison.groups],
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


def _group_values(group: Group, comparison: Comparison) -> dict[str, Any]:
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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
