"""Small layers, choices by name and checks of options, shared by the nets."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from localearn.errors import UserError, suggestion

T = TypeVar("T")


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

NORMALISATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def starts_block(layer: nn.Module) -> bool:
    """Return whether a layer of a list is a map with parameters, which begins a block, and not what follows one."""
    # A PReLU's slope belongs to the layer before it, as a normalisation's scale does.
    belongs_to_post = isinstance(layer, (*NORMALISATIONS, nn.PReLU))
    return not belongs_to_post and any(True for _ in layer.parameters())


def out_of_place(module: nn.Module) -> None:
    """Set `inplace` to False in all layers of a module, so that none writes over an input that a rule holds."""
    for layer in module.modules():
        if getattr(layer, "inplace", False) is True:
            vars(layer)["inplace"] = False


def is_transforming() -> bool:
    """Return whether torch.func is active, vmap or jvp, for which fused kernels have no batching rule and no tangent.

    torch.compile traces through this question, and not through the question whether one tensor is transformed.
    """
    return torch._C._are_functorch_transforms_active()


def choose(what: str, name: str, choices: Mapping[str, T]) -> T:
    """Return `choices[name]`.

    Args:
        what: the kind of thing that is chosen, for the error message.
        name: the choice.
        choices: all choices by name.

    Raises:
        UserError: for an unknown name, listing the choices.

    """
    if name not in choices:
        raise UserError(f"no {what} {name!r}{suggestion(name, choices)}; there are {', '.join(choices)}")
    return choices[name]


def activation(name: str) -> nn.Module:
    """Build an activation by name; raise UserError for an unknown one."""
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


def check_row(what: str, shape: Sequence[int] | int) -> tuple[int, ...]:
    """Return the shape of a row as a tuple.

    Args:
        what: the option's name in the error message.
        shape: sizes, or one size.

    Raises:
        UserError: unless the sizes are whole and positive.

    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or not all(_is_size(n) for n in sizes):
        raise UserError(f"{what} must be positive whole numbers, not {shape!r}")
    return sizes


def check_image(net: str, shape: Sequence[int] | int) -> tuple[int, ...]:
    """Return the shape of a row that is an image, (channels, height, width).

    Args:
        net: the net that takes images only, for the error message.
        shape: the shape.

    Raises:
        UserError: for another shape.

    """
    sizes = check_row("input_shape", shape)
    if len(sizes) != 3:
        raise UserError(
            f"a {net} takes images, rows of shape (channels, height, width), not {sizes}; use net=mlp or, of text, "
            "net=transformer"
        )
    return sizes


def check_classes(classes: int) -> int:
    """Return the number of classes; raise UserError unless it is whole and positive."""
    if not _is_size(classes):
        raise UserError(f"classes must be a positive whole number, not {classes!r}")
    return classes


def check_widths(what: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Return the widths as a tuple.

    Args:
        what: the option's name in the error message.
        widths: one per block.

    Raises:
        UserError: unless there is one at least and all are whole and positive.

    """
    if isinstance(widths, int) or not widths or not all(_is_size(n) for n in widths):
        raise UserError(f"{what} must be a list of positive whole numbers, one per block, not {widths!r}")
    return tuple(widths)


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0


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
