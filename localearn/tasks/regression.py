"""Regression: the output is values, and so is the target; with the peak signal-to-noise ratio of images."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact

Criterion = Literal["squared", "absolute", "huber"]


@dataclass(frozen=True, repr=False)
class Regression(Task):
    """Predict values: the output is (M, D), the target the values themselves, (M, D) or, where D = 1, (M,).

        squared     L_i = mean_d (o - y)^2
        absolute    L_i = mean_d |o - y|
        huber       L_i = mean_d of (o - y)^2 / 2 where |o - y| < delta, else of delta (|o - y| - delta / 2)

    Metrics are means over the outputs: `rmse` = sqrt(mean (o - y)^2), `mae` = mean |o - y|, both in the unit that the
    targets had before they were standardised, and `r2` = 1 - mean (o - y)^2 / variance of y, which is 0 for the best
    constant (and where y does not vary, unless it is met). With a `peak` the first of them is

        psnr        10 log10(peak^2 / mean (o - y)^2), in dB, more being better

    the peak signal-to-noise ratio, by which images are judged that a net maps coordinates to.

    Args:
        outputs: D, the number of values.
        criterion: the training loss.
        delta: the point where the Huber loss turns from a square into a line, in the unit of the standardised targets.
        center: the value subtracted from each target, (D,); empty: nothing was subtracted.
        scale: the value that each target was then divided by, (D,); empty: by nothing.
        peak: the range of the targets before they were standardised, largest less smallest, say 255 or 1; None:
            unknown.

    Example:
        data = localearn.data.from_arrays(x, y, task=Regression(criterion="huber"))

    """

    outputs: int = 1
    criterion: Criterion = "squared"
    delta: float = 1.0
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    peak: float | None = None

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
        check_peak(self.peak)

    def __repr__(self) -> str:
        """Return the options; those that came later only where they are set, for fingerprints are made of the text."""
        names = ["outputs", "criterion", "delta", "center", "scale", *(["peak"] if self.peak is not None else [])]
        return f"Regression({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; a run is watched by the first one."""
        ratio = () if self.peak is None else (Metric("psnr", "max", "value", self._psnr),)
        return (
            *ratio,
            Metric("rmse", "min", "value", self._rmse),
            Metric("mae", "min", "value", self._mae),
            Metric("r2", "max", "value", _r2),
        )

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each row, (..., M), a mean over its outputs; in float32 where outputs are narrower."""
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
        """Sum the losses and, for each output, |o - y|, (o - y)^2, y and y^2; in float64."""
        output, values = exact(output, self.encode(target))
        error = output - values
        sums = {
            "loss": self.losses(output, target).sum(),
            "absolute": error.abs().sum(0),
            "squared": error.square().sum(0),
            "y": values.sum(0),
            "y_squared": values.square().sum(0),
        }
        return sums, torch.full_like(sums["loss"], len(target))

    def _psnr(self, means: Means) -> Tensor:
        assert self.peak is not None
        squared = means["squared"]
        return psnr(self.peak, (squared * self._of_outputs(self.scale, 1.0, squared).square()).mean())

    def _rmse(self, means: Means) -> Tensor:
        return (means["squared"].sqrt() * self._of_outputs(self.scale, 1.0, means["squared"])).mean()

    def _mae(self, means: Means) -> Tensor:
        return (means["absolute"] * self._of_outputs(self.scale, 1.0, means["absolute"])).mean()

    def _of_outputs(self, values: tuple[float, ...], default: float, like: Tensor) -> Tensor:
        return like.new_tensor(values or (default,) * self.outputs)


def psnr(peak: float, error: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio, 10 log10(peak^2 / error), in dB.

    Args:
        peak: the range of the values, largest less smallest.
        error: the mean squared error, in the same unit squared.

    """
    return 10 * (peak**2 / error).log10()


def check_peak(peak: float | None) -> None:
    """Check that a range of values is positive, or unknown.

    Args:
        peak: the range, or None.

    Raises:
        UserError: where it is not positive.

    """
    if peak is not None and not (peak > 0 and math.isfinite(peak)):
        raise UserError(f"peak must be positive, the largest value less the smallest, say 255, not {peak}")


def _r2(means: Means) -> Tensor:
    error, mean, square = means["squared"], means["y"], means["y_squared"]
    variance = square - mean.square()
    varies = variance > 4 * torch.finfo(square.dtype).eps * square  # else it is rounding
    constant = (error == 0).to(error.dtype)
    return torch.where(varies, 1 - error / torch.where(varies, variance, 1), constant).mean()
