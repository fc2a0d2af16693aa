"""The definition of a run's record, its energy among it, and the versions that it names."""

import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from localearn.moved import former_names
from localearn.tasks import Classification, Direction, Metric, Unit

SCHEMA = 2
Split = Literal["val", "test"]
LOSS = Metric("loss", "min", "value")  # every task has it

# Not in run.json: metrics.jsonl has the first, and the second is about a file that was read.
NOT_IN_JSON = ("history", "lacking")
# Former fields, each a metric on a split. run.json has them for one release more, and only schema 1 is read by them.
FORMER: dict[str, tuple[str, Split]] = {
    "test_accuracy": ("accuracy", "test"),
    "test_loss": ("loss", "test"),
    "val_accuracy": ("accuracy", "val"),
}

Label = Literal["measured", "estimated", "absent"]
LABELS: tuple[Label, ...] = get_args(Label)

_PACKAGES = (
    "localearn",
    "torch",
    "numpy",
    "torchvision",
    "torch-geometric",
    "codecarbon",
    "nvidia-ml-py",
    "hydra-core",
)


class Figures(TypedDict):
    """A metric's figures on the splits; None where a split was not evaluated, or the figure is not finite.

    Attributes:
        direction: whether more ("max") or less ("min") is better.
        unit: "fraction", 0 to 1, or "value".
        val: on the validation split.
        test: on the test split.

    """

    direction: Direction
    unit: Unit
    val: float | None
    test: float | None


@dataclass
class Record:
    """The record of a run; run.json is this, but for `history`, which is metrics.jsonl.

    Names end in their unit: `_s` in seconds, `_bytes`, `_kg`; energy is in joules. `test_accuracy`, `val_accuracy` and
    `test_loss`, the former places of figures, are deprecated: the next release has them no more.

    Attributes:
        status: "completed", "stopped" by a callback, "interrupted" by a signal, "diverged" or "failed"; "running"
            until then.
        schema: the version of these fields.
        algo: the rule's name in the configuration.
        rule: its class.
        dataset: the data set's name.
        net: the net's name.
        seed: of order, augmentation and the rule's draws.
        protocol: the protocol's name, if the run follows one.
        epochs: over all stages.
        passes: over the training split, counted over all stages.
        stages: the number of phases.
        train_samples: rows of the training split.
        val_samples: rows of the validation split.
        test_samples: rows of the test split.
        metrics: the loss and each metric of the task by name, with its figures on the validation and the test split;
            `metric` gives one figure.
        best_epoch: of the last stage.
        train_s: seconds of training.
        eval_s: seconds of evaluation.
        setup_s: seconds before both.
        samples_per_s: training samples in a second of training.
        peak_memory_bytes: the headline figure, the allocator's where there is one, else the process's.
        memory: the peaks by name, `allocator_bytes` and `process_bytes`.
        parameters: the number of them.
        energy: joules by part and window, each with whether it is measured, estimated or absent; an absent one is None.
        co2e_kg: of training.
        co2e: its label and source.
        device: its type, name and threads.
        precision: "fp32" or "bf16".
        batch_size: rows a step.
        capture: how the update was captured, "off" where it was not.
        deterministic: whether only deterministic algorithms were used.
        parallel: the ranks' share of the work, see `Settings.parallel`.
        ranks: the processes that trained together.
        versions: of Python and the packages.
        data_fingerprint: of the data as prepared.
        started: the moment of its start.
        finished: the moment of its end.
        seams: for each time that the run was resumed, when and from which stage, epoch and batch.
        config: all options, resolved.
        error: why it ended, where that is not as planned.
        diagnostics: what the rule or the command adds.
        history: the lines of metrics.jsonl, one for each epoch.
        lacking: of a record that was read, the fields that its file does not hold, as that of an older version; they
            have their defaults here.

    """

    status: str = "running"
    schema: int = SCHEMA
    algo: str = ""
    rule: str = ""
    dataset: str = ""
    net: str = ""
    seed: int = 0
    protocol: str | None = None
    epochs: int = 0
    passes: float = 0.0
    stages: int = 1
    train_samples: int = 0
    val_samples: int = 0
    test_samples: int = 0
    metrics: dict[str, Figures] = field(default_factory=dict)
    best_epoch: int | None = None
    train_s: float = 0.0
    eval_s: float = 0.0
    setup_s: float = 0.0
    samples_per_s: float | None = None
    peak_memory_bytes: int | None = None
    memory: dict[str, int | None] = field(default_factory=dict)
    parameters: int = 0
    energy: dict[str, Any] = field(default_factory=dict)
    co2e_kg: float | None = None
    co2e: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    batch_size: int = 0
    capture: str = "off"
    deterministic: bool = False
    parallel: str = "none"
    ranks: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    data_fingerprint: str = ""
    started: str = ""
    finished: str = ""
    seams: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)
    lacking: frozenset[str] = field(default_factory=frozenset, repr=False)

    def metric(self, name: str, split: Split = "test") -> float | None:
        """Return the loss or a metric on a split; None where it is not known.

        Args:
            name: "loss", or a metric of the task, as "accuracy".
            split: "val" or "test".

        """
        figures = self.metrics.get(name)
        return None if figures is None else figures[split]

    @property
    def judged_by(self) -> Metric:
        """The metric that the run is judged by: its task's first, the accuracy where the record names none."""
        for name, figures in self.metrics.items():
            if name != LOSS.name:
                return Metric(name, figures["direction"], figures["unit"])
        return Classification.metrics[0]

    @property
    def machine(self) -> str | None:
        """The device's name, a CPU's with its threads: "NVIDIA H200", "AMD EPYC, 2 threads"; None if not recorded."""
        name, threads = (self.device.get(key) for key in ("name", "threads"))
        name = name or self.device.get("type")
        if not name:
            return None
        return f"{name}, {threads} thread{'' if threads == 1 else 's'}" if threads else str(name)

    def evaluated(self, metrics: Iterable[Metric], split: Split, figures: Mapping[str, float]) -> None:
        """Enter the figures of a split: the loss, and these metrics of the task.

        Args:
            metrics: the task's.
            split: "val" or "test".
            figures: by the names of the metrics, and of the loss.

        """
        for metric in (LOSS, *metrics):
            new = Figures(direction=metric.direction, unit=metric.unit, val=None, test=None)
            self.metrics.setdefault(metric.name, new)[split] = figures[metric.name]

    @property
    def test_accuracy(self) -> float | None:
        """Deprecated; use `metric("accuracy")`."""
        return self.metric("accuracy")

    @property
    def val_accuracy(self) -> float | None:
        """Deprecated; use `metric("accuracy", "val")`."""
        return self.metric("accuracy", "val")

    @property
    def test_loss(self) -> float | None:
        """Deprecated; use `metric("loss")`."""
        return self.metric("loss")

    def to_json(self) -> str:
        """Return the text of run.json."""
        values = {name: value for name, value in asdict(self).items() if name not in NOT_IN_JSON}
        values |= {name: self.metric(metric, split) for name, (metric, split) in FORMER.items()}
        return json.dumps(_finite(values), indent=2, allow_nan=False, default=str) + "\n"

    def __str__(self) -> str:
        head = [(name, getattr(self, name)) for name in ("status", "algo", "dataset", "net")]
        judged = [name for name in self.metrics if name != LOSS.name]
        head += [(f"{split}_{name}", self.metric(name, split)) for name in judged for split in ("test", "val")]
        head += [(name, getattr(self, name)) for name in ("passes", "train_s", "samples_per_s")]
        parts = [f"{name}={_short(value)}" for name, value in head if value not in (None, "")]
        if self.energy.get("train_j") is not None:
            parts.append(f"train_j={_short(self.energy['train_j'])} ({self.energy['label']})")
        return f"Record({', '.join(parts)})"

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of run.json's fields, in order."""
        return [*(f.name for f in fields(cls) if f.name not in NOT_IN_JSON), *FORMER]


def _finite(value: Any) -> Any:
    """Return the value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Reading:
    """The source of a number of joules, or of kg CO2e. Only numbers of equal readings are averaged or compared.

    Args:
        label: how well the number is known.
        source: nvml, rapl, codecarbon; None where it is absent.
        part: gpu, cpu, dram.

    """

    label: Label
    source: str | None = None  # nvml, rapl, codecarbon
    part: str | None = None  # gpu, cpu, dram

    def __str__(self) -> str:
        return ", ".join(part for part in (self.label, self.source, self.part) if part)


@dataclass(frozen=True)
class Window:
    """The energy of one part of the machine in one named window of a run.

    Attributes:
        energy_j: in joules, None where it is not known.
        uncertainty_j: in joules, None where it is not known.
        flags: of the meter.

    """

    energy_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One part of the machine.

    Attributes:
        reading: the source of its joules.
        note: a remark on it.
        idle_before_w: its idle power before the run.
        idle_after_w: its idle power after it.
        windows: its energy, by the window's name.

    """

    reading: Reading
    note: str | None
    idle_before_w: float | None
    idle_after_w: float | None
    windows: Mapping[str, Window]


@dataclass(frozen=True)
class Energy:
    """The energy of a run: the headline part's training joules, and every part's windows.

    Attributes:
        reading: the source of the headline part's joules.
        train_j: gross joules of training.
        train_net_j: the same above idle.
        uncertainty_j: of `train_j`.
        flags: of the meter.
        parts: every part, by name.
        conditions: of the machine.

    """

    reading: Reading
    train_j: float | None
    train_net_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]
    parts: Mapping[str, Part]
    conditions: Mapping[str, Any]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages, those that are installed."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
