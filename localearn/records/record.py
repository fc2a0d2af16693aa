"""What a run leaves behind."""

import json
import math
import platform
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SCHEMA = 1


@dataclass
class Record:
    """What happened in a run; run.json is this, but for `history`, which is metrics.jsonl.

    Accuracies lie in 0..1, durations are in seconds, memory in bytes, energy in joules. `passes` counts the passes over
    the training split, over all stages; `energy` and `co2e` say of each figure whether it is measured, estimated or
    absent, and an absent figure is None. ranks: the processes that trained together, see `Settings.parallel`.

    `metrics` has each metric of the task by name: its `direction` ("max" or "min" is better), its `unit` ("fraction",
    0 to 1, or "value") and its figures on the splits, `val` and `test`. The accuracies beside it are those of a
    classification, and None for other tasks.
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
    test_accuracy: float | None = None
    test_loss: float | None = None
    val_accuracy: float | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
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

    def to_json(self) -> str:
        """Return run.json's text."""
        values = {name: _finite(value) for name, value in asdict(self).items() if name != "history"}
        return json.dumps(values, indent=2, allow_nan=False, default=str) + "\n"

    def __str__(self) -> str:
        shown = (
            "status",
            "algo",
            "dataset",
            "net",
            "test_accuracy",
            "val_accuracy",
            "passes",
            "train_s",
            "samples_per_s",
        )
        parts = [f"{name}={_short(getattr(self, name))}" for name in shown if getattr(self, name) not in (None, "")]
        for name, metric in self.metrics.items() if "accuracy" not in self.metrics else ():
            parts += [
                f"{split}_{name}={_short(metric[split])}" for split in ("test", "val") if metric[split] is not None
            ]
        if self.energy.get("train_j") is not None:
            parts.append(f"train_j={_short(self.energy['train_j'])} ({self.energy['label']})")
        return f"Record({', '.join(parts)})"

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of run.json's fields, in order."""
        return [f.name for f in fields(cls) if f.name != "history"]


def _finite(value: Any) -> Any:
    """Return the value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def versions() -> dict[str, str]:
    """Return the versions of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    packages = (
        "localearn",
        "torch",
        "numpy",
        "torchvision",
        "torch-geometric",
        "codecarbon",
        "nvidia-ml-py",
        "hydra-core",
    )
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
