"""The files of an analysis: a page that opens anywhere, Markdown, the figures as CSV and JSON, plots."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from localearn.analysing.findings import THRESHOLD, Findings, Similarity, similarities
from localearn.analysing.page import assemble, command_line
from localearn.reporting import drawing
from localearn.reporting.document import as_html, as_markdown
from localearn.reporting.runs import cell
from localearn.reporting.writing import write_files

KIND = "localearn analysis"
PLOTS = "analysis-plots"
COLUMNS: tuple[str, ...] = (
    "run", "folder", "algo", "dataset", "net", "block", "quantity", "class", "other_class", "other_run", "other_block",
    "passes", "value",
)  # fmt: skip

Row = dict[str, Any]


def write_analysis(
    found: Sequence[Findings],
    out: str | Path,
    *,
    title: str = "What the units learned",
    threshold: float = THRESHOLD,
    command: str | None = None,
) -> Path:
    """Write analysis.html, .md, .csv, .json and plots, over those of an earlier one; return the page's path.

    Args:
        found: one for each run, one at least; see `read_findings` and `examine`.
        out: the folder, which is made where it is not there.
        title: the page's heading.
        threshold: by which the ensembles were found.
        command: what the reader types to make it again; by default that of the folders.

    Raises:
        UserError: when a file is in the way that is not of an earlier analysis, or `out` cannot be written.

    """
    alike = similarities(found)
    command = command or command_line([finding.folder for finding in found], [f"out={Path(out).as_posix()}"])
    with drawing.style():
        document, figures = assemble(found, alike, threshold, title, command)
    rows = [*_rows(found), *_similarity_rows(alike)]
    drawn = {f"{PLOTS}/{figure.name}.png": figure.png for figure in figures}
    texts = {
        "analysis.md": as_markdown(document, PLOTS),
        "analysis.html": as_html(document),
        "analysis.csv": _as_csv(rows),
    }
    summary = {
        "kind": KIND,
        "schema": 1,
        "title": title,
        "command": command,
        "threshold": threshold,
        "files": sorted(["analysis.json", *texts, *drawn]),
        "figures": [{name: row[name] for name in COLUMNS if row.get(name) not in (None, "")} for row in rows],
    }
    contents = {"analysis.json": (json.dumps(summary, ensure_ascii=False, allow_nan=False) + "\n").encode()}
    contents |= {name: text.encode() for name, text in texts.items()}
    write_files(Path(out), "analysis", KIND, PLOTS, contents | drawn)
    return Path(out) / "analysis.html"


def _as_csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def _rows(findings: Sequence[Findings]) -> Iterator[Row]:
    """Yield a row a figure; one that is not known is left out."""
    for finding in findings:
        head = {name: getattr(finding, name) for name in ("folder", "algo", "dataset", "net")} | {"run": finding.label}
        for row in _of_run(finding):
            value = row["value"]
            if value is not None and math.isfinite(value):
                yield head | row


def _of_run(finding: Findings) -> Iterator[Row]:
    names, seen = finding.class_names, finding.classes
    yield {"quantity": "accuracy", "value": finding.accuracy}
    yield {"block": 0, "quantity": "probe", "value": finding.probe_of_input}
    for number, block in enumerate(finding.blocks, start=1):
        for quantity, value in (
            ("units", block.units),
            ("hoyer", block.hoyer),
            ("silent_rows", block.silent),
            ("dead_units", block.dead),
            ("probe", block.probe),
            ("mean_iou", block.mean_shared(seen)),
            ("mean_iou_by_chance", block.mean_shared(seen, block.by_chance)),
            ("exclusive_units", block.exclusive(seen)),
        ):
            yield {"block": number, "quantity": quantity, "value": value}
        for k, size in enumerate(block.sizes):
            yield {"block": number, "quantity": "ensemble_size", "class": names[k], "value": size}
            for j in range(k):
                row = {"block": number, "class": names[k], "other_class": names[j]}
                yield row | {"quantity": "iou", "value": block.shared[k, j].item()}
        for k in finding.unseen:
            yield {"block": number, "quantity": "new_units", "class": names[k], "value": block.new(k, seen)}
    for k in finding.unseen:
        for j, share in finding.predicted[k].items():
            yield {"quantity": "predicted_as", "class": names[k], "other_class": names[j], "value": share}
    for name, curve in finding.angles().items():
        for passes, angle in curve:
            yield {"quantity": name, "passes": passes, "value": angle}


def _similarity_rows(alike: Sequence[Similarity]) -> Iterator[Row]:
    for group in alike:
        for i, (finding, k) in enumerate(group.blocks):
            for j in range(i):
                other, m = group.blocks[j]
                value = group.values[i, j].item()
                if math.isfinite(value):
                    head = {name: getattr(finding, name) for name in ("folder", "algo", "dataset", "net")}
                    yield head | {
                        "run": finding.label, "block": k + 1, "quantity": "cka", "other_run": other.label,
                        "other_block": m + 1, "value": value,
                    }  # fmt: skip
