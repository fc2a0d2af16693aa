"""Figures typed in the text of a page, each a link to the record that it is from.

A typed figure is the whole text of a link, and the link's title names the place in its target:

    [98.29 ± 0.74 %](../results.md#fidelity/mnist_mlp-forward_forward)            the mean of a row of the results page
    [98.55 %](../results.md#fidelity/mnist_mlp-forward_forward "published")       its published value
    [45.3 min](../results.md#fidelity/mnist_mlp-forward_forward "training time")  its mean training time; or its energy
    [0.73](../../results/bench/bench.md "direct_feedback_alignment")              a number on the line with these words

Words between commas are searched for in a line together with the headings above it; a number counts as the line's if
it is one of the line's numbers, rounded to the digits that are typed. `python docs/tools/site_claims.py` lists what
does not agree, and the figures that have no record; the tests do the same.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import site_results
from site_repository import FENCE, ROOT, resolve

NUMBER = r"\d[\d,]*(?:\.\d+)?"
UNIT = "%|points|dB|GiB|MiB|J|W|s|ms|min|minutes|times"
FIGURE = re.compile(rf"[×+−-]?{NUMBER}(?: ± {NUMBER})?(?: (?:{UNIT}))?(?: (?:measured|estimated))?")
LINK = re.compile(r"\[([^\]\[]+)\]\(([^)\s#:]+)(?:#([^)\s]*))?(?: \"([^\"]*)\")?\)")
# A measurement without a link: a number with decimals, a percentage, a ratio, an interval, or a unit behind it.
MEASUREMENT = re.compile(rf"[×±]\s?\d|\b{NUMBER}(?: %| dB\b| Wh\b| [GM]iB\b| J\b| W\b| points\b| times\b)|\b\d+\.\d+\b")
NO_MEASUREMENT = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"`[^`]*`"),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"\$[^$\n]+\$"),
    re.compile(r"\]\([^)]*\)"),  # a link's target
    re.compile(r"\barXiv \d{4}\.\d{5}|\[\d{4}\.\d{5}"),
    re.compile(r"\bPython 3\.\d+"),
    re.compile(r"\b95\s% (?=interval)|\b95\s%\s(?=interval)"),  # the level of every interval
)


@dataclass(frozen=True)
class Claim:
    """A typed figure.

    Args:
        page: The page, from the repository's root.
        text: The figure as it is typed.
        target: The linked file, from the repository's root.
        row: The row's anchor on the results page, or "".
        where: The words of the link's title, or "".

    """

    page: str
    text: str
    target: str
    row: str
    where: str


def pages() -> list[str]:
    """Return the README and every page of docs/, from the repository's root."""
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def claims(page: str) -> Iterator[Claim]:
    """Yield the typed figures of a page."""
    for text, target, row, where in LINK.findall(FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))):
        if FIGURE.fullmatch(text):
            yield Claim(page, text, resolve(page, target) or target, row, where)


def unheld(page: str) -> list[str]:
    """Return the lines of a page with a measurement that is no link to a record and no quotation of a linked report."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = {resolve(page, match[2]) or "" for match in LINK.finditer(text)}
    linked = {target.removesuffix(".html").removesuffix(".md") for target in targets if target.startswith("results/")}
    reports = [path.read_text(encoding="utf-8") for name in sorted(linked) if (path := ROOT / f"{name}.md").is_file()]
    return measurements(text, reports)


def measurements(text: str, reports: Sequence[str]) -> list[str]:
    """Return the lines of prose and tables with a measurement that has no record.

    Args:
        text: The Markdown of a page.
        reports: What a line, or each cell of a table's row, may be quoted from letter for letter.

    """
    text = FENCE.sub("", text)
    text = "\n".join(line for line in text.splitlines() if not any(_quoted(line, report) for report in reports))
    text = LINK.sub(lambda match: "" if FIGURE.fullmatch(match[1]) else match[1], text)
    for pattern in NO_MEASUREMENT:
        text = pattern.sub("", text)
    return [line.strip() for line in text.splitlines() if MEASUREMENT.search(line)]


def _quoted(line: str, report: str) -> bool:
    line = line.removeprefix("> ")
    cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else [line]
    return all(cell in report for cell in cells if MEASUREMENT.search(cell))


def problem(claim: Claim) -> str:
    """Return in what way a figure and its record disagree, "" where they agree."""
    if claim.target == "docs/results.md":
        return _against_row(claim)
    path = ROOT / claim.target
    if not claim.target.startswith(("results/", "experiments/")) or path.suffix != ".md" or not path.is_file():
        return f"{claim.text}: {claim.target} is neither a row of docs/results.md nor a table below results/"
    words = [word.strip() for word in claim.where.split(",") if word.strip()]
    exact = [re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])") for word in words]
    lines = [line for line in _lines(path) if exact and all(word.search(f"{line[0]} {line[1]}") for word in exact)]
    rows = [line for line in lines if line[1].startswith("|")]
    named = [line for line in rows if line[1].split("|")[1].strip() in words]
    lines = named or rows or lines  # the row of that name, else another row of a table, else a sentence
    if len(lines) != 1:
        return f"{claim.text}: {len(lines)} lines of {claim.target} have the words {claim.where!r}"
    there = [number.replace(",", "") for number in re.findall(NUMBER, lines[0][1])]
    for typed in re.findall(NUMBER, claim.text):
        plain = typed.replace(",", "")
        places = len(plain.partition(".")[2])
        if not any(f"{float(number):.{places}f}" == plain for number in there):
            return f"{claim.text}: {claim.target} has {', '.join(there)} on the line of {claim.where!r}"
    return ""


def _against_row(claim: Claim) -> str:
    row = next((row for row in site_results.rows() if row.anchor == claim.row), None)
    if row is None:
        return f"{claim.text}: no row of the results page is {claim.row!r}"
    unit = " %" if row.metric == "accuracy" else ""
    known = {
        "": site_results.measured(row),
        "published": "nothing" if row.published is None else f"{row.published:g}{unit}",
        "training time": site_results.duration(row.mean("train_s")),
        "energy": site_results.joules(row.energy()) if row.runs else "not run",
    }
    if claim.where not in known:
        return f"{claim.text}: a row has no {claim.where!r}; it has {', '.join(filter(None, known))}"
    shown = known[claim.where]
    typed, shown_number = (text.removesuffix(" %").removesuffix(" dB") for text in (claim.text, shown))
    return "" if typed == shown_number else f"{claim.text}: row {claim.row} has {shown}"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line of a page after the headings above it, and after its row's name where that has several lines."""
    headings: list[str] = []
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        depth = len(line) - len(line.lstrip("#"))
        if depth and line[depth : depth + 1] == " ":
            headings = [*headings[: depth - 1], line]
        cells = line.split("|")
        if len(cells) > 2 and cells[1].strip():
            name = cells[1]
        yield " ".join([*headings, name if len(cells) > 2 else ""]), line


def main() -> int:
    """List the figures that disagree with their records, and those without one; return how many there are."""
    wrong = [f"{page}: {told}" for page in pages() for claim in claims(page) if (told := problem(claim))]
    wrong += [f"{page}: no record: {line}" for page in pages() for line in unheld(page)]
    print("\n".join(wrong))
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
