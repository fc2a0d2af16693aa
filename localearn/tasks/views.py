"""View synthesis: the output is colour and density at points of a ray, the target the colour of the ray's pixel."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact
from localearn.tasks.regression import psnr

Density = Literal["softplus", "relu"]

_COLOURS = 3


def _psnr(means: Means) -> Tensor:
    return psnr(1.0, means["mse"])


@dataclass(frozen=True)
class ViewSynthesis(Task):
    """Render views: the output is (M, S, 4), colour and density at S points of M rays, the target the pixels, (M, 3).

        c_i = sigmoid(o_i1, o_i2, o_i3),    sigma_i = density(o_i4)         i = 1..S, from the camera away
        alpha_i = 1 - exp(-sigma_i delta),  T_i = prod_{j<i} (1 - alpha_j)  delta = length / S
        C = sum_i T_i alpha_i c_i + T_{S+1} background                      the colour that the camera sees
        L = mean over red, green, blue of (C - y)^2

    (Mildenhall et al., arXiv 2003.08934, eq. 3; the quadrature is Max's, 1995.) A row is a ray and has one loss, so
    that the error d L / d o, (M, S, 4), is another at each point and depends on the others: `pools_positions`. Each
    point stands for one of S equal parts of the ray, so delta is their length, where the source has the distance to the
    next of its random points; of points in the middle of their parts the two are the same.

    Metrics are of all pixels of a split: `psnr` = 10 log10(1 / mse) in dB, more being better, and `mse`, of levels from
    0 to 1. The source averages the PSNR of its images instead, which is a little more where they differ.

    Args:
        outputs: 4.
        length: the length of the part of a ray that is sampled, far - near, in the unit of the camera's poses.
        background: the level, 0 to 1, behind all points, say 0 for black and 1 for white.
        density: the map from an output to a density. "relu", max(o, 0), is the source's. Where it is 0 at every point
            the derivative is 0 too, so that a net whose images have become the background stays there; with a
            background that fills much of the images that happens to many seeds. "softplus", log(1 + exp(o - 1)), is
            never 0 (Barron et al., mip-NeRF, arXiv 2103.13415), and the default.

    """

    outputs: int = _COLOURS + 1
    length: float = 4.0
    background: float = 0.0
    density: Density = "softplus"
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
        if self.density not in get_args(Density):
            raise UserError(f"density must be {' or '.join(get_args(Density))}, not {self.density!r}")

    def render(self, output: Tensor) -> Tensor:
        """Render the pixels, (..., M, 3), from outputs at the rays' points, (..., M, S, 4)."""
        colour, raw = output[..., :_COLOURS].sigmoid(), output[..., _COLOURS]
        density = raw.relu() if self.density == "relu" else F.softplus(raw - 1)
        depth = density * (self.length / output.shape[-2])
        up_to = depth.cumsum(-1)
        weight = (depth - up_to).exp() * -torch.expm1(-depth)
        return (weight.unsqueeze(-1) * colour).sum(-2) + self.background * (-up_to[..., -1:]).exp()

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each ray, (..., M); in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        return (self.render(output) - target.to(output.dtype)).square().mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Refuse: a pixel is not a value of a point.

        Raises:
            UserError: always.

        """
        raise UserError("view synthesis has no target of a point alone; use algo=backprop or direct_feedback_alignment")

    def decode(self, output: Tensor) -> Tensor:
        """Return the pixels, (N, 3), levels from 0 to 1."""
        return self.render(output)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the losses, which are squared errors, in float64."""
        output, target = exact(output, target)
        total = self.losses(output, target).sum()
        return {"loss": total, "mse": total}, torch.full_like(total, len(target))

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are levels from 0 to 1, (N, 3).

        Args:
            what: the name of the targets in error messages.
            target: the pixels.

        Raises:
            UserError: where they are not.

        """
        if not target.is_floating_point() or target.dim() != 2 or target.shape[1] != _COLOURS:
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; floating-point (N, 3), a ray's colour, is expected")
        if target.numel() and not bool(((target >= 0) & (target <= 1)).all()):
            raise UserError(f"{what} must be finite levels from 0 to 1; divide what is from 0 to 255 by 255")

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Check that the training pixels are not all of one colour.

        Args:
            what: the name of the targets in error messages.
            target: pixels that `check_target` has passed.

        Raises:
            UserError: where they are.

        """
        if len(target) > 1 and bool((target.amin(0) == target.amax(0)).all()):
            raise UserError(f"{what}: every pixel is of one colour, so there is nothing to learn")
