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
    drift_rate: how far the couplings move after each batch that is answered in training mode, in the unit of drift,
        every time towards other ones: M <- cos(b) M + sin(b) M', b = drift_rate pi / 2, M' independent of all before.
        After s batches the correlation with the couplings at first is cos(b)^s. M' is drawn from torch's generator, so
        that a resumed run drifts as one that was never stopped.

    The couplings are buffers, saved with the net: loading weights loads the system as it was, which what has drifted
    in the world would not do; so the best weights are put back without them where they drift, and `restore_best=false`
    is the better choice there. `drift_to` moves the system.
    """

    coupling: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        seed: int = 0,
        drift: float = 0.0,
        noise: float = 0.0,
        drift_rate: float = 0.0,
    ):
        super().__init__()
        if noise < 0:
            raise UserError(f"noise must be 0 or more, not {noise}")
        if not 0 <= drift_rate <= 1:
            raise UserError(f"drift_rate must lie in [0, 1], a batch's share of a whole drift, not {drift_rate}")
        (outputs,) = check_row("modes", outputs)
        self.inputs, self.outputs, self.seed, self.noise = inputs, outputs, seed, noise
        self.drift_rate = drift_rate
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
        self.coupling.copy_(mixed * self.scale)

    @property
    def scale(self) -> float:
        """The deviation of a coupling's real parts."""
        return (self.parts * self.inputs) ** -0.5

    @torch.no_grad()
    def age(self) -> None:
        """Move the couplings by what a batch makes them drift."""
        angle = self.drift_rate * math.pi / 2
        other = torch.randn_like(self.coupling)
        self.coupling.mul_(math.cos(angle)).add_(other, alpha=math.sin(angle) * self.scale)

    @abstractmethod
    def respond(self, u: Tensor) -> Tensor:
        """Return what would be measured without noise, (N, m)."""

    def forward(self, u: Tensor) -> Tensor:
        """Return what is measured, (N, m)."""
        y = self.respond(u)
        if self.noise:
            y = y + self.noise * torch.randn_like(y)
        if self.drift_rate and self.training:
            self.age()
        return y


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


class Oscillators(System):
    """A ring of driven nonlinear oscillators, unit masses on springs that harden, read as they are after a while.

        f = M u,  M_ij ~ N(0, 1/n)                                                     forces, constant, (N, m)
        q'' = f - q - quadratic q^2 - cubic q^3 - damping q' + link (q_{i-1} - 2 q_i + q_{i+1})
        y = q(T),  q(0) = q'(0) = 0                                                     by semi-implicit Euler steps

    The quadratic part makes the response to -f another than the negative of that to f.
    """

    quadratic, cubic, damping, link = 0.5, 1.0, 0.4, 0.3
    steps, interval = 40, 0.1

    def respond(self, u: Tensor) -> Tensor:
        """Return the displacements at T = steps * interval, (N, m)."""
        force = F.linear(u, self.coupling[0])
        q, velocity = torch.zeros_like(force), torch.zeros_like(force)
        for _ in range(self.steps):
            springs = q * (1 + q * (self.quadratic + self.cubic * q))
            neighbours = torch.roll(q, 1, 1) + torch.roll(q, -1, 1) - 2 * q
            velocity = velocity + self.interval * (force - springs - self.damping * velocity + self.link * neighbours)
            q = q + self.interval * velocity
        return q


class Diodes(System):
    """A resistor network that drives diodes, each with its own resistance in series; what is measured is their current.

    v = M u,  M_ij ~ N(0, 1/n)          voltages, (N, m)
    y = knee log(1 + exp(v / knee))     nothing below the knee, exponential at it, and as the resistance beyond it
    y + shot sqrt(y) eps,  eps ~ N(0, 1)        a current's own noise, beside that of measuring, if there is any
    """

    knee, shot = 0.2, 0.05

    def respond(self, u: Tensor) -> Tensor:
        """Return the currents, (N, m)."""
        return self.knee * F.softplus(F.linear(u, self.coupling[0]) / self.knee)

    def forward(self, u: Tensor) -> Tensor:
        """Return the currents with their noise, (N, m)."""
        y = super().forward(u)
        return y + self.shot * y.clamp_min(0).sqrt() * torch.randn_like(y)


SYSTEMS: Mapping[str, Callable[..., System]] = {"optics": Optics, "oscillators": Oscillators, "diodes": Diodes}


def drifting(module: nn.Module) -> dict[str, System]:
    """Return a module's systems that drift while they are asked in training, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, System) and part.drift_rate}
