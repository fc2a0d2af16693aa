"""Regression: the output is values, and so is the target."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task

Criterion = Literal["squared", "absolute", "huber"]


@dataclass(frozen=True)
class Regression(Task):
    """The output is (M, D) values, the target the values themselves, (M, D) or, where D = 1, (M,).

        squared     L_i = mean_d (o - y)^2
        absolute    L_i = mean_d |o - y|
        huber       L_i = mean_d of (o - y)^2 / 2 where |o - y| < delta, else of delta (|o - y| - delta / 2)

    Metrics are means over the outputs: `rmse` = sqrt(mean (o - y)^2), `mae` = mean |o - y|, both in the unit that the
    targets had before they were standardised, and `r2` = 1 - mean (o - y)^2 / variance of y, which is 0 for the best
    constant (and where y does not vary, unless it is met).

    Args:
        outputs: D.
        criterion: the loss that is trained for.
        delta: where huber's loss turns from a square into a line, in the unit of the standardised targets.
        center: what was subtracted from each target, (D,); nothing where it is empty.
        scale: what each target was then divided by, (D,); nothing where it is empty.

    """

    outputs: int = 1
    criterion: Criterion = "squared"
    delta: float = 1.0
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"a regression has 1 output or more, not {self.outputs}")
        if self.criterion not in ("squared", "absolute", "huber"):
            raise UserError(f"criterion must be squared, absolute or huber, not {self.criterion!r}")
        if not self.delta > 0:
            raise UserError(f"delta must be positive, not {self.delta}")
        for name, values in (("center", self.center), ("scale", self.scale)):
            if len(values) not in (0, self.outputs):
                raise UserError(f"{name} has {len(values)} values for {self.outputs} outputs; give one for each")
        if not all(value > 0 for value in self.scale):
            raise UserError(f"scale must be positive, not {self.scale}")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; the first one is what a run is watched by."""
        return (
            Metric("rmse", "min", "value", self._rmse),
            Metric("mae", "min", "value", self._mae),
            Metric("r2", "max", "value", _r2),
        )

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (..., M), a mean over its outputs; in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        values = self.encode(target).to(output.dtype).expand_as(output)
        if self.criterion == "squared":
            return (output - values).square().mean(-1)
        if self.criterion == "absolute":
            return (output - values).abs().mean(-1)
        return F.huber_loss(output, values, reduction="none", delta=self.delta).mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Return the targets themselves, (M, D)."""
        return target if target.dim() > 1 else target.unsqueeze(-1)

    def decode(self, output: Tensor) -> Tensor:
        """Return (N, D) outputs in the unit that the targets had before they were standardised."""
        return output * self._of_outputs(self.scale, 1.0, output) + self._of_outputs(self.center, 0.0, output)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sums of the losses and, for each output, of |o - y|, (o - y)^2, y and y^2; in float64."""
        # MPS has no float64.
        dtype = torch.float32 if output.device.type == "mps" else torch.float64
        output, values = output.to(dtype), self.encode(target).to(dtype)
        error = output - values
        sums = {
            "loss": self.losses(output, target).sum(),
            "absolute": error.abs().sum(0),
            "squared": error.square().sum(0),
            "y": values.sum(0),
            "y_squared": values.square().sum(0),
        }
        return sums, torch.full_like(sums["loss"], len(target))

    def _rmse(self, means: Means) -> Tensor:
        return (means["squared"].sqrt() * self._of_outputs(self.scale, 1.0, means["squared"])).mean()

    def _mae(self, means: Means) -> Tensor:
        return (means["absolute"] * self._of_outputs(self.scale, 1.0, means["absolute"])).mean()

    def _of_outputs(self, values: tuple[float, ...], default: float, like: Tensor) -> Tensor:
        return like.new_tensor(values or (default,) * self.outputs)


def _r2(means: Means) -> Tensor:
    error, mean, square = means["squared"], means["y"], means["y_squared"]
    variance = square - mean.square()
    varies = variance > 4 * torch.finfo(square.dtype).eps * square  # else it is rounding
    constant = (error == 0).to(error.dtype)
    return torch.where(varies, 1 - error / torch.where(varies, variance, 1), constant).mean()
