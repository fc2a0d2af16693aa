"""How to train: everything that is neither the rule, nor the net, nor the data."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from localearn.errors import UserError, suggestion
from localearn.options import annotations, check_types

OptimizerFactory = Callable[[Iterable[nn.Parameter] | Iterable[dict[str, Any]]], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer], Any]

_PLAIN = bool | int | float | str | None
_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "eval_batch_size": 1,
    "patience": 1,
    "feature_cache_bytes": 0,
    "min_delta": 0,
    "idle_s": 0,
}


_ADAM = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)


@dataclass(frozen=True)
class Settings:
    """The options of `fit`. Raises UserError for a value of the wrong type or out of its range.

    The defaults are the general ones of conf/config.yaml; `fit` puts the rule's recipe in their place.

    epochs: passes over the training split, at most, for each stage. batch_size: rows a step; a graph is one batch.
    eval_batch_size: rows a step where nothing is learned.
    optim: a torch.optim class with its options bound; one is built for each stage.
    schedule: a torch.optim.lr_scheduler class with its options bound, stepped once an epoch; None keeps the rate.
    monitor: what a stage is watched by, "val_" and the loss or a metric of the data's task, say "val_accuracy" or
    "val_loss" (None: the task's first metric). patience: epochs without an improvement of more than min_delta, after
    which a stage stops (None: never); restore_best: whether a stage ends with its best epoch's weights or its last
    one's.
    clip_norm: the largest norm of all gradients together, or of each net's where a rule has two (None: no clipping).
    step: "all", one step of the optimizer when all gradients are there; "block", a step for each as soon as it is
    there, after which it is dropped: the same weights, with less memory in a deep net.
    capture: "graph", the whole update recorded as a CUDA graph and replayed; "compile", blocks and optimizer compiled
    by torch.compile; "auto", a graph on a CUDA device; "off". Where it is not possible the run says why and goes on
    without.
    parallel: over the ranks that torchrun starts: "data", where each takes its rows of every batch, `batch_size` being
    that of all together; "layers", where each trains some blocks of a local rule; "none". rank_timeout_s: how long a
    rank waits for another.
    memory_format: how a convolutional net lies in memory: "channels_last", in which most rules are faster, and to
    rounding the same; "contiguous"; or "auto", the first for what is faster by it (not the estimators) on a CPU, and on
    a CUDA device in bf16.
    precision: "fp32", or "bf16" by autocast. device: auto, cpu, cuda (or cuda:1) or mps. seed: of order, augmentation
    and what the rule draws. deterministic: only deterministic algorithms, on a GPU too (slower).
    feature_cache_bytes: the most that a greedy stage's precomputed features may take on the device.
    energy: whether to meter joules; country: the ISO 3166 alpha-3 code for the grid's carbon; idle_s: seconds of idling
    metered before and after. out: the run's folder (None: nothing is written).
    log: "none", or a logger, "tensorboard", "csv", "mlflow" or "wandb", see `localearn.training.loggers`.
    progress: whether to show it. diagnose: "none", or "alignment": every epoch's line of metrics has the angles between
    the rule's update and the true gradient, taken outside the metered windows; refused where a rule predicts by more
    than the net, or has no gradients.
    """

    epochs: int = 20
    batch_size: int = 128
    eval_batch_size: int = 1024
    optim: OptimizerFactory = _ADAM
    schedule: ScheduleFactory | None = None
    monitor: str | None = None
    patience: int | None = None
    min_delta: float = 1e-4
    restore_best: bool = True
    clip_norm: float | None = None
    step: Literal["all", "block"] = "all"
    capture: Literal["auto", "graph", "compile", "off"] = "off"
    parallel: Literal["none", "data", "layers"] = "none"
    rank_timeout_s: float = 600.0
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    seed: int = 0
    deterministic: bool = False
    feature_cache_bytes: int = 8 * 2**30
    energy: bool = False
    country: str | None = None
    idle_s: float = 0.3
    out: Path | None = None
    log: Literal["none", "tensorboard", "csv", "mlflow", "wandb"] = "none"
    progress: bool = False
    diagnose: Literal["none", "alignment"] = "none"

    def __post_init__(self) -> None:
        check_types(vars(self), annotations(type(self)))
        for name, bound in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"{name} must be {bound} or more, not {value}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"clip_norm must be positive, or null for no clipping, not {self.clip_norm}")
        if self.rank_timeout_s <= 0:
            raise UserError(f"rank_timeout_s must be positive, not {self.rank_timeout_s}")
        if self.parallel == "data" and self.step == "block":
            raise UserError("parallel=data reduces all gradients at once, and step=block drops each; use step=all")
        if self.parallel == "layers" and self.clip_norm is not None:
            raise UserError("clip_norm needs all gradients at once, and parallel=layers spreads them over ranks")
        if self.parallel != "none" and self.capture not in ("auto", "off"):
            raise UserError(f"capture={self.capture} is of a process alone; use capture=off, or parallel=none")
        if self.parallel != "none" and self.diagnose != "none":
            raise UserError(f"diagnose={self.diagnose} looks at the whole net on one process; use parallel=none")
        if self.clip_norm is not None and self.step == "block":
            raise UserError("clip_norm needs all gradients at once, and step=block drops each; use step=all")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed must lie in [0, 2^63), not {self.seed}")

    @classmethod
    def of(cls, **options: Any) -> "Settings":
        """Build settings, or raise a UserError that names an unknown option and the nearest known one."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(f"fit has no option {name!r}{suggestion(name, known)}")
        return cls(**options)

    def plain(self) -> dict[str, Any]:
        """Return the options as plain values for a record; what is none, such as a class, in words."""
        return {name: value if isinstance(value, _PLAIN) else str(value) for name, value in vars(self).items()}
