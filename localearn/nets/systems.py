"""Simulated physical systems, each from rows to measured values: what an opaque block holds where there is no hardware.

No trainer differentiates them, and none needs to know what they are: `localearn.nets.physical` asks them and no more.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets.layers import check_row


class System(nn.Module, ABC):
    """Maps rows u, (N, n), of RMS 1, to m measured values, (N, m), by couplings that are drawn from `seed` alone.

    drift: how far the couplings M have moved from those of the seed, M_0, towards independent ones, M_1:
        M = cos(a) M_0 + sin(a) M_1, a = drift pi / 2. 0: not at all; 1: another system of the same kind.
    noise: the deviation of what measuring adds, which is drawn from torch's generator at every call, in evaluation too.

    The couplings are buffers, saved with the net: loading weights loads the system as it was. `drift_to` moves it.
    """

    coupling: Tensor

    def __init__(self, inputs: int, outputs: int, *, seed: int = 0, drift: float = 0.0, noise: float = 0.0):
        super().__init__()
        if noise < 0:
            raise UserError(f"noise must be 0 or more, not {noise}")
        (outputs,) = check_row("modes", outputs)
        self.inputs, self.outputs, self.seed, self.noise = inputs, outputs, seed, noise
        self.register_buffer("coupling", torch.empty(self.parts, outputs, inputs))
        self.drift_to(drift)

    @property
    def parts(self) -> int:
        """How many real matrices the couplings are: two where they are complex."""
        return 1

    @torch.no_grad()
    def drift_to(self, drift: float) -> None:
        """Move the couplings to that drift, 0 to 1, wherever they are."""
        if not 0 <= drift <= 1:
            raise UserError(f"drift must lie in [0, 1], from the seed's system to another one, not {drift}")
        generator = torch.Generator().manual_seed(self.seed)
        first, other = torch.randn(2, *self.coupling.shape, generator=generator)
        angle = drift * math.pi / 2
        mixed = math.cos(angle) * first + math.sin(angle) * other
        self.coupling.copy_(mixed * (self.parts * self.inputs) ** -0.5)

    @abstractmethod
    def respond(self, u: Tensor) -> Tensor:
        """Return what would be measured without noise, (N, m)."""

    def forward(self, u: Tensor) -> Tensor:
        """Return what is measured, (N, m)."""
        y = self.respond(u)
        return y + self.noise * torch.randn_like(y) if self.noise else y


class Optics(System):
    """Multimode optics: a random complex transmission, of which a camera sees the intensity, up to its saturation.

    I = |T u|^2,  T_ij ~ CN(0, 1/n)            (N, m), of mean 1 where u has RMS 1
    y = I / (1 + I / saturation)
    """

    saturation = 4.0

    @property
    def parts(self) -> int:
        """The real and the imaginary part of T."""
        return 2

    def respond(self, u: Tensor) -> Tensor:
        """Return the camera's picture, (N, m)."""
        intensity = F.linear(u, self.coupling[0]).square() + F.linear(u, self.coupling[1]).square()
        return intensity / (1 + intensity / self.saturation)


SYSTEMS: Mapping[str, Callable[..., System]] = {"optics": Optics}
