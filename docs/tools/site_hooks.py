"""MkDocs hooks: equations as MathML, figures in the page's colours, rows from the records, links into the repository.

A page asks for what is made at the build by a comment, which plain viewers of the Markdown do not show:

    <!-- site: facts mono_forward -->     family, paper, nets and tasks of a rule, by the README's tables
    <!-- site: options mono_forward -->  its options, by its configuration
    <!-- site: rows mono_forward -->      its rows, from results/
    <!-- site: results -->                all rows, with filters
    <!-- site: matrix -->                 every rule by its defaults on every cell
"""

import html
import logging
import re
from collections.abc import Callable
from pathlib import Path

import latex2mathml.converter
import site_results
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from site_repository import ROOT, Mirror, as_page, contents
from site_rules import facts, options, rule_names, rules_by_family

FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)  # code, such as the page of a rule in CONTRIBUTING.md
ASKED = re.compile(r"^<!-- site: (\w+)(?: (\w+))? -->$", re.MULTILINE)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
FIGURE = re.compile(r'<img alt="([^"]*)" src="[./]*figures/(\w+)\.svg"(?: title="[^"]*")?\s*/?>')
MIRROR = Mirror()
log = logging.getLogger("mkdocs.hooks.site")  # a warning here ends a strict build

MAKERS: dict[str, Callable[[str, str], str]] = {
    "facts": lambda rule, page: facts(rule),
    "options": lambda rule, page: options(rule),
    "rows": site_results.rule_table,
    "results": lambda _, page: site_results.results_table(page),
    "matrix": lambda _, page: site_results.defaults_matrix(page),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the rules' pages into the navigation, by family."""
    for item in config.nav or []:
        if item.get("Rules") == "rules":
            by_family = [
                {family: [f"rules/{rule}.md" for rule in rules]} for family, rules in rules_by_family().items()
            ]
            item["Rules"] = ["rules/index.md", *by_family]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to in the repository, and the records that the rows link to."""
    MIRROR.files.clear()
    configurations = [f"localearn/conf/algo/{rule}.yaml" for rule in rule_names()]
    for path in ("CHANGELOG.md", "CONTRIBUTING.md", *configurations, *site_results.record_files()):
        MIRROR.require(path)
    for file in list(files):
        if file.src_uri.endswith(".md") and file.inclusion.is_included():
            MIRROR.rewrite(f"docs/{file.src_uri}", Path(file.abs_src_path or "").read_text(encoding="utf-8"))
    for place, path in sorted(MIRROR.files.items()):
        source = ROOT / path
        if source.is_dir():
            added = File.generated(config, place, content=contents(path))
        else:
            added = File.generated(config, place, abs_src_path=str(source))
        if place.startswith("repository/"):
            added.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into the repository into links within the site, and answer what the page asks for."""
    here = page.file.src_uri
    path = MIRROR.files.get(here, f"docs/{here}")
    if here.startswith("repository/") and not (ROOT / path).is_file():
        return markdown
    if not path.startswith("docs/"):
        markdown = as_page(path, markdown)
    if here.startswith("repository/"):
        page.meta.setdefault("hide", ["toc"])  # wide tables, mostly
        page.meta.setdefault("search", {"exclude": True})
    parts = FENCED.split(markdown)
    parts[::2] = [ASKED.sub(lambda match: MAKERS[match[1]](match[2] or "", here), part) for part in parts[::2]]
    return MIRROR.rewrite(path, "".join(parts))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Render equations, and write figures into the page so that they take its colours."""
    return FIGURE.sub(_figure, EQUATION.sub(_equation, content))


def _equation(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    latex = html.unescape(match[2]).strip()
    mathml = latex2mathml.converter.convert(latex, display=display)
    unknown = re.search(r"\\\\\w+", mathml)
    if unknown:
        log.warning("latex2mathml does not know %s, in %s", unknown[0], latex)
    return f'<div class="la-equation">{mathml}</div>' if display == "block" else mathml


def _figure(match: re.Match[str]) -> str:
    """Return a figure's SVG, and the one for narrow screens where it has one; the style sheet shows one of them."""
    folder = ROOT / "docs" / "figures"
    files = [folder / f"{match[2]}{end}.svg" for end in ("", "-tall")]
    drawn = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    named = "".join(svg.replace("<svg ", f'<svg role="img" aria-label="{match[1]}" ', 1) for svg in drawn)
    return f'<span class="la-figure{" la-two" if len(drawn) > 1 else ""}">{named}</span>'
