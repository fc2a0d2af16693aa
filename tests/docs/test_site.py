"""The site as it is built: strictly, with every link and anchor there, and readable from disk without a network."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import site_rules
from site_repository import ROOT

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The links, the anchors and the loaded files of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        loads = {"script": "src", "img": "src", "iframe": "src"}
        if tag in loads and values.get(loads[tag]):
            self.loaded.append(values[loads[tag]])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def pages(site):
    found = (path for path in site.rglob("*.html") if path.name != "404.html")  # which a server alone sends
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def test_every_link_and_anchor_is_there(site, pages):
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (
                target in pages and unquote(parts.fragment) not in {"", *pages[target].anchors}
            ):
                broken.append((path.relative_to(site).as_posix(), link))
    assert not broken, broken[:20]


def test_nothing_is_loaded_from_elsewhere(site, pages):
    outside = {url for page in pages.values() for url in page.loaded if urlsplit(url).netloc}
    assert not outside
    styles = " ".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"@import|url\(['\"]?(https?:)?//", styles)


def test_every_page_is_there_with_its_equations_and_figures(site):
    for rule in site_rules.rule_names():
        text = (site / "rules" / f"{rule}.html").read_text(encoding="utf-8")
        assert "<math" in text and 'class="la-fig"' in text and "arithmatex" not in text, rule
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page


def test_results_are_filtered_sorted_and_linked_to_from_disk(site, browser):
    page = browser.new_page()
    outside = []
    page.on("request", lambda request: outside.append(request.url) if request.url.startswith("http") else None)
    page.goto((site / "results.html").as_uri())
    shown = page.locator("table.la-results tbody tr:visible")
    every = shown.count()
    page.locator("select[name=rule]").select_option("cafo")
    assert 0 < shown.count() < every
    assert set(shown.locator("td:first-child").all_inner_texts()) == {"cafo"}
    page.locator("table.la-results thead button", has_text="ours").click()
    ours = [float(cell.get_attribute("data-sort")) for cell in shown.locator("td:nth-child(6)").all()]
    assert ours == sorted(ours) and len(set(ours)) > 3
    page.locator("input[name=words]").fill("no such row")
    assert shown.count() == 0
    page.locator("form.la-filters button").click()
    page.wait_for_timeout(50)
    assert shown.count() == every
    page.goto((site / "results.html").as_uri() + "#rule=noprop")
    page.reload()
    assert 0 < shown.count() < every
    page.locator("table.la-results tbody tr:visible td:nth-child(8) a").first.click()
    assert '"algo": "noprop"' in page.content()
    assert not outside
    page.close()


def test_search_works_from_disk(site, browser):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("goodness", delay=20)  # it listens to keys
    page.locator(".md-search-result__link").first.wait_for(timeout=20_000)
    found = page.locator(".md-search-result__link").all()
    assert any("forward_forward.html" in (link.get_attribute("href") or "") for link in found)
    page.close()


# What the window cuts off, unless a box around it scrolls by itself.
CUT_OFF = """() => Array.from(document.querySelectorAll(".md-content *")).filter((element) => {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
    for (let above = element.parentElement; above && !above.matches(".md-content"); above = above.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(above).overflowX)) return false;
    return true;
}).map((element) => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_the_window(site, browser, width):
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        page.goto((site / name).as_uri())
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], name
        assert not page.evaluate(CUT_OFF), name
    context.close()


@pytest.mark.parametrize(("width", "tall"), [(360, True), (1280, False)])
def test_a_narrow_screen_has_the_figure_that_runs_downwards(site, browser, width, tall):
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for name in ("index", "architecture", "rules/mono_forward"):
        page.goto((site / f"{name}.html").as_uri())
        shown = [figure.get_attribute("class") for figure in page.locator(".la-figure svg:visible").all()]
        assert len(shown) == 1 and ("la-tall" in shown[0]) is tall, (name, shown)
        assert page.locator(".la-figure svg:visible").bounding_box()["width"] <= width
    context.close()


def test_a_figure_links_to_its_row(site, browser):
    page = browser.new_page()
    page.goto((site / "rules" / "forward_forward.html").as_uri())
    page.locator("a", has_text="98.29 ± 0.74 %").first.click()
    row = page.locator("tr:target")
    row.wait_for()  # until it is visible
    assert "98.29 ± 0.74 %" in row.inner_text()
    assert page.url.endswith("results.html#fidelity/mnist_mlp-forward_forward")
    page.goto((site / "rules" / "noprop.html").as_uri())
    page.locator("a", has_text="73.14 %").first.click()  # of a row that was not run, which the filters hide
    page.locator("tr:target").wait_for()
    page.close()
