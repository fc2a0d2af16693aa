"""A report as one HTML file: no script, no network, every text from a record escaped."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files

from localearn.reporting.document import (
    Block,
    Bullets,
    Cell,
    Commands,
    Document,
    Figure,
    Figures,
    Line,
    Paragraph,
    Section,
    Table,
)

MARK = '<meta name="generator" content="localearn report">'


def as_html(document: Document) -> str:
    """Return the page."""
    style = (files("localearn.reporting") / "page.css").read_text(encoding="utf-8")
    title = escape(document.title)
    sections = [_section(number, section) for number, section in enumerate(document.sections, start=1)]
    contents = [
        f'<li><a href="#s{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(document.sections, start=1)
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            MARK,
            f"<title>{title}</title>",
            f"<style>\n{style}</style></head>",
            "<body>",
            f"<header><h1>{title}</h1><p>{escape(document.subtitle)}</p>",
            f'<nav aria-label="Contents"><ol>{"".join(contents)}</ol></nav></header>',
            "<main>",
            *sections,
            "</main>",
            "</body></html>\n",
        ]
    )


def _section(number: int, section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, lead):
            return f'<p class="lead">{escape(text)}</p>' if lead else f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Commands(lines):
            return "".join(f"<pre><code>{escape(line)}</code></pre>" for line in lines)
        case Figures(figures):
            return f'<div class="figures">{"".join(_figure(figure) for figure in figures)}</div>'
        case Table():
            return _table(block)


def _figure(figure: Figure) -> str:
    # The SVG's text is drawn as outlines, and what it says is in the label: a reader of screens hears that.
    svg = figure.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    kind = "settings" if table.settings else "cards"
    return (
        f'<table class="{kind}"><caption>{escape(table.caption)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(_row(table.columns, row) for row in table.rows)}</tbody></table>"
    )


def _row(columns: Iterable[str], row: tuple[Cell, ...]) -> str:
    head, *cells = row
    return (
        f'<tr><th scope="row">{_lines(head).replace("_", "_<wbr>")}</th>'
        + "".join(
            f'<td data-label="{escape(column)}"><div>{_lines(cell)}</div></td>'
            for column, cell in zip(list(columns)[1:], cells, strict=True)
        )
        + "</tr>"
    )


def _lines(cell: Cell) -> str:
    return "".join(_line(line) for line in cell)


def _line(line: Line) -> str:
    text = escape(line.text)
    if line.role == "ratio":
        text = text.replace(", ", ",&nbsp;")  # an interval is not broken in two
    return f'<span class="{line.role}">{f"<strong>{text}</strong>" if line.strong else text}</span>'
