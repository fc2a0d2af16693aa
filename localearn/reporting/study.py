"""A study's table and plot: published accuracies beside ours."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.records import Record
from localearn.reporting import drawing
from localearn.reporting.statistics import Estimate, mean_interval

WITHIN_POINTS = 0.5


@dataclass(frozen=True)
class StudyRow:
    """A row with the records of its runs, one of each of `seeds` once it is done.

    published: in per cent. command: what runs the first seed by itself.
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
    def accuracies(self) -> list[float]:
        """The test accuracies of the completed runs, in per cent."""
        completed = [record.metric("accuracy") for record in self.records if record.status == "completed"]
        return [100 * accuracy for accuracy in completed if accuracy is not None]

    @property
    def ours(self) -> Estimate | None:
        """Their mean with its 95 % interval; None where nothing was run."""
        return mean_interval(self.accuracies) if self.accuracies else None

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
        difference = self.ours.mean - self.published
        if difference >= -WITHIN_POINTS:
            return "better" if difference > WITHIN_POINTS else "agrees"
        return "short"


def write_study(rows: list[StudyRow], out: Path) -> None:
    """Write table.md, table.json and plot.png into `out`; raise UserError if that cannot be done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(as_table(rows), encoding="utf-8")
        (out / "table.json").write_text(json.dumps([_values(row) for row in rows], indent=2) + "\n", encoding="utf-8")
        if any(row.ours for row in rows):
            (out / "plot.png").write_bytes(plot(rows))
    except OSError as error:
        raise UserError(f"the study cannot be written to {out}: {error.strerror or error}") from error


def as_table(rows: list[StudyRow]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| row | published % | ours %, mean ± 95 % | seeds | training s | | command, for one seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        published = "–" if row.published is None else f"{row.published:.2f}"
        seeds = ", ".join(str(record.seed) for record in row.records) or "–"
        seconds = [record.train_s for record in row.records]
        training = f"{sum(seconds) / len(seconds):,.0f}" if seconds else "–"
        verdict = f"{row.verdict}: {row.reason}" if row.reason and row.records else row.verdict
        title = f"{row.title}<br>{row.source}"
        cells = [title, published, _shown(row.ours), seeds, training, verdict, f"`{row.command}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[StudyRow]) -> bytes:
    """Return a PNG of ours, with intervals, beside the published numbers, a line a row."""
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
        axes.set_xlabel("test accuracy (%)")
        drawing.legend(figure, axes)
        return drawing.finish(figure, "study", "", "").png


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "not run"
    if estimate.high is None:
        return f"{estimate.mean:.2f} (one seed)"
    return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}"


def _values(row: StudyRow) -> dict[str, Any]:
    ours = row.ours
    return {
        "name": row.name,
        "title": row.title,
        "source": row.source,
        "published": row.published,
        "mean": ours and ours.mean,
        "low": ours and ours.low,
        "high": ours and ours.high,
        "accuracies": row.accuracies,
        "seeds": [record.seed for record in row.records],
        "verdict": row.verdict,
        "reason": row.reason,
        "command": row.command,
    }
