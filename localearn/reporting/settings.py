"""The settings that two runs must share to be compared, the options of their rules, and how they differ."""

import json
from dataclasses import dataclass
from typing import Any

from localearn.reporting.metrics import full
from localearn.reporting.runs import Run
from localearn.tasks import Metric

FORMER_MONITOR = "val_accuracy"  # the option's former default
# Parts of a configuration that say how a rule was trained, besides what `Settings` has.
_OPTIONS = ("algo", "optim", "schedule", "epochs", "patience", "min_delta", "monitor", "restore_best", "clip_norm")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a rule and its baseline must share.

    The data's fingerprint is stored with the runs: it may differ by seed.

    Attributes:
        net: the net's name.
        net_config: its resolved options.
        dataset: the data set's name.
        augment: the augmentation's.
        batch_size: rows a step.
        precision: of the products.
        device: its name.
        capture: how the step was captured.
        ranks: as in `Run.ranks`.
        step: "all" or "block".
        deterministic: whether only deterministic algorithms were used.
        metric: what the runs are judged by.

    """

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
    metric: Metric


def settings(run: Run) -> Settings:
    """Return the settings that a run was made under.

    Args:
        run: the run.

    """
    return Settings(
        net=run.record.net,
        net_config=json.dumps(_net_options(run), sort_keys=True, default=str),
        dataset=run.dataset,
        augment=_augmentation(run),
        batch_size=run.batch_size,
        precision=run.precision,
        device=run.record.machine or run.device_type,
        capture=run.capture,
        ranks=run.ranks,
        step=run.step,
        deterministic=run.record.deterministic,
        metric=run.metric,
    )


def _net_options(run: Run) -> Any:
    """Return the options of a run's net, without that no blocks are grouped, which an older record does not say."""
    options = run.record.config.get("net")
    return (
        {name: v for name, v in options.items() if (name, v) != ("group", 1)} if isinstance(options, dict) else options
    )


def _augmentation(run: Run) -> str | None:
    options = run.record.config.get("dataset")
    value = options.get("augment") if isinstance(options, dict) else None
    return None if value is None else str(value)


def setting_differences(ours: Settings, theirs: Settings) -> list[str]:
    """Return each setting that differs and how, as text: `batch size 128 against 64`.

    Args:
        ours: one run's settings.
        theirs: another's.

    """
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
        ("metric", full(ours.metric), full(theirs.metric)),
    ]
    differing = [
        f"{name} {_value_text(mine)} against {_value_text(other)}" for name, mine, other in pairs if mine != other
    ]
    if ours.net == theirs.net and ours.net_config != theirs.net_config:
        differing.insert(0, f"net {ours.net} under two configurations")
    return differing


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _value_text(value: object) -> str:
    return "not recorded" if value is None else str(value)


def options(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the rule's class and its options, those of its optimizer and schedule and its length, by dotted name.

    Runs are averaged where they agree in all of them. What is null is left out, as in a record that is older than an
    option, and so is what differs from process to process.

    Args:
        run: the run.

    """
    chosen = {"rule": run.record.rule or ""}
    for part in _OPTIONS:
        chosen |= _flat(part, _monitor(run) if part == "monitor" else run.record.config.get(part))
    return tuple(sorted((name, value) for name, value in chosen.items() if value and " at 0x" not in value))


def option_differences(ours: tuple[tuple[str, str], ...], theirs: tuple[tuple[str, str], ...]) -> list[str]:
    """Return `optim.lr=0.01` for each option that the others lack or have otherwise, a rule's class first.

    Args:
        ours: `options` of one run.
        theirs: `options` of another.

    """
    return [f"{name}={value}" for name, value in sorted(set(ours) - set(theirs), key=lambda pair: pair[0] != "rule")]


def _flat(name: str, value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {path: text for key, part in value.items() for path, text in _flat(f"{name}.{key}", part).items()}
    return {} if value is None else {name: value if isinstance(value, str) else json.dumps(value, default=str)}


def _monitor(run: Run) -> object:
    """Return the metric that early stopping monitored: by default, and in older records, its task's first."""
    named = run.record.config.get("monitor")
    former = named == FORMER_MONITOR and FORMER_MONITOR.removeprefix("val_") not in run.record.metrics
    if former or (named is None and "monitor" in run.record.config):
        return f"val_{run.metric.name}"
    return named


def data_of(run: Run) -> tuple[str, object]:
    """Return what a run's data were prepared by, in one text, and the seed of the split, by which they may differ.

    Args:
        run: the run.

    """
    chosen = run.record.config.get("dataset")
    known = dict(chosen) if isinstance(chosen, dict) else {}
    split = known.pop("split_seed", None)
    for place in ("data_dir", "path"):
        known.pop(place, None)  # a data set that was moved is the same one by its fingerprint
    if isinstance(known.get("task"), str):  # which older records do not have; the metric distinguishes tasks
        del known["task"]
    if known.get("criterion") == "squared":
        del known["criterion"]
    if known.get("leave_out") == []:
        del known["leave_out"]
    return json.dumps(known, sort_keys=True, default=str), run.record.seed if split is None else split


def stopping(run: Run) -> str:
    """Return what a run's early stopping monitored, as text.

    Args:
        run: the run.

    """
    options = {name: run.record.config.get(name) for name in ("patience", "min_delta")}
    options = {"monitor": _monitor(run), **options}
    return ", ".join(f"{name}={_value_text(value)}" for name, value in options.items())
