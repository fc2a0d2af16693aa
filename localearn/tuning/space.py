"""The space of a search: the options that its trials vary, with their ranges."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from localearn.errors import UserError, suggestion

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# The space of a search: `tune.space` of a configuration.
FIELDS = ("low", "high", "log", "step", "choices")
# Options of a run's place and of its chance: a search over them would choose a lucky seed, or another machine.
_UNSEARCHED = (
    "seed", "out", "resume", "device", "log", "progress", "debug", "callbacks", "protocol", "parallel",
    "rank_timeout_s", "dataset.path", "dataset.data_dir", "dataset.split_seed", "dataset.name",
)  # fmt: skip
_EXAMPLE = "say {low: 0.0001, high: 0.1, log: true} or {choices: [relu, tanh]}"


def read_space(config: Mapping[str, Any]) -> dict[str, "BaseDistribution"]:
    """Return Optuna's distribution of each option that `config["tune"]["space"]` names, by its dotted path.

    The space has the configuration's shape, with a range where an option has its value:

        tune:
          space:
            optim: {lr: {low: 0.0001, high: 0.1, log: true}}
            net: {widths: {choices: [[1000], [1000, 1000]]}}

    Of a range, `low` and `high` are the ends, both included; whole numbers give whole numbers, unless the option's own
    value is a float. With `log` magnitudes are equally likely; `step` is the distance of what is tried, where not log.
    `choices` are the values themselves; Optuna stores no lists, so one becomes the text that an override takes.

    Args:
        config: a resolved configuration, with every option in its place.

    Raises:
        UserError: when the configuration has no such option, a range is none, or the space is empty.

    """
    space = {path: _distribution(path, given, value) for path, given, value in _ranges(config["tune"]["space"], config)}
    if not space:
        raise UserError(f"there is nothing to search: give tune.space.optim.lr a range, {_EXAMPLE}")
    return space


def _ranges(space: Any, options: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield dotted paths with ranges and present values; `options` is that part of the configuration."""
    if not isinstance(space, Mapping):
        raise UserError(f"tune.space.{prefix.removesuffix('.')} must be a range, {_EXAMPLE}, not {space!r}")
    for name, given in space.items():
        path = f"{prefix}{name}"
        if path in _UNSEARCHED or path.startswith("energy") or str(name) == "_target_":
            raise UserError(f"tune.space.{path}: a search varies what a rule is trained with, not {path}")
        if not isinstance(options, Mapping) or name not in options:
            known = list(options) if isinstance(options, Mapping) else []
            raise UserError(f"tune.space.{path}: there is no option {path}{suggestion(str(name), known)}")
        if isinstance(options[name], Mapping):
            yield from _ranges(given, options[name], f"{path}.")
        elif isinstance(given, Mapping):
            yield path, given, options[name]
        else:
            raise UserError(f"tune.space.{path} must be a range, {_EXAMPLE}, not {given!r}")


def _distribution(path: str, given: Mapping[str, Any], value: Any) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    for field in given:
        if field not in FIELDS:
            raise UserError(f"tune.space.{path} has no {field!r}{suggestion(str(field), FIELDS)}; {_EXAMPLE}")
    if "choices" in given:
        choices = given["choices"]
        if len(given) > 1 or not isinstance(choices, list) or not choices:
            raise UserError(f"tune.space.{path}.choices must be a list of values, alone, not {dict(given)}")
        return CategoricalDistribution(
            [as_override(choice) if isinstance(choice, list) else choice for choice in choices]
        )
    low, high, step, log = (given.get(field) for field in ("low", "high", "step", "log"))
    if not _is_number(low) or not _is_number(high) or low >= high:
        raise UserError(f"tune.space.{path} needs numbers low < high, not {low!r} and {high!r}")
    if log not in (None, True, False) or (log and low <= 0):
        raise UserError(f"tune.space.{path}: log is true or false, and true needs low > 0, not {low!r}")
    if step is not None and (log or not _is_number(step) or not 0 < step <= high - low):
        raise UserError(
            f"tune.space.{path}.step must be positive, at most high - low, and not beside log, not {step!r}"
        )
    if all(isinstance(number, int) for number in (low, high, step or 1)) and not isinstance(value, float):
        return IntDistribution(int(low), int(high), log=bool(log), step=int(step or 1))
    return FloatDistribution(low, high, log=bool(log), step=step)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_override(values: list[Any]) -> str:
    """Return a list as the text by which an override and a study's storage represent it.

    Args:
        values: the list.

    """
    return json.dumps(values, separators=(",", ":"))


def ends(given: "BaseDistribution") -> list[Any]:
    """Return the least and the greatest value of a range, or all its choices.

    Args:
        given: the range.

    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(given, CategoricalDistribution):
        return list(given.choices)
    assert isinstance(given, FloatDistribution | IntDistribution)
    return [given.low, given.high]


def altered(space: dict[str, Any], ranges: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    """Return a space with overrides of it applied, each `tune.space.OPTION=RANGE`, OPTION=null to leave it out.

    OPTION is an option's dotted path, or its last name where one group alone has it (lr for optim.lr). A range's own
    field may follow it: tune.space.lr.high=0.1.

    Args:
        space: the algorithm's own.
        ranges: the overrides.
        config: a resolved configuration, with every option in its place.

    Raises:
        UserError: when an override cannot be read, or its option is not there.

    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    changed = _copied(space)
    for override in ranges:
        try:
            parsed = OverridesParser.create().parse_override(override)
            value = parsed.value()
        except HydraException as error:
            raise UserError(f"cannot read {override!r}; say tune.space.lr={{low:1e-4,high:0.1,log:true}}") from error
        path = parsed.key_or_group.removeprefix("tune.space.").split(".")
        head, *rest = _located(path[0], config)
        *branch, last = [head, *rest, *path[1:]]
        node = changed
        for name in branch:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UserError(f"tune.space.{'.'.join(path)}: {name} is no group")
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return _without_empty(changed)


def _located(name: str, config: dict[str, Any]) -> list[str]:
    """Return an option's path: at the top, or in the one group that has it."""
    if name in config:
        return [name]
    groups = [group for group, options in config.items() if isinstance(options, dict) and name in options]
    groups = [group for group in groups if group != "tune"]
    if len(groups) == 1:
        return [groups[0], name]
    if groups:
        raise UserError(f"tune.space.{name} may be {' or '.join(f'tune.space.{group}.{name}' for group in groups)}")
    options = {option for values in config.values() if isinstance(values, dict) for option in values}
    raise UserError(f"tune.space.{name}: there is no option {name}{suggestion(name, {*config, *options})}")


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: _copied(branch) if isinstance(branch, dict) else branch for name, branch in tree.items()}


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    branches = {name: _without_empty(branch) if isinstance(branch, dict) else branch for name, branch in tree.items()}
    return {name: branch for name, branch in branches.items() if branch != {}}
