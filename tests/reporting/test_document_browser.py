"""The report's page as Chromium lays it out: wide and narrow, light and dark, without a network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

WIDTHS_PX = (320, 390, 768, 1280, 1920)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0  # WCAG 2's level AA for text and for what a plot draws

Faults = Callable[..., list[str]]


class Visit:
    """A page that is open in the browser, and what it asked for or complained of since."""

    def __init__(self, browser: "Browser", file: Path):
        self.page: Page = browser.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.url = file.as_uri()
        self.page.route("**/*", self._answer)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(self.url)

    def _answer(self, route: "Route") -> None:
        self.asked.append(route.request.url)
        if route.request.url == self.url:
            route.continue_()
        else:
            route.abort()


@pytest.fixture(scope="module")
def visit(browser: "Browser", rich_page: Path) -> Iterator[Visit]:
    opened = Visit(browser, rich_page)
    yield opened
    opened.page.close()


@pytest.fixture(scope="module")
def faults(visit: Visit, probe: str) -> Faults:
    """Look for the faults of a name; see probe.js."""
    return lambda name, *arguments: visit.page.evaluate(f"{probe}.{name}({', '.join(map(str, arguments))})")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width_px", WIDTHS_PX)
def test_nothing_is_cut_off_at_any_width(visit, faults, width_px, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": width_px, "height": 900})
    for name in ("overflow", "clipped", "cells", "drawnText"):
        assert faults(name) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width_px", (390, 1280))
def test_every_text_stands_out_from_what_is_below_it(visit, faults, width_px, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": width_px, "height": 900})
    assert faults("textContrast", TEXT_CONTRAST) == []
    assert faults("markContrast", MARK_CONTRAST) == []


def test_dark_is_dark(visit):
    shades = []
    for scheme in SCHEMES:
        visit.page.emulate_media(color_scheme=scheme)
        shades.append(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades[0] == "rgb(255, 255, 255)"
    assert max(int(channel) for channel in shades[1][4:-1].split(",")) < 64


def test_the_page_can_be_read_without_seeing_it(faults):
    assert faults("structure") == []


def test_the_page_has_what_these_tests_look_at(visit, factory):
    """Labels, flags, refusals, every kind of plot, and names that would do harm if they were obeyed."""
    text = visit.page.inner_text("body")
    for wanted in (
        "⚑ throttled",
        "not comparable",
        "absent",
        "converged protocol",
        "⚑ foreign_process",
        "onerror=alert",
    ):
        assert wanted in text
    assert factory.HOSTILE in text
    alts = visit.page.eval_on_selector_all("svg[role=img]", "all => all.map(svg => svg.getAttribute('aria-label'))")
    for wanted in ("Ratios", "Test accuracy against", "over epochs", "over estimated joules", "against depth"):
        assert any(wanted in alt for alt in alts)


def test_nothing_is_fetched_run_or_complained_of(visit):
    visit.page.reload()
    visit.page.wait_for_load_state("networkidle")
    assert set(visit.asked) == {visit.url}
    assert visit.complaints == []
    assert visit.page.title() == "Learning rules compared"
    assert visit.page.evaluate("document.scripts.length + document.images.length + document.styleSheets.length") == 1
