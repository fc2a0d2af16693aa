import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, draw_weights
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.views import PerPosition

NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


class MLP(Net):
    """Stack fully connected blocks: Linear, then normalisation, activation and dropout.

    Args:
        input_shape: a row's shape, or its size; rows are flattened.
        classes: C.
        widths: the hidden widths n_1..n_L.
        activation: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, identity, or sign and heaviside, which have no
            derivative to learn by.
        norm: none, batch or layer.
        dropout: the probability of dropping a unit, in [0, 1).
        bias: whether Linear layers have biases.
        init: how weights are drawn: default, he_uniform, he_normal, fan_out_normal, glorot_uniform, glorot_normal; see
            `draw_weights`.
        reads: "row", all of a row at once, or "positions": rows are (T, D), and the net maps each of the T positions by
            itself, with the same weights, to (T, classes), as a field does the points of a ray.

    Raises:
        UserError: for options out of their range.

    Example:
        net = MLP((1, 28, 28), 10, widths=(256, 256), norm="batch")

    """

    def __init__(
        self,
        input_shape: tuple[int, ...] | int = (784,),
        classes: int = 10,
        *,
        widths: Sequence[int] = (1000, 1000),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        bias: bool = True,
        init: str = "default",
        reads: Literal["row", "positions"] = "row",
    ):
        shape = check_row("input_shape", input_shape)
        per_position = choose("reads", reads, {"row": False, "positions": True})
        if per_position and len(shape) != 2:
            raise UserError(f"reads=positions takes rows of shape (T, D), T positions, not {shape}; use reads=row")
        if per_position and norm == "batch":
            raise UserError("norm=batch cannot normalise positions; with reads=positions use norm=layer or none")
        normalise = choose("norm", norm, NORMS)
        sizes = (shape[-1] if per_position else math.prod(shape), *check_widths("widths", widths))
        blocks = []
        for n_in, n_out in itertools.pairwise(sizes):
            post = chain(normalise(n_out), activation_layer(activation), dropout_layer(dropout))
            blocks.append(Block(nn.Linear(n_in, n_out, bias=bias), post))
        readout = nn.Linear(sizes[-1], check_classes(classes), bias=bias)
        draw_weights(init, (*blocks, readout))
        stem = nn.Flatten() if len(shape) > 1 and not per_position else None
        super().__init__(blocks, readout, input_shape=shape, stem=stem, view=PerPosition() if per_position else None)
