"""Settings: the options of training, apart from those of the rule, the net and the data."""

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
_MINIMUM = {
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
    """The options of `fit`.

    The defaults are the general ones of conf/config.yaml; `fit` replaces them by the rule's recipe.

    Each is documented below itself; `python -m localearn.run --help` and the API reference are made of these texts.

    Raises:
        UserError: For a value of the wrong type or out of its range, and for options that contradict each other.

    """

    # Learning, from here to clip_norm: the rule's recipe sets all of them but eval_batch_size.
    epochs: int = 20
    """Passes over the training split, at most, for each phase; 1 or more."""
    batch_size: int = 128
    """Rows a step, 1 or more; a graph is one batch."""
    eval_batch_size: int = 1024
    """Rows a step in validation and test, 1 or more. Larger than a training batch by default, for nothing is stored for
    a backward pass.
    """
    optim: OptimizerFactory = _ADAM
    """A torch.optim class with its options bound; one optimizer is built for each phase."""
    schedule: ScheduleFactory | None = None
    """A torch.optim.lr_scheduler class with its options bound, stepped once an epoch; None for a constant learning
    rate.
    """
    # Early stopping and the best epoch are decided on the validation split.
    monitor: str | None = None
    """The figure by which a phase's best epoch is chosen: "val_" and the loss or a metric of the data's task, such as
    "val_accuracy" or "val_loss". None is the task's first metric.
    """
    patience: int | None = None
    """Epochs without an improvement after which a phase stops, 1 or more; None never stops early."""
    min_delta: float = 1e-4
    """The least change of `monitor`, in its unit, that counts as an improvement; 0 or more. The default of an accuracy
    is less than one row of a split of under 10,000.
    """
    restore_best: bool = True
    """Whether a phase ends with the weights of its best epoch; False leaves those of its last one."""
    clip_norm: float | None = None
    """The largest norm of all gradients together, or of each net's where a rule has two; above 0, or None for no
    clipping. Not with `step="block"` nor `parallel="layers"`.
    """
    # How an update is executed: step, capture and memory_format change the weights by no more than rounding.
    step: Literal["all", "block"] = "all"
    """When the optimizer steps: "all" takes one step once all gradients are computed; "block" takes a step for each
    block as soon as its gradient is computed, and frees it: the same weights, with less memory in a deep net.
    """
    capture: Literal["auto", "graph", "compile", "off"] = "off"
    """How an update is captured: "graph" captures the full update as a CUDA graph and replays it; "compile" compiles
    blocks and optimizer by torch.compile; "auto" uses a graph on a CUDA device; "off" neither. Where it is not possible
    the run logs why and continues without. On several ranks "auto" or "off" only. Off by default, for a graph is not
    bit for bit the same.
    """
    parallel: Literal["none", "data", "layers"] = "none"
    """How the ranks that torchrun starts divide the work: "data", where each takes its rows of every batch,
    `batch_size` being that of all ranks together; "layers", where each trains some blocks of a local rule; or "none".
    "data" needs `step="all"`.
    """
    rank_timeout_s: float = 600.0
    """The timeout of a collective between ranks in seconds, above 0. The default is torch.distributed's own for NCCL.
    """
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """The memory layout of a convolutional net: "channels_last", in which most rules are faster, with the same results
    to rounding; "contiguous"; or "auto", which is channels_last on a CPU, and on a CUDA device in bf16, for the rules
    that are faster by it (not the estimators), and contiguous otherwise.
    """
    precision: Literal["fp32", "bf16"] = "fp32"
    """The precision of the arithmetic: "fp32", or "bf16" by autocast."""
    # Device and reproducibility.
    device: str = "auto"
    """The device: "auto", "cpu", "cuda" (or "cuda:1") or "mps"; auto is a GPU where there is one."""
    seed: int = 0
    """The seed of the order of rows, of augmentation and of the rule's random numbers, on the command line of the
    weights too, in [0, 2^63).
    """
    deterministic: bool = False
    """Whether to use deterministic algorithms only, on a GPU too (slower)."""
    feature_cache_bytes: int = 8 * 2**30
    """The most bytes of the device that a greedy phase's precomputed features may use; 0 computes them for every batch.
    The default is 8 GiB.
    """
    # Measurements and output; off by default, so that `fit` neither waits nor writes.
    energy: bool = False
    """Whether to meter energy, in joules."""
    country: str | None = None
    """The ISO 3166 alpha-3 code for the grid's carbon intensity; None reports no kg CO2e."""
    idle_s: float = 0.3
    """Seconds of idle power metered before and after, 0 or more. Only where energy is metered."""
    out: Path | None = None
    """The run's folder; None writes nothing."""
    log: Literal["none", "tensorboard", "csv", "mlflow", "wandb"] = "none"
    """The logger: "none", "tensorboard", "csv", "mlflow" (file store) or "wandb" (offline)."""
    progress: bool = False
    """Whether to show progress, as a bar in a terminal and as lines elsewhere."""
    diagnose: Literal["none", "alignment"] = "none"
    """What is diagnosed: "none", or "alignment": every epoch's line of metrics has the angles, in degrees, between the
    rule's update and the true gradient, computed outside the metered windows. Refused where a rule predicts by more
    than the net, or has no gradients, and with `parallel`.
    """

    def __post_init__(self) -> None:
        check_types(vars(self), annotations(type(self)))
        for name, bound in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"{name} must be {bound} or more, not {value}")
            if value is not None and value >= 2**63:  # of which neither torch nor the record holds more
                raise UserError(f"{name} must be below 2^63, not {value}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"clip_norm must be positive, or null for no clipping, not {self.clip_norm}")
        if self.rank_timeout_s <= 0:
            raise UserError(f"rank_timeout_s must be positive, not {self.rank_timeout_s}")
        if self.parallel == "data" and self.step == "block":
            raise UserError("parallel=data reduces all gradients at once, and step=block frees each; use step=all")
        if self.parallel == "layers" and self.clip_norm is not None:
            raise UserError("clip_norm needs all gradients at once, and parallel=layers distributes them over ranks")
        if self.parallel != "none" and self.capture not in ("auto", "off"):
            raise UserError(f"capture={self.capture} works on a single process; use capture=off, or parallel=none")
        if self.parallel != "none" and self.diagnose != "none":
            raise UserError(f"diagnose={self.diagnose} needs the full net on one process; use parallel=none")
        if self.clip_norm is not None and self.step == "block":
            raise UserError("clip_norm needs all gradients at once, and step=block frees each; use step=all")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed must lie in [0, 2^63), not {self.seed}")

    @classmethod
    def of(cls, **options: Any) -> "Settings":
        """Build settings from options by name.

        Args:
            options: The fields of `Settings`; the others have their defaults.

        Raises:
            UserError: For an unknown option, with the nearest known one, and as the constructor does.

        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(f"fit has no option {name!r}{suggestion(name, known)}")
        return cls(**options)

    def plain(self) -> dict[str, Any]:
        """Return the options as plain values, for a record; others, such as a class, as a string."""
        return {name: value if isinstance(value, _PLAIN) else str(value) for name, value in vars(self).items()}
