"""The rows of the results page and of each rule's page, made of the committed records.

A row is one rule with one set of options on one data set and net, over its seeds. Studies that have a table.json bring
titles, published numbers and the rows that were not run; all other runs below results/ are rows of their own. Trials
of searches and probes are left out: they are no results.
"""

import functools
import json
import math
import posixpath
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from site_repository import ROOT

from localearn.records import Record, read_record
from localearn.reporting.statistics import mean_interval

RESULTS = ROOT / "results"
LEFT_OUT = {"probes", "trials"}
DEFAULTS = "defaults"
STUDIES = {
    "fidelity": "Held against the papers",
    "defaults": "Every rule by its defaults",
    "tasks": "Other tasks and nets",
    "energy_study": "The published energy study",
    "main_job": "Main runs",
    "long_memory": "Long memory",
    "one_gpu": "One GPU",
    "units": "What the units learn",
    "model_free": "Systems that drift",
    "dfa_at_scale": "DFA at scale",
}
DATA = {
    "adding": "the adding problem",
    "breast_cancer": "breast cancer",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "citeseer": "CiteSeer",
    "cora": "Cora",
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "table": "a table (California housing)",
    "text": "text",
    "copy_memory": "copying from memory",
    "photo": "a photograph",
    "views": "views of a scene",
    "interactions": "clicks",
    "karate": "karate club",
}
# The task that a record's first metric tells, as the README's table names them.
TASKS = {
    "accuracy": "classes",
    "auc": "multi-label",
    "rmse": "values",
    "mae": "values",
    "psnr": "values",
    "bits_per_character": "language",
    "perplexity": "language",
}
METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "rmse": "RMSE",
    "psnr": "PSNR, dB",
    "bits_per_character": "bits a character",
}
LOWER_IS_BETTER = {"rmse", "mae", "bits_per_character", "perplexity"}


@dataclass(frozen=True)
class Run:
    """A record, with the folder it stands in, from the repository's root."""

    folder: str
    record: Record


@dataclass
class Row:
    """One rule on one data set and net by one set of options.

    figures: of the task's first metric on the test split, one a seed; a fraction in per cent.
    published: in the same unit.
    source: where `published` is from, or the protocol of the runs.
    anchor: of the row on the results page: where its runs lie below results/, without the seed.
    """

    study: str
    name: str
    rule: str
    data: str
    net: str
    task: str
    metric: str
    title: str
    source: str = ""
    published: float | None = None
    verdict: str = ""
    command: str = ""
    runs: list[Run] = field(default_factory=list)
    anchor: str = ""

    @property
    def figures(self) -> list[float]:
        """The runs' figures, of those that ended with one."""
        found = [run.record.metric(self.metric) for run in self.runs]
        return [self.scale * figure for figure in found if figure is not None]

    @property
    def scale(self) -> float:
        """What a figure is multiplied with to be shown."""
        return 100.0 if self.metric == "accuracy" else 1.0

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller figure is a better one."""
        return self.metric in LOWER_IS_BETTER

    def mean(self, name: str) -> float | None:
        """Return the mean of a field of the records, of those that have it."""
        values = [value for run in self.runs if (value := getattr(run.record, name)) is not None]
        return math.fsum(values) / len(values) if values else None

    def energy(self) -> tuple[float, str] | None:
        """Return the mean joules of training and their label; None where they are absent or of unlike labels."""
        found = [run.record.energy for run in self.runs]
        labels = {energy.get("label") for energy in found}
        joules = [energy["train_j"] for energy in found if energy.get("train_j") is not None]
        if len(labels) != 1 or not joules or len(joules) != len(found):
            return None
        return math.fsum(joules) / len(joules), str(labels.pop())

    def machines(self) -> str:
        """Return the machines of the runs, as their records name them."""
        return "; ".join(sorted({run.record.machine or "not recorded" for run in self.runs}))


@functools.cache
def runs() -> list[Run]:
    """Return every committed run that is a result, in the order of their folders."""
    paths = sorted(RESULTS.rglob("run.json"))
    kept = [path.parent for path in paths if not LEFT_OUT & set(path.relative_to(RESULTS).parts)]
    return [Run(folder.relative_to(ROOT).as_posix(), read_record(folder)) for folder in kept]


@functools.cache
def rows() -> list[Row]:
    """Return all rows: those of the studies' tables, run or not, then those of the runs that no table names."""
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs():
        grouped[_group(run.folder)].append(run)
    made = []
    for table in sorted(RESULTS.glob("*/table.json")):
        study = table.parent.name
        for entry in json.loads(table.read_text(encoding="utf-8")):
            if "title" in entry:
                made.append(_studied(study, entry, grouped.pop((f"results/{study}/runs", entry["name"]), [])))
    made += [_plain(folder, name, found) for (folder, name), found in grouped.items()]
    order = list(STUDIES)
    place = {study: number for number, study in enumerate(order)}
    return sorted(made, key=lambda row: (row.data, row.net, place.get(row.study, len(place)), row.rule, row.name))


def of_rule(rule: str) -> list[Row]:
    """Return a rule's rows that were run."""
    return [row for row in rows() if row.rule == rule and row.runs]


def _group(folder: str) -> tuple[str, str]:
    """Return what the runs of one row have in common: the folder above, and the name without its seed."""
    above, name = posixpath.split(folder)
    return above, re.sub(r"-\d+$", "", name)


def _studied(study: str, entry: dict[str, Any], found: list[Run]) -> Row:
    """Return a row of a study's table; of one that was not run its command tells the rule, data and net."""
    words = dict(word.split("=", 1) for word in shlex.split(entry["command"]) if "=" in word)
    record = found[0].record if found else None
    metric = (entry.get("metric") or {}).get("name") or (
        record.judged_by.name if record else _usual_metric(words.get("dataset", "digits"))
    )
    return Row(
        study,
        entry["name"],
        record.algo if record else words.get("algo", "mono_forward"),
        record.dataset if record else words.get("dataset", "digits"),
        record.net if record else words.get("net", ""),
        _task(metric, record),
        metric,
        entry["title"],
        entry["source"],
        entry["published"],
        entry["verdict"],
        entry["command"],
        found,
        f"{study}/{entry['name']}",
    )


def _usual_metric(data: str) -> str:
    """Return the metric that runs on a data set are judged by, for a row that was not run."""
    usual = {run.record.dataset: run.record.judged_by.name for run in runs()}
    return usual.get(data) or {"copy_memory": "bits_per_character"}.get(data, "accuracy")


def _plain(folder: str, name: str, found: list[Run]) -> Row:
    record = found[0].record
    study = folder.split("/")[1]
    protocol = f", {record.protocol} protocol" if record.protocol else ""
    size = (record.config.get("dataset") or {}).get("train_size")
    size_note = f", {size:,} rows of training data" if size else ""
    title = f"{DATA.get(record.dataset, record.dataset)}, {record.net}, {record.algo}{protocol}{size_note}"
    source = "the rule's default recipe" if study == DEFAULTS else ""
    metric = record.judged_by.name
    overrides = (record.config.get("choices") or {}).get("overrides") or []
    words = [word for word in overrides if not word.startswith(("out=", "progress=", "protocol=", "recipe=default"))]
    command = "localearn run " + " ".join(words) if words else ""
    task = _task(metric, record)
    names = (study, name, record.algo, record.dataset, record.net, task, metric, title, source)
    anchor = f"{folder.removeprefix('results/').removesuffix('/runs')}/{name}"
    return Row(*names, command=command, runs=found, anchor=anchor)


def _task(metric: str, record: Record | None) -> str:
    asked = ((record.config.get("dataset") or {}) if record else {}).get("task")
    return asked if isinstance(asked, str) and asked == "autoencoding" else TASKS.get(metric, metric)


# From here on, HTML.


def number(value: float, spread: float | None = None) -> str:
    """Return a figure with as many digits as its spread has a use for: two of the spread, at most four places."""
    if spread is None or spread == 0:
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    places = min(4, max(0, 1 - math.floor(math.log10(spread))))
    return f"{value:,.{places}f}"


def measured(row: Row) -> str:
    """Return a row's mean with its 95 % interval, or why there is none."""
    figures = row.figures
    if not figures:
        return "not run" if not row.runs else "diverged"
    estimate = mean_interval(figures)
    unit = " %" if row.metric == "accuracy" else ""
    if estimate.low is None or estimate.high is None:
        shown = f"{estimate.mean:.2f}" if unit else number(estimate.mean)
        return f"{shown}{unit}"
    half = (estimate.high - estimate.low) / 2
    return f"{number(estimate.mean, half)} ± {number(half, half)}{unit}"


def duration(seconds: float | None) -> str:
    """Return seconds for people."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.1f} min"


def joules(energy: tuple[float, str] | None) -> str:
    """Return joules with their label."""
    if energy is None:
        return "absent"
    value, label = energy
    return f"{value:,.0f} J {label}" if value >= 100 else f"{value:.2g} J {label}"


def record_links(row: Row, page: str) -> str:
    """Return a link to the record of each seed.

    Args:
        row: whose records.
        page: the page that the links stand on, from the site's sources.

    """
    here = posixpath.dirname(page) or "."
    linked = []
    for run in row.runs:
        target = posixpath.relpath(f"repository/{run.folder}/run.json", here)
        linked.append(f'<a href="{target}" title="{escape(run.folder)}/run.json">{run.record.seed}</a>')
    return " ".join(linked)


def record_files() -> list[str]:
    """Return the run.json files that the rows link to, from the repository's root."""
    return [f"{run.folder}/run.json" for row in rows() for run in row.runs]


def _cell(text: str, value: float | str | None = None, kind: str = "td") -> str:
    sort = "" if value is None else f' data-sort="{escape(str(value))}"'
    return f"<{kind}{sort}>{text}</{kind}>"


def _breakable(name: str) -> str:
    """Return a name that may be broken after its underscores."""
    return escape(name).replace("_", "_<wbr>")


def _published(row: Row) -> str:
    if row.published is None:
        return ""
    unit = " %" if row.metric == "accuracy" else ""
    verdict = "" if row.verdict.startswith("not") else f"<br><small>{escape(row.verdict.split(':')[0])}</small>"
    return f'<span title="{escape(row.source)}">{row.published:g}{unit}</span>{verdict}'


def _line(row: Row, page: str, full: bool) -> str:
    mean = math.fsum(row.figures) / len(row.figures) if row.figures else ""
    energy = row.energy() if row.runs else None
    here = posixpath.dirname(page) or "."
    rule_page = posixpath.relpath(f"rules/{row.rule}.html", here)
    what = f"{escape(row.title)}<br><small>{escape(row.source)}</small>"
    typed = escape(row.command.replace("python -m localearn.run", "localearn run", 1))
    command = f"<details><summary>command</summary><code>{typed}</code></details>" if typed else ""
    names = (f'<a href="{rule_page}">{_breakable(row.rule)}</a>', escape(row.data), _breakable(row.net), row.task)
    cells = [_cell(name, value) for name, value in zip(names, (row.rule, row.data, row.net, row.task), strict=True)]
    cells = cells if full else []
    cells += [
        _cell(what + command, row.title),
        _cell(f"{measured(row)}<br><small>{METRICS.get(row.metric, row.metric)}</small>", mean),
        _cell(_published(row), "" if row.published is None else row.published),
        _cell(record_links(row, page), len(row.runs)),
        _cell(duration(row.mean("train_s")), row.mean("train_s") or ""),
        _cell(joules(energy) if row.runs else "", energy[0] if energy else ""),
        _cell(f"<small>{escape(row.machines())}</small>"),
    ]
    keys = {"rule": row.rule, "data": row.data, "net": row.net, "task": row.task, "study": row.study}
    keys["run"] = "yes" if row.runs else "no"
    data = " ".join(f'data-{key}="{escape(value)}"' for key, value in keys.items()) if full else ""
    place = f' id="{escape(row.anchor)}"' if full else ""
    return f"<tr{place} {data}>{''.join(cells)}</tr>"


def _head(names: Iterable[str], sortable: bool) -> str:
    inner = (f'<button type="button">{name}</button>' if sortable else name for name in names)
    return f"<thead><tr>{''.join(f'<th>{name}</th>' for name in inner)}</tr></thead>"


COLUMNS = ("what", "ours", "published", "record, by seed", "training", "energy", "machine")


def rule_table(rule: str, page: str) -> str:
    """Return the table of a rule's rows, each figure with links to its records."""
    found = of_rule(rule)
    if not found:
        return '<p class="la-none">No run of this rule is committed yet.</p>'
    body = "".join(_line(row, page, full=False) for row in found)
    return f'<div class="la-wide"><table class="la-rows">{_head(COLUMNS, False)}<tbody>{body}</tbody></table></div>'


def results_table(page: str) -> str:
    """Return the filters and the table of all rows."""
    every = rows()
    body = "".join(_line(row, page, full=True) for row in every)
    head = _head(("rule", "data", "net", "task", *COLUMNS), True)
    choices = "".join(_choice(name, every) for name in ("rule", "data", "net", "task", "study"))
    form = (
        f'<form class="la-filters" hidden>{choices}'
        '<label>words <input name="words" type="search" placeholder="any words"></label>'
        '<label class="la-check"><input name="notrun" type="checkbox"> rows not run</label>'
        '<button type="reset">show all</button> <output class="la-count"></output></form>'
    )
    return f'{form}<div class="la-wide"><table class="la-results">{head}<tbody>{body}</tbody></table></div>'


def _choice(name: str, every: Sequence[Row]) -> str:
    values: list[str] = sorted({getattr(row, name) for row in every} - {""})
    shown = STUDIES if name == "study" else {}
    options = "".join(f'<option value="{escape(v)}">{escape(shown.get(v) or v)}</option>' for v in values)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def defaults_matrix(page: str) -> str:
    """Return the table of each rule by its defaults on each cell, a data set and a net, beside backprop."""
    found = [row for row in rows() if row.study == DEFAULTS and row.figures]
    cells = sorted({_cell_name(row) for row in found}, key=lambda name: (name.split("-")[0] != "digits", name))
    rules = sorted({row.rule for row in found}, key=lambda rule: (rule != "backprop", rule))
    by_place = {(_cell_name(row), row.rule): row for row in found}
    here = posixpath.dirname(page) or "."
    lines = []
    for rule in rules:
        link = posixpath.relpath(f"rules/{rule}.html", here)
        line = [f'<th scope="row"><a href="{link}">{_breakable(rule)}</a></th>']
        for cell in cells:
            row = by_place.get((cell, rule))
            if row is None:
                line.append("<td></td>")
                continue
            target = posixpath.relpath(f"repository/{row.runs[0].folder}/run.json", here)
            reference = by_place.get((cell, "backprop"))
            gap = None if reference is None else row.figures[0] - reference.figures[0]
            note = "" if gap is None or rule == "backprop" else f"<br><small>{gap:+.1f}</small>".replace("-", "−")
            line.append(f'<td><a href="{target}">{row.figures[0]:.1f}</a>{note}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    head = "".join(f"<th>{cell.replace('-', '<br>')}</th>" for cell in cells)
    return (
        f'<div class="la-wide"><table class="la-matrix"><thead><tr><th>rule</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell_name(row: Row) -> str:
    return row.name.removesuffix(f"-{row.rule}")
