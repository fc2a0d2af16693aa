"""Read a run's folder: the trained net, the trained rule with its data, the configuration to resume.

A folder is data that somebody else may have written, so what it names is checked before anything is imported or built.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from localearn.data import Data, read_codec
from localearn.errors import UserError
from localearn.files import read_yaml
from localearn.inputs import InputSpec
from localearn.nets import Net
from localearn.records import read_record
from localearn.records.folder import RunFolder, check_regular, digest_of
from localearn.tasks import read_task
from localearn.trainers.base import Trainer
from localearn.training.building import (
    build_net,
    locate,
)
from localearn.training.checkpoint import check_weights, saved_once
from localearn.training.experiment import Choices, build
from localearn.training.identity import upgrade_configuration
from localearn.training.memory import out_of_memory_error
from localearn.training.resume import EXTENDING
from localearn.trust import check_interpolations, check_tree, is_known, words

_MAX_ROW = 2**28  # values of a row of a net that a file describes, a gibibyte of them

# Overrides allowed next to resume=, since they change no number beyond rounding.
_WITH_RESUME = ("progress", "debug", "parallel", "rank_timeout_s")

# Options that older configurations lack, and the values that their runs had.
BEFORE = {
    "step": "all",
    "capture": "off",
    "parallel": "none",
    "rank_timeout_s": 600.0,
    "memory_format": "contiguous",
    "callbacks": [],
}


def load_net(folder: str | Path, *, net: Net | None = None, trust: Collection[str] = ()) -> Net:
    """Return the trained net of a run's folder, in evaluation mode, without its trainer or its data.

    Args:
        folder: The run's folder, whose `net.safetensors` is read.
        net: A net that was built as the trained one was, for instance by `Net.from_blocks`: the folder's tensors are
            loaded into it once their names and shapes are checked, and it is returned. It is needed where the folder
            does not say how the net is built, as for a net of your own modules, since a file runs no code.
        trust: Classes in addition to localearn's own, as `module.Class`, that the folder may name and that are then
            imported.

    Raises:
        UserError: Where there is no net, or none that says how it was built, or another one than `net`; no class but a
            Net is ever called.

    Example:
        net = localearn.load_net("runs/20261120-163926-mono_forward-digits-0")
        scores = net(x)

    """
    path = RunFolder(Path(folder)).net
    description, weights = _read_net(path)
    if net is None:
        net = _build_described(path, description, weights, trust)
    elif not isinstance(net, Net):
        raise UserError(f"net= takes a localearn.Net, not a {type(net).__name__}; Net.from_blocks makes one of modules")
    elif (net.input_shape, net.classes) != (found := _sizes_of(path, description)):
        raise UserError(
            f"{path} is of a net that takes rows of shape {found[0]} and has {found[1]} outputs, and net= takes "
            f"{net.input_shape} and has {net.classes}; build it as the trained one was"
        )
    check_weights(path, weights, net.state_dict())
    net.load_state_dict(weights)
    if "task" in description:
        net.task = read_task(path, description["task"])
    if "codec" in description:
        codec = read_codec(path, description["codec"])
        if codec.size != net.takes.vocabulary:
            raise UserError(f"{path}: its net takes {net.takes.vocabulary} tokens and its vocabulary has {codec.size}")
        net.codec = codec
    names = description.get("class_names")
    if isinstance(names, list) and len(names) == net.classes and all(isinstance(name, str) for name in names):
        net.class_names = tuple(names)
    return net.eval()


def load_rule(folder: str | Path, *, trust: Collection[str] = ()) -> tuple[Data, Trainer]:
    """Return the data of a run's folder and its trained rule, with the rule's own state, in evaluation mode.

    The state is that of the best epoch where the run restored it at its end, and is read from the folder's checkpoint.
    Without a checkpoint the weights are those of `net.safetensors`, for a rule that predicts by its net alone.

    Args:
        folder: The folder of a run of the command line; a run from Python does not describe its rule and data.
        trust: Classes in addition to localearn's own, as `module.Class`, that the folder may name and that are then
            imported.

    Raises:
        UserError: Where the folder has no such run, its data are missing or are not those of its record, or the rule
            needs a state that is missing.

    Example:
        data, rule = load_rule("runs/20261120-163926-mono_forward-digits-0")

    """
    run = RunFolder(Path(folder).expanduser())
    if not run.path.is_dir():
        raise UserError(f"{run.path}: there is no such folder")
    check_regular(run.config)
    config, choices = _read_configuration(
        run, trust, str(run.path), "does not describe its rule and data; build them as your program did"
    )
    data, trainer, _ = build(config, choices)
    recorded = read_record(run.path).data_fingerprint if run.record.exists() else ""
    if recorded and recorded != data.fingerprint():
        raise UserError(f"{run.path}: the data are not those that the run was trained on; restore them")
    state = run.load_checkpoint(torch.device("cpu"))
    if state is not None:
        try:
            weights = saved_once(state["parts"]["stopping"]["best_weights"] or state["trainer"], trainer)
        except (KeyError, TypeError) as error:
            raise UserError(f"{run.checkpoint} is not of a run: it lacks {error}") from error
        check_weights(run.checkpoint, weights, trainer.state_dict())
        trainer.load_state_dict(weights)
    elif trainer.net_predicts:
        _, weights = _read_net(run.net)
        check_weights(run.net, weights, trainer.net.state_dict())
        trainer.net.load_state_dict(weights)
    else:
        raise UserError(
            f"{run.checkpoint} is not there, and {type(trainer).__name__} predicts by more than its net, which alone "
            "is in net.safetensors; keep a run's checkpoint.pt"
        )
    return data, trainer.eval()


def resumed(folder: str, overrides: Sequence[str], trust: Collection[str] = ()) -> tuple[Any, Choices]:
    """Return the configuration and the choices of the run in a folder, to resume it.

    Args:
        folder: The run's folder.
        overrides: The overrides next to `resume=`. `epochs=` and `patience=` extend the run, also a completed one; they
            become the `extend` of the choices.
        trust: Classes, in addition to those that the overrides trust, that the folder's configuration may name.

    Raises:
        UserError: For any other override that changes numbers, and where the folder has no run that can be resumed.

    """
    from omegaconf.errors import OmegaConfBaseException

    overrides, trusted = words(overrides)
    typed = [o for o in overrides if o.partition("=")[0] not in ("resume", "algo._target_")]
    others = [o for o in typed if o.partition("=")[0] not in (*_WITH_RESUME, *EXTENDING) and o != "callbacks=[]"]
    if others:
        raise UserError(f"resume= continues with the run's own configuration; leave out {' '.join(others)}")
    extending = [name for o in typed if (name := o.partition("=")[0]) in EXTENDING]
    run = RunFolder(Path(folder).expanduser())
    run.open(extending=bool(extending))
    config, choices = _read_configuration(
        run, trusted | set(trust), f"resume={folder}", "is resumed from there, by fit(resume=True)"
    )
    try:
        config.merge_with_dotlist(typed)
        config.resume = folder
        if extending:
            choices["extend"] = {name: config[name] for name in extending}
    except (OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"resume={folder}: {run.config} does not take {' '.join(typed)}: {error}") from error
    return config, choices


def _read_configuration(run: RunFolder, trust: Collection[str], where: str, remedy: str) -> tuple[Any, Choices]:
    """Return the configuration and the choices in a run's folder, which name only classes that are known or trusted.

    where and remedy are parts of the error message: the folder or option at fault, and the remedy for a run that was
    started from Python.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config: Any = OmegaConf.create(read_yaml(run.config))
    except UserError as error:
        raise UserError(f"{where}: {run.config} is not a configuration of localearn.run: {error}") from error
    try:
        recorded: Any = OmegaConf.to_container(config.pop("choices"))
        choices = dict(recorded)
        if not all(
            isinstance(choices[group], str) and "/" not in choices[group] for group in ("algo", "dataset", "net")
        ):
            raise ValueError("a choice is not a name")
        if not isinstance(choices.setdefault("overrides", []), list):
            raise ValueError("the overrides are not a list")
        check_interpolations(run.config, OmegaConf.to_container(config, resolve=False))
        for name, value in BEFORE.items():
            config.setdefault(name, value)
        upgrade_configuration(config)
        check_tree(run.config, OmegaConf.to_container(config, resolve=True), trust)
    except (OSError, YAMLError, OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: {run.config} is not a configuration of localearn.run; "
            f"a run that was started from Python {remedy}"
        ) from error
    return config, choices


def _read_net(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a net file's description of the net, and its tensors by their names in the net.

    Older files have no other names. Raises UserError where the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    if not path.exists():
        raise UserError(f"{path} is not there; a run writes it when it is completed")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("localearn", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    if not isinstance(description, dict):
        raise UserError(f"{path}: its description of the net is {type(description).__name__}, not an object")
    checksum = description.pop("sha256", None)  # which older files lack
    if checksum is not None and checksum != digest_of(weights, description):
        raise UserError(f"{path} is damaged: its checksum is not that of its content")
    names = description.get("names")
    if names is None:
        return description, weights
    if not isinstance(names, dict) or not all(isinstance(own, str) and own in weights for own in names.values()):
        raise UserError(f"{path}: its names for the net's tensors are not those of its tensors")
    return description, {name: weights[own] for name, own in names.items()}


def _build_described(
    path: Path, description: dict[str, Any], weights: Mapping[str, Tensor], trust: Collection[str]
) -> Net:
    """Return a net as the file describes it, its weights still to be loaded."""
    options = description.get("net")
    if not options:
        raise UserError(
            f"{path} was trained from Python and does not say how its net was built; build it as it was then, and "
            "say load_net(folder, net=...), or localearn.export.export(folder, kind, out, net=...)"
        )
    if not isinstance(options, dict):
        raise UserError(f"{path}: its net is described by {type(options).__name__}, not by options")
    check_tree(path, {"net": options}, trust)
    target = locate("net._target_", options.get("_target_"))
    if not (isinstance(target, type) and issubclass(target, Net)) or "_target_" in json.dumps(list(options.values())):
        raise UserError(
            f"{path}: its net is built by more than a localearn.Net; build it and say load_net(folder, net=...)"
        )
    shape, classes = _sizes_of(path, description)
    vocabulary: Any = description.get("vocabulary")
    categories: Any = description.get("categories", [])
    if not _are_sizes([1 if vocabulary is None else vocabulary]) or not _are_sizes(categories):
        raise UserError(
            f"{path}: its net has the vocabulary {vocabulary!r} and the categories {categories!r}, not sizes"
        )
    takes = InputSpec(shape, vocabulary, categories=tuple(categories))
    if is_known(options["_target_"]):  # which can be built on the meta device
        _check_sizes(path, options, takes, classes, weights)
    with out_of_memory_error(f"the net that {path} describes", "a machine with more"):
        return build_net(options, takes, classes)


def _check_sizes(
    path: Path, options: dict[str, Any], takes: InputSpec, classes: int, weights: Mapping[str, Tensor]
) -> None:
    """Raise UserError unless the net that a file describes is as large as the file's tensors.

    So a few bytes of a file cannot cause a large allocation, or a large number of layers.
    """
    elements = sum(tensor.numel() for tensor in weights.values())
    for name, value in options.items():
        sizes = value if isinstance(value, list) else [value]
        of_net = name != "group" and any(type(size) is int and size > max(elements, 1) for size in sizes)
        if of_net or len(sizes) > max(len(weights), 1):
            raise UserError(f"{path}: net.{name} describes a larger net than its {len(weights)} tensors")
    if math.prod(takes.shape) > _MAX_ROW:
        raise UserError(f"{path}: its net takes rows of shape {takes.shape}, of more than {_MAX_ROW} values")
    with torch.device("meta"):
        check_weights(path, weights, build_net(options, takes, classes).state_dict())


def _sizes_of(path: Path, description: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Return the shape of a row and the number of outputs of the net that a file describes."""
    shape: Any = description.get("input_shape")
    classes: Any = description.get("classes")
    if not _are_sizes(shape) or not _are_sizes([classes]):
        raise UserError(f"{path}: its net has the input shape {shape!r} and {classes!r} classes, not sizes")
    return tuple(shape), classes


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 < value < 2**31 for value in values)
