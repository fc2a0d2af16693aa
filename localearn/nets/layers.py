"""Small layers by name, the drawing of their weights, and what holds of all layers of a module."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets.checks import choose


class Sign(nn.Module):
    """Return the sign of each value: -1, 0 or 1. Its derivative is zero wherever it is defined."""

    def forward(self, h: Tensor) -> Tensor:
        """Return signs, shaped as h."""
        return torch.sign(h)


class Heaviside(nn.Module):
    """Return a spike, 1, where a value is positive, and 0 elsewhere. Its derivative is zero wherever it is defined."""

    def forward(self, h: Tensor) -> Tensor:
        """Return zeros and ones, shaped as h."""
        return torch.sign(h).relu()


FLAT = (Sign, Heaviside)  # no derivative says anything about what comes before them

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "sign": Sign,
    "heaviside": Heaviside,
}


def activation(name: str) -> nn.Module:
    """Build an activation.

    Args:
        name: one of `ACTIVATIONS`.

    Raises:
        UserError: for another name.

    """
    return choose("activation", name, ACTIVATIONS)()


def dropout(rate: float) -> nn.Module:
    """Build dropout, the identity where the probability is 0.

    Args:
        rate: the probability of dropping a value.

    Raises:
        UserError: unless the probability lies in [0, 1).

    """
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise UserError(f"dropout must lie in [0, 1), not {rate!r}")
    return nn.Dropout(rate) if rate else nn.Identity()


def chain(*layers: nn.Module) -> nn.Sequential:
    """Join layers in an `nn.Sequential`, without identities."""
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


INITS: Mapping[str, Callable[[Tensor], object] | None] = {
    "default": None,
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "fan_out_normal": lambda weight: nn.init.normal_(weight, std=1 / math.sqrt(weight[:, 0].numel())),
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
}


def draw_weights(init: str, parts: Iterable[nn.Module]) -> None:
    """Draw the weights of all Linear layers and convolutions in `parts`, and set their biases to zero.

        he_uniform          U(-a, a), a = sqrt(6 / fan_in)               He et al., arXiv 1502.01852
        he_normal           N(0, s^2), s = sqrt(2 / fan_in)
        glorot_uniform      U(-a, a), a = sqrt(6 / (fan_in + fan_out))   Glorot, Bengio 2010
        glorot_normal       N(0, s^2), s = sqrt(2 / (fan_in + fan_out))
        fan_out_normal      N(0, s^2), s = 1 / sqrt(fan_out)             of a port of Forward-Forward
        default             torch's own, weights and biases U(-a, a), a = 1 / sqrt(fan_in), left as they are

    Args:
        init: the name.
        parts: modules, whose submodules are included.

    Raises:
        UserError: for another name.

    """
    draw = choose("init", init, INITS)
    if draw is None:
        return
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                draw(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


NORMALISATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def starts_block(layer: nn.Module) -> bool:
    """Return whether a layer of a list is a map with parameters, which begins a block, and not what follows one.

    Args:
        layer: the layer.

    """
    # A PReLU's slope belongs to the layer before it, as a normalisation's scale does.
    belongs_to_post = isinstance(layer, (*NORMALISATIONS, nn.PReLU))
    return not belongs_to_post and any(True for _ in layer.parameters())


def out_of_place(module: nn.Module) -> None:
    """Set `inplace` to False in all layers of a module, so that none writes over an input that a rule holds.

    Args:
        module: the module, which is changed.

    """
    for layer in module.modules():
        if getattr(layer, "inplace", False) is True:
            vars(layer)["inplace"] = False


@contextmanager
def preserve_modes(module: nn.Module) -> Iterator[None]:
    """Restore every submodule's own mode, training or evaluation, on exit.

    Args:
        module: the module whose submodules may change their mode within the context.

    """
    modes = {m: m.training for m in module.modules()}
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


def is_transforming() -> bool:
    """Return whether torch.func is active, vmap or jvp, for which fused kernels have no batching rule and no tangent.

    torch.compile traces through this question, and not through the question whether one tensor is transformed.
    """
    return torch._C._are_functorch_transforms_active()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
