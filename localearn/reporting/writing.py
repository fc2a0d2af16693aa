"""Write a report's files: all of them, over those of an earlier report, and over nothing else."""

from collections.abc import Mapping
from pathlib import Path

from localearn.errors import UserError
from localearn.files import atomic_write, read_json
from localearn.reporting import drawing
from localearn.reporting.assemble import assemble
from localearn.reporting.comparison import Comparison, compare
from localearn.reporting.data import KIND, as_csv, as_json
from localearn.reporting.depth import depth_figures
from localearn.reporting.markdown import as_markdown
from localearn.reporting.page import as_html
from localearn.reporting.plots import group_figures, rule_looks
from localearn.reporting.reading import Runs
from localearn.reporting.tunings import Tunings

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
    """Write report.html, report.md, report.csv, report.json and plots/*.png into `out`; return the path of the page.

    The same records give the same bytes. Files of an earlier report are replaced; its plots that this one does not
    have are removed.

    baseline: the algorithm that the others are compared with.
    command: what the reader types to repeat all of it; each rule's own command is printed in any case.
    allow_unlike: give ratios between runs that differ in more than the rule; the tables then say so.
    tunings: the searches that found the rules' options, see `read_tunings`.

    Raises UserError where a file is in the way that is not a report's, or `out` cannot be written.
    """
    comparison = compare(runs, baseline, allow_unlike, tunings)
    place(Path(out), "report", KIND, PLOTS, _contents(comparison, title, command))
    return Path(out) / "report.html"


def place(out: Path, word: str, kind: str, plots: str, contents: Mapping[str, bytes]) -> None:
    """Write files below `out`, over those of an earlier one of its kind and over nothing else.

    Args:
        out: the folder, which is made where it is not there.
        word: `<word>.json`, `.md`, `.html` and `.csv` are its files.
        kind: what `<word>.json` says of itself, beside the `files` that there are.
        plots: the folder, below `out`, of its plots, PNG files.
        contents: each file by its name below `out`.

    Raises UserError where a file is in the way that is not of an earlier one, or `out` cannot be written.

    """
    try:
        earlier = _earlier_files(out, word, kind, plots)
        in_the_way = [name for name in contents if (out / name).exists() and name not in earlier]
        if in_the_way:
            raise UserError(f"{out / in_the_way[0]} exists and is not an earlier {word}'s; choose another out=")
        (out / plots).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic_write(out / name) as temporary:
                temporary.write_bytes(content)
        for name in earlier - contents.keys():
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the {word} cannot be written to {out}: {error.strerror or error}") from error


def _contents(comparison: Comparison, title: str, command: str | None) -> dict[str, bytes]:
    """Return every file by its name below `out`; report.json, which names them all, comes first."""
    looks = rule_looks(comparison)
    with drawing.style():
        figures = {group.name: group_figures(group, looks) for group in comparison.groups}
        depth = depth_figures(comparison, looks)
    document = assemble(comparison, figures, depth, title, command)
    plots = {f"{PLOTS}/{figure.name}.png": figure.png for group in [*figures.values(), depth] for figure in group}
    texts = {
        "report.md": as_markdown(document, PLOTS),
        "report.html": as_html(document),
        "report.csv": as_csv(comparison),
    }
    summary = as_json(comparison, title, command, ["report.json", *texts, *plots])
    return {"report.json": summary.encode(), **{name: text.encode() for name, text in texts.items()}, **plots}


def _earlier_files(out: Path, word: str, kind: str, plots: str) -> set[str]:
    """Return the files of the one that stands in `out`, by its own <word>.json; none where there is none."""
    try:
        report = read_json(out / f"{word}.json")
    except UserError:
        return set()
    if report.get("kind") != kind:
        return set()
    named = {name for name in report.get("files", ()) if isinstance(name, str)}
    drawn = {path.relative_to(out).as_posix() for path in (out / plots).glob("*.png")}
    return named & (drawn | {f"{word}.{suffix}" for suffix in ("json", "md", "html", "csv")})
