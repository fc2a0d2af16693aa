"""Trust: the classes that a file may name, localearn's own and torch's optimizers and schedules, and the user's."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from localearn import registry
from localearn.errors import UserError

# Only these are imported or called because a file names them. Each builds an object and runs no code of a file's.
OWN = frozenset(
    {
        *(rule.target for rule in registry.rules().values()),
        *(f"localearn.{name}" for name in (*registry.NETS, *registry.TASKS, "load")),
        *(f"localearn.tasks.{name}" for name in registry.TASKS),
        *(f"localearn.data.{name}" for name in registry.DATA),
        "localearn.training.optimization.CoolDown",
        "localearn.training.optimization.FractionSteps",
        "localearn.training.optimization.StepWithDecay",
    }
)
_TORCH = re.compile(r"torch\.optim\.(lr_scheduler\.)?[A-Z][A-Za-z0-9]*", re.ASCII)


def is_known(target: object) -> bool:
    """Return whether a `_target_` is a class of localearn's own, or one of torch's optimizers and schedules."""
    return isinstance(target, str) and (target in OWN or _TORCH.fullmatch(target) is not None)


def targets_of(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every `_target_` in a tree of mappings and lists.

    Args:
        tree: Plain values.
        path: The dotted key of the tree itself.

    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            key = f"{path}.{name}" if path else str(name)
            if str(name).rpartition(".")[2] == "_target_":
                yield key, value
            yield from targets_of(value, key)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from targets_of(value, f"{path}[{index}]")


def check_tree(where: object, tree: Any, trust: Collection[str] = ()) -> None:
    """Check that a tree that was read from a file names only classes that are known or trusted.

    Args:
        where: The file, for the error message.
        tree: Its content, as plain values, with its interpolations resolved.
        trust: The classes that the user trusts, as `module.Class`.

    Raises:
        UserError: Where it names another one.

    """
    for key, target in targets_of(tree):
        if not is_known(target) and not (isinstance(target, str) and target in trust):
            raise UserError(
                f"{where}: {key} is {target!r}, which is none of localearn's or torch.optim's classes, and a file runs "
                f"no code by itself; if you trust it, say trust={target}"
            )


def check_interpolations(where: object, tree: Any, path: str = "") -> None:
    """Check that interpolations in a file only use the file's own keys, unlike `${oc.env:HOME}`.

    Args:
        where: The file, for the error message.
        tree: Its content, as plain values, with its interpolations unresolved.
        path: The dotted key of the tree itself.

    Raises:
        UserError: Where one asks for more.

    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            check_interpolations(where, value, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            check_interpolations(where, value, f"{path}[{index}]")
    elif isinstance(tree, str) and re.search(r"\$\{[^}]*:", tree):
        raise UserError(f"{where}: {path} is {tree!r}; a file's ${{...}} names keys of the file, and calls nothing")


def check_overrides(where: object, overrides: Iterable[str], trust: Collection[str] = ()) -> None:
    """Check that overrides that were read from a file name no unknown class and no option of Hydra's own.

    Args:
        where: The file, for the error message.
        overrides: The overrides.
        trust: The classes that the user trusts, as `module.Class`.

    Raises:
        UserError: Where they do.

    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
            key = parsed.key_or_group
            value = None if parsed.is_delete() else parsed.value()
        except HydraException:
            key, _, value = override.lstrip("+~").partition("=")
        # The lines of a recipe are overrides themselves.
        if re.match(r"(hydra|about|recipes|refused)\b", key) or key in ("config", "trust", "resume"):
            raise UserError(f"{where}: {override!r} is for the command line, and is not taken from a file")
        tree = {key: _plain(value)}
        check_interpolations(where, tree)
        check_tree(where, tree, trust)


def words(overrides: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the overrides without `trust=`, and the classes that the user trusts on the command line.

    Those are the ones in `trust=module.Class` or `trust=[a.B,c.D]`, and every `_target_=` that was typed.

    Args:
        overrides: As typed on the command line.

    """
    rest, trusted = [], set()
    for override in overrides:
        key, equals, value = override.partition("=")
        if key == "trust" and equals:
            trusted |= {name.strip(" '\"") for name in value.strip("[]").split(",")} - {""}
            continue
        if equals and key.rpartition(".")[2] == "_target_":
            trusted.add(value.strip("'\""))
        rest.append(override)
    return rest, trusted


def _plain(value: Any) -> Any:
    """Return the plain values that Hydra's grammar has parsed; quoted text as text."""
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value if isinstance(value, bool | int | float | str | None) else str(getattr(value, "text", value))
