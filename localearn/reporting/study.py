"""A study's table and plot: published figures beside ours, of each row's metric."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.records import Record
from localearn.reporting import drawing, formatting, metrics
from localearn.reporting.metrics import ACCURACY
from localearn.reporting.statistics import Estimate, mean_interval
from localearn.tasks import Metric

WITHIN_POINTS = 0.5  # of a fraction, in per cent
WITHIN_SHARE = 0.01  # of what was published, where it is no fraction


@dataclass(frozen=True)
class StudyRow:
    """A row with the records of its runs, one of each of `seeds` once it is done.

    published: of the metric that the runs are judged by, in per cent where it is a fraction. command: what runs the
    first seed by itself.
    """

    name: str
    title: str
    source: str
    published: float | None
    reason: str | None
    command: str
    seeds: list[int]
    records: list[Record]

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
        """Their mean with its 95 % interval; None where nothing was run."""
        return mean_interval(self.figures) if self.figures else None

    @property
    def verdict(self) -> str:
        """What the row says of its published number; "so far" where seeds are missing."""
        left = {record.seed for record in self.records} < set(self.seeds)
        return f"{self._verdict} so far" if left and self.records else self._verdict

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


def write_study(rows: list[StudyRow], out: Path) -> None:
    """Write table.md, table.json and plot.png into `out`; raise UserError if that cannot be done.

    Where the rows have several metrics there is a plot of each, plot-<metric>.png; of a metric in the targets' own unit
    one for each data set, plot-<metric>-<dataset>.png, since those share no axis.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(as_table(rows), encoding="utf-8")
        (out / "table.json").write_text(json.dumps([_values(row) for row in rows], indent=2) + "\n", encoding="utf-8")
        shown = [row for row in rows if row.ours]
        datasets = {
            metric: {row.records[0].dataset for row in shown if row.metric == metric}
            for metric in dict.fromkeys(row.metric for row in shown)
        }
        for metric, names in datasets.items():
            apart = sorted(names) if metric.unit == "value" and len(names) > 1 else [""]
            for dataset in apart:
                parts = [metric.name, *filter(None, [dataset])]
                name = "plot" if len(datasets) == len(apart) == 1 else drawing.plot_name("plot", "-".join(parts))
                of = [row for row in shown if row.metric == metric and dataset in ("", row.records[0].dataset)]
                (out / f"{name}.png").write_bytes(plot(of))
    except OSError as error:
        raise UserError(f"the study cannot be written to {out}: {error.strerror or error}") from error


def as_table(rows: list[StudyRow]) -> str:
    """Return the table in Markdown."""
    judged = {row.metric for row in rows if row.ours}
    named = not judged <= {ACCURACY}  # else the heading says it for all
    head = ["row", *(["published", "ours, mean ± 95 %"] if named else ["published %", "ours %, mean ± 95 %"])]
    lines = [f"| {' | '.join(head)} | seeds | training s | | command, for one seed |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        published = "–" if row.published is None else _plain(row, row.published)
        seeds = ", ".join(str(record.seed) for record in row.records) or "–"
        seconds = [record.train_s for record in row.records]
        training = f"{sum(seconds) / len(seconds):,.0f}" if seconds else "–"
        verdict = f"{row.verdict}: {row.reason}" if row.reason and row.records else row.verdict
        title = f"{row.title}<br>{row.source}"
        cells = [title, published, _shown(row, named), seeds, training, verdict, f"`{row.command}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[StudyRow]) -> bytes:
    """Return a PNG of ours, with intervals, beside the published numbers, a line a row; all have one metric."""
    shown = [row for row in rows if row.ours]
    with drawing.style():
        figure, axes = drawing.canvas(0.9 + 0.32 * len(shown), ["published", "ours"])
        for place, row in enumerate(shown):
            ours = row.ours
            assert ours is not None
            width = None if ours.high is None else ours.high - ours.mean
            ours_label, published_label = ("ours", "published") if place == 0 else (None, None)
            axes.errorbar(ours.mean, place, xerr=width, fmt="s", color="#0072B2", capsize=3, label=ours_label)
            if row.published is not None:
                axes.plot(
                    row.published, place, "o", color="#D55E00", fillstyle="none", ms=11, zorder=3, label=published_label
                )
        axes.set_yticks(range(len(shown)), [drawing.short(row.title, 44) for row in shown])
        axes.invert_yaxis()
        # Long titles leave the axes less room than the label may take, which then lies under the titles too.
        axes.set_xlabel(f"test {metrics.axis(shown[0].metric)}", loc="right")
        drawing.legend(figure, axes)
        return drawing.finish(figure, "study", "", "").png


def _shown(row: StudyRow, named: bool) -> str:
    """Return the mean and its interval; with unit and metric where `named`."""
    estimate = row.ours
    if estimate is None:
        return "not run"
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


def _values(row: StudyRow) -> dict[str, Any]:
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
        "published": row.published,
        "mean": ours and ours.mean,
        "low": ours and ours.low,
        "high": ours and ours.high,
        **figures,
        "seeds": [record.seed for record in row.records],
        "verdict": row.verdict,
        "reason": row.reason,
        "command": row.command,
    }
