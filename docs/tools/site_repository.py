"""Links from the documentation to files of the repository, which the site carries as pages or as copies.

A page of docs/ links to `../results/fidelity/table.md` as it would anywhere in the repository. The site has a copy of
what is linked, below repository/, so that every link works from disk: Markdown files become pages, folders a list of
their files, and all else is copied as it is. CHANGELOG.md and CONTRIBUTING.md are pages of the site's own.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIES = "repository"
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
# [text](target#anchor "title"), where the text may itself hold brackets, escaped ones too, and be of several lines.
LINK = re.compile(r"(\[(?:[^\[\]\\\n]|\n(?!\n)|\\.|\[[^\]\n]*\])*\]\()([^)\s#:]+)((?:#[^)\s]*)?(?: \"[^\"]*\")?)\)")


def site_path(path: str) -> str:
    """Return where the site has a file or folder of the repository.

    Args:
        path: from the repository's root, with slashes.

    Returns:
        The path from the site's sources, `docs/`.

    """
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{COPIES}/{path}/contents.md"
    return f"{COPIES}/{path}"


@dataclass
class Mirror:
    """The repository's files that the site needs beside docs/: where each stands, by its place in the site."""

    files: dict[str, str] = field(default_factory=dict)

    def require(self, path: str) -> str:
        """Have a file or folder, and what its pages link to, in the site, and return its place there."""
        place = site_path(path)
        if path.startswith("docs/") or place in self.files:
            return place
        self.files[place] = path
        if path.endswith(".md"):
            for _, target in links(path, (ROOT / path).read_text(encoding="utf-8")):
                self.require(target)
        elif (ROOT / path).is_dir():
            for child in listed(path):
                self.require(child)
        return place

    def rewrite(self, path: str, text: str) -> str:
        """Return a page's Markdown with its links into the repository turned into links within the site.

        Args:
            path: of the page, from the repository's root.
            text: its Markdown.

        """
        here = posixpath.dirname(site_path(path))

        def within(match: re.Match[str]) -> str:
            target = resolve(path, match[2])
            if target is None:
                return match[0]
            return f"{match[1]}{posixpath.relpath(self.require(target), here or '.')}{match[3]})"

        return _outside_fences(text, lambda part: LINK.sub(within, part))


def resolve(path: str, target: str) -> str | None:
    """Return the file or folder of the repository that a page's link leads to; None where there is none."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if found.startswith("..") or found == "." or not (ROOT / found).exists():
        return None
    return found


def links(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each link of a page as it is written, with what it leads to in the repository."""
    for match in LINK.finditer(FENCE.sub("", text)):
        target = resolve(path, match[2])
        if target is not None:
            yield match[2], target


def listed(path: str) -> list[str]:
    """Return the records and pages that a folder's list has: its run.json, JSON and Markdown files, at any depth."""
    found = (ROOT / path).rglob("*")
    return sorted(file.relative_to(ROOT).as_posix() for file in found if file.suffix in (".json", ".md"))


def contents(path: str) -> str:
    """Return the Markdown of a folder's list."""
    here = f"{COPIES}/{path}"
    lines = [
        f"- [{child.removeprefix(path + '/')}]({posixpath.relpath(site_path(child), here)})" for child in listed(path)
    ]
    return "\n".join([f"# {path}", "", *lines, ""])


def as_page(path: str, text: str) -> str:
    """Return the Markdown of a file outside docs/ as the site's parser wants it.

    What stands in an item of a numbered list is indented by four spaces, not by three, and a page has a heading.

    Args:
        path: of the file, from the repository's root.
        text: its Markdown.

    """
    lines, in_list = [], False
    for line in text.splitlines():
        in_list = bool(re.match(r"\d+\. ", line)) or (in_list and (not line or line.startswith("   ")))
        lines.append(f" {line}" if in_list and line.startswith("   ") else line)
    heading = [] if any(line.startswith("# ") for line in lines) else [f"# {path}", ""]
    return "\n".join([*heading, *lines, ""])


def _outside_fences(text: str, change) -> str:
    """Return the text with all but its fenced code changed."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])
