"""A report before it is HTML or Markdown: sections of paragraphs, tables, figures and commands, all in plain text."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["value", "label", "flag", "ratio", "refusal"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table's cell; `strong` marks a ratio that is larger than its interval."""

    text: str
    role: Role = "value"
    strong: bool = False


Cell = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column heads its rows; every row has one cell per column. `settings`: a name and a value."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    settings: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text; `lead` sets it off as what a hurried reader should read."""

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
    """A plot, drawn twice: `png` on white, `svg` in the page's own ink. `alt` says what it shows, in words."""

    name: str
    caption: str
    alt: str
    png: bytes
    svg: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Plots that stand beside each other where there is room."""

    figures: tuple[Figure, ...]


Block = Paragraph | Bullets | Table | Commands | Figures


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def cell(text: str) -> Cell:
    """Return a cell of one plain line."""
    return (Line(text),)
