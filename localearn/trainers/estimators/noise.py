"""Noise that estimators add to the values of a net: independent, or a Sobol net."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets import Net

Kind = Literal["gaussian", "sobol"]


class Noise(nn.Module, ABC):
    """Define a source of `copies` standard normal values for every value of a net's row.

    Args:
        net: the net whose values are perturbed.
        copies: K, 1 or more.

    """

    def __init__(self, net: Net, copies: int):
        super().__init__()
        self.copies = copies

    @abstractmethod
    def draw(self, like: Tensor, dtype: torch.dtype, first: int) -> Tensor:
        """Return noise, (copies, *like.shape), on the device of `like`.

        Args:
            like: the rows to be perturbed, (N, ...).
            dtype: the noise's.
            first: how many values of a row have had their noise in this step.

        """


@final
class Gaussian(Noise):
    """Draw noise of which every value is independent of the others."""

    def draw(self, like: Tensor, dtype: torch.dtype, first: int) -> Tensor:
        """Return independent noise."""
        return torch.randn(self.copies, *like.shape, device=like.device, dtype=dtype)


@final
class Sobol(Noise):
    """Draw quasi-Monte-Carlo noise: a row's copies are a Sobol net, and fill the space of its noisy values evenly.

    The net is scrambled when it is built. Each draw shifts its digits at random, for each row again: it stays a net,
    each point alone is uniform, so what is estimated from it stays unbiased, and rows are independent. The normal
    quantile turns points into noise.

    Args:
        net: the net whose values are perturbed.
        copies: 2, 4, 8, ..., as only then the Sobol net is balanced.

    Raises:
        UserError: when `copies` is no such power of 2, or a row has too many values.

    """

    points: Tensor

    def __init__(self, net: Net, copies: int):
        super().__init__(net, copies)
        if copies < 2 or copies & (copies - 1):
            raise UserError(f"a Sobol net has 2, 4, 8, ... points, not {copies} (half of the copies if antithetic)")
        values, most = _noisy_values(net), torch.quasirandom.SobolEngine.MAXDIM
        if values > most:
            raise UserError(f"a Sobol net has at most {most} dimensions, and a row {values} values; use noise=gaussian")
        seed = int(torch.randint(2**31, (), device="cpu"))
        points = torch.quasirandom.SobolEngine(values, scramble=True, seed=seed).draw(copies, dtype=torch.float64)
        device = next(net.parameters()).device
        self.register_buffer("points", points.mul(2**30).to(device=device, dtype=torch.int32))

    def draw(self, like: Tensor, dtype: torch.dtype, first: int) -> Tensor:
        """Return noise that is balanced over a row's copies."""
        rows, values = len(like), math.prod(like.shape[1:])
        shift = torch.randint(2**30, (rows, values), device=like.device, dtype=torch.int32)
        digits = (self.points[:, None, first : first + values] ^ shift) >> 7
        # 23 digits and a half: strictly between 0 and 1 in float32 too.
        return torch.special.ndtri(digits.to(dtype).add_(0.5).mul_(2.0**-23)).view(self.copies, *like.shape)


def _noisy_values(net: Net) -> int:
    """Return the number of values of a row that parts with parameters give, ops and posts."""
    sizes: list[int] = []

    def look(_: nn.Module, __: object, out: Tensor) -> None:
        sizes.append(out[0].numel())

    parts = [part for k in range(net.depth) for part in (net.block(k).op, net.block(k).post)]
    hooks = [part.register_forward_hook(look) for part in parts if any(True for _ in part.parameters())]
    try:
        net.dry_run()
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


NOISES: Mapping[Kind, Callable[[Net, int], Noise]] = {"gaussian": Gaussian, "sobol": Sobol}
