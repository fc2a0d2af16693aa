"""Defaults of training: the options of a rule on a kind of net where the user sets none, read from conf/.

The configuration files are the single source. The command line composes them with Hydra; this module gives Python the
same, without Hydra: a rule's constructor and `fit` take what their caller leaves out from `rule_options` and
`fit_options`, and `recipe` returns all of it.
"""

import copy
import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localearn.errors import UserError, suggestion
from localearn.registry import CONF as CONF  # for who imports it from here
from localearn.registry import rules

GROUPS = ("algo", "dataset", "net", "optim", "schedule")  # groups of the configuration, each with files of its own
KINDS = ("dense", "maps", "graph", "sequence")
VALUES = "values"  # the recipe that a rule may have for tasks whose targets are values, not classes

# The options of `fit` that a recipe may set; the others set where and how a run is executed, not what is learned.
LEARNING = (
    "epochs",
    "batch_size",
    "optim",
    "schedule",
    "monitor",
    "patience",
    "min_delta",
    "restore_best",
    "clip_norm",
)

_COMPOSING = ("about", "defaults", "hydra", "recipe", "recipes", "refused", "tune")
_OVERRIDE = re.compile(r"override /?(\w+)")
_EPOCHS = "${epochs}"


def recipe(
    rule: str | type, kind: str = "dense", name: str = "default", *, epochs: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return the options that a rule is trained with on a kind of net where the user sets none.

    Args:
        rule: A name, such as "forward_forward", or a class. A class of one's own has the general options.
        kind: `Net.kind` of the net: "dense", "maps", "graph" or "sequence".
        name: "default", or the name of another of the rule's recipes, such as "paper", or "values", which a rule may
            have for a regression.
        epochs: The epochs for which a schedule that depends on them is made; by default the recipe's.

    Returns:
        A dict of options by what takes them:

        - "algo": the rule's constructor, which uses them by default;
        - "fit": `fit`, which uses them by default: `optim` and `schedule` are classes with their options bound, and
          `functools.partial(options["fit"]["optim"], lr=0.01)` has another learning rate;
        - "net": the net's constructor, so far as it has such options. A net that is built already cannot be given them,
          so pass them where you build it;
        - "dataset": `localearn.load`, likewise.

    Raises:
        UserError: For an unknown rule, kind or recipe.

    Example:
        options = localearn.recipe("forward_forward", "dense")
        data = localearn.load("digits", **options["dataset"])
        net = localearn.MLP(data.input_shape, data.classes, **options["net"])
        localearn.ForwardForward(net).fit(data)

    """
    if kind not in KINDS:
        raise UserError(f"no kind of net {kind!r}{suggestion(kind, KINDS)}; there are {', '.join(KINDS)}")
    if not isinstance(rule, str | type):
        raise UserError(f"a rule is named or given as a class, not as {rule!r}")
    file = rule if isinstance(rule, str) else rule_name(rule)
    if file is not None and file not in rule_names():
        raise UserError(f"no rule {file!r}{suggestion(file, rule_names())}; there are {', '.join(rule_names())}")
    tree = _composed(file, kind, name, None)
    options = {group: copy.deepcopy(tree[group]) for group in ("algo", "net", "dataset")}
    return {**options, "fit": _learning(tree, epochs)}


def rule_options(rule: type, kind: str, *, values: bool = False) -> dict[str, Any]:
    """Return the constructor's options of a rule on a kind of net; empty for a rule that localearn does not ship.

    Args:
        rule: The rule's class.
        kind: `Net.kind` of its net.
        values: Whether the targets of the net's task are values.

    """
    name = rule_name(rule)
    return {} if name is None else copy.deepcopy(_composed(name, kind, by_default(name, values), None)["algo"])


def fit_options(
    rule: type, kind: str, dataset: str, epochs: int | None = None, *, values: bool = False
) -> dict[str, Any]:
    """Return the options of `LEARNING` for a rule on a kind of net and a data set, as `fit` takes them.

    Args:
        rule: The rule's class.
        kind: `Net.kind` of its net.
        dataset: The data's name; a data set that localearn ships has its own number of epochs.
        epochs: The epochs that the user set, for which a schedule is made.
        values: Whether the targets of the task are values.

    """
    name = rule_name(rule)
    return _learning(_composed(name, kind, by_default(name, values), dataset), epochs)


def by_default(rule: str | None, values: bool) -> str:
    """Return the name of a rule's default recipe: "values" for values, where it has one, else "default".

    Args:
        rule: The rule's name, None for one that localearn does not ship.
        values: Whether the targets are values.

    """
    has = values and rule is not None and VALUES in read_file(CONF / "algo" / f"{rule}.yaml").get("recipes", {})
    return VALUES if has else "default"


def net_choice(rule: str, kind: str, name: str = "default") -> str | None:
    """Return the net that a rule's recipe names for a kind of net, None where it is used with any.

    Args:
        rule: The rule's name.
        kind: `Net.kind`.
        name: The recipe's name.

    """
    recipes = read_file(CONF / "algo" / f"{rule}.yaml").get("recipes", {})
    lines = recipes.get(kind if name == "default" else name) or ()
    return next((line.partition("=")[2] for line in lines if line.startswith("net=")), None)


def net_options(name: str) -> dict[str, Any]:
    """Return the options of a net that localearn ships, its `_target_` among them, as the group `net` has them.

    Raises:
        UserError: For an unknown name.

    """
    known = sorted(path.stem for path in (CONF / "net").glob("*.yaml"))
    if name not in known:
        raise UserError(f"no net {name!r}{suggestion(str(name), known)}; there are {', '.join(known)}")
    return read_file(CONF / "net" / f"{name}.yaml")


def kind_of(net: object) -> str:
    """Return the kind of recipe for a net, or its class: its `kind`, or that of `Net` where it has no known one."""
    kind = getattr(net, "kind", KINDS[0])
    return kind if kind in KINDS else KINDS[0]


def rule_names() -> tuple[str, ...]:
    """Return the names of the rules that localearn ships."""
    return tuple(rules())


@functools.cache
def rule_name(rule: type) -> str | None:
    """Return the name under which localearn ships a rule's class, None for another class."""
    place = (rule.__module__, rule.__name__)
    return next((name for name, shipped in rules().items() if place == (shipped.module, shipped.class_name)), None)


@functools.cache
def _composed(rule: str | None, kind: str, name: str, dataset: str | None) -> dict[str, Any]:
    """Return the configuration of a rule on a kind of net as plain values, which the caller must not change.

    The order is that of config.yaml: the optimizer and the schedule, the kind's options, the data set's epochs, the
    rule's file, and then its recipe's lines.
    """
    base = read_file(CONF / "config.yaml")
    own = {} if rule is None else read_file(CONF / "algo" / f"{rule}.yaml")
    recipes = own.get("recipes", {})
    known = ["default", "paper", *KINDS, *(other for other in recipes if other not in (*KINDS, "paper"))]
    if name not in known:
        raise UserError(f"no recipe {name!r}{suggestion(name, known)}; there are {', '.join(known)}")
    lines = [line.partition("=")[::2] for line in recipes.get(kind if name == "default" else name) or ()]
    chosen = choices_in(base) | choices_in(own) | {key: value for key, value in lines if "." not in key}
    tree: dict[str, Any] = {key: value for key, value in base.items() if key not in _COMPOSING}
    tree |= {group: read_file(CONF / group / f"{chosen[group]}.yaml") for group in ("optim", "schedule")}
    tree |= {"algo": {}, "dataset": {}, "net": {}}
    if any(key == "net" for key, _ in lines):
        tree["net"] = read_file(CONF / "net" / f"{chosen['net']}.yaml")
    _merge(tree, read_file(CONF / "kind" / f"{kind}.yaml"))
    file = CONF / "dataset" / f"{dataset}.yaml"
    if dataset is not None and dataset.isidentifier() and file.is_file():
        tree |= {key: value for key, value in read_file(file).items() if key == "epochs"}
    _merge(tree, {key: value for key, value in own.items() if key not in _COMPOSING})
    for key, value in lines:
        group, dot, option = key.partition(".")
        if dot:
            tree[group][option] = _value(value)
        elif key not in ("optim", "schedule", "net"):
            tree[key] = _value(value)
    for group in ("algo", "net"):
        tree[group].pop("_target_", None)
    tree["net"].pop("group", None)  # which is for `Net.group`, not for a constructor
    return tree


def _learning(tree: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Return the options of `LEARNING` in a configuration, its optimizer and schedule as classes with options bound."""
    made: int = tree["epochs"] if epochs is None else epochs
    found = {name: tree[name] for name in LEARNING} | {"epochs": made}
    return found | {"optim": _bound(tree["optim"], made), "schedule": _bound(tree["schedule"], made)}


def _bound(options: Mapping[str, Any], epochs: int) -> functools.partial[Any] | None:
    """Return a class with its options bound, except those equal to its defaults; None for a constant schedule.

    So a record states what differs from torch's defaults, and Adam with the general options is the same text in every
    version of localearn, by which a resumed run is compared.
    """
    path, _, name = options["_target_"].rpartition(".")
    target = getattr(importlib.import_module(path), name)
    if name == "ConstantLR" and options.get("factor") == 1:
        return None
    values = {
        key: epochs if value == _EPOCHS else copy.deepcopy(value) for key, value in options.items() if key[0] != "_"
    }
    by_itself = {parameter.name: parameter.default for parameter in inspect.signature(target).parameters.values()}
    same = {key for key, value in values.items() if key != "lr" and _listed(by_itself.get(key, ...)) == value}
    return functools.partial(target, **{key: value for key, value in values.items() if key not in same})


def _listed(value: Any) -> Any:
    """Return a list for a tuple, as a file stores it."""
    return list(value) if isinstance(value, tuple) else value


def choices_in(file: Mapping[str, Any]) -> dict[str, str]:
    """Return the groups that a file's list of defaults chooses, those that it overrides among them."""
    chosen = {}
    for entry in file.get("defaults", ()):
        for group, name in entry.items() if isinstance(entry, dict) else ():
            override = _OVERRIDE.fullmatch(group)
            chosen[override[1] if override else group] = name
    return chosen


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            tree[key] = {**tree[key], **value}
        else:
            tree[key] = value


def read_file(path: Path) -> dict[str, Any]:
    """Return the content of one of the configuration's files, as a copy that the caller may change."""
    return copy.deepcopy(_parsed(path))


@functools.cache
def _parsed(path: Path) -> dict[str, Any]:
    import yaml  # imported late, so that `import localearn` needs torch and numpy only

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _value(text: str) -> Any:
    """Return the value after the equals sign of an override; 1e-3 is a number there, and text in YAML 1.1."""
    import yaml

    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
