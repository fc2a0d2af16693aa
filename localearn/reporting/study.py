"""The page and plots of a study: published figures next to ours, of each row's metric, by data set."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.files import replace_bytes, replace_text
from localearn.records import Record
from localearn.reporting import drawing, formatting, metrics
from localearn.reporting.document import markdown_escape
from localearn.reporting.metrics import ACCURACY
from localearn.reporting.statistics import Estimate, mean_interval
from localearn.tasks import Metric

WITHIN_POINTS = 0.5  # of a fraction, in per cent
WITHIN_SHARE = 0.01  # of what was published, where it is no fraction
NOT_RECORDED = "not recorded"
_LABEL = 42  # characters of a line of a row's title next to a plot


@dataclass(frozen=True)
class StudyRow:
    """A row of a study with the records of its runs, one of each of `seeds` once it is done.

    Attributes:
        name: the row's, for the study's command.
        title: the rule and its setting, as text.
        source: of the published number.
        published: of the metric that the runs are judged by, in per cent where it is a fraction.
        reason: a remark next to the verdict, as why the row was not run.
        command: the command that runs the first seed by itself.
        seeds: that are to be run.
        records: of those that were.
        data: its data set, where the row names it.
        gpu: whether it is more than a CPU does in about an hour.

    """

    name: str
    title: str
    source: str
    published: float | None
    reason: str | None
    command: str
    seeds: list[int]
    records: list[Record]
    data: str = ""
    gpu: bool = False

    @property
    def dataset(self) -> str:
        """The data set that the row names, or that its runs were trained on."""
        return self.data or next((record.dataset for record in self.records), "")

    @property
    def metric(self) -> Metric:
        """The metric that the runs are judged by, the accuracy where there is none yet."""
        return next((record.judged_by for record in self.records if record.status == "completed"), ACCURACY)

    @property
    def figures(self) -> list[float]:
        """The completed runs' figures of that metric on the test split, in per cent where it is a fraction."""
        completed = [record.metric(self.metric.name) for record in self.records if record.status == "completed"]
        return [metrics.scale(self.metric) * figure for figure in completed if figure is not None]

    @property
    def ours(self) -> Estimate | None:
        """The mean of `figures` with its 95 % interval; None where nothing was run."""
        return mean_interval(self.figures) if self.figures else None

    @property
    def machines(self) -> dict[str, list[int]]:
        """The seeds that each machine ran."""
        seeds: dict[str, list[int]] = {}
        for record in self.records:
            seeds.setdefault(record.machine or NOT_RECORDED, []).append(record.seed)
        return seeds

    @property
    def verdict(self) -> str:
        """The comparison with the published number, as text; "so far" where seeds are missing."""
        incomplete = {record.seed for record in self.records} < set(self.seeds)
        return f"{self._verdict} so far" if incomplete and self.records else self._verdict

    @property
    def _verdict(self) -> str:
        if any(record.status == "diverged" for record in self.records):
            return "diverged"
        if self.ours is None:
            return "not run"
        if self.published is None:
            return "nothing published"
        sign = 1 if self.metric.direction == "max" else -1
        within = WITHIN_POINTS if self.metric.unit == "fraction" else WITHIN_SHARE * abs(self.published)
        difference = sign * (self.ours.mean - self.published)
        if difference >= -within:
            return "better" if difference > within else "agrees"
        return "short"


def write_study(rows: list[StudyRow], out: Path, study: str) -> None:
    """Write table.md, table.json and the plots.

    The plot is plot.png; where there are several data sets each has its own, plot-<dataset>.png, and where one has
    several metrics each of these, plot-<dataset>-<metric>.png. Plots that an earlier writing left are removed.

    Args:
        rows: the study's.
        out: the folder to write into.
        study: the command of the whole study, to which `only=ROW` is added.

    Raises:
        UserError: when that cannot be done.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = _plots(rows)
        replace_text(out / "table.md", page(rows, study, drawn))
        replace_text(out / "table.json", json.dumps([_values(row, study) for row in rows], indent=2) + "\n")
        for name, plotted in drawn.items():
            replace_bytes(out / name, plot(plotted))
        for path in out.glob("plot*.png"):
            if path.name not in drawn and drawing.CREATOR.encode() in path.read_bytes()[:400]:
                path.unlink()
    except OSError as error:
        raise UserError(f"the study cannot be written to {out}: {error.strerror or error}") from error


def page(rows: list[StudyRow], study: str, plots: dict[str, list[StudyRow]] | None = None) -> str:
    """Return the page in Markdown: for each data set what was run, in a table with its plots, and what was not.

    Args:
        rows: the study's.
        study: as of `write_study`.
        plots: the rows of each plot, by its file's name.

    """
    datasets = {name: [row for row in rows if row.dataset == name] for name in sorted({row.dataset for row in rows})}
    lines = [
        f"# Study: {Path(study.split()[-1]).name}",
        "",
        f"`{study} only=ROW` runs a row again, or goes on with it, and writes this page; `only=` with the row's name "
        "stands below each title, `device=cuda` behind it where a row wants a GPU. Seconds are means over the seeds, "
        "of machines that may have had other work to do.",
        "",
    ]
    if len(datasets) > 1:
        lines += [*_summary(datasets), ""]
    for name, of_dataset in datasets.items():
        lines += [f"## {name or 'data set not named'}", ""]
        run, not_run = [row for row in of_dataset if row.records], [row for row in of_dataset if not row.records]
        if run:
            lines += [*_as_table(run), ""]
        for file, plotted in (plots or {}).items():
            if plotted[0].dataset == name:
                lines += [f"![Ours beside the published figures: {name}]({file})", ""]
        if not_run:
            lines += [*_not_run(not_run, study), ""]
    return "\n".join(lines[:-1]) + "\n"


def plot(rows: list[StudyRow]) -> bytes:
    """Return a PNG of ours, with intervals, next to the published numbers, a line a row.

    Args:
        rows: all of one metric.

    """
    plotted = [row for row in rows if row.ours]
    labels = plot_labels([row.title for row in plotted])
    with drawing.style():
        height = 0.9 + sum(0.15 + 0.16 * (label.count("\n") + 1) for label in labels)
        figure, axes = drawing.canvas(height, ["published", "ours"])
        for place, row in enumerate(plotted):
            ours = row.ours
            assert ours is not None
            width = None if ours.high is None else ours.high - ours.mean
            ours_label, published_label = ("ours", "published") if place == 0 else (None, None)
            axes.errorbar(ours.mean, place, xerr=width, fmt="s", color="#0072B2", capsize=3, label=ours_label)
            if row.published is not None:
                axes.plot(
                    row.published, place, "o", color="#D55E00", fillstyle="none", ms=11, zorder=3, label=published_label
                )
        axes.set_yticks(range(len(plotted)), labels, fontsize=9)
        axes.set_ylim(len(plotted) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=5)  # more of five digits would run into each other
        # Long titles leave the axes less room than the label may take, which then lies under the titles too.
        axes.set_xlabel(f"test {metrics.axis(plotted[0].metric)}", loc="right")
        drawing.legend(figure, axes)
        return drawing.finish(figure, "study", "", "").png


def _plots(rows: list[StudyRow]) -> dict[str, list[StudyRow]]:
    """Return the rows of each plot, by its file's name: those of a data set and a metric."""
    groups: dict[tuple[str, Metric], list[StudyRow]] = {}
    for row in rows:
        if row.ours:
            groups.setdefault((row.dataset, row.metric), []).append(row)
    if len(groups) == 1:
        return {"plot.png": next(iter(groups.values()))}
    named = {}
    for (dataset, metric), plotted in groups.items():
        several = sum(other == dataset for other, _ in groups) > 1
        named[f"{drawing.plot_name('plot', dataset, metric.name if several else None)}.png"] = plotted
    return named


def plot_labels(titles: list[str]) -> list[str]:
    """Return titles in lines that fit next to a plot, whole but for the words before commas that all begin with.

    Args:
        titles: the rows'.

    """
    parts = [title.split(", ") for title in titles]
    begin = 0
    while len({tuple(part[: begin + 1]) for part in parts}) == 1 and len(titles) > 1:
        begin += 1
        if begin == min(map(len, parts)):
            begin = 0  # titles that are all alike, or one that is the others' beginning
            break
    return [textwrap.fill(", ".join(part[begin:]), _LABEL).replace("$", r"\$") for part in parts]


def _summary(datasets: dict[str, list[StudyRow]]) -> list[str]:
    """Return a table of the number of rows by verdict, with a link to each data set's section."""
    verdicts = ("agrees", "better", "short", "diverged", "nothing published", "not run")
    lines = [f"| data set | rows | {' | '.join(verdicts)} |", f"|---|{'---|' * (1 + len(verdicts))}"]
    for name, rows in datasets.items():
        counts = [sum(row.verdict.removesuffix(" so far") == verdict for row in rows) for verdict in verdicts]
        link = f"[{name}](#{name.lower()})" if name else "–"
        lines.append(f"| {link} | {len(rows)} | {' | '.join(str(count or '–') for count in counts)} |")
    return lines


def _as_table(rows: list[StudyRow]) -> list[str]:
    """Return the table of rows that were run."""
    named = not {row.metric for row in rows if row.ours} <= {ACCURACY}  # else the heading names it
    figures = ["published", "ours, mean ± 95 %"] if named else ["published %", "ours %, mean ± 95 %"]
    head = ["row", *figures, "seeds", "training s", "machine", "outcome"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        seeds = ", ".join(str(record.seed) for record in row.records)
        seconds = sum(record.train_s for record in row.records) / len(row.records)
        training = f"{seconds:,.0f}" if seconds >= 10 else formatting.plain(seconds, 2)
        outcome = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        cells = [_row(row), _published(row), _mean(row, named), seeds, training, _machines(row), outcome]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _not_run(rows: list[StudyRow], study: str) -> list[str]:
    """Return the table of rows without runs, with what runs them."""
    lines = ["| not run | published | wants | command |", "|---|---|---|---|"]
    for row in rows:
        wants = "a GPU" if row.gpu else "–"
        reason = f"<br>{row.reason}" if row.reason else ""
        cells = [f"{row.title}<br>{row.source}{reason}", _published(row), wants, f"`{study} {_only(row)}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _row(row: StudyRow) -> str:
    """Return a row's title and source, and below them the row's name for the study's command."""
    return f"{row.title}<br>{row.source}<br>`{_only(row)}`"


def _only(row: StudyRow) -> str:
    return f"only={row.name}{' device=cuda' if row.gpu else ''}"


def _machines(row: StudyRow) -> str:
    """Return the machines that ran the row, with their seeds where there are several."""
    found = row.machines
    if len(found) == 1:
        return markdown_escape(next(iter(found)))
    return "<br>".join(f"{markdown_escape(name)} ({', '.join(map(str, seeds))})" for name, seeds in found.items())


def _published(row: StudyRow) -> str:
    return "–" if row.published is None else _plain(row, row.published)


def _mean(row: StudyRow, named: bool) -> str:
    """Return the mean and its interval; with unit and metric where `named`."""
    estimate = row.ours
    if estimate is None:
        return "–"
    metric = f"{_unit(row)} {metrics.written(row.metric)}" if named else ""
    if estimate.high is None:
        return f"{_plain(row, estimate.mean)}{metric} (one seed)"
    if row.metric.unit == "fraction":
        return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}{metric}"
    return f"{formatting.with_interval(estimate, formatting.COUNT[0])}{metric}"


def _plain(row: StudyRow, figure: float) -> str:
    """Return a figure of the row's metric, without its unit."""
    return f"{figure:.2f}" if row.metric.unit == "fraction" else formatting.plain(figure)


def _unit(row: StudyRow) -> str:
    symbol = metrics.unit(row.metric).symbol
    return f" {symbol}" if symbol else ""


def _values(row: StudyRow, study: str) -> dict[str, Any]:
    ours = row.ours
    # Of accuracies the key is what it was before there were other metrics.
    figures = {"accuracies": row.figures}
    if row.metric != ACCURACY:
        metric = {"name": row.metric.name, "direction": row.metric.direction, "unit": row.metric.unit}
        figures = {"metric": metric, "figures": row.figures}
    return {
        "name": row.name,
        "title": row.title,
        "source": row.source,
        "dataset": row.dataset,
        "published": row.published,
        "mean": ours and ours.mean,
        "low": ours and ours.low,
        "high": ours and ours.high,
        **figures,
        "seeds": [record.seed for record in row.records],
        "machines": row.machines,
        "gpu": row.gpu,
        "verdict": row.verdict,
        "reason": row.reason,
        "command": row.command,
        "study": f"{study} {_only(row)}",
    }
