"""Run a configuration, and read the folder of a run back.

`execute` runs a composed configuration, `build` and `settings_of` make its objects without running them, `resumed`
reads the configuration of a run to continue. `load_net` and `load_rule` return what a run has trained; a folder is data
that somebody else may have written, so what it names is checked before anything is imported or built.
"""

import contextlib
import datetime
import functools
import json
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from localearn.data import Data, read_codec
from localearn.defaults import CONF, kind_of, rule_options
from localearn.errors import UserError, suggestion
from localearn.files import read_yaml
from localearn.inputs import InputSpec
from localearn.nets import Net
from localearn.options import check_types
from localearn.records import Record, read_record, versions
from localearn.records.folder import RunFolder, check_regular, digest_of
from localearn.tasks import read_task
from localearn.trainers.base import Trainer
from localearn.training.building import (
    build_callbacks,
    build_data,
    build_net,
    build_net_for,
    build_rule,
    locate,
    optimizer_factory,
    rule_class,
    schedule_factory,
)
from localearn.training.callbacks import Callback
from localearn.training.checkpoint import check_weights, saved_once
from localearn.training.distributed import Ranks, joined
from localearn.training.fit import train
from localearn.training.generator import own_random_numbers
from localearn.training.identity import EXTENDING, complete_rule, names_built
from localearn.training.runtime import full_memory_told
from localearn.training.settings import Settings
from localearn.trust import check_interpolations, check_tree, is_known, words

# The fields of Settings that stand under the same name at the top of the configuration: all but these.
_ELSEWHERE = ("optim", "schedule", "energy", "country", "idle_s", "out")
SHARED = tuple(field.name for field in fields(Settings) if field.name not in _ELSEWHERE)
Choices = dict[str, Any]  # the names chosen for algo, dataset and net, and the overrides that were typed
GROUPS = ("algo", "dataset", "net", "optim", "schedule")

_TYPES = {"protocol": Literal["matched", "converged"] | None, "debug": bool}
_ENERGY_TYPES = {"enabled": bool, "country": str | None, "idle_s": float}
_LARGEST_ROW = 2**28  # values of a row of a net that a file describes, a gibibyte of them
# Overrides allowed next to resume=, for they change no number but by rounding.
_WITH_RESUME = ("progress", "debug", "parallel", "rank_timeout_s")


def execute(
    config: Any,
    choices: Choices,
    *,
    started_s: float | None = None,
    callbacks: Sequence[Callback] = (),
    test: bool = True,
) -> Record:
    """Run a composed configuration and return its record.

    Args:
        config: The composed omegaconf DictConfig. With `resume` set, it and `choices` are those of the run's own folder
            (see `resumed`).
        choices: The names chosen for algo, dataset and net, and the overrides, as they shall be recorded.
        started_s: The `time.perf_counter()` from which setup is measured; None is now.
        callbacks: Callbacks called after those of the configuration.
        test: Whether the test split is evaluated, as in `localearn.training.train`.

    Raises:
        UserError: For whatever the user can mend.

    """
    started_s = time.perf_counter() if started_s is None else started_s
    plain = _resolved(config)
    with _joined(plain) as ranks, own_random_numbers():
        return _execute(plain, choices, ranks, started_s, callbacks, test)


def _execute(
    plain: dict[str, Any],
    choices: Choices,
    ranks: Ranks,
    started_s: float,
    callbacks: Sequence[Callback],
    test: bool,
) -> Record:
    from omegaconf import OmegaConf

    own = ranks.together(lambda: build_callbacks(plain["callbacks"]))
    data, trainer, settings = ranks.together(lambda: _build(plain, choices))
    choices = dict(choices)
    extend = choices.pop("extend", {})
    plain |= {"out": str(settings.out), "choices": choices}
    labels = {
        **_names(plain, choices),
        "protocol": plain["protocol"],
        "config": plain,
        "setup_s": time.perf_counter() - started_s,
    }
    saved = OmegaConf.to_yaml(OmegaConf.create(plain))
    resume = plain["resume"] is not None
    callbacks = [*own, *callbacks]
    return train(
        trainer, data, settings, labels, resume=resume, config=saved, callbacks=callbacks, test=test, extend=extend
    )


@contextlib.contextmanager
def _joined(plain: dict[str, Any]) -> Iterator[Ranks]:
    """Join the other ranks, if there are any, before data are read, so that all report what one of them lacks.

    Raises UserError where torchrun and the configuration do not go together.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if several and plain["parallel"] == "none":
        raise UserError(
            f"{os.environ['WORLD_SIZE']} ranks were started, each of which would train the same net; "
            "use parallel=data or parallel=layers"
        )
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if several and restarts and plain["out"] is None and plain["resume"] is None:
        raise UserError("ranks that are started anew go on in the run's folder; name it, out=DIR")
    asked = Settings(**{name: plain[name] for name in ("parallel", "rank_timeout_s", "device")})
    with joined(asked, {name: value for name, value in versions().items() if name in ("localearn", "torch")}) as found:
        yield found[0]


def build(config: Any, choices: Choices) -> tuple[Data, Trainer, Settings]:
    """Return the data, the rule on its net and the settings that a configuration describes.

    Args:
        config: The composed omegaconf DictConfig.
        choices: The names chosen for algo, dataset and net, and the overrides.

    Raises:
        UserError: For a key that is missing, unknown, of the wrong type or out of its range.

    """
    with own_random_numbers():
        return _build(_resolved(config), choices)


def settings_of(config: Any, choices: Choices) -> Settings:
    """Return only the settings that a configuration describes.

    Args:
        config: The composed omegaconf DictConfig.
        choices: The names chosen for algo, dataset and net, and the overrides.

    Raises:
        UserError: As `build` does.

    """
    return _settings(_resolved(config), choices)


# Keys that composing a configuration uses up.
_COMPOSING = ("about", "defaults", "hydra", "tune", "recipe", "recipes", "refused")

# Options that older configurations lack, and the value that their runs had.
BEFORE = {
    "step": "all",
    "capture": "off",
    "parallel": "none",
    "rank_timeout_s": 600.0,
    "memory_format": "contiguous",
    "callbacks": [],
}


def resumed(folder: str, overrides: Sequence[str], trust: Collection[str] = ()) -> tuple[Any, Choices]:
    """Return the configuration and the choices of the run in a folder, to resume it.

    Args:
        folder: The run's folder.
        overrides: What was typed next to `resume=`. `epochs=` and `patience=` extend the run, a completed one too; the
            choices then have them as `extend`.
        trust: Classes, in addition to those that the overrides trust, which the folder's configuration may name.

    Raises:
        UserError: For any other override that changes numbers, and where the folder has no run that can be resumed.

    """
    from omegaconf.errors import OmegaConfBaseException

    overrides, trusted = words(overrides)
    given = [o for o in overrides if o.partition("=")[0] not in ("resume", "algo._target_")]
    others = [o for o in given if o.partition("=")[0] not in (*_WITH_RESUME, *EXTENDING) and o != "callbacks=[]"]
    if others:
        raise UserError(f"resume= goes on with the run's own configuration; leave out {' '.join(others)}")
    extending = [name for o in given if (name := o.partition("=")[0]) in EXTENDING]
    run = RunFolder(Path(folder).expanduser())
    run.open(extending=bool(extending))
    config, choices = _read_configuration(
        run, trusted | set(trust), f"resume={folder}", "goes on there, with fit(resume=True)"
    )
    try:
        config.merge_with_dotlist(given)
        config.resume = folder
        if extending:
            choices["extend"] = {name: config[name] for name in extending}
    except (OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"resume={folder}: {run.config} does not take {' '.join(given)}: {error}") from error
    return config, choices


def _read_configuration(run: RunFolder, trust: Collection[str], where: str, instead: str) -> tuple[Any, Choices]:
    """Return the configuration and the choices in a run's folder, which name only classes that are known or trusted.

    where and instead are for the error message: the folder or option at fault, and the remedy for a run that was
    started from Python.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config: Any = OmegaConf.create(read_yaml(run.config))
    except UserError as error:
        raise UserError(f"{where}: {run.config} is no configuration of localearn.run: {error}") from error
    try:
        recorded: Any = OmegaConf.to_container(config.pop("choices"))
        choices = dict(recorded)
        if not all(
            isinstance(choices[group], str) and "/" not in choices[group] for group in ("algo", "dataset", "net")
        ):
            raise ValueError("a choice is no name")
        if not isinstance(choices.setdefault("overrides", []), list):
            raise ValueError("the overrides are no list")
        _check_read(run.config, config, trust)
        for name, value in BEFORE.items():
            config.setdefault(name, value)
        complete_rule(config)
    except (OSError, YAMLError, OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: {run.config} is no configuration of localearn.run; a run that was started from Python {instead}"
        ) from error
    return config, choices


def load_rule(folder: str | Path, *, trust: Collection[str] = ()) -> tuple[Data, Trainer]:
    """Return the data of a run's folder and its trained rule, the rule's own state with it, in evaluation mode.

    The state is the best epoch's where the run ended with that, as its record does, and is read from the folder's
    checkpoint. Without one a rule is built from `net.safetensors`, if its net alone predicts.

    Args:
        folder: The folder of a run that the command line started; one from Python has no configuration of its rule and
            data.
        trust: Classes in addition to localearn's own, as `module.Class`, that the folder may name and that are then
            imported.

    Raises:
        UserError: Where the folder has no such run, its data are missing or are not those of its record, or the rule's
            state is missing and needed.

    Example:
        data, rule = load_rule("runs/20261120-163926-mono_forward-digits-0")

    """
    run = RunFolder(Path(folder).expanduser())
    if not run.path.is_dir():
        raise UserError(f"{run.path}: there is no such folder")
    check_regular(run.config)
    config, choices = _read_configuration(
        run, trust, str(run.path), "holds no more of its rule and data; what built them builds them again"
    )
    plain = _resolved(config)
    with own_random_numbers():
        data, trainer, _ = _build(plain, choices)
    recorded = read_record(run.path).data_fingerprint if run.record.exists() else ""
    if recorded and recorded != data.fingerprint():
        raise UserError(f"{run.path}: the data are not those that the run was trained on; put its own in their place")
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


def _check_read(path: Path, config: Any, trust: Collection[str]) -> None:
    """Raise UserError unless a configuration that was read from a file names only classes that are known or trusted."""
    from omegaconf import OmegaConf

    check_interpolations(path, OmegaConf.to_container(config, resolve=False))
    check_tree(path, OmegaConf.to_container(config, resolve=True), trust)


def load_net(folder: str | Path, *, net: Net | None = None, trust: Collection[str] = ()) -> Net:
    """Return the trained net of a run's folder, in evaluation mode, without its trainer or its data.

    Args:
        folder: The run's folder, whose `net.safetensors` is read.
        net: A net that was built as the trained one was, for instance by `Net.from_blocks`; the folder's tensors are
            loaded into it once their names and shapes were checked, and it is returned. Needed where the folder does
            not say how the net is built, which is so for one of your own modules: a file runs no code.
        trust: Classes in addition to localearn's own, as `module.Class`, that the folder may name and that are then
            imported.

    Raises:
        UserError: Where there is no net, or none that says how it was built, or another than the one given; no class
            but a Net is ever called.

    Example:
        net = localearn.load_net("runs/20261120-163926-mono_forward-digits-0")
        scores = net(x)

    """
    path = RunFolder(Path(folder)).net
    described, weights = _read_net(path)
    if net is None:
        net = _rebuilt(path, described, weights, trust)
    elif not isinstance(net, Net):
        raise UserError(f"net= takes a localearn.Net, not a {type(net).__name__}; Net.from_blocks makes one of modules")
    elif (net.input_shape, net.classes) != (found := _sizes_of(path, described)):
        raise UserError(
            f"{path} is of a net that takes rows of shape {found[0]} and has {found[1]} outputs, and the net given "
            f"takes {net.input_shape} and has {net.classes}; build it as the trained one was"
        )
    check_weights(path, weights, net.state_dict())
    net.load_state_dict(weights)
    if "task" in described:
        net.task = read_task(path, described["task"])
    if "codec" in described:
        codec = read_codec(path, described["codec"])
        if codec.size != net.takes.vocabulary:
            raise UserError(f"{path}: its net takes {net.takes.vocabulary} tokens and its vocabulary has {codec.size}")
        net.codec = codec
    names = described.get("class_names")
    if isinstance(names, list) and len(names) == net.classes and all(isinstance(name, str) for name in names):
        net.class_names = tuple(names)
    return net.eval()


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
            described = json.loads((file.metadata() or {}).get("localearn", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    if not isinstance(described, dict):
        raise UserError(f"{path}: what it says of its net is {type(described).__name__}, not an object")
    checksum = described.pop("sha256", None)  # which older files lack
    if checksum is not None and checksum != digest_of(weights, described):
        raise UserError(f"{path} is damaged: its checksum is not that of its content")
    names = described.get("names")
    if names is None:
        return described, weights
    if not isinstance(names, dict) or not all(isinstance(own, str) and own in weights for own in names.values()):
        raise UserError(f"{path}: its names for the net's tensors are not those of the tensors that it holds")
    return described, {name: weights[own] for name, own in names.items()}


def _rebuilt(path: Path, described: dict[str, Any], weights: Mapping[str, Tensor], trust: Collection[str]) -> Net:
    """Return a net as the file describes it, its weights still to be loaded."""
    options = described.get("net")
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
    shape, classes = _sizes_of(path, described)
    vocabulary: Any = described.get("vocabulary")
    categories: Any = described.get("categories", [])
    if not _are_sizes([1 if vocabulary is None else vocabulary]) or not _are_sizes(categories):
        raise UserError(f"{path}: its net is of {vocabulary!r} tokens and {categories!r} categories, which is none")
    takes = InputSpec(shape, vocabulary, categories=tuple(categories))
    if is_known(options["_target_"]):  # of which it is known that they can be built without memory
        _check_sizes(path, options, takes, classes, weights)
    with full_memory_told(f"the net that {path} describes", "a machine with more"):
        return build_net(options, takes, classes)


def _check_sizes(
    path: Path, options: dict[str, Any], takes: InputSpec, classes: int, weights: Mapping[str, Tensor]
) -> None:
    """Raise UserError unless the net that a file describes is as large as the tensors that the file holds.

    So a few bytes of a file cannot ask for a large allocation or a great number of layers.
    """
    elements = sum(tensor.numel() for tensor in weights.values())
    for name, value in options.items():
        sizes = value if isinstance(value, list) else [value]
        of_net = name != "group" and any(type(size) is int and size > max(elements, 1) for size in sizes)
        if of_net or len(sizes) > max(len(weights), 1):
            raise UserError(f"{path}: net.{name} asks for a larger net than its {len(weights)} tensors are of")
    if math.prod(takes.shape) > _LARGEST_ROW:
        raise UserError(f"{path}: its net is of rows of shape {takes.shape}, of more values than a row has")
    with torch.device("meta"):
        check_weights(path, weights, build_net(options, takes, classes).state_dict())


def _sizes_of(path: Path, described: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Return the shape of a row and the number of outputs of the net that a file describes."""
    shape: Any = described.get("input_shape")
    classes: Any = described.get("classes")
    if not _are_sizes(shape) or not _are_sizes([classes]):
        raise UserError(f"{path}: its net is of rows of shape {shape!r} in {classes!r} classes, which is none")
    return tuple(shape), classes


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 < value < 2**31 for value in values)


def _build(plain: dict[str, Any], choices: Choices) -> tuple[Data, Trainer, Settings]:
    settings = _settings(plain, choices)  # first, so that a wrong number is reported before data are read
    data = build_data(plain["dataset"])
    torch.manual_seed(settings.seed)
    with full_memory_told(f"net={choices['net']} with algo={choices['algo']} as set", "smaller sizes"):
        net = build_net_for(rule_class(plain["algo"]), plain["net"], data)
        net.task = data.task
        trainer = build_rule(plain["algo"], net, choices["algo"])
        # What a user's own file leaves out is the rule's default, which the record shall have too.
        plain["algo"] = rule_options(type(trainer), kind_of(net), values=not data.task.exclusive) | plain["algo"]
    return data, trainer, settings


def _resolved(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values, its keys being those of config.yaml, no more and no fewer."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0]}") from error
    plain.pop("tune", None)  # what a search makes runs from is no part of one
    known, of_energy = _shipped_keys()
    _check_keys(plain, known)
    if not isinstance(plain["energy"], dict):
        raise UserError(f"energy must be a group of {', '.join(of_energy)}, not {plain['energy']!r}")
    _check_keys(plain["energy"], of_energy, prefix="energy.")
    for group in GROUPS:
        if not isinstance(plain[group], dict):
            raise UserError(f"{group} must be chosen, say {group}=NAME; --help lists the names")
    check_types({name: plain[name] for name in _TYPES}, _TYPES)
    check_types(plain["energy"], _ENERGY_TYPES, prefix="energy.")
    return plain


@functools.cache
def _shipped_keys() -> tuple[list[str], list[str]]:
    """Return the keys of config.yaml, with the groups that it chooses from, and those of its `energy`."""
    from omegaconf import OmegaConf

    shipped: Any = OmegaConf.load(CONF / "config.yaml")
    known = [str(key) for key in shipped if key not in _COMPOSING]
    return [*known, *GROUPS], [str(key) for key in shipped.energy]


def _check_keys(values: dict[str, Any], known: Sequence[str], prefix: str = "") -> None:
    for key in values:
        if key not in known:
            raise UserError(f"no key {prefix + str(key)!r}{suggestion(str(key), known)}; --cfg job shows the keys")
    for key in known:
        if key not in values:
            raise UserError(f"the configuration has no {prefix + key!r}, which every run needs")


def _settings(plain: dict[str, Any], choices: Choices) -> Settings:
    energy, names = plain["energy"], _names(plain, choices)
    return Settings(
        **{name: plain[name] for name in SHARED},
        optim=optimizer_factory(plain["optim"]),
        schedule=schedule_factory(plain["schedule"]),
        energy=energy["enabled"],
        country=energy["country"],
        idle_s=energy["idle_s"],
        out=Path(str(plain["resume"] or plain["out"] or default_out(plain["seed"], choices | names))).expanduser(),
    )


def _names(plain: dict[str, Any], choices: Choices) -> dict[str, str]:
    return names_built(plain, choices, {group: _shipped(group, choices[group]) for group in ("algo", "dataset", "net")})


def _shipped(group: str, choice: str) -> dict[str, Any]:
    """Return the options in the file of that name that localearn ships, nothing where it ships none."""
    from omegaconf import OmegaConf

    path = CONF / group / f"{choice}.yaml"
    if not path.is_file():
        return {}
    file: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return file.get(group, file)


def default_out(seed: int, choices: Choices, job: int | None = None) -> Path:
    """Return a folder below runs/ that does not exist yet.

    Args:
        seed: The run's seed, part of the name.
        choices: The names of algo and dataset, parts of the name.
        job: The number of a job of a sweep, which separates runs that begin in the same second.

    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{choices['algo']}-{choices['dataset']}-{seed}{'' if job is None else f'-{job}'}"
    out = Path("runs") / name
    again = 1
    while out.exists():
        again += 1
        out = Path("runs") / f"{name}-{again}"
    return out
