"""Run a composed configuration: `execute` trains it, `build` and `settings_of` only make its objects."""

import contextlib
import datetime
import functools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from localearn.data import Data
from localearn.defaults import CONF, GROUPS, kind_of, rule_options
from localearn.errors import UserError, suggestion
from localearn.moved import former_names
from localearn.options import check_types
from localearn.records import Record, versions
from localearn.trainers.base import Trainer
from localearn.training.building import (
    build_callbacks,
    build_data,
    build_net_for,
    build_rule,
    optimizer_factory,
    rule_class,
    schedule_factory,
)
from localearn.training.callbacks import Callback
from localearn.training.distributed import Ranks, join_process_group
from localearn.training.fit import train
from localearn.training.generator import own_random_numbers
from localearn.training.identity import names_built
from localearn.training.memory import out_of_memory_error
from localearn.training.settings import Settings

Choices = dict[str, Any]  # the names chosen for algo, dataset and net, and the overrides

# The fields of Settings that are keys of the same name at the top of the configuration: all but these.
_NOT_SHARED = ("optim", "schedule", "energy", "country", "idle_s", "out")
SHARED = tuple(field.name for field in fields(Settings) if field.name not in _NOT_SHARED)
_TYPES = {"protocol": Literal["matched", "converged"] | None, "debug": bool}
_ENERGY_TYPES = {"enabled": bool, "country": str | None, "idle_s": float}

# Keys that are used up by composing a configuration.
_COMPOSING = ("about", "defaults", "hydra", "tune", "recipe", "recipes", "refused")


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
        choices: The names chosen for algo, dataset and net, and the overrides, as they are recorded.
        started_s: The `time.perf_counter()` from which setup is measured; None is now.
        callbacks: Callbacks called after those of the configuration.
        test: Whether the test split is evaluated, as in `localearn.training.train`.

    Raises:
        UserError: For an error that the user can fix.

    """
    started_s = time.perf_counter() if started_s is None else started_s
    plain = _resolved(config)
    with _join_ranks(plain) as ranks, own_random_numbers():
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

    callbacks_of_config = ranks.run_on_all_ranks(lambda: build_callbacks(plain["callbacks"]))
    data, trainer, settings = ranks.run_on_all_ranks(lambda: _build(plain, choices))
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
    callbacks = [*callbacks_of_config, *callbacks]
    return train(
        trainer, data, settings, labels, resume=resume, config=saved, callbacks=callbacks, test=test, extend=extend
    )


@contextlib.contextmanager
def _join_ranks(plain: dict[str, Any]) -> Iterator[Ranks]:
    """Join the other ranks, if any, before data are read, so that an error of one is reported by all.

    Raises UserError where torchrun and the configuration contradict each other.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if several and plain["parallel"] == "none":
        raise UserError(
            f"{os.environ['WORLD_SIZE']} ranks were started, each of which would train the same net; "
            "use parallel=data or parallel=layers"
        )
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if several and restarts and plain["out"] is None and plain["resume"] is None:
        raise UserError("restarted ranks continue in the run's folder; give out=DIR")
    rank_settings = Settings(**{name: plain[name] for name in ("parallel", "rank_timeout_s", "device")})
    with join_process_group(
        rank_settings, {name: value for name, value in versions().items() if name in ("localearn", "torch")}
    ) as found:
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


def _build(plain: dict[str, Any], choices: Choices) -> tuple[Data, Trainer, Settings]:
    settings = _settings(plain, choices)  # first, so that a wrong number is reported before data are read
    data = build_data(plain["dataset"])
    torch.manual_seed(settings.seed)
    with out_of_memory_error(f"net={choices['net']} with algo={choices['algo']} as set", "smaller sizes"):
        net = build_net_for(rule_class(plain["algo"]), plain["net"], data)
        net.task = data.task
        trainer = build_rule(plain["algo"], net, choices["algo"])
        # Options that a user's own file leaves out have the rule's defaults, which are recorded, too.
        plain["algo"] = rule_options(type(trainer), kind_of(net), values=not data.task.exclusive) | plain["algo"]
    return data, trainer, settings


def _resolved(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values, after checking that its keys are exactly those of config.yaml."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        alone = "; ${hydra:...} is of a sweep's runs, with -m" if "HydraConfig was not set" in str(error) else ""
        raise UserError(f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0]}{alone}") from error
    plain.pop("tune", None)  # of a search, not of a run
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
    """Return the options in localearn's own file of that name; empty where there is none."""
    from omegaconf import OmegaConf

    path = CONF / group / f"{choice}.yaml"
    if not path.is_file():
        return {}
    file: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return file.get(group, file)


def default_out(seed: int, choices: Choices, job: int | None = None, folder: Path = Path("runs")) -> Path:
    """Return the path of a folder in runs/ that does not exist yet.

    Args:
        seed: The run's seed, part of the name.
        choices: The names of algo and dataset, parts of the name.
        job: The number of a job of a sweep, which separates runs that begin in the same second.
        folder: Another folder than runs/.

    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{choices['algo']}-{choices['dataset']}-{str(seed)[:20]}{'' if job is None else f'-{job}'}"
    out = folder / name
    again = 1
    while out.exists():
        again += 1
        out = folder / f"{name}-{again}"
    return out


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
