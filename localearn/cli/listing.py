"""`localearn list`: list the rules, nets, data sets, tasks and recipes, and which go together."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, choice
from localearn.cli.pages import HELP, choices, config_dir_of, help_page
from localearn.defaults import CONF, rule_names
from localearn.errors import UserError
from localearn.files import read_yaml
from localearn.printing import one_line


@dataclass(frozen=True)
class ListOptions(Options):
    """The options of a list: only its subject."""


COMMAND = Command(
    "list",
    SUMMARIES["list"],
    ListOptions,
    """\
Shows what a run can be made of, a line each: all of it, or rules, nets, data, tasks or presets alone. What a rule
serves is asked of the rule itself: it is built on a small net of each kind, or refuses it.
""",
    bare=True,
    usage="localearn list [rules|nets|data|tasks|presets] [--config-dir DIR]",
)


def main(arguments: list[str]) -> int:
    """Print the lists that are asked for; return the exit status."""
    if HELP & set(arguments):
        print(help_page(COMMAND), end="")
        return 0
    config_dir = config_dir_of(arguments)
    words = [word for word in arguments if not word.startswith("-") and word != config_dir]
    for word in words:
        choice("list", word, list(LISTS))
    for number, name in enumerate(words or LISTS):
        print("\n" * (number > 0) + f"{name}:")
        for line in LISTS[name](config_dir):
            print(one_line(f"  {line}"))
    return 0


def _rules(config_dir: str | None) -> Iterator[str]:
    for name, about in choices("algo", config_dir):
        yield f"{name:<28}{about}"
        kinds, tasks = served(name)
        if kinds:
            yield f"{'':<28}nets: {', '.join(kinds)}; tasks: {', '.join(tasks)}"
        refused = _file("algo", name, config_dir).get("refused") or {}
        if refused:
            yield f"{'':<28}no default recipe on: {', '.join(refused)}"


def _nets(config_dir: str | None) -> Iterator[str]:
    from localearn.training.building import net_kind

    for name, about in choices("net", config_dir):
        kind = net_kind(_group("net", name, config_dir))
        yield f"{name:<28}{about} [{kind}]"


def _data(config_dir: str | None) -> Iterator[str]:
    for name, about in choices("dataset", config_dir):
        file = _file("dataset", name, config_dir)
        chosen = {key.rpartition("/")[2]: value for entry in file.get("defaults", ()) for key, value in entry.items()}
        net = f" [net={chosen['net']}]" if "net" in chosen else ""
        yield f"{name:<28}{about}{net}"


def _tasks(config_dir: str | None) -> Iterator[str]:
    from localearn.tasks import KINDS

    for name, task in KINDS.items():
        about = (inspect.getdoc(task) or "").partition("\n")[0]
        yield f"{name:<28}{about}"


def _presets(config_dir: str | None) -> Iterator[str]:
    for name, _ in choices("algo", config_dir):
        recipes = _file("algo", name, config_dir).get("recipes", {})
        for recipe, lines in recipes.items():
            yield f"{f'{name} recipe={recipe}':<44}{' '.join(map(str, lines)) if lines else 'the general options'}"


LISTS: dict[str, Callable[[str | None], Iterator[str]]] = {
    "rules": _rules,
    "nets": _nets,
    "data": _data,
    "tasks": _tasks,
    "presets": _presets,
}


@functools.cache
def served(name: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the kinds of net and of task of the conformance suite that a rule supports.

    The rule is built on a small net of each kind, and refuses those that it does not support. Both are empty for a rule
    that localearn does not ship.

    Args:
        name: The rule's name.

    """
    from localearn.testing import KINDS, TASKS, toy
    from localearn.training.building import build_rule, rule_class

    if name not in rule_names():
        return (), ()
    options = _group("algo", name, None)
    kinds = [kind for kind in KINDS if not _refused(lambda kind=kind: build_rule(options, toy(kind).net(), name))]
    tasks = ["classes"] if kinds else []
    for task in [task for task in TASKS if task != "classes"]:
        given = toy(task)
        rule = rule_class(options)
        if not _refused(lambda rule=rule, given=given: rule.supports(given.net(), given.data)):
            tasks.append(task)
    return kinds, tasks


def _refused(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except UserError:
        return True
    return False


def _file(group: str, name: str, config_dir: str | None) -> dict[str, Any]:
    folders = [CONF, *([Path(config_dir)] if config_dir else [])]
    read: Any = read_yaml(next(path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()))
    return read if isinstance(read, dict) else {}


def _group(group: str, name: str, config_dir: str | None) -> dict[str, Any]:
    """Return the options that a file sets in its own group."""
    file = _file(group, name, config_dir)
    return file.get(group, {}) if "_target_" not in file else file
