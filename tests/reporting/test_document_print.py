"""The report's page as Chromium prints it: every row whole, on one sheet, and nothing beside the paper."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from pypdf import PageObject

MARGIN_PT = 14 / 25.4 * 72
SLACK_PT = 2.0
PAPER_MM = {"A4": (210, 297), "Letter": (215.9, 279.4)}


@dataclass
class Sheet:
    """What stands on a sheet of paper: its letters without spaces, where they begin, and the rows that it holds.

    starts: (x, y) of each run of letters; rows: the boxes (left, bottom, right, top) of each (table, row)'s texts.
    All in points from the lower left corner.
    """

    width_pt: float
    height_pt: float
    letters: str
    starts: list[tuple[float, float]]
    rows: dict[tuple[int, int], list[tuple[float, float, float, float]]] = field(default_factory=dict)


@dataclass
class Print:
    """A page on paper: its sheets, and the texts of each (table, row) that were to be printed; row 0 is the head."""

    sheets: list[Sheet]
    texts: dict[tuple[int, int], list[str]]


def letters_of(text: str) -> str:
    """Return a text without spaces, its ligatures as single letters."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def read_sheet(page: "PageObject") -> Sheet:
    starts: list[tuple[float, float]] = []

    def visit(text: str, cm: Any, tm: Any, _font: Any, _size: Any) -> None:
        if text.strip():
            x, y = tm[4], tm[5]
            starts.append((cm[0] * x + cm[2] * y + cm[4], cm[1] * x + cm[3] * y + cm[5]))

    letters = letters_of(page.extract_text(visitor_text=visit))
    sheet = Sheet(float(page.mediabox.width), float(page.mediabox.height), letters, starts)
    for annotation in cast("list[Any]", page.get("/Annots") or []):
        link = annotation.get_object()
        kind, table, row, _ = str(link.get("/A", {}).get("/URI", ":::")).split(":", 3)
        if kind == "row":
            box = tuple(float(edge) for edge in link["/Rect"])
            sheet.rows.setdefault((int(table), int(row)), []).append(cast("Any", box))
    return sheet


@pytest.fixture(scope="module")
def opened(browser: "Browser", rich_page: Path, probe: str) -> Iterator["Page"]:
    """The page with the texts of its rows named by links, on a screen that is dark."""
    page = browser.new_page(color_scheme="dark")
    page.goto(rich_page.as_uri())
    page.evaluate(f"{probe}.nameRows()")
    yield page
    page.close()


@pytest.fixture(scope="module")
def pypdf() -> ModuleType:
    return pytest.importorskip("pypdf", reason="pypdf is not installed")


@pytest.fixture(scope="module", params=PAPER_MM)
def printed(
    opened: "Page", pypdf: ModuleType, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Print:
    file = tmp_path_factory.mktemp("print") / "report.pdf"
    opened.emulate_media(media="print")
    opened.pdf(path=file, format=request.param)
    texts = defaultdict(list)
    for link in opened.eval_on_selector_all("a[href^='row:']", "all => all.map(link => link.getAttribute('href'))"):
        _, table, row, text = link.split(":", 3)
        texts[int(table), int(row)].append(letters_of(unquote(text)))
    sheets = [read_sheet(page) for page in pypdf.PdfReader(file).pages]
    width_mm, height_mm = PAPER_MM[request.param]
    assert all(abs(sheet.width_pt - width_mm / 25.4 * 72) < SLACK_PT for sheet in sheets)
    assert all(abs(sheet.height_pt - height_mm / 25.4 * 72) < SLACK_PT for sheet in sheets)
    return Print(sheets, texts)


def test_no_row_is_cut_in_two(printed):
    pages = defaultdict(list)
    for number, sheet in enumerate(printed.sheets):
        for row in sheet.rows:
            pages[row].append(number)
    assert len(printed.texts) > 60
    assert [row for row in printed.texts if row[1] and len(pages[row]) != 1] == []


def test_every_text_of_a_row_stands_on_its_sheet(printed):
    for sheet in printed.sheets:
        for row in sheet.rows:
            assert [text for text in printed.texts[row] if text not in sheet.letters] == []


def test_only_a_table_longer_than_a_sheet_goes_on_and_it_repeats_its_head(printed):
    sheets_of, heads_of = defaultdict(set), defaultdict(set)
    for number, sheet in enumerate(printed.sheets):
        for table, row in sheet.rows:
            (sheets_of if row else heads_of)[table].add(number)
    assert heads_of == sheets_of
    machine, versions = sorted(sheets_of)[-2:]
    going_on = {table for table, numbers in sheets_of.items() if len(numbers) > 1}
    assert {versions} <= going_on <= {machine, versions}


@pytest.mark.parametrize("table", (0, -1))
def test_a_head_takes_a_row_along_wherever_on_a_sheet_it_falls(opened, pypdf, tmp_path, table):
    """The first table is shorter than a sheet and is never cut, the last one is longer."""
    opened.emulate_media(media="print")
    before = opened.inner_html("body")
    opened.evaluate(f"""
        const above = document.createElement("div");
        above.id = "above";
        document.body.replaceChildren(above, [...document.querySelectorAll("table")].at({table}));
    """)
    fell_low = 0
    for above_mm in range(230, 270, 8):
        opened.evaluate(f"above.style.height = '{above_mm}mm'")
        opened.pdf(path=tmp_path / "report.pdf", format="A4")
        sheets = [read_sheet(page) for page in pypdf.PdfReader(tmp_path / "report.pdf").pages]
        kinds = [{row > 0 for _, row in sheet.rows} for sheet in sheets]
        assert all(kind in (set(), {False, True}) for kind in kinds)
        fell_low += not kinds[0]
        if table == 0:
            assert sum(bool(kind) for kind in kinds) == 1
    opened.evaluate("html => document.body.innerHTML = html", before)
    assert fell_low


def test_nothing_stands_beside_the_paper(printed):
    for sheet in printed.sheets:
        assert sheet.starts
        left, right = MARGIN_PT - SLACK_PT, sheet.width_pt - MARGIN_PT + SLACK_PT
        bottom, top = MARGIN_PT - SLACK_PT, sheet.height_pt - MARGIN_PT + SLACK_PT
        assert [start for start in sheet.starts if not (left <= start[0] <= right and bottom <= start[1] <= top)] == []
        boxes = [box for row in sheet.rows.values() for box in row]
        assert [box for box in boxes if box[0] < left or box[1] < bottom or box[2] > right or box[3] > top] == []


@pytest.mark.parametrize("paper", PAPER_MM)
def test_the_layout_for_paper_is_not_too_wide_and_legible_on_white(opened, probe, paper):
    """Chromium would shrink a page that is too wide; a dark screen's colours are not printed."""
    width_mm, height_mm = (side - 28 for side in PAPER_MM[paper])
    opened.emulate_media(media="print", color_scheme="dark")
    opened.set_viewport_size({"width": int(width_mm / 25.4 * 96), "height": int(height_mm / 25.4 * 96)})
    for call in ("overflow()", "clipped()", "cells()", "drawnText()", "textContrast(4.5)"):
        assert opened.evaluate(f"{probe}.{call}") == []
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") >= 12
