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
    page.locator("input.md-search__input").fill("goodness")
    page.locator(".md-search-result__link").first.wait_for(timeout=20_000)
    found = page.locator(".md-search-result__link").all()
    assert any("forward_forward.html" in (link.get_attribute("href") or "") for link in found)
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(site, browser, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for name in ("index", "results", "faq", "rules/mono_forward", "api/rules", "concepts/net", "howto/report"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    context.close()
