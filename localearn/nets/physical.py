"""Nets whose blocks hold a system that is not differentiated: a simulator, an instrument, another process.

`Physical` is the net, `Driven` a block's op, `Opaque` the boundary around a system; `Optics`, `Oscillators` and
`Diodes` are simulated systems.
"""

import contextlib
import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.moved import Renamed
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import is_transforming, preserve_modes
from localearn.nets.net import Net

EPS = 1e-8
Answer = Callable[[Any], Any]


class Physical(Net):
    """Alternate opaque systems and trainable linear maps, the net of model-free training.

        u_k = h_{k-1} / (RMS(h_{k-1}) + eps)        RMS of a row, (N, n_{k-1}): the system's input
        h_k = P_k(u_k) W_k^T + b_k                  (N, n_k)

    P_k is queried and never differentiated: see `Opaque`. Rules whose blocks learn by themselves train such a net; one
    that sends errors through it, as backprop does, raises an error.

    Args:
        input_shape: a row's shape, or its size; rows are flattened.
        classes: C.
        widths: n_1..n_L.
        system: a simulated one of `localearn.nets.physical` by name, optics, oscillators or diodes; or a callable of
            your own, or one for each block, from a tensor (N, n) to a tensor or an array, (N, m), with any m.
        modes: m, the number of values that a simulated system measures; null: 2 n_k.
        seed: of simulated systems; block k has seed + k.
        drift: of simulated systems, as are noise and drift_rate; see `System`.
        noise: see `System`.
        timeout_s: seconds after which a system is taken to hang; null: no limit.
        drift_rate: see `System`.

    Example:
        net = Physical((784,), 10, widths=(64, 64), system=lambda u: np.tanh(u.numpy() @ couplings))

    """

    def __init__(
        self,
        input_shape: tuple[int, ...] | int = (784,),
        classes: int = 10,
        *,
        widths: Sequence[int] = (256, 256),
        system: str | Answer | Sequence[Answer] = "optics",
        modes: int | None = None,
        seed: int = 0,
        drift: float = 0.0,
        noise: float = 0.0,
        timeout_s: float | None = None,
        drift_rate: float = 0.0,
    ):
        shape = check_row("input_shape", input_shape)
        sizes = (math.prod(shape), *check_widths("widths", widths))
        depth = len(sizes) - 1
        if isinstance(system, str):
            build = choose("system", system, SYSTEMS)
            systems: list[Answer] = [
                build(
                    n,
                    2 * to if modes is None else modes,
                    seed=seed + k,
                    drift=drift,
                    noise=noise,
                    drift_rate=drift_rate,
                )
                for k, (n, to) in enumerate(itertools.pairwise(sizes))
            ]
        else:
            systems = [system] * depth if callable(system) else list(system)
        if len(systems) != depth:
            raise UserError(f"widths are of {depth} blocks, and there are {len(systems)} systems; give one for each")
        blocks = [
            Block(Driven(Opaque(answer, f"block {k + 1}", timeout_s), n, to))
            for k, (answer, n, to) in enumerate(zip(systems, sizes[:-1], sizes[1:], strict=True))
        ]
        readout = nn.Linear(sizes[-1], check_classes(classes))
        super().__init__(blocks, readout, input_shape=shape, stem=nn.Flatten() if len(shape) > 1 else None)

    def drift_to(self, drift: float) -> None:
        """Set the drift of every simulated system; see `System`.

        Args:
            drift: 0 to 1.

        """
        for module in self.modules():
            if isinstance(module, System):
                module.drift_to(drift)


class Driven(nn.Module):
    """Apply a block's op, h' = P(h / RMS(h)) W^T + b, of an opaque system P and a linear map, which alone learns."""

    def __init__(self, system: "Opaque", inputs: int, outputs: int):
        super().__init__()
        self.system = system
        with preserve_modes(system):
            system.eval()  # so that no drift begins
            self.linear = nn.Linear(system.query(torch.ones(2, inputs)).shape[1], outputs)
        system.measured = self.linear.in_features

    def forward(self, h: Tensor) -> Tensor:
        """Map h_{k-1}, (N, n), to h_k, (N, n_k)."""
        return self.linear(self.system(h))


class Opaque(nn.Module):
    """Query a system of which nothing is known but its answers, (N, m) for rows (N, n).

    The system is given a detached tensor, with autograd off and in float32 at least, and may answer with a tensor or an
    array, of any device: so NumPy, a driver or another process serves. Where errors are to be sent back through it, by
    `backward` or by `torch.func`, a `UserError` is raised: so a rule that trains needs no derivative of it.
    Parameters that it may have itself, as an `nn.Module`, are frozen.

    The run then ends as at any error, and is resumed from its last checkpoint. A call that hangs is abandoned in a
    thread of its own. An answer on a GPU is checked there, without a host synchronisation, and an error for one that is
    not finite is raised at the next `train()` or `eval()`, which is at the end of the epoch.

    A saved net has no more of a system than its parameters and buffers, if it is an `nn.Module`: `load_net` and
    `export` are given a net that was built on the callable again.

    Args:
        system: the callable.
        place: its place in the net, for error messages.
        timeout_s: seconds after which it is taken to hang; None: no limit.
        waits: whether to wait for each answer, so as to raise at once where it is not finite; None: on the CPU alone.

    Raises:
        UserError: naming the block and the system, where it raises, takes longer than `timeout_s`, or answers with
            another shape or with values that are not finite.

    """

    not_finite: Tensor

    def __init__(
        self,
        system: Answer,
        place: str = "a block",
        timeout_s: float | None = None,
        waits: bool | None = None,
    ):
        super().__init__()
        if not callable(system):
            raise UserError(f"{place}'s system must be a callable of rows, (N, n), not a {type(system).__name__}")
        if timeout_s is not None and timeout_s <= 0:
            raise UserError(f"timeout_s must be positive, or null for none, not {timeout_s}")
        self.system, self.timeout_s, self.waits, self.measured = system, timeout_s, waits, 0
        if isinstance(system, nn.Module):
            system.requires_grad_(False)
        self.name = f"{place}'s system ({getattr(system, '__name__', type(system).__name__)})"
        self.register_buffer("not_finite", torch.zeros(()), persistent=False)  # a float, which ranks can send

    def train(self, mode: bool = True) -> Self:
        """Set the mode.

        Args:
            mode: training, or evaluation.

        Raises:
            UserError: where the system has answered with values that are not finite since the last call.

        """
        if not self.not_finite.is_meta and not self._waits_for(self.not_finite) and self.not_finite.item():
            self.not_finite.zero_()
            raise _not_finite(self.name)
        return super().train(mode)

    def forward(self, h: Tensor) -> Tensor:
        """Return P(h / RMS(h)), (N, m), of rows h, (N, n)."""
        if is_transforming():  # a tangent would be dropped in silence
            raise _no_derivative(self.name)
        if torch.is_grad_enabled() and h.requires_grad:
            return _WithoutDerivative.apply(h, self)
        return self.answer(h)

    @torch.no_grad()
    def answer(self, h: Tensor) -> Tensor:
        """Return the same as `forward`, without a graph."""
        u = h.detach().to(torch.promote_types(h.dtype, torch.float32))
        rms = torch.linalg.vector_norm(u, dim=1, keepdim=True) / math.sqrt(u.shape[1])
        exporting = torch.compiler.is_exporting()  # a program is of float32, and knows no autocast
        kind = h.device.type if h.device.type != "meta" else "cpu"
        with contextlib.nullcontext() if exporting else torch.autocast(kind, enabled=False):
            y = self.query(u / (rms + EPS))
        return y.to(device=h.device, dtype=h.dtype)

    @torch.no_grad()
    def query(self, u: Tensor) -> Tensor:
        """Return the system's answer to rows u, (N, n), checked; (N, m).

        Raises:
            UserError: as described for the class.

        """
        exporting = torch.compiler.is_exporting()
        try:
            y = self.system(u) if self.timeout_s is None or exporting else self._within_time(u, self.timeout_s)
        except UserError:
            raise
        except Exception as error:
            if exporting:
                raise _no_program(self.name) from error
            raise UserError(
                f"{self.name} failed: {type(error).__name__}: {error!s:.160}; correct it and resume the run"
            ) from error
        if exporting and not isinstance(y, Tensor):
            raise _no_program(self.name)
        try:
            y = torch.as_tensor(y).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.name} returned a {type(y).__name__}; a tensor or an array is expected") from error
        if y.dim() != 2 or y.shape[0] != u.shape[0] or (self.measured and y.shape[1] != self.measured):
            expected = f"({len(u)}, {self.measured or 'm'})"
            raise UserError(f"{self.name} answers rows {tuple(u.shape)} with {tuple(y.shape)}, not {expected}")
        if not exporting and not y.is_meta:
            self._check_finite(y)
        return y

    ask = Renamed("query")

    def _check_finite(self, y: Tensor) -> None:
        """Raise UserError where an answer is not finite; for one on the net's own GPU record it there, see `train`."""
        finite = y.isfinite().all()
        if self._waits_for(y):
            if not finite:
                raise _not_finite(self.name)
        else:
            self.not_finite.add_(finite.logical_not())  # in place, as a graph of the step can replay it

    def _waits_for(self, y: Tensor) -> bool:
        wanted = y.device.type == "cpu" if self.waits is None else self.waits
        return wanted or y.device != self.not_finite.device  # a copy between devices synchronises with the host

    def _within_time(self, u: Tensor, timeout_s: float) -> Any:
        done: list[tuple[Any, Exception | None]] = []

        def work() -> None:
            try:
                with torch.no_grad():
                    done.append((self.system(u), None))
            except Exception as error:
                done.append((None, error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(timeout_s)
        if not done:
            raise UserError(
                f"{self.name} has not answered in {timeout_s:g} s; correct it, or raise timeout_s, and resume the run"
            )
        answer, error = done[0]
        if error is not None:
            raise error
        return answer


class _WithoutDerivative(torch.autograd.Function):
    """Wrap the answer of a system as a part of a graph that ends there."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, opaque: Opaque) -> Tensor:
        ctx.name = opaque.name
        return opaque.answer(h)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise _no_derivative(ctx.name)


def _no_derivative(name: str) -> UserError:
    return UserError(f"{name} has no derivative to send errors through; use algo=model_free or algo=mono_forward")


def _not_finite(name: str) -> UserError:
    return UserError(f"{name} answers with values that are not finite; correct it and resume the run")


def _no_program(name: str) -> UserError:
    return UserError(
        f"{name} is not a torch function, so it cannot be exported; build the net on it again and call "
        "load_net(folder, net=...), or export a net of a simulated system"
    )


class System(nn.Module, ABC):
    """Map rows u, (N, n), of RMS 1, to m measured values, (N, m), by couplings that are drawn from `seed` alone.

    The couplings are buffers, saved with the net: loading weights restores the system as it was, which a system that
    has drifted in the world would not do; so the best weights are put back without them where they drift, and
    `restore_best=false` is the better choice there. `drift_to` moves the system.

    Args:
        inputs: n.
        outputs: m.
        seed: of the couplings.
        drift: how far the couplings M have moved from those of the seed, M_0, towards independent ones, M_1:
            M = cos(a) M_0 + sin(a) M_1, a = drift pi / 2. 0: not at all; 1: another system of the same kind.
        noise: the standard deviation of the measurement's noise, drawn from torch's generator at every call, in
            evaluation too.
        drift_rate: how far the couplings move after each batch that is answered in training mode, in the unit of drift,
            every time towards other ones: M <- cos(b) M + sin(b) M', b = drift_rate pi / 2, M' independent of all
            before. After s batches the correlation with the couplings at first is cos(b)^s. M' is drawn from torch's
            generator, so that a resumed run drifts as one that was never stopped.

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
        """The number of real matrices in the couplings: two where they are complex."""
        return 1

    @torch.no_grad()
    def drift_to(self, drift: float) -> None:
        """Set the drift, whatever the couplings are now.

        Args:
            drift: 0, the seed's system, to 1, another one.

        Raises:
            UserError: for another value.

        """
        if not 0 <= drift <= 1:
            raise UserError(f"drift must lie in [0, 1], from the seed's system to another one, not {drift}")
        generator = torch.Generator().manual_seed(self.seed)
        first, other = torch.randn(2, *self.coupling.shape, generator=generator)
        angle = drift * math.pi / 2
        mixed = math.cos(angle) * first + math.sin(angle) * other
        self.coupling.copy_(mixed * self.scale)

    @property
    def scale(self) -> float:
        """The standard deviation of a coupling's real parts."""
        return (self.parts * self.inputs) ** -0.5

    @torch.no_grad()
    def age(self) -> None:
        """Move the couplings by one batch's drift."""
        angle = self.drift_rate * math.pi / 2
        other = torch.randn_like(self.coupling)
        self.coupling.mul_(math.cos(angle)).add_(other, alpha=math.sin(angle) * self.scale)

    @abstractmethod
    def respond(self, u: Tensor) -> Tensor:
        """Return the noise-free measurement, (N, m)."""

    def forward(self, u: Tensor) -> Tensor:
        """Return the measurement, (N, m)."""
        y = self.respond(u)
        if self.noise:
            y = y + self.noise * torch.randn_like(y)
        if self.drift_rate and self.training:
            self.age()
        return y


class Optics(System):
    """Simulate multimode optics: a random complex transmission, whose intensity a camera measures up to its saturation.

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
    """Simulate a ring of driven nonlinear oscillators, unit masses on hardening springs, measured after a fixed time.

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
    """Simulate a resistor network that drives diodes, each with a resistance in series, and measure their current.

    v = M u,  M_ij ~ N(0, 1/n)          voltages, (N, m)
    y = knee log(1 + exp(v / knee))     nothing below the knee, exponential at it, and as the resistance beyond it
    y + shot sqrt(y) eps,  eps ~ N(0, 1)        a current's own noise, in addition to that of measuring
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
    """Return a module's systems that drift while they are queried in training, by name.

    Args:
        module: a net, or a rule.

    """
    return {name: part for name, part in module.named_modules() if isinstance(part, System) and part.drift_rate}
