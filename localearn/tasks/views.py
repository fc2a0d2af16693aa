"""View synthesis: the output is colour and density at points of a ray, the target the colour of the ray's pixel."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact
from localearn.tasks.regression import psnr

_COLOURS = 3


def _psnr(means: Means) -> Tensor:
    return psnr(1.0, means["mse"])


@dataclass(frozen=True)
class ViewSynthesis(Task):
    """The output is (M, S, 4): at S points of each of M rays a colour and a density; the target a pixel, (M, 3).

        c_i = sigmoid(o_i1, o_i2, o_i3),    sigma_i = max(o_i4, 0)          i = 1..S, from the camera away
        alpha_i = 1 - exp(-sigma_i delta),  T_i = prod_{j<i} (1 - alpha_j)  delta = length / S
        C = sum_i T_i alpha_i c_i + T_{S+1} background                      the colour that the camera sees
        L = mean over red, green, blue of (C - y)^2

    (Mildenhall et al., arXiv 2003.08934, eq. 3; the quadrature is Max's, 1995.) A row is a ray and has one loss, so
    that the error d L / d o, (M, S, 4), is another at each point and knows of the others: `pools_positions`. Each point
    stands for one of S equal parts of the ray, so delta is their length, where the source has the distance to the next
    of its random points; of points in the middle of their parts the two are the same.

    Known weakness: where no point of any ray has a density above 0 nothing is learned, the derivative being 0 there; a
    net whose biases are drawn large beside what its inputs do may begin so (`net=nerf` is drawn otherwise).

    Metrics are of all pixels of a split: `psnr` = 10 log10(1 / mse) in dB, more being better, and `mse`, of levels from
    0 to 1. The source averages the PSNR of its images instead, which is a little more where they differ.

    Args:
        outputs: 4.
        length: of the part of a ray that is sampled, far - near, in the unit of the camera's poses.
        background: the level, 0 to 1, of what lies behind, say 0 for black and 1 for white.

    """

    outputs: int = _COLOURS + 1
    length: float = 4.0
    background: float = 0.0
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("psnr", "max", "value", _psnr), Metric("mse", "min", "value"))
    per_position: ClassVar[bool] = True
    pools_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.outputs != _COLOURS + 1:
            raise UserError(f"view synthesis has 4 outputs a point, three colours and a density, not {self.outputs}")
        if not (self.length > 0 and math.isfinite(self.length)):
            raise UserError(f"length, far - near, must be positive, not {self.length}")
        if not 0 <= self.background <= 1:
            raise UserError(f"background is a level from 0 to 1, not {self.background}")

    def render(self, output: Tensor) -> Tensor:
        """Return the pixels, (..., M, 3), of outputs at the rays' points, (..., M, S, 4)."""
        colour, density = output[..., :_COLOURS].sigmoid(), output[..., _COLOURS].relu()
        depth = density * (self.length / output.shape[-2])
        up_to = depth.cumsum(-1)
        weight = (depth - up_to).exp() * -torch.expm1(-depth)
        return (weight.unsqueeze(-1) * colour).sum(-2) + self.background * (-up_to[..., -1:]).exp()

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each ray, (..., M); in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        return (self.render(output) - target.to(output.dtype)).square().mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Raise UserError: a pixel is no value of a point's."""
        raise UserError("view synthesis has no target of a point alone; use algo=backprop or direct_feedback_alignment")

    def decode(self, output: Tensor) -> Tensor:
        """Return the pixels, (N, 3), levels from 0 to 1."""
        return self.render(output)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sum of the losses, which are squared errors, in float64."""
        output, target = exact(output, target)
        total = self.losses(output, target).sum()
        return {"loss": total, "mse": total}, torch.full_like(total, len(target))

    def check_target(self, what: str, target: Tensor) -> None:
        """Raise UserError unless targets are levels from 0 to 1, (N, 3)."""
        if not target.is_floating_point() or target.dim() != 2 or target.shape[1] != _COLOURS:
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; floating-point (N, 3), a ray's colour, is expected")
        if target.numel() and not bool(((target >= 0) & (target <= 1)).all()):
            raise UserError(f"{what} must be finite levels from 0 to 1; divide what is from 0 to 255 by 255")

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Raise UserError where all training pixels are of one colour."""
        if len(target) > 1 and bool((target.amin(0) == target.amax(0)).all()):
            raise UserError(f"{what}: every pixel is of one colour, so there is nothing to learn")
