"""A report as Markdown, for a README; text from records is escaped, so that it is shown and not obeyed."""

import re

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
    Table,
)

MARK = "<!-- localearn report -->"


def as_markdown(document: Document, folder: str) -> str:
    """Return the report; its plots are PNG files in `folder`, relative to it."""
    parts = [MARK, f"# {escape(document.title)}", escape(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block, folder) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: str) -> str:
    match block:
        case Paragraph(text, lead):
            return f"**{escape(text)}**" if lead else escape(text)
        case Bullets(items):
            return "\n".join(f"- {escape(item)}" for item in items)
        case Commands(lines):
            return "\n".join(f"    {line}" for text in lines for line in text.splitlines())
        case Figures(figures):
            return "\n\n".join(_figure(figure, folder) for figure in figures)
        case Table():
            return _table(block)


def _figure(figure: Figure, folder: str) -> str:
    return f"![{escape(figure.alt)}]({folder}/{figure.name}.png)\n\n{escape(figure.caption)}"


def _table(table: Table) -> str:
    lines = [
        f"**{escape(table.caption)}**\n",
        f"| {' | '.join(escape(column) for column in table.columns)} |",
        f"|{'|'.join([' --- '] * len(table.columns))}|",
    ]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    return "<br>".join(_line(line) for line in cell)


def _line(line: Line) -> str:
    text = escape(line.text)
    return f"**{text}**" if line.strong else text


def escape(text: str) -> str:
    """Return text in which Markdown and HTML see no mark-up, on one line."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|$\[\]~]|(?<!\w)_|_(?!\w)|^#)", r"\\\1", one_line)
