"""Read a command line: lists, whole numbers, true and false, Hydra's flags; show the choices of each group."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from localearn.defaults import CONF
from localearn.errors import UserError, suggestion
from localearn.printing import one_line
from localearn.training.experiment import GROUPS

# Hydra's flags that are of use here: the values that each takes, None where it takes none.
FLAGS: dict[str, tuple[str, ...] | None] = {
    "-m": None,
    "--multirun": None,
    "-c": ("job", "hydra", "all"),
    "--cfg": ("job", "hydra", "all"),
    "--resolve": None,
}


def listed(text: str) -> list[str]:
    """Return the names in `[a,b,c]` or `a,b,c`; raise UserError for an empty one, or one that stands there twice."""
    names = [name.strip() for name in text.strip().removeprefix("[").removesuffix("]").split(",")]
    if not all(names):
        raise UserError(f"cannot read the list {text!r}; write it as [a,b,c]")
    doubled = [name for i, name in enumerate(names) if name in names[:i]]
    if doubled:
        raise UserError(f"{doubled[0]!r} stands twice in {text!r}")
    return names


def whole(name: str, text: str, least: int = 1) -> int:
    """Return a whole number; raise UserError for anything else, or one below `least`."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise UserError(f"{name} takes whole numbers of {least} or more, not {text!r}")
    return int(text)


def truth(name: str, text: str) -> bool:
    """Return what `true` or `false` says; raise UserError for anything else."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name} is true or false, not {text!r}")
    return text.lower() == "true"


def refuse_other_rules(overrides: Iterable[str], algos: Sequence[str], given: str) -> None:
    """Raise UserError for an override `ALGO:key=value` of a rule that is not among the `given` ones."""
    for override in overrides:
        algo, colon, _ = override.partition("=")[0].partition(":")
        if colon and algo not in algos:
            raise UserError(f"{override}: {algo!r} is not among {given}{suggestion(algo, algos)}")


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flags, which are Hydra's, before the overrides; it wants them so.

    Raises UserError for a flag that is not in FLAGS or a value that is none of its own.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag not in FLAGS:
            raise UserError(f"no flag {flag!r}; --help lists them, and keys have no dashes: {flag.lstrip('-')}=VALUE")
        flags.append(flag)
        values = FLAGS[flag]
        if values is not None:
            value = value if equals else rest.pop(0) if rest else ""
            if value not in values:
                raise UserError(f"{flag} takes {' or '.join(values)}, not {value!r}")
            flags.append(value)
    return flags + overrides


def choices_page(config_dir: str | None = None) -> str:
    """Return every group's choices, with the line that each file has on itself."""
    lines = []
    for group in GROUPS:
        lines.append(f"{group}=")
        folders = [CONF / group] + ([Path(config_dir) / group] if config_dir else [])
        for path in sorted(p for folder in folders for p in folder.glob("*.yaml")):
            comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
            about = next((c for c in comments if not c.startswith("@package")), "")
            lines.append(one_line(f"  {path.stem:<28}{about}"))
    return "\n".join(lines)


def take_option(arguments: list[str], *names: str) -> str | None:
    """Remove `--name VALUE` or `--name=VALUE` from the arguments and return the value, None where it is not there."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in names:
            continue
        if equals:
            del arguments[index]
            return value
        if index + 1 == len(arguments):
            raise UserError(f"{flag} needs a value")
        value = arguments[index + 1]
        del arguments[index : index + 2]
        return value
    return None
