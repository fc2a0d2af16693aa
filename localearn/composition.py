"""Compose a configuration from overrides, by Hydra, and say in a line what was wrong with it."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from localearn.errors import UserError, suggestion
from localearn.extras import install_line
from localearn.files import read_yaml
from localearn.options import parameters_of
from localearn.printing import say
from localearn.recipes import foreseen, recipe_overrides
from localearn.training.building import CONF, locate
from localearn.training.experiment import GROUPS, Choices
from localearn.trust import check_overrides, is_known, targets_of, words

PATHS = ("out", "dataset.path", "dataset.data_dir")


def existing_folder(config_dir: str) -> str:
    """Return the absolute path of --config-dir, or raise UserError if there is no such folder."""
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    return str(Path(config_dir).resolve())


def compose(overrides: Sequence[str], config_dir: str | None = None) -> tuple[Any, Choices]:
    """Return the configuration with these overrides, and what was chosen, see `chosen_names`.

    Raises UserError, with the nearest known name, for a key, a group or a choice that is not there.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    overrides = expanded(overrides)
    search = [] if config_dir is None else [f"hydra.searchpath=['file://{existing_folder(config_dir)}']"]
    given = [*search, *map(_verbatim, overrides)]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        try:
            found = None if config_dir else _composed_once(given, overrides)
            config, recipe = found or _composed_twice(given, overrides)
        except (*config_errors(), ValueError) as error:
            raise UserError(explain(error, overrides, config_dir)) from error
    chosen = chosen_names(config.hydra.runtime.choices, overrides) | {"recipe": recipe}
    if config_dir is not None:
        _tell_imports(config, overrides, config_dir)
    OmegaConf.set_struct(config, False)
    for key in ("hydra", "recipe", "recipes", "refused"):  # of which the record says what they came to
        del config[key]
    OmegaConf.set_struct(config, True)
    return config, chosen


def _composed_once(given: Sequence[str], overrides: Sequence[str]) -> tuple[Any, str] | None:
    """Return the configuration and its recipe's name; None where the recipe is not foreseen, or something is wrong.

    To compose takes as long as all else before a small run; what is wrong `_composed_twice` says.
    """
    import hydra

    config = foreseen(overrides)
    if config is None:
        return None
    try:
        recipe, more = recipe_overrides(config, overrides)
        more = [] if more == ["kind=dense"] else more  # which is there by itself
        return hydra.compose("config", [*more, *given], return_hydra_config=True), recipe
    except (*config_errors(), UserError, ValueError):
        return None


def _composed_twice(given: Sequence[str], overrides: Sequence[str]) -> tuple[Any, str]:
    """Return the configuration and its recipe's name, which what is composed without a recipe says."""
    import hydra

    config, missing = _composed_first(given)
    recipe, more = recipe_overrides(config, overrides)
    if missing and not any(line.startswith("net=") for line in more):
        raise missing
    if more != ["kind=dense"]:  # which was composed
        config = hydra.compose("config", [*more, *given], return_hydra_config=True)
    return config, recipe


def _composed_first(given: Sequence[str]) -> tuple[Any, Exception | None]:
    """Return the configuration before its recipe, which may choose the net, and what was wrong with the net's options.

    Where that is something, they are left out.
    """
    import hydra

    try:
        return hydra.compose("config", list(given), return_hydra_config=True), None
    except config_errors() as error:
        rest = [override for override in given if not override.startswith("net.")]
        return hydra.compose("config", rest, return_hydra_config=True), error


def _tell_imports(config: Any, overrides: Sequence[str], config_dir: str) -> None:
    """Print which classes of somebody's own the files of --config-dir have imported."""
    _, typed = words(overrides)
    for group in GROUPS:
        for key, target in targets_of({group: config[group]}):
            if not is_known(target) and target not in typed:
                say(f"--config-dir {config_dir}: {key} imports {target}", error=True)


def expanded(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with those of a file in the place of `config=FILE`; of a key given twice, the last.

    Such a file is yaml, with a list `overrides` as they would stand on the command line; a search writes its best so.
    Raises UserError where it cannot be read.
    """
    given: list[str] = []
    overrides, trusted = words(overrides)
    for override in overrides:
        key, equals, value = override.partition("=")
        given += _read_overrides(value, trusted) if key == "config" and equals else [override]
    last = {override.partition("=")[0].lstrip("+"): index for index, override in enumerate(given)}
    return [override for index, override in enumerate(given) if last[override.partition("=")[0].lstrip("+")] == index]


def _read_overrides(path: str, trust: Collection[str]) -> list[str]:
    try:
        read = read_yaml(Path(path.strip("'\"")).expanduser())
    except UserError as error:
        raise UserError(f"config={path}: {error}") from error
    overrides = read.get("overrides") if isinstance(read, dict) else None
    if not isinstance(overrides, list) or not all(isinstance(o, str) and "=" in o for o in overrides):
        raise UserError(f"config={path} must hold a list, overrides: [algo=backprop, optim.lr=0.01]")
    check_overrides(f"config={path}", overrides, trust)
    return overrides


def _verbatim(override: str) -> str:
    """Quote a path, so that any character may stand in it, unless it is quoted or made from other keys."""
    key, equals, value = override.partition("=")
    if key not in PATHS or not value or value[0] in "'\"" or "${" in value or value == "null":
        return override
    return f"{key}{equals}{quoted(value)}"


def quoted(path: str | Path) -> str:
    """Return a path as Hydra's grammar takes it, whatever characters it has."""
    # In a quoted value Hydra reads a backslash as an escape only before a quote, and at the end, which is one.
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), str(path)) + "'"


def chosen_names(choices: Any, overrides: Sequence[str]) -> Choices:
    """Return the names chosen for algo, dataset and net, fit for a file's name, and the overrides that were given."""
    chosen: Choices = {"overrides": list(overrides)}
    for group in ("algo", "dataset", "net"):
        if group not in choices:
            raise UserError(f"{group} must be one of its choices, say {group}=NAME; --help lists them")
        chosen[group] = str(choices[group]).replace("/", "-")
    return chosen


def config_errors() -> tuple[type[Exception], ...]:
    """Return what Hydra, and what it reads yaml with, raise for a configuration that is wrong."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return HydraException, OmegaConfBaseException, YAMLError


def explain(error: Exception, overrides: Sequence[str] = (), config_dir: str | None = None) -> str:
    """Return what was wrong with a configuration, in a line or two, with the nearest known name."""
    from hydra.errors import MissingConfigException
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and name.startswith(("joblib", "submitit")):
            return f"hydra/launcher={name} needs a launcher of Hydra's; {install_line('sweep')}"
        return f"no {group} {name!r}{suggestion(name, error.options)}; there are {', '.join(error.options)}"
    missing = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if missing:
        return _no_such_key(missing[1] or missing[2], overrides, config_dir)
    if "Config group override must be" in text:
        return f"a group takes the name of one of its choices, say algo=backprop; --help lists them ({text})"
    several = re.search("Ambiguous value for argument '(.*)'", text)
    if several:
        return f"{several[1]} is several values; -m runs each of them, and [A,B] makes a list"
    unread = getattr(error, "override", None)
    if unread is not None:
        return f"cannot read {unread!r}; write key=value, say epochs=5, and put special characters in quotes"
    return text.splitlines()[0]


def _no_such_key(name: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Return that a key is not there, with the nearest of those that are, or with the choices that have it."""
    pages = "--help lists the groups, --cfg job the keys"
    others = [override for override in overrides if override.partition("=")[0] != name]
    if len(others) == len(overrides):  # the key stands there in another form
        return f"no key {name!r}; {pages}"
    try:
        config, chosen = compose(others, config_dir)
    except UserError:  # of something beside it
        return f"no key {name!r}; {pages}"
    group, _, option = name.rpartition(".")
    told = f"no key {name!r}" + (f" with {group}={chosen[group]}" if group in chosen else "")
    having = [path.stem for path in sorted((CONF / group).glob("*.yaml")) if name in _keys_of(path)] if group else []
    ways = [f"{', '.join(having)} {'have' if len(having) > 1 else 'has'} it"] if having else []
    if group in ("algo", "net") and option in parameters_of(locate(group, config[group].get("_target_"))):
        ways.append(f"+{name}=VALUE adds it")
    beside = [key for key in _dotted(config) if key.rpartition(".")[0] == group and not key.endswith("_")]
    near = "" if ways else suggestion(name, beside if group else [*beside, *GROUPS])
    return f"{told}{near}; {' and '.join(ways) or pages}"


def _keys_of(path: Path) -> Iterator[str]:
    """Yield the keys, dotted, that one of the configuration's files sets."""
    from omegaconf import OmegaConf

    global_package = "@package _global_" in path.read_text()
    prefix = "" if global_package or path.parent == CONF else f"{path.parent.name}."
    return _dotted(OmegaConf.load(path), prefix)


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for name in node:
        yield f"{prefix}{name}"
        child = node._get_node(name)
        if isinstance(child, DictConfig):
            yield from _dotted(child, f"{prefix}{name}.")


def overrides_of(algo: str, algos: Iterable[str], overrides: Sequence[str]) -> list[str]:
    """Return the overrides that are for all rules, and behind them those written `ALGO:key=value` for this one."""
    prefixes = [f"{name}:" for name in algos]
    shared = [o for o in overrides if not o.startswith(tuple(prefixes))]
    return [*shared, *(o.removeprefix(f"{algo}:") for o in overrides if o.startswith(f"{algo}:"))]
