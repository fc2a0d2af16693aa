"""Which runs may be compared: those that differ in the rule and in its own hyperparameters, and in nothing else."""

import json
from dataclasses import dataclass

from localearn.reporting.records import Run


@dataclass(frozen=True, slots=True)
class Settings:
    """What a rule and its baseline must share. The data's fingerprint stands with the runs: it may differ by seed."""

    net: str
    net_config: str  # the resolved configuration, so that two nets of one name do not pass for one
    dataset: str
    augment: str | None
    batch_size: float | None
    precision: str | None
    device: str
    capture: str | None
    ranks: str
    step: str
    deterministic: bool


def settings(run: Run) -> Settings:
    """Return the settings that a run was made under."""
    threads = run.device.get("threads") if run.device_type == "cpu" else None
    name = run.device.get("name") or run.device_type
    return Settings(
        net=run.net,
        net_config=json.dumps(run.config.get("net"), sort_keys=True, default=str),
        dataset=run.dataset,
        augment=_augmentation(run),
        batch_size=run.batch_size,
        precision=run.precision,
        device=f"{name}, {threads} threads" if threads else str(name),
        capture=run.capture,
        ranks=run.ranks,
        step=run.step,
        deterministic=run.deterministic,
    )


def setting_differences(ours: Settings, theirs: Settings) -> list[str]:
    """Return, in words, each setting that differs and how: `batch size 128 against 64`."""
    pairs = [
        ("net", ours.net, theirs.net),
        ("data", ours.dataset, theirs.dataset),
        ("augmentation", ours.augment, theirs.augment),
        ("batch size", _number(ours.batch_size), _number(theirs.batch_size)),
        ("precision", ours.precision, theirs.precision),
        ("device", ours.device, theirs.device),
        ("capture", ours.capture, theirs.capture),
        ("processes", ours.ranks, theirs.ranks),
        ("steps", ours.step, theirs.step),
        ("deterministic", ours.deterministic, theirs.deterministic),
    ]
    found = [f"{name} {_said(mine)} against {_said(other)}" for name, mine, other in pairs if mine != other]
    if ours.net == theirs.net and ours.net_config != theirs.net_config:
        found.insert(0, f"net {ours.net} under two configurations")
    return found


def _augmentation(run: Run) -> str | None:
    options = run.config.get("dataset")
    value = options.get("augment") if isinstance(options, dict) else None
    return None if value is None else str(value)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _said(value: object) -> str:
    return "not recorded" if value is None else str(value)


def stopping(run: Run) -> str:
    """Return what a run's early stopping went by, in words."""
    options = {name: run.config.get(name) for name in ("monitor", "patience", "min_delta")}
    return ", ".join(f"{name}={_said(value)}" for name, value in options.items())
