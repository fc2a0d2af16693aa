"""What a search may try: the options that a configuration's `tune.space` names, with their ranges."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from localearn.errors import UserError, suggestion

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FIELDS = ("low", "high", "log", "step", "choices")
# Options of a run's place and of its chance: a search over them would choose a lucky seed, or another machine.
FIXED = (
    "seed", "out", "resume", "device", "log", "progress", "debug", "callbacks", "protocol", "parallel",
    "rank_timeout_s", "dataset.path", "dataset.data_dir", "dataset.split_seed", "dataset.name",
)  # fmt: skip
_EXAMPLE = "say {low: 0.0001, high: 0.1, log: true} or {choices: [relu, tanh]}"


def read_space(config: Mapping[str, Any]) -> dict[str, "BaseDistribution"]:
    """Return Optuna's distribution of each option that `config["tune"]["space"]` names, by its dotted path.

    config: a resolved configuration, with every option in its place; the space has its shape, with a range where an
    option has its value:

        tune:
          space:
            optim: {lr: {low: 0.0001, high: 0.1, log: true}}
            net: {widths: {choices: [[1000], [1000, 1000]]}}

    low, high: the ends, both included; whole numbers give whole numbers, unless the option's own value is a float. log:
    whether magnitudes are as likely. step: the distance of what is tried, where not log. choices: the values
    themselves; Optuna stores no lists, so one becomes the text that an override takes.
    Raises UserError for an option that the configuration has not, for a range that is none, and for an empty space.
    """
    space = {path: _distribution(path, given, value) for path, given, value in _ranges(config["tune"]["space"], config)}
    if not space:
        raise UserError(f"there is nothing to search: give tune.space.optim.lr a range, {_EXAMPLE}")
    return space


def ends(given: "BaseDistribution") -> list[Any]:
    """Return the least and the greatest value of a range, or all its choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(given, CategoricalDistribution):
        return list(given.choices)
    assert isinstance(given, FloatDistribution | IntDistribution)
    return [given.low, given.high]


def _ranges(space: Any, options: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield dotted paths with ranges and present values; `options` is the part of the configuration that is meant."""
    if not isinstance(space, Mapping):
        raise UserError(f"tune.space.{prefix.removesuffix('.')} must be a range, {_EXAMPLE}, not {space!r}")
    for name, given in space.items():
        path = f"{prefix}{name}"
        if path in FIXED or path.startswith("energy") or str(name) == "_target_":
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
        return CategoricalDistribution([shown(choice) if isinstance(choice, list) else choice for choice in choices])
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


def shown(values: list[Any]) -> str:
    """Return a list as the text that stands for it in a study, and in an override."""
    return json.dumps(values, separators=(",", ":"))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
