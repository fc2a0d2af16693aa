"""Write what the documents and the packages say of each rule, from the registry and the rules' configurations.

    python docs/tools/site_rules.py

writes the README's tables of rules, the list in docs/rules/index.md, the classes in docs/api/rules.md, and the imports
by which type checkers know the names of `localearn` and its packages. Run it where a rule, a net or a task is added,
and where two branches that added one conflict in these; a test compares what is committed with what it writes.
"""

import importlib.util
import posixpath
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from site_repository import ROOT

ALGORITHMS = ROOT / "localearn" / "conf" / "algo"
PAGES = ROOT / "docs" / "rules"
# Each family by its package in localearn.trainers, in the order of the tables: its name in the README, and its title.
FAMILIES = {
    "reference": ("reference", "Reference"),
    "local": ("local", "Local"),
    "feedback": ("feedback", "Feedback"),
    "paired": ("paired", "Paired"),
    "estimators": ("estimator", "Estimators"),
}
NETS = ("MLP", "CNN", "ResNet", "GNN", "transformer", "recurrent", "ViT, mixer")
TASKS = ("classes", "values", "multi-label", "language", "autoencoding")
# The packages whose `__init__.py` names what it exports for type checkers.
PACKAGES = (
    "localearn",
    "localearn.data",
    "localearn.nets",
    "localearn.tasks",
    "localearn.trainers",
    *(f"localearn.trainers.{family}" for family in ("estimators", "feedback", "local", "paired")),
)
WRITTEN = "<!-- written by docs/tools/site_rules.py, down to the end -->\n"


def _registry() -> Any:
    """Return localearn.registry of this repository, whichever localearn is installed; it imports nothing else."""
    spec = importlib.util.spec_from_file_location("_registry_here", ROOT / "localearn" / "registry.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REGISTRY = _registry()


def rule_names() -> list[str]:
    """Return the names of all rules: those with a configuration."""
    return list(REGISTRY.rules())


def about(rule: str) -> dict[str, Any]:
    """Return what a rule's configuration says of it: its class, its paper, the nets and the tasks that it serves."""
    return yaml.safe_load((ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8"))["about"]


def cells(rule: str, entry: str, columns: Iterable[str]) -> dict[str, str]:
    """Return of each column of a table what it says of a rule: yes, no, or what the configuration has instead.

    Args:
        rule: The rule's name.
        entry: "nets" or "tasks", of its configuration's `about`: "all", or a list of columns, some with a text.
        columns: The columns.

    Raises:
        ValueError: Where the configuration names another column.

    """
    said = about(rule)[entry]
    known = dict.fromkeys(columns, "no")
    found = dict.fromkeys(known, "yes") if said == "all" else {}
    for part in [] if said == "all" else said:
        found |= part if isinstance(part, dict) else {part: "yes"}
    if unknown := set(found) - set(known):
        raise ValueError(f"conf/algo/{rule}.yaml: about.{entry} has {sorted(unknown)}; there are {list(known)}")
    return known | found


def rules_by_family() -> dict[str, list[str]]:
    """Return the rules by the title of their family."""
    found: dict[str, list[str]] = {title: [] for _, title in FAMILIES.values()}
    for rule in REGISTRY.rules().values():
        found[FAMILIES[rule.family][1]].append(rule.name)
    return {family: rules for family, rules in found.items() if rules}


def class_name(rule: str) -> str:
    """Return the name of a rule's class, as `localearn.MonoForward`."""
    return REGISTRY.rules()[rule].target


def paper(rule: str, name: str = "") -> str:
    """Return the link to a rule's paper, empty where it has none; one that is not on arXiv is named.

    Args:
        rule: The rule's name.
        name: What precedes the number.

    """
    said = str(about(rule).get("paper", ""))
    return f"[{name}{said}](https://arxiv.org/abs/{said})" if re.fullmatch(r"\d{4}\.\d{5}", said) else said


def summary(rule: str) -> str:
    """Return the first comment of a rule's configuration, its line in `--help`."""
    lines = (ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8").splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)


def facts(rule: str) -> str:
    """Return the Markdown table of what a rule is and serves."""
    target = class_name(rule)
    lines = [
        ("family", FAMILIES[REGISTRY.rules()[rule].family][0]),
        ("paper", paper(rule, "arXiv ")),
        ("nets", _served(cells(rule, "nets", NETS))),
        ("tasks", _served(cells(rule, "tasks", TASKS))),
        ("class", f"[`{target}`][{target}]"),
        ("options", f"[conf/algo/{rule}.yaml](../../localearn/conf/algo/{rule}.yaml)"),
    ]
    body = "\n".join(f"| {name} | {value} |" for name, value in lines if value)
    return f"| | |\n|---|---|\n{body}\n"


OPTION = re.compile(r"^  (\w+): +(.*?)(?: +# (.*))?$")


def options(rule: str) -> str:
    """Return the Markdown table of a rule's options: name, default, and what its configuration's comment says of it."""
    lines = (ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8").splitlines()
    found: list[list[str]] = []
    for line in lines[lines.index("algo:") + 1 :]:
        match = OPTION.match(line)
        if match and match[1] != "_target_":
            found.append([match[1], match[2], match[3] or ""])
        elif found and line.strip().startswith("#") and line.startswith("    "):
            found[-1][2] += " " + line.strip("# ")
        elif not line.startswith(" "):
            break
    if not found:
        return "It has no options of its own."
    body = [
        f"| `algo.{name}` | `{default}` | {comment.replace('|', chr(92) + '|')} |" for name, default, comment in found
    ]
    return "\n".join(["| option | default | |", "|---|---|---|", *body])


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


def net_table() -> str:
    """Return the README's table of the rules' families, nets and papers."""
    rows = [
        ["rule", "family", *NETS, "paper"],
        ["---"] * (len(NETS) + 3),
        *(
            [f"`{rule}`", family, *cells(rule, "nets", NETS).values(), paper(rule)]
            for family, title in FAMILIES.values()
            for rule in rules_by_family().get(title, ())
        ),
    ]
    return _rows(rows)


def task_table() -> str:
    """Return the README's table of the rules' tasks."""
    rules = [rule for rules in rules_by_family().values() for rule in rules]
    body = [[f"`{rule}`", *cells(rule, "tasks", TASKS).values()] for rule in rules]
    return _rows([["rule", *TASKS], ["---"] * (len(TASKS) + 1), *body])


def _rows(rows: Iterable[Iterable[str]]) -> str:
    lines = ["|---" * len(row) + "|" if set(row) == {"---"} else f"| {' | '.join(row)} |" for row in map(list, rows)]
    return "\n".join(lines) + "\n"


def imports(package: str) -> str:
    """Return the block of a package's `__init__.py` by which type checkers know what it takes from the registry."""
    found = []
    for name, module in REGISTRY.exports(package).items():
        line = f"    from {module} import {name} as {name}\n"
        if len(line) > 121:
            line = f"    from {module} import (\n        {name} as {name},\n    )\n"
        found.append((module, not name.isupper(), not name[0].isupper(), name, line))
    return "if TYPE_CHECKING:  # written by docs/tools/site_rules.py\n" + "".join(line for *_, line in sorted(found))


def written() -> dict[Path, str]:
    """Return the files that are written, or have a part that is, and their whole texts."""
    found = {}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = _replaced(readme, r"^\| rule \| family \|.*\n(\|.*\n)*", net_table())
    found[ROOT / "README.md"] = _replaced(readme, r"^\| rule \| classes \|.*\n(\|.*\n)*", task_table())
    classes = [f"::: {class_name(rule)}\n    options:\n      members: false\n" for rule in rule_names()]
    for path, text in (
        (PAGES / "index.md", rule_list("rules/index.md").rstrip() + "\n"),
        (ROOT / "docs" / "api" / "rules.md", "\n".join(classes)),
    ):
        found[path] = _replaced(path.read_text(encoding="utf-8"), f"{WRITTEN}(.|\n)*", f"{WRITTEN}\n{text}")
    for package in PACKAGES:
        path = ROOT.joinpath(*package.split("."), "__init__.py")
        text = path.read_text(encoding="utf-8")
        found[path] = _replaced(text, r"^if TYPE_CHECKING:  # written.*\n(    .*\n)*", imports(package))
    return found


def _replaced(text: str, part: str, by: str) -> str:
    """Return a text with the one part that a pattern matches replaced."""
    done, count = re.subn(part, lambda _: by, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"there are {count} parts to write, which begin with {part.splitlines()[0][:60]!r}, not one")
    return done


if __name__ == "__main__":
    for file, content in written().items():
        if file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")
