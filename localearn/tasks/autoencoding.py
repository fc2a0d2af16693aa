"""Autoencoding: the target of a row is the row itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact
from localearn.tasks.regression import check_peak, psnr

Reconstruction = Literal["squared", "bce"]


@dataclass(frozen=True)
class Autoencoding(Task):
    """Reconstruct the input: the output is (M, n) values, the target the row as the net is given it, flattened.

        squared     L_i = mean_j (o - x)^2, of x as it was normalised
        bce         L_i = mean_j of log(1 + exp(o)) - x o, of x between 0 and 1: pixels with normalize=unit

    Metrics are of the reconstruction, o itself or, by bce, sigmoid(o), in the unit that x had before it was normalised,
    as those of `Regression` are: `mse` = mean (reconstruction - x)^2 over all values of all rows and, where the values'
    range is known, before it `psnr` = 10 log10(peak^2 / mse), in dB.

    Args:
        outputs: n, the number of values of a row.
        criterion: the training loss.
        peak: the range of the values before they were normalised, largest less smallest; known from the dtype of data
            of 8 or 16 bits (255, 65535). None: unknown.
        center: the value subtracted from x: one for all of a row's values, one per channel, or one per value; empty:
            nothing was subtracted.
        scale: the value that x was then divided by, likewise.

    Example:
        data = localearn.data.from_arrays(images, normalize="unit", task=Autoencoding(criterion="bce"))

    """

    outputs: int = 1
    criterion: Reconstruction = "squared"
    peak: float | None = None
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target_is_input: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"an autoencoder has 1 output or more, not {self.outputs}")
        if self.criterion not in get_args(Reconstruction):
            raise UserError(f"criterion must be {' or '.join(get_args(Reconstruction))}, not {self.criterion!r}")
        check_peak(self.peak)
        for name, values in (("center", self.center), ("scale", self.scale)):
            if values and self.outputs % len(values):
                raise UserError(f"{name} has {len(values)} values, which do not divide {self.outputs} outputs evenly")
        if not all(value > 0 for value in self.scale):
            raise UserError(f"scale must be positive, not {self.scale}")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; a run is watched by the first one."""
        mse = Metric("mse", "min", "value", self._mse)
        return (mse,) if self.peak is None else (Metric("psnr", "max", "value", self._psnr), mse)

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each row, (..., M), a mean over its values; in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        values = target.to(output.dtype).expand_as(output)
        if self.criterion == "squared":
            return (output - values).square().mean(-1)
        return F.binary_cross_entropy_with_logits(output, values, reduction="none").mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Return the targets themselves, (M, n)."""
        return target

    def regressand(self, target: Tensor) -> Tensor:
        """Return the targets, (M, n); by bce the values whose sigmoid is the target to first order."""
        return 4 * (target - 0.5) if self.criterion == "bce" else target

    def decode(self, output: Tensor) -> Tensor:
        """Return the reconstructions, (N, n), in the unit that x had before it was normalised."""
        return self._reconstructed(output) * self._each(self.scale, 1.0, output) + self._each(self.center, 0.0, output)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the losses and, for each value of a row, (reconstruction - x)^2; in float64."""
        output, values = exact(output, target)
        sums = {
            "loss": self.losses(output, values).sum(),
            "squared": (self._reconstructed(output) - values).square().sum(0),
        }
        return sums, torch.full_like(sums["loss"], len(target))

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are (N, n), and lie between 0 and 1 where the loss is a cross-entropy.

        Args:
            what: the name of the targets in error messages.
            target: the flattened rows.

        Raises:
            UserError: where they are not.

        """
        super().check_target(what, target)
        if self.criterion == "bce" and target.numel() and not (float(target.min()) >= 0 and float(target.max()) <= 1):
            raise UserError(
                f"{what} runs from {float(target.min()):.4g} to {float(target.max()):.4g} as it is normalised, and "
                "criterion=bce is of values from 0 to 1; use normalize=unit, or criterion=squared"
            )

    def _reconstructed(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.criterion == "bce" else output

    def _mse(self, means: Means) -> Tensor:
        squared = means["squared"]
        return (squared * self._each(self.scale, 1.0, squared).square()).mean()

    def _psnr(self, means: Means) -> Tensor:
        assert self.peak is not None
        return psnr(self.peak, self._mse(means))

    def _each(self, values: tuple[float, ...], default: float, like: Tensor) -> Tensor:
        """Return a number for each value of a row, (n,), from one for each run of them."""
        per_run = like.new_tensor(values or (default,))
        return per_run.repeat_interleave(self.outputs // len(per_run))
