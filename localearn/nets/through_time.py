"""Derivatives through time: the part of a recurrent layer's Jacobian that a gradient is propagated by, step by step.

Exact (no `ThroughTime`), `Truncated` to windows, `Detached`, or by a fixed `Diagonal` feedback, whose recursion is
computed by `by_scan` or `by_fft`; `through_time` builds one by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets.checks import choose

Derivative = Literal["exact", "truncated", "none", "diagonal"]
Feedback = Literal["linear", "gaussian", "orthogonal"]
Recursion = Literal["scan", "fft"]


class Unrolled(Protocol):
    """Describe the interface of a recurrent layer that a `ThroughTime` uses."""

    def run(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the states at all times, (N, T, n), and the last one, differentiated exactly."""
        ...

    def parallel_states(self, x: Tensor) -> Tensor:
        """Return the states at all times, (N, T, n), each from the one before it as a constant, in one step for all."""
        ...


class ThroughTime(nn.Module, ABC):
    """Define how a recurrent layer s_t = f(x_t, s_{t-1}) is differentiated through time; its outputs do not change.

    A layer without one is differentiated exactly. Every rule that differentiates the layer gets this derivative: by
    backward mode through `states`, and by forward mode through `before` and `after`.
    """

    @abstractmethod
    def states(self, layer: Unrolled, x: Tensor) -> Tensor:
        """Return the layer's states at all times, (N, T, n).

        Args:
            layer: the recurrent layer.
            x: its input, (N, T, n_in).

        """

    @abstractmethod
    def before(self, state: Tensor, t: int) -> Tensor:
        """Return s_{t-1} as step t reads it.

        Args:
            state: s_{t-1}, (N, n).
            t: the step, 0..T-1.

        """

    def after(self, state: Tensor, previous: Tensor) -> Tensor:
        """Return s_t as step t passes it on.

        Args:
            state: s_t, (N, n).
            previous: s_{t-1} as the step before passed it on, (N, n).

        """
        return state


@final
class Truncated(ThroughTime):
    """Truncate backpropagation through time to windows of `length` steps, between which no gradient flows.

    ds_t / ds_{t-1} is exact, and zero where t is a multiple of the length, t = 0..T-1; the states are carried over.

    Args:
        length: the steps of a window.

    """

    def __init__(self, length: int):
        super().__init__()
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise UserError(f"truncation must be 1 or more steps, not {length!r}")
        self.length = length

    def states(self, layer: Unrolled, x: Tensor) -> Tensor:
        """Return the states, window after window."""
        windows, state = list[Tensor](), None
        for window in x.split(self.length, dim=1):
            states, state = layer.run(window, state)
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            windows.append(states)
        return torch.cat(windows, dim=1)

    def before(self, state: Tensor, t: int) -> Tensor:
        """Return the state, as a constant where a window begins."""
        return state if t % self.length else state.detach()


@final
class Detached(ThroughTime):
    """Truncate backpropagation through time fully: ds_t / ds_{t-1} = 0, all steps being differentiated at once."""

    def states(self, layer: Unrolled, x: Tensor) -> Tensor:
        """Return the states, each from the one before it as a constant."""
        return layer.parallel_states(x)

    def before(self, state: Tensor, t: int) -> Tensor:
        """Return the state as a constant."""
        return state.detach()


@final
class Diagonal(ThroughTime):
    """Replace the Jacobian by one fixed diagonal, ds_t / ds_{t-1} = A, so that all steps are differentiated at once.

        g_t = dL/ds_t|local + g_{t+1} A         (N, n), from the last step to the first; g_T = 0
        dL/dtheta = sum_t g_t ds_t/dtheta       with s_{t-1} a constant, and likewise dL/dx_t

    The recursion is linear and the same at all times: it is computed by doubling (see `by_scan`) or by FFT (see
    `by_fft`), not step by step. The eigenvalues of A are

        linear       a_i = i / (n - 1), i = 0..n-1; 1 where n = 1
        gaussian     a_i from N(0, 1/4), drawn again outside of [-1, 1]
        orthogonal   units two by two turned by an angle, uniform on the circle, which is a diagonal of complex numbers
                     of modulus 1; where n is odd, the last unit's is 1

    The states of an LSTM are (h, c); a loss reads h alone, so that c_t gets nothing back from a later step.
    Diagonal state feedback: Caillon, Fagnou, Allauzen, arXiv 2503.23104.

    Args:
        n: the number of units.
        feedback: linear, gaussian or orthogonal.
        recursion: scan or fft.
        like: a tensor whose dtype and device the diagonal takes.

    Attributes:
        diagonal: a, (n,), or real and imaginary parts, (ceil(n / 2), 2), of orthogonal feedback; a buffer.

    """

    diagonal: Tensor

    def __init__(
        self, n: int, feedback: Feedback = "linear", recursion: Recursion = "scan", like: Tensor | None = None
    ):
        super().__init__()
        self.accumulate = choose("recursion", recursion, RECURSIONS)
        values = choose("feedback", feedback, FEEDBACKS)(n)
        self.register_buffer("diagonal", values.to(torch.zeros(()) if like is None else like))

    def states(self, layer: Unrolled, x: Tensor) -> Tensor:
        """Return the states, whose gradient receives the later ones' on the way back."""
        return _AccumulateBackward.apply(layer.parallel_states(x), self.diagonal, self.accumulate)

    def before(self, state: Tensor, t: int) -> Tensor:
        """Return the state as a constant."""
        return state.detach()

    def after(self, state: Tensor, previous: Tensor) -> Tensor:
        """Return s_t + A (s_{t-1} - c), c being s_{t-1} as a constant: its value is s_t, its derivative A."""
        moved, a = _to_eigenbasis(previous - previous.detach(), self.diagonal)
        return state + _from_eigenbasis(moved * a.conj(), previous)


class _AccumulateBackward(torch.autograd.Function):
    """Apply the identity, whose gradient is the accumulated one."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, diagonal: Tensor, accumulate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(diagonal)
        ctx.accumulate = accumulate
        return states.view_as(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (diagonal,) = ctx.saved_tensors
        return ctx.accumulate(gradient, diagonal), None, None


def by_scan(local: Tensor, diagonal: Tensor) -> Tensor:
    """Return g, (N, T, n), of g_t = local_t + g_{t+1} A, by log2(T) sums over twice as many steps each.

    With g^(0) = local, g^(j+1)_t = g^(j)_t + A^(2^j) g^(j)_{t + 2^j}: after j sums 2^j steps are in it.

    Args:
        local: (N, T, n).
        diagonal: that of A, see `Diagonal`.

    """
    g, power = _to_eigenbasis(local, diagonal)
    shift = 1
    while shift < g.shape[1]:
        total = g.clone()
        total[:, :-shift].addcmul_(g[:, shift:], power)
        g, power, shift = total, power * power, 2 * shift
    return _from_eigenbasis(g, local)


def by_fft(local: Tensor, diagonal: Tensor) -> Tensor:
    """Return g, (N, T, n), of g_t = local_t + g_{t+1} A, as a correlation with A's powers, by FFT of 2 T points.

    Args:
        local: (N, T, n).
        diagonal: that of A, see `Diagonal`.

    """
    g, a = _to_eigenbasis(local, diagonal)
    steps = g.shape[1]
    powers = a ** torch.arange(steps, device=a.device)[:, None]
    # Time runs backwards in the kernel: g_t = sum_s a^s local_{t+s}.
    kernel = torch.cat([powers[:1], torch.zeros_like(powers), powers[1:].flip(0)])
    if g.is_complex():
        found = torch.fft.ifft(torch.fft.fft(g, 2 * steps, dim=1) * torch.fft.fft(kernel, dim=0), dim=1)
    else:
        transformed = torch.fft.rfft(g, 2 * steps, dim=1) * torch.fft.rfft(kernel, dim=0)
        found = torch.fft.irfft(transformed, 2 * steps, dim=1)
    return _from_eigenbasis(found[:, :steps], local)


def _to_eigenbasis(units: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Return (..., n) units and the diagonal as A's eigenvectors have them: as they are, or two as a complex number."""
    dtype = torch.promote_types(units.dtype, torch.float32)  # sums over hundreds of steps, which bfloat16 would lose
    units, diagonal = units.to(dtype), diagonal.to(dtype)
    if diagonal.dim() == 1:
        return units, diagonal
    if units.shape[-1] % 2:
        units = nn.functional.pad(units, (0, 1))
    return torch.view_as_complex(units.unflatten(-1, (-1, 2)).contiguous()), torch.view_as_complex(diagonal)


def _from_eigenbasis(entries: Tensor, like: Tensor) -> Tensor:
    """Return entries as the units that they were made of, of the shape and precision of `like`."""
    if entries.is_complex():
        entries = torch.view_as_real(entries).flatten(-2)[..., : like.shape[-1]]
    return entries.to(like.dtype)


def _linear(n: int) -> Tensor:
    return torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.ones(1)


def _gaussian(n: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(n), std=0.5, a=-1, b=1)


def _orthogonal(n: int) -> Tensor:
    angle = 2 * torch.pi * torch.rand((n + 1) // 2)
    if n % 2:
        angle[-1] = 0
    return torch.stack([angle.cos(), angle.sin()], dim=1)


FEEDBACKS: Mapping[str, Callable[[int], Tensor]] = {
    "linear": _linear,
    "gaussian": _gaussian,
    "orthogonal": _orthogonal,
}
RECURSIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"scan": by_scan, "fft": by_fft}


def derivative_by_name(derivative: Derivative, n: int, truncation: int, feedback: Feedback) -> ThroughTime | None:
    """Return the derivative of a layer of n units by name, None for the exact one.

    Args:
        derivative: exact, truncated, none or diagonal.
        n: the number of units.
        truncation: of truncated, the steps of a window.
        feedback: of diagonal, its eigenvalues.

    Raises:
        UserError: for an unknown name.

    """
    choose("feedback", feedback, FEEDBACKS)
    truncated = Truncated(truncation)
    derivatives: Mapping[str, Callable[[], ThroughTime | None]] = {
        "exact": lambda: None,
        "truncated": lambda: truncated,
        "none": Detached,
        "diagonal": lambda: Diagonal(n, feedback),
    }
    return choose("derivative through_time", derivative, derivatives)()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
