"""Build data, net, rule, optimizer, schedule and callbacks from the groups of a resolved configuration."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from localearn.data import Data
from localearn.defaults import CONF, kind_of
from localearn.errors import UserError, suggestion
from localearn.inputs import InputSpec
from localearn.nets import Net
from localearn.options import check_call, check_types, parameters_of
from localearn.trainers.base import Trainer
from localearn.training.callbacks import Callback

Options = Mapping[str, Any]  # a group of the configuration, resolved: `_target_` and what it takes


def build_data(options: Options) -> Data:
    """Build the data set of the group `dataset`.

    Args:
        options: The group.

    Raises:
        UserError: For options that its class does not take, and for a class that builds no `Data`.

    """
    target, values = _target_and_options("dataset", options)
    check_call("dataset", target, values)
    data = target(**values)
    if not isinstance(data, Data):
        raise UserError(f"dataset._target_={_name(target)} returns {type(data).__name__}, not a localearn.Data")
    return data


def build_net(options: Options, takes: InputSpec, classes: int) -> Net:
    """Build the net of the group `net`, for rows of a shape.

    Args:
        options: The group. `group` among them is not an option of the class, unless it has such a parameter: it is the
            number of consecutive blocks that `Net.group` merges into one.
        takes: The shape of a row, and its vocabulary and categories, which are passed to a class that has such
            parameters.
        classes: The number of outputs.

    Raises:
        UserError: For options that its class does not take, and for a class that builds no `Net`.

    """
    target, values = _target_and_options("net", options)
    supplied: dict[str, Any] = {"input_shape": takes.shape, "classes": classes}
    has = parameters_of(target)
    lacking = [name for name in supplied if name not in has]
    if lacking and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values()):
        raise UserError(
            f"net._target_={options['_target_']} must take {' and '.join(supplied)}, from which a net is built; it "
            f"takes {', '.join(has) or 'nothing'}"
        )
    supplied |= {name: getattr(takes, name) for name in ("vocabulary", "categories") if name in has}
    group = 1 if "group" in has else values.pop("group", 1)
    check_types({"group": group}, {"group": int}, prefix="net.")
    check_call("net", target, values, supplied)
    net = target(**supplied, **values)
    if not isinstance(net, Net):
        raise UserError(f"net._target_={_name(target)} returns {type(net).__name__}, not a localearn.Net")
    return net.group(group)


def build_net_for(rule: type[Trainer], options: Options, data: Data) -> Net:
    """Build the net of the group `net` for a data set, whose rows have the shape that the rule takes.

    It is built a second time only where the rule takes another shape with the built net than with nets of its kind: for
    a rule that overrides `input_shape` only, or a user's own net with a wrong `kind`.

    Args:
        rule: The class of the rule.
        options: The group.
        data: The data set.

    Raises:
        UserError: As `build_net` does.

    """
    takes = replace(data.takes, shape=rule.input_shape_for(data, net_kind(options)))
    net = build_net(options, takes, data.task.outputs)
    shape = rule.input_shape(net, data)
    return net if shape == net.input_shape else build_net(options, replace(takes, shape=shape), data.task.outputs)


def net_kind(options: Options) -> str:
    """Return the kind of net that the group `net` describes; that of `Net` where its class cannot be imported.

    Args:
        options: The group.

    """
    try:
        return kind_of(locate("net._target_", options.get("_target_")))
    except UserError:  # raised again when the net is built
        return kind_of(Net)


def rule_class(options: Options) -> type[Trainer]:
    """Return the class of the rule that the group `algo` names, without building it.

    Args:
        options: The group.

    Raises:
        UserError: Where it is not a concrete subclass of `Trainer`.

    """
    rule = locate("algo._target_", options.get("_target_"))
    if not (inspect.isclass(rule) and issubclass(rule, Trainer)):
        target = options["_target_"]
        raise UserError(f"algo._target_={target} is not a localearn.Trainer; subclass it, or one of its families")
    if inspect.isabstract(rule):
        lacking = ", ".join(sorted(rule.__abstractmethods__))
        raise UserError(f"algo._target_={_name(rule)} is abstract; a subclass must define {lacking}")
    return rule


def build_rule(options: Options, net: Net, choice: str) -> Trainer:
    """Build the rule of the group `algo` on a net.

    Where `_target_` is not that of the chosen file, options of that file that the other rule does not have are left
    out.

    Args:
        options: The group.
        net: The net to train.
        choice: The name of the chosen file.

    Raises:
        UserError: For options that the rule does not take.

    """
    rule = rule_class(options)
    _, values = _target_and_options("algo", options)
    inherited = _shipped_options(choice)
    if options["_target_"] != inherited.get("_target_"):
        accepted = inspect.signature(rule).parameters
        values = {n: v for n, v in values.items() if n in accepted or n not in inherited or v != inherited[n]}
    check_call("algo", rule, values, ("net",))
    return rule(net, **values)


def optimizer_factory(options: Options) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of the group `optim` with its options bound; it takes the parameters.

    Args:
        options: The group.

    Raises:
        UserError: For options that it does not take.

    """
    target, values = _target_and_options("optim", options)
    check_call("optim", target, values, ("params",))
    return functools.partial(target, **values)


def schedule_factory(options: Options) -> Callable[[torch.optim.Optimizer], Any]:
    """Return the class of the group `schedule` with its options bound; it takes the optimizer.

    Args:
        options: The group.

    Raises:
        UserError: For options that it does not take.

    """
    target, values = _target_and_options("schedule", options)
    check_call("schedule", target, values, ("optimizer",))
    return functools.partial(target, **values)


def build_callbacks(entries: object) -> list[Callback]:
    """Build the callbacks of the list `callbacks`.

    Args:
        entries: A list of dicts, each a `_target_` and its options.

    Raises:
        UserError: For anything else, and for a class that is not a `Callback`.

    """
    example = "callbacks=[{_target_: my_module.MyCallback}]"
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "_target_" in entry for entry in entries):
        raise UserError(f"callbacks must be a list of classes with their options, say {example}, not {entries!r}")
    built = [_instantiated(f"callbacks[{index}]", entry) for index, entry in enumerate(entries)]
    for entry, callback in zip(entries, built, strict=True):
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks has {entry['_target_']}, which returns {type(callback).__name__}, not a localearn.Callback"
            )
    return built


def locate(what: str, path: object) -> Any:
    """Return the class or function that a dotted path names.

    Args:
        what: The key that names it, for the error message.
        path: Such as "my_rules.MyRule".

    Raises:
        UserError: Where it cannot be imported, in one line.

    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise UserError(f"{what} must name a class with its module, say my_rules.MyRule, not {path!r}")
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = _imported(what, ".".join(parts[:cut]))
        if module is None:
            continue
        found: Any = module
        for name in parts[cut:]:
            if not hasattr(found, name):
                near = suggestion(name, [n for n in dir(found) if not n.startswith("_")])
                raise UserError(f"{what}={path}: {'.'.join(parts[:cut])} has no {name!r}{near}")
            found = getattr(found, name)
        return found
    raise UserError(f"{what}={path}: no module {parts[0]!r} in this folder or among the installed packages")


def _imported(what: str, module: str) -> ModuleType | None:
    """Import a module; return None where there is none of that name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return None
        raise UserError(f"{what}: importing {module} failed: {error}") from error
    except SyntaxError as error:
        raise UserError(f"{what}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever a user's module raises while it is imported
        reason = str(error).splitlines()[:1]
        reason_text = ": ".join([type(error).__name__, *reason])
        raise UserError(f"{what}: importing {module} failed: {reason_text}; debug=true shows where") from error


def _target_and_options(group: str, options: Options) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return what a group's `_target_` names, and its options, with nested `_target_`s instantiated."""
    target = locate(f"{group}._target_", options.get("_target_"))
    if not callable(target):
        raise UserError(f"{group}._target_={options['_target_']} is not a class or function")
    rest = {str(name): value for name, value in options.items() if name not in ("_target_", "_partial_")}
    return target, {name: _instantiated(f"{group}.{name}", value) for name, value in rest.items()}


def _instantiated(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_instantiated(name, element) for element in value]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: _instantiated(f"{name}.{key}", element) for key, element in value.items()}
    target, values = _target_and_options(name, value)
    check_call(name, target, values)
    return target(**values)


def _shipped_options(choice: str) -> dict[str, Any]:
    """Return the group `algo` in localearn's own file of that name; empty where there is none."""
    from omegaconf import OmegaConf

    path = CONF / "algo" / f"{choice}.yaml"
    shipped = path.parent == CONF / "algo" and path.is_file()  # the name in a record may be any text, also a path
    plain: Any = OmegaConf.to_container(OmegaConf.load(path)) if shipped else {}
    return plain.get("algo", {})


def _name(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"
