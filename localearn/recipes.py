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

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from localearn.data.sources import task_named
from localearn.defaults import CONF, KINDS, VALUES, choices_in, read_file
from localearn.errors import UserError, suggestion
from localearn.tasks import KINDS as TASKS
from localearn.tasks import NAMED
from localearn.training.building import net_kind

# Keys whose value a recipe depends on, and those that change which recipes there are.
_TELLING = ("algo", "dataset", "net", "recipe", "net._target_", "dataset._target_", "dataset.task")
_OF_RECIPES = ("about", "recipes", "refused", "hydra")
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
    named = str(config.recipe)
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
    if not all(isinstance(line, str) and "=" in line for line in lines):
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


def foreseen(overrides: Sequence[str]) -> SimpleNamespace | None:
    """Return the parts of a configuration on which its recipe depends, without composing it, see `recipe_overrides`.

    Args:
        overrides: The overrides that the user typed.

    Returns:
        The parts; None where localearn's files, and overrides of the plain form key=value, do not determine them: a
        choice of the user's own, a value made of others, a table that has to be read.

    """
    typed: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key) or key.partition(".")[0] in _OF_RECIPES:
            return None
        if key in _TELLING and not re.fullmatch(r"[A-Za-z_][\w.]*", value):
            return None
        typed[key] = value
    chosen = choices_in(read_file(CONF / "config.yaml"))
    files = {}
    for group in (
        "algo",
        "dataset",
        "net",
    ):  # each file may choose the following ones; the first choice wins
        chosen |= {group: typed[group]} if group in typed else {}
        path = CONF / group / f"{chosen[group]}.yaml"
        if not path.is_file():
            return None
        files[group] = read_file(path)
        named = {**choices_in(files[group]), **(choices_in(files["algo"]) if group == "dataset" else {})}
        chosen |= {later: name for later, name in named.items() if later not in files}
    tree: dict[str, Any] = {"net": {}, "dataset": {}}
    dense = read_file(CONF / "kind" / "dense.yaml")
    for file in (read_file(CONF / "config.yaml"), {"net": files["net"]}, dense, files["dataset"], files["algo"]):
        for group in ("net", "dataset"):
            tree[group] |= file.get(group, {})
        tree |= {name: file[name] for name in ("recipe", "recipes", "refused") if name in file}
    for key, value in typed.items():
        group, dot, option = key.partition(".")
        if dot and group in ("net", "dataset"):
            tree[group][option] = value
    tree["recipe"] = typed.get("recipe", tree["recipe"])
    if tree["dataset"].get("task") == "auto":
        return None
    return SimpleNamespace(**tree)


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
