"""Recipes: the options that a rule trains a kind of net with where the user sets none.

A rule's configuration file, conf/algo/<rule>.yaml, has its options, an optimizer and a schedule. It may also have
`recipes`, lists of overrides by kind of net (`Net.kind`: dense, maps, graph, sequence) and by name (paper):

    recipes:
      maps: [algo.goodness=mean, optim=adam]
      paper: [net=mlp_3x1000, dataset.normalize=unit]

`recipe=default` takes the list of the net's kind, or that named `values` where a rule has one and the data's task has
no classes, as the option `dataset.task` says before any data are read; `recipe=paper` the published recipe, and
`recipe=alike`, which a comparison uses, the default's without its options of the net, the data and the batch. The
user's options take precedence. The base of all is conf/kind/<kind>.yaml: the options with which every rule starts on
such a net. `localearn.defaults` composes the same for Python.

Where no options are known by which a rule learns on a net, the file says so under `refused`, by the net's class:

    refused:
      LeNet: it stays below a linear classifier; use net=cnn

Then `recipe=default` is refused with that text; to run it all the same, name a recipe: recipe=maps.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from localearn.data.sources import task_named
from localearn.defaults import CONF, KINDS, VALUES, choices_in, read_file
from localearn.errors import UserError, suggestion
from localearn.files import read_yaml
from localearn.tasks import KINDS as TASKS
from localearn.tasks import NAMED
from localearn.training.building import net_kind

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

SHARED = ("net", "dataset", "batch_size")  # what rules that are compared have alike, which recipe=alike leaves alone


def recipe_overrides(config: Any, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the recipe for a composed configuration, and the overrides that it adds to the user's.

    Args:
        config: The configuration composed without a recipe, an omegaconf DictConfig, or the result of `foreseen`. Its
            `recipe`, `recipes` and `refused`, and the groups `net` and `dataset` are read.
        overrides: The overrides that the user typed. A key among them keeps the user's value, and a group its choice:
            with optim=adam none of the recipe's optim.* is taken.

    Returns:
        The name, a kind of net or that of `recipe`, and overrides as a command line takes them: the group `kind`, and
        the rule's overrides of that recipe.

    Raises:
        UserError: For a `recipe` that the rule does not have, one that is not a list of overrides, or a default that is
            refused for such a net.

    """
    recipes: Any = config.recipes or {}
    if not isinstance(recipes, Mapping):
        raise UserError(f"recipes must be lists of overrides by name, say {{dense: [optim.lr=0.1]}}, not {recipes!r}")
    named = "null" if config.recipe is None else str(config.recipe)
    known = ["default", "alike", "paper", *KINDS, *(str(name) for name in recipes if name not in (*KINDS, "paper"))]
    if named not in known:
        raise UserError(f"no recipe {named!r}{suggestion(named, known)}; there are {', '.join(known)}")
    kind = net_kind(config.net)
    default = VALUES if VALUES in recipes and not _has_classes(task_named(config.dataset)) else kind
    name = default if named in ("default", "alike") else named
    net = str(config.net.get("_target_")).rpartition(".")[2]
    refused = config.refused if isinstance(config.refused, Mapping) else {}
    if named == "default" and refused.get(net):
        raise UserError(f"no default recipe for {net}: {refused[net]}; recipe={name} runs it all the same")
    lines = recipes.get(name) or []
    listed = isinstance(lines, Sequence) and not isinstance(lines, str)
    if not listed or not all(isinstance(line, str) and "=" in line for line in lines):
        raise UserError(f"recipes.{name} must be a list of overrides, say [optim=sgd, optim.lr=0.1]")
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides}
    keys = [line.partition("=")[0] for line in lines]
    # The optimizer, the schedule or the net that the user chose takes no option that was meant for another.
    chosen = {group for group in ("optim", "schedule", "net") if group in typed and (group != "net" or "net" in keys)}
    chosen |= set(SHARED) if named == "alike" else set()
    chosen |= {"algo"} if "algo._target_" in typed else set()
    return name, [f"kind={kind}"] * ("kind" not in typed) + [
        line
        for key, line in zip(keys, lines, strict=True)
        if key not in typed and key.partition(".")[0] not in chosen and _exists(key, config, keys)
    ]


def foreseen(overrides: Sequence[str], config_dir: str | None = None) -> SimpleNamespace | None:
    """Return the parts of a configuration on which its recipe depends, without composing it, see `recipe_overrides`.

    The chosen files are read, and the user's overrides applied to them, parsed by Hydra's grammar.

    Args:
        overrides: The overrides that the user typed.
        config_dir: A folder of the user's own configuration files.

    Returns:
        The parts; None where that does not determine them: an override or a file that cannot be read, a choice that
        there is not, a list of defaults that chooses more than the groups of localearn. Composing then reports the
        error, or says what they are.

    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    folders = [CONF, *([Path(config_dir)] if config_dir else [])]  # in the order in which Hydra searches them
    try:
        typed = OverridesParser.create().parse_overrides(list(overrides))
        return _foreseen(typed, folders)
    except (HydraException, _Unforeseen, UserError):
        return None


class _Unforeseen(Exception):
    """Raised where only composing a configuration says what it has."""


def _foreseen(typed: "Sequence[Override]", folders: Sequence[Path]) -> SimpleNamespace:
    groups: dict[str, str] = {}
    values: list[Override] = []
    for override in typed:
        key = override.key_or_group
        if override.package is not None or override.is_sweep_override():
            raise _Unforeseen
        if any((folder / key).is_dir() for folder in folders):
            name = override.value()
            if override.is_delete() or not isinstance(name, str):
                raise _Unforeseen
            groups[key] = name
        elif not key.startswith("hydra"):
            values.append(override)
    base = read_file(CONF / "config.yaml")
    chosen = choices_in(base) | groups
    files: dict[str, dict[str, Any]] = {}
    for group in ("algo", "dataset", "net"):  # each file may choose the following ones; the first choice wins
        files[group], named = _file(group, chosen[group], folders)
        chosen |= {other: name for other, name in named.items() if other not in (*files, *groups)}
        groups = named | groups
    tree: dict[str, Any] = {}
    for group in ("optim", "schedule", "kind"):
        files[group], _ = _file(group, chosen[group], folders)
    for file in (base, *(files[group] for group in ("net", "optim", "schedule", "kind", "dataset", "algo"))):
        _merge(tree, {key: value for key, value in file.items() if key != "defaults"})
    for override in values:
        _apply(tree, override)
    if any("${" in str(override.value()) for override in values if not override.is_delete()):
        tree = _resolved(tree)
    parts = {name: tree.get(name) for name in ("recipe", "recipes", "refused", "net", "dataset")}
    if not all(isinstance(parts[group], Mapping) for group in ("net", "dataset")):
        raise _Unforeseen
    return SimpleNamespace(**parts)


def _file(group: str, name: str, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a choice of a group sets, from the root, and which choices of other groups its file makes."""
    path = next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)
    if path is None:
        raise _Unforeseen
    own = path.parent.parent == CONF  # which are read once in a process
    file: Any = read_file(path) if own else read_yaml(path)
    if not isinstance(file, dict):
        raise _Unforeseen
    entries = file.pop("defaults", [])
    package = re.search(r"^# *@package +(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if package is None:
        file = {group: file}
    elif package[1] != "_global_":
        raise _Unforeseen
    found: dict[str, Any] = {}
    named: dict[str, str] = {}
    for entry in [*entries, *([] if "_self_" in entries else ["_self_"])]:
        if entry == "_self_":
            _merge(found, file)
        elif isinstance(entry, str) and re.fullmatch(r"[\w.-]+", entry):  # another choice of the group, to begin with
            more, chosen = _file(group, entry.removesuffix(".yaml"), folders)
            _merge(found, more)
            named = chosen | named
        elif isinstance(entry, dict) and all(_OVERRIDE.fullmatch(str(key)) for key in entry):
            named |= choices_in({"defaults": [entry]})
        else:
            raise _Unforeseen
    return found, named


_OVERRIDE = re.compile(r"override /?\w+")


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merge a mapping into a tree, as Hydra merges files."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = copy.deepcopy(value)


def _apply(tree: dict[str, Any], override: "Override") -> None:
    """Apply an override of a value to a tree."""
    *path, last = override.key_or_group.split(".")
    for name in path:
        if not isinstance(tree.setdefault(name, {}), dict):
            raise _Unforeseen
        tree = tree[name]
    if override.is_delete():
        tree.pop(last, None)
    else:
        value = override.value()
        if isinstance(value, dict) and isinstance(tree.get(last), dict):
            _merge(tree[last], value)
        else:
            tree[last] = value


def _resolved(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree with the values that its interpolations name."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.create(tree)
        return {
            name: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value := config.get(name))
            else value
            for name in ("recipe", "recipes", "refused", "net", "dataset")
        }
    except OmegaConfBaseException as error:
        raise _Unforeseen from error


def _exists(key: str, config: Any, keys: Sequence[str]) -> bool:
    """Return whether there is such an option: not every net draws its weights by a name, nor is all data normalised.

    A net that a recipe chooses itself has the options that the recipe sets.
    """
    group, dot, option = key.partition(".")
    return group not in ("net", "dataset") or not dot or group in keys or option in getattr(config, group)


def _has_classes(task: Any) -> bool:
    """Return whether the option `dataset.task`, a task's name or its class with options, has classes, as by default.

    A class of the user's own is not imported here, and is assumed to have values.
    """
    if isinstance(task, Mapping):
        kind = TASKS.get(str(task.get("_target_")).rpartition(".")[2])
        return kind is not None and kind.has_classes
    return NAMED.get(str(task), NAMED["classification"]).has_classes
