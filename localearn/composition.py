"""Compose a configuration from overrides, by Hydra, and explain its errors in a line."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from localearn.defaults import GROUPS
from localearn.errors import UserError, suggestion
from localearn.extras import install_line
from localearn.files import read_yaml
from localearn.options import parameters_of
from localearn.printing import say
from localearn.recipes import foreseen, recipe_overrides
from localearn.training.building import CONF, locate
from localearn.training.experiment import Choices
from localearn.trust import check_overrides, is_known, targets_of, words

PATHS = ("out", "dataset.path", "dataset.data_dir")
# The groups whose files' options may not fit a target that was typed, and what each is built from besides.
_BUILT_FROM = {"dataset": set(), "net": {"input_shape", "classes"}, "optim": {"params"}, "schedule": {"optimizer"}}


def existing_folder(config_dir: str) -> str:
    """Return the absolute path of --config-dir.

    Raises:
        UserError: Where there is no such folder.

    """
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    return str(Path(config_dir).resolve())


def compose(overrides: Sequence[str], config_dir: str | None = None) -> tuple[Any, Choices]:
    """Return the configuration with these overrides, its recipe applied, and the choices, see `chosen_names`.

    Args:
        overrides: As typed on the command line: key=value, group=name, config=FILE, trust=CLASS.
        config_dir: A folder of the user's own configuration files, searched as well as localearn's.

    Raises:
        UserError: For a key, a group or a choice that does not exist, with the nearest known name.

    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    overrides = expanded(overrides)
    about = next((override for override in overrides if re.match(r"[+~]*about\b", override)), None)
    if about is not None:
        raise UserError(f"{about}: about describes a rule in its own file, and is no option of a run")
    search = [] if config_dir is None else [f"hydra.searchpath=['file://{existing_folder(config_dir)}']"]
    given = [*search, *opened([_verbatim(override) for override in overrides])]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        try:
            parts = foreseen(given[len(search) :], config_dir)
            config, recipe = _composed_twice(given, overrides) if parts is None else _composed(given, overrides, parts)
        except (*config_errors(), ValueError) as error:
            raise UserError(explain(error, overrides, config_dir)) from error
    chosen = chosen_names(config.hydra.runtime.choices, overrides) | {"recipe": recipe}
    if config_dir is not None:
        _tell_imports(config, overrides, config_dir)
    OmegaConf.set_struct(config, False)
    for key in ("hydra", "about", "recipe", "recipes", "refused"):  # whose results the record has
        del config[key]
    _fit_to_targets(config, overrides)
    OmegaConf.set_struct(config, True)
    return config, chosen


def _composed(given: Sequence[str], overrides: Sequence[str], parts: Any) -> tuple[Any, str]:
    """Return the configuration and its recipe's name, which the parts foreseen determine.

    A composition takes as long as everything else before a small run, so there is one.
    """
    import hydra

    recipe, more = recipe_overrides(parts, overrides)
    more = [] if more == ["kind=dense"] else more  # which is there by itself
    return hydra.compose("config", [*more, *given], return_hydra_config=True), recipe


def _composed_twice(given: Sequence[str], overrides: Sequence[str]) -> tuple[Any, str]:
    """Return the configuration and its recipe's name, which only a composition without a recipe determines."""
    import hydra

    config = hydra.compose("config", list(given), return_hydra_config=True)
    recipe, more = recipe_overrides(config, overrides)
    if more != ["kind=dense"]:  # which was composed
        config = hydra.compose("config", [*more, *given], return_hydra_config=True)
    return config, recipe


def _fit_to_targets(config: Any, overrides: Sequence[str]) -> None:
    """Leave out, where `GROUP._target_=` was typed, the options of the chosen file that this target does not take.

    Those that were typed stay, for building it to refuse, and so do all where it takes any, or not what it is built
    from. A rule is left as it is: `build_rule` does the same by its file, for the folders of older runs too.
    """
    from omegaconf import OmegaConf

    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    for group, built_from in _BUILT_FROM.items():
        options: Any = config.get(group)
        if f"{group}._target_" not in typed or not OmegaConf.is_dict(options):
            continue
        try:
            parameters = parameters_of(locate(f"{group}._target_", options.get("_target_")))
        except (UserError, TypeError):  # which building it reports
            continue
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if takes_any or not parameters.keys() >= built_from:
            continue
        own = {"_target_", *(["group"] if group == "net" else [])}  # the number of blocks that `Net.group` merges
        for name in [str(name) for name in options if name not in parameters and name not in own]:
            if not any(key == f"{group}.{name}" or key.startswith(f"{group}.{name}.") for key in typed):
                options.pop(name)


def _tell_imports(config: Any, overrides: Sequence[str], config_dir: str) -> None:
    """Print which of the user's own classes the files of --config-dir have imported."""
    _, typed = words(overrides)
    for group in GROUPS:
        for key, target in targets_of({group: config[group]}):
            if not is_known(target) and target not in typed:
                say(f"--config-dir {config_dir}: {key} imports {target}", error=True)


def expanded(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with those of a file in the place of `config=FILE`; of a key given twice, the last.

    Such a file is YAML, with a list `overrides` as on the command line; a search writes its best options in this
    format.

    Args:
        overrides: As typed on the command line.

    Raises:
        UserError: Where the file cannot be read.

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


def opened(overrides: Sequence[str]) -> list[str]:
    """Return overrides as Hydra takes them where `GROUP._target_=` is among them.

    The options of that group are then the target's, which the group's files need not have: key=value is ++key=value.

    Args:
        overrides: As typed on the command line.

    """
    targets = {override.partition("=")[0].lstrip("+") for override in overrides}
    groups = [group for group in GROUPS if f"{group}._target_" in targets]
    options = tuple(f"{group}." for group in groups)
    there = tuple(f"{group}._target_=" for group in groups)
    return [f"++{o}" if o.startswith(options) and not o.startswith(there) else o for o in overrides]


def as_typed(override: str) -> str:
    """Return an override of a path without the escapes that Hydra gives it in a sweep's job."""
    key, _, value = override.lstrip("+").partition("=")
    return re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", override) if key in PATHS and value[:1] not in "'\"" else override


def _verbatim(override: str) -> str:
    """Quote a path, so that it may have any character, unless it is quoted or made from other keys."""
    key, equals, value = override.partition("=")
    if key not in PATHS or not value or value[0] in "'\"" or "${" in value or value == "null":
        return override
    return f"{key}{equals}{quoted(value)}"


def quoted(path: str | Path) -> str:
    """Return a path quoted for Hydra's grammar, whatever characters it has."""
    # In a quoted value Hydra reads a backslash as an escape only before a quote, and at the end, which is one.
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), str(path)) + "'"


def chosen_names(choices: Any, overrides: Sequence[str]) -> Choices:
    """Return the choices of a run.

    Args:
        choices: Hydra's runtime choices, by group.
        overrides: The overrides that were given.

    Returns:
        The names chosen for algo, dataset and net, fit for a file's name, and the overrides.

    Raises:
        UserError: Where one of the three is not chosen.

    """
    chosen: Choices = {"overrides": list(overrides)}
    for group in ("algo", "dataset", "net"):
        if group not in choices:
            raise UserError(f"{group} must be one of its choices, say {group}=NAME; --help lists them")
        chosen[group] = str(choices[group]).replace("/", "-")
    return chosen


def config_errors() -> tuple[type[Exception], ...]:
    """Return the exception classes that Hydra, and its YAML reader, raise for an invalid configuration."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return HydraException, OmegaConfBaseException, YAMLError


def explain(error: Exception, overrides: Sequence[str] = (), config_dir: str | None = None) -> str:
    """Return the error message of an invalid configuration, in a line or two, with the nearest known name.

    Args:
        error: One of `config_errors`.
        overrides: The overrides that were composed.
        config_dir: The folder of the user's own configuration files.

    """
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
    nameless = next((override for override in overrides if not override.partition("=")[0].strip("+~ ")), None)
    if nameless is not None:
        return f"cannot read {nameless!r}; write key=value, say epochs=5"
    missing = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if missing:
        return _no_such_key(missing[1] or missing[2], overrides, config_dir)
    if "Config group override must be" in text:
        return f"a group takes the name of one of its choices, say algo=backprop; --help lists them ({text})"
    there = re.search(r"An item is already at '([^']+)'", text)
    if there:
        return f"+{there[1]} adds a key, and {there[1]} is there; say {there[1]}=VALUE"
    if text.startswith("Error merging override") and error.__cause__ is not None:
        return f"{text.removeprefix('Error merging override ')}: {str(error.__cause__).splitlines()[0]}"
    several = re.search("Ambiguous value for argument '(.*)'", text)
    if several:
        return f"{several[1]} is several values; -m runs each of them, and [A,B] makes a list"
    unread = getattr(error, "override", None)
    if unread is not None:
        return f"cannot read {unread!r}; write key=value, say epochs=5, and put special characters in quotes"
    return text.splitlines()[0]


def _no_such_key(name: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Return the error message of an unknown key, with the nearest known one, or the choices that have it."""
    pages = "--help lists the groups, --cfg job the keys"
    others = [override for override in overrides if override.partition("=")[0] != name]
    if len(others) == len(overrides):  # the key is among them in another form
        return f"no key {name!r}; {pages}"
    try:
        config, chosen = compose(others, config_dir)
    except UserError:  # raised for something else in it
        return f"no key {name!r}; {pages}"
    group, _, option = name.rpartition(".")
    message = f"no key {name!r}" + (f" with {group}={chosen[group]}" if group in chosen else "")
    having = [path.stem for path in sorted((CONF / group).glob("*.yaml")) if name in _keys_of(path)] if group else []
    ways = [f"{', '.join(having)} {'have' if len(having) > 1 else 'has'} it"] if having else []
    if group in GROUPS and option in parameters_of(locate(group, config[group].get("_target_"))):
        ways.append(f"+{name}=VALUE adds it")
    beside = [key for key in _dotted(config) if key.rpartition(".")[0] == group and not key.endswith("_")]
    inside = [key for key in _dotted(config) if key.endswith(f".{name}") and not key.startswith("tune.")]
    near = "" if ways else suggestion(name, beside if group else [*beside, *GROUPS])
    near = f"; did you mean {inside[0]!r}?" if inside else near
    return f"{message}{near}; {' and '.join(ways) or pages}"


def _keys_of(path: Path) -> Iterator[str]:
    """Yield the dotted keys that one of the configuration's files sets."""
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
    """Return the overrides of one rule: those for all rules, followed by those written `ALGO:key=value` for it.

    Args:
        algo: The rule's name.
        algos: The names of all rules of the command.
        overrides: As typed on the command line.

    """
    prefixes = [f"{name}:" for name in algos]
    shared = [o for o in overrides if not o.startswith(tuple(prefixes))]
    return [*shared, *(o.removeprefix(f"{algo}:") for o in overrides if o.startswith(f"{algo}:"))]
