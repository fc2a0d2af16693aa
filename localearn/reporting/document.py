"""A report before it is a page: sections of paragraphs, tables, figures and commands, all in plain text; and as a page.

As Markdown it is for a README; as HTML it is one file without scripts and network. Either way every text from a record
is escaped, so that it is shown and not obeyed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Literal

Role = Literal["value", "label", "flag", "ratio", "refusal"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table's cell.

    Attributes:
        text: as it is shown.
        role: how it is drawn.
        strong: whether it is a ratio that is larger than its interval.

    """

    text: str
    role: Role = "value"
    strong: bool = False


Cell = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column heads its rows; every row has one cell per column.

    Attributes:
        caption: above the table.
        columns: the headings.
        rows: of cells.
        settings: whether it is of names and values.

    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    settings: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text.

    Attributes:
        text: the paragraph's.
        lead: whether it is set off as what a hurried reader should read.

    """

    text: str
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences, or of a term and its meaning."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Shell commands, one to a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot, drawn twice.

    Attributes:
        name: of its file.
        caption: below the plot.
        alt: its content as text.
        png: on white.
        svg: in the page's own ink.

    """

    name: str
    caption: str
    alt: str
    png: bytes
    svg: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Plots side by side where there is room."""

    figures: tuple[Figure, ...]


Block = Paragraph | Bullets | Table | Commands | Figures


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report.

    Attributes:
        title: its heading.
        subtitle: a line under it.
        sections: in order.

    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def cell(text: str) -> Cell:
    """Return a cell of one plain line.

    Args:
        text: the line's.

    """
    return (Line(text),)


MARKDOWN_MARK = "<!-- localearn report -->"


def as_markdown(document: Document, folder: str) -> str:
    """Return the report as Markdown.

    Args:
        document: the report.
        folder: of its plots, PNG files, relative to the page.

    """
    parts = [MARKDOWN_MARK, f"# {markdown_escape(document.title)}", markdown_escape(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {markdown_escape(section.title)}")
        parts += [_markdown_block(block, folder) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block, folder: str) -> str:
    match block:
        case Paragraph(text, lead):
            return f"**{markdown_escape(text)}**" if lead else markdown_escape(text)
        case Bullets(items):
            return "\n".join(f"- {markdown_escape(item)}" for item in items)
        case Commands(lines):
            return "\n".join(f"    {line}" for text in lines for line in text.splitlines())
        case Figures(figures):
            return "\n\n".join(_markdown_figure(figure, folder) for figure in figures)
        case Table():
            return _markdown_table(block)


def _markdown_figure(figure: Figure, folder: str) -> str:
    return f"![{markdown_escape(figure.alt)}]({folder}/{figure.name}.png)\n\n{markdown_escape(figure.caption)}"


def _markdown_table(table: Table) -> str:
    lines = [
        f"**{markdown_escape(table.caption)}**\n",
        f"| {' | '.join(markdown_escape(column) for column in table.columns)} |",
        f"|{'|'.join([' --- '] * len(table.columns))}|",
    ]
    lines += [f"| {' | '.join(_markdown_cell(cell) for cell in row)} |" for row in table.rows]
    return "\n".join(lines)


def _markdown_cell(cell: Cell) -> str:
    return "<br>".join(_markdown_line(line) for line in cell)


def _markdown_line(line: Line) -> str:
    text = markdown_escape(line.text)
    return f"**{text}**" if line.strong else text


def markdown_escape(text: str) -> str:
    """Return text in which Markdown and HTML see no mark-up, on one line.

    Args:
        text: any.

    """
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|$\[\]~]|(?<!\w)_|_(?!\w)|^#)", r"\\\1", one_line)


HTML_MARK = '<meta name="generator" content="localearn report">'


def as_html(document: Document) -> str:
    """Return the report as one HTML page.

    Args:
        document: the report.

    """
    style = (files("localearn.reporting") / "page.css").read_text(encoding="utf-8")
    title = escape(document.title)
    sections = [_html_section(number, section) for number, section in enumerate(document.sections, start=1)]
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
            HTML_MARK,
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


def _html_section(number: int, section: Section) -> str:
    blocks = "\n".join(_html_block(block) for block in section.blocks)
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _html_block(block: Block) -> str:
    match block:
        case Paragraph(text, lead):
            return f'<p class="lead">{escape(text)}</p>' if lead else f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Commands(lines):
            return "".join(f"<pre><code>{escape(line)}</code></pre>" for line in lines)
        case Figures(figures):
            return f'<div class="figures">{"".join(_html_figure(figure) for figure in figures)}</div>'
        case Table():
            return _html_table(block)


def _html_figure(figure: Figure) -> str:
    # The SVG's text is drawn as outlines; screen readers read the label.
    svg = figure.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _html_table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    kind = "settings" if table.settings else "cards"
    return (
        f'<table class="{kind}"><caption>{escape(table.caption)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(_html_row(table.columns, row) for row in table.rows)}</tbody></table>"
    )


def _html_row(columns: Iterable[str], row: tuple[Cell, ...]) -> str:
    head, *cells = row
    return (
        f'<tr><th scope="row">{_html_lines(head).replace("_", "_<wbr>")}</th>'
        + "".join(
            f'<td data-label="{escape(column)}"><div>{_html_lines(cell)}</div></td>'
            for column, cell in zip(list(columns)[1:], cells, strict=True)
        )
        + "</tr>"
    )


def _html_lines(cell: Cell) -> str:
    return "".join(_html_line(line) for line in cell)


def _html_line(line: Line) -> str:
    text = escape(line.text)
    if line.role == "ratio":
        text = text.replace(", ", ",&nbsp;")  # an interval is not broken in two
    return f'<span class="{line.role}">{f"<strong>{text}</strong>" if line.strong else text}</span>'
