"""The rules as the README's tables and their configurations have them: family, paper, nets and tasks."""

import posixpath
import re

import yaml
from site_repository import ROOT

ALGORITHMS = ROOT / "localearn" / "conf" / "algo"
PAGES = ROOT / "docs" / "rules"
FAMILIES = {
    "reference": "Reference",
    "local": "Local",
    "feedback": "Feedback",
    "paired": "Paired",
    "estimator": "Estimators",
}


def rule_names() -> list[str]:
    """Return the names of all rules: those with a configuration."""
    return sorted(path.stem for path in ALGORITHMS.glob("*.yaml"))


def readme_table(first_column: str) -> dict[str, dict[str, str]]:
    """Return a table of the README by its rows' names, each row by its columns' names.

    Args:
        first_column: a name that its second column has, by which it is told from the others.

    """
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[str, str]] = {}
    names: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            names = []
        elif len(cells) > 1 and cells[:2] == ["rule", first_column]:
            names = cells
        elif names and not set(cells[0]) <= set("-: "):
            found[cells[0].strip("`")] = dict(zip(names, cells, strict=False))
    return found


def rules_by_family() -> dict[str, list[str]]:
    """Return the rules that have a page, by the title of their family, in the README's order."""
    table = readme_table("family")
    found: dict[str, list[str]] = {title: [] for title in FAMILIES.values()}
    for rule in [*table, *(rule for rule in rule_names() if rule not in table)]:
        family = FAMILIES[table[rule]["family"] if rule in table else "local"]
        if (PAGES / f"{rule}.md").is_file():
            found[family].append(rule)
    return {family: rules for family, rules in found.items() if rules}


def class_name(rule: str) -> str:
    """Return the name of a rule's class, as `localearn.MonoForward`."""
    text = (ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["algo"]["_target_"]


def summary(rule: str) -> str:
    """Return the first comment of a rule's configuration, its line in `--help`."""
    lines = (ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8").splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)


def facts(rule: str) -> str:
    """Return the Markdown table of what a rule is and serves."""
    row = readme_table("family").get(rule, {})
    tasks = readme_table("classes").get(rule, {})
    target = class_name(rule)
    known = ("rule", "family", "paper")
    paper = row.get("paper", "")
    lines = [
        ("family", row.get("family", "")),
        ("paper", re.sub(r"\[(\d{4}\.\d{5})\]", r"[arXiv \1]", paper)),
        ("nets", _served({name: value for name, value in row.items() if name not in known})),
        ("tasks", _served({name: value for name, value in tasks.items() if name != "rule"})),
        ("class", f"[`{target}`][{target}]"),
        ("options", f"[conf/algo/{rule}.yaml](../../localearn/conf/algo/{rule}.yaml)"),
    ]
    body = "\n".join(f"| {name} | {value} |" for name, value in lines if value)
    return f"| | |\n|---|---|\n{body}\n"


def _served(cells: dict[str, str]) -> str:
    served = [name if value == "yes" else f"{name} ({value})" for name, value in cells.items() if value != "no"]
    return ", ".join(served)


def rule_list(page: str) -> str:
    """Return the Markdown tables of the rules by family, each with its line and a link to its page."""
    here = posixpath.dirname(page) or "."
    parts = []
    for family, rules in rules_by_family().items():
        lines = [f"| [{rule}]({posixpath.relpath(f'rules/{rule}.md', here)}) | {summary(rule)} |" for rule in rules]
        parts += [f"## {family}", "", "| rule | in a line |", "|---|---|", *lines, ""]
    return "\n".join(parts)
