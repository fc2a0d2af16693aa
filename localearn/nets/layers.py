"""The small layers that the backbones share, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import nn

from localearn.errors import UserError, suggestion

T = TypeVar("T")

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}

NORMALISATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def choose(what: str, name: str, choices: Mapping[str, T]) -> T:
    """Return `choices[name]`, or raise a UserError that lists the choices."""
    if name not in choices:
        raise UserError(f"no {what} {name!r}{suggestion(name, choices)}; there are {', '.join(choices)}")
    return choices[name]


def activation(name: str) -> nn.Module:
    """Build an activation by name."""
    return choose("activation", name, ACTIVATIONS)()


def check_widths(what: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Return the widths as a tuple, or raise a UserError unless there is one at least and all are whole and positive."""
    widths = tuple(widths)
    if not widths or not all(isinstance(n, int) and n > 0 for n in widths):
        raise UserError(f"{what} must be a list of positive whole numbers, one per block, not {list(widths)}")
    return widths


def check_dropout(rate: float) -> float:
    """Return the rate, or raise a UserError unless it lies in [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"dropout must lie in [0, 1), not {rate}")
    return rate
