"""From a configuration to a run."""

import datetime
import inspect
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from localearn.data import Data
from localearn.errors import UserError, suggestion
from localearn.nets import Net
from localearn.trainers.base import Trainer
from localearn.training.fit import train
from localearn.training.folder import RunFolder
from localearn.training.record import Record
from localearn.training.settings import Settings

CONF = Path(__file__).parent.parent / "conf"

# The fields of Settings that stand under the same name at the top of the configuration.
SHARED = (
    "epochs batch_size eval_batch_size monitor patience min_delta restore_best clip_norm precision device seed "
    "deterministic feature_cache_bytes log progress"
).split()


def execute(config: Any, choices: dict[str, str], *, started_s: float | None = None) -> Record:
    """Run what a composed configuration (an omegaconf DictConfig) says, and return its record.

    choices: the names chosen for algo, dataset and net, as they shall stand in the record. With `resume` set, `config`
    and `choices` are those of the run's own folder (see `resumed`). Raises UserError for whatever the user can mend.
    """
    from omegaconf import OmegaConf

    started_s = time.perf_counter() if started_s is None else started_s
    data, trainer, settings = build(config, choices)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain |= {"out": str(settings.out), "choices": choices}
    labels = {
        "algo": choices["algo"],
        "dataset": choices["dataset"],
        "net": choices["net"],
        "protocol": config.protocol,
        "config": plain,
        "setup_s": time.perf_counter() - started_s,
    }
    saved = OmegaConf.to_yaml(OmegaConf.create(plain))
    return train(trainer, data, settings, labels, resume=config.resume is not None, config=saved)


def build(config: Any, choices: dict[str, str]) -> tuple[Data, Trainer, Settings]:
    """Return the data, the rule on its net and the settings that a configuration describes."""
    data = _instantiate(config.dataset, "dataset")
    torch.manual_seed(config.seed)
    shape = rule_class(config.algo._target_).input_shape(data)
    net = _instantiate(config.net, "net", input_shape=shape, classes=data.classes)
    if not isinstance(net, Net):
        raise UserError(f"net._target_={config.net._target_} gives a {type(net).__name__}, not a localearn.Net")
    trainer = build_rule(config.algo, net, choices["algo"])
    values = {name: config[name] for name in SHARED}
    out = config.resume or config.out or _default_out(config, choices)
    settings = Settings(
        **values,
        optim=_instantiate(config.optim, "optim"),
        schedule=_instantiate(config.schedule, "schedule"),
        energy=config.energy.enabled,
        country=config.energy.country,
        idle_s=config.energy.idle_s,
        out=Path(out),
    )
    return data, trainer, settings


def build_rule(options: Any, net: Net, choice: str) -> Trainer:
    """Build the rule that `algo` describes on a net.

    Where the user has set another `_target_`, the options that the chosen file gave to the rule it was written for are
    left out unless the user's rule has them too.
    """
    target = options._target_
    rule = rule_class(target)
    accepted = inspect.signature(rule).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    given = {str(name): value for name, value in options.items() if name != "_target_"}
    foreign = [name for name in given if name not in accepted and not takes_any]
    if foreign and target == default_target(choice):
        known = [name for name in accepted if name != "net"]
        raise UserError(f"{choice} has no option {foreign[0]!r}{suggestion(foreign[0], known)}")
    return rule(net, **{name: value for name, value in given.items() if name not in foreign})


def rule_class(target: str) -> type[Trainer]:
    """Return the rule of that dotted name."""
    from hydra.errors import HydraException
    from hydra.utils import get_class

    try:
        rule = get_class(target)
    except (HydraException, ImportError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"algo._target_={target} cannot be imported: {reason}") from error
    if not issubclass(rule, Trainer):
        raise UserError(f"algo._target_={target} is no localearn.Trainer; subclass it, or one of its families")
    return rule


def default_target(choice: str) -> str | None:
    """Return the `_target_` in the configuration file of that algorithm, None if it is not one of ours."""
    from omegaconf import OmegaConf

    path = CONF / "algo" / f"{choice}.yaml"
    return OmegaConf.load(path).algo._target_ if path.exists() else None


def load_net(folder: str | Path) -> Net:
    """Return the trained net of a run's folder, in evaluation mode, without its trainer or its data."""
    from hydra.utils import instantiate
    from safetensors import safe_open

    path = RunFolder(Path(folder)).net
    if not path.exists():
        raise UserError(f"{path} is not there; a run writes it when it is completed")
    with safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {}).get("localearn", "{}"))
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    if not described.get("net"):
        raise UserError(f"{path} was trained from Python and does not say how its net was built; load its tensors there")
    net = instantiate(described["net"], input_shape=tuple(described["input_shape"]), classes=described["classes"])
    net.load_state_dict(weights)
    return net.eval()


def resumed(folder: str, overrides: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """Return the configuration and the choices of the run in a folder, to go on with it."""
    from omegaconf import OmegaConf

    others = [o for o in overrides if o.split("=")[0] not in ("resume", "debug", "progress")]
    if others:
        raise UserError(f"resume= goes on with the run's own configuration; leave out {' '.join(others)}")
    run = RunFolder(Path(folder))
    run.open()
    config = OmegaConf.load(run.config)
    choices = dict(config.pop("choices"))
    config.resume = folder
    return config, choices


def _instantiate(options: Any, what: str, **extra: Any) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(options, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError | ImportError) or cause is None:
            reason = str(cause or error).splitlines()[0]
            raise UserError(f"{what} cannot be built from its options: {reason}") from error
        raise


def _default_out(config: Any, choices: dict[str, str]) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{choices['algo']}-{choices['dataset']}-{config.seed}"
    out = Path("runs") / name
    again = 1
    while out.exists():
        again += 1
        out = Path("runs") / f"{name}-{again}"
    return out
