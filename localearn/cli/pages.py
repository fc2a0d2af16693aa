"""Help pages, generated from a command's declared options, and the choices of each group of a run."""

import ast
import functools
import itertools
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from localearn.cli.options import Command, Spec, options_of, spec_of
from localearn.defaults import CONF, GROUPS
from localearn.printing import one_line

WIDTH = 120  # at most, and where there is no terminal
INDENT = 21  # of the options' texts
HELP = {"-h", "--help"}


def help_status(command: Command, arguments: Sequence[str]) -> int | None:
    """Print a command's help page where it is asked for, or needed.

    Args:
        command: The command.
        arguments: Those of the command line.

    Returns:
        The exit status, None where no page was printed.

    """
    asked = bool(HELP & set(arguments))
    if asked or not (arguments or command.bare):
        print(help_page(command, config_dir_of(arguments)), end="")
        return 0 if asked else 2
    return None


def config_dir_of(arguments: Sequence[str]) -> str | None:
    """Return the folder given by --config-dir, None where there is none."""
    for word, following in itertools.zip_longest(arguments, arguments[1:]):
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            return value if equals else following
    return None


def help_page(command: Command, config_dir: str | None = None) -> str:
    """Return a command's help page: usage, description, options, the choices of its groups.

    Args:
        command: The command.
        config_dir: A folder of the user's own configuration files.

    """
    parts = [command.usage or _usage(command), command.about.strip(), "\n".join(_lines(command))]
    if command.groups:
        parts.append(choices_page(config_dir))
    if command.more:
        parts.append((command.more if isinstance(command.more, str) else command.more()).strip())
    return "\n\n".join(parts) + "\n"


def _usage(command: Command) -> str:
    kind = command.options
    placed = [str(spec_of(declared).value) for declared in options_of(kind, "argument").values()]
    required = [_shown(name, declared) for name, declared in options_of(kind).items() if declared.default is MISSING]
    return " ".join([command.line, *placed, *required, "[key=value ...]"])


def _lines(command: Command) -> Iterator[str]:
    kind = command.options
    for declared in options_of(kind, "argument").values():
        spec = spec_of(declared)
        yield from _entry(str(spec.value), spec.help)
    for name, declared in options_of(kind).items():
        yield from _entry(_shown(name, declared), _text(name, declared, kind))
    for declared in options_of(kind, "rest").values():
        yield from _entry("key=value", spec_of(declared).help)
    yield from _entry("--help", "this page")


def _shown(name: str, declared: "Field[Any]") -> str:
    """Return `name=VALUE`, the value being its default where there is no placeholder; a flag with its dashes."""
    spec = spec_of(declared)
    if spec.flag:
        return spec.flag[0] + (f" {spec.value}" if spec.value else "")
    return f"{name}={spec.value or _written(declared.default)}"


def _text(name: str, declared: "Field[Any]", kind: type) -> str:
    """Return an option's help, preceded by its other choices."""
    spec: Spec = spec_of(declared)
    if typing.get_type_hints(kind)[name] is bool:
        return spec.help
    others = [choice for choice in choices_of(kind, name) if choice not in (spec.value, declared.default)]
    if not others or declared.default in ((), None, MISSING) or isinstance(declared.default, tuple):
        return spec.help
    listed = others[0] if len(others) == 1 else f"{', '.join(others[:-1])} or {others[-1]}"
    return f"or {listed}{'; ' if spec.help else ''}{spec.help}"


def choices_of(kind: type, name: str) -> tuple[str, ...]:
    """Return the values of an option where they can be listed: the choices of its type, or true and false.

    Args:
        kind: The class of the options.
        name: The option's name.

    """
    hint: Any = typing.get_type_hints(kind)[name]
    if hint is bool:
        return () if spec_of(next(f for f in options_of(kind).values() if f.name == name)).flag else ("true", "false")
    hints = [hint, *get_args(hint)]
    return next((get_args(part) for part in hints if get_origin(part) is Literal), ())


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if isinstance(value, NoneType) else str(value)


def _entry(head: str, text: str) -> Iterator[str]:
    """Yield an option's lines: its name and value, and its text next to it or, where that is long, below."""
    width = max(2 * INDENT, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
    lines = textwrap.wrap(text, width - INDENT, break_on_hyphens=False) or [""]
    if len(head) > INDENT - 3:
        yield f"  {head}"
    else:
        yield f"  {head:<{INDENT - 2}}{lines.pop(0)}".rstrip()
    for line in lines:
        yield " " * INDENT + line


def choices_page(config_dir: str | None = None) -> str:
    """Return every group's choices, with the line in which each file describes itself."""
    lines = []
    for group in GROUPS:
        lines.append(f"{group}=")
        lines += [one_line(f"  {name:<28}{about}") for name, about in choices(group, config_dir)]
    return "\n".join(lines)


def choices(group: str, config_dir: str | None = None) -> list[tuple[str, str]]:
    """Return a group's choices, each with the line in which its file describes itself.

    Args:
        group: "algo", "dataset", "net", "optim" or "schedule".
        config_dir: A folder of the user's own configuration files.

    """
    folders = [CONF / group] + ([Path(config_dir) / group] if config_dir else [])
    return [(path.stem, about(path)) for path in sorted(p for folder in folders for p in folder.glob("*.yaml"))]


def about(path: Path) -> str:
    """Return the line in which one of the configuration's files describes itself: its first comment."""
    comments = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def config_keys_page() -> str:
    """Return the keys of a run's configuration, with their defaults and their comments in config.yaml."""
    return "\n".join(line for key, value, text in _config_keys() for line in _entry(f"{key}={value}", text))


def config_key_names() -> list[str]:
    """Return the keys of a run's configuration."""
    return [key for key, _, _ in _config_keys()]


def _config_keys() -> Iterator[tuple[str, str, str]]:
    """Yield each key of config.yaml, its default and its comment, except those that a command declares itself."""
    group = ""
    for line in (CONF / "config.yaml").read_text(encoding="utf-8").split("\n\n", 1)[1].splitlines():
        if line.startswith("hydra:"):
            break
        head, _, text = line.partition("#")
        name, _, value = head.strip().partition(":")
        if not head.strip() or name in (
            "about",
            "recipes",
            "refused",
            "tune",
            "space",
            "resume",
            "out",
            "debug",
            "recipe",
        ):
            continue
        if not line.startswith(" "):
            group = name
        key = name if group == name else f"{group}.{name}"
        if value.strip():
            shown = value.strip().strip('"')
            yield key, shown, text.strip() or _of_settings(key)


def _of_settings(key: str) -> str:
    """Return the text of a key that is an option of `Settings`, in the words of the command line."""
    name = "energy" if key == "energy.enabled" else key.removeprefix("energy.")
    text = _settings_docstrings().get(name, "").replace("`", "")
    return re.sub(r"\b(None|True|False)\b", lambda word: {"None": "null"}.get(word[0], word[0].lower()), text)


@functools.cache
def _settings_docstrings() -> dict[str, str]:
    """Return the docstring of each field of `Settings`, read from the file, whose import needs torch."""
    source = CONF.with_name("training") / "settings.py"
    module = ast.parse(source.read_text(encoding="utf-8"))
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
