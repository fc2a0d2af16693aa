"""What several doors read alike from their command lines: lists, whole numbers, truths, one rule's own overrides."""

import re
from collections.abc import Iterable, Sequence

from localearn.errors import UserError, suggestion


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


def overrides_of(algo: str, algos: Iterable[str], overrides: Sequence[str]) -> list[str]:
    """Return the overrides that are for all rules, and behind them those written `ALGO:key=value` for this one."""
    prefixes = [f"{name}:" for name in algos]
    shared = [o for o in overrides if not o.startswith(tuple(prefixes))]
    return [*shared, *(o.removeprefix(f"{algo}:") for o in overrides if o.startswith(f"{algo}:"))]
