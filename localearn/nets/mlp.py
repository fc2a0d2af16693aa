import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from localearn.nets.block import Block
from localearn.nets.initialization import draw_weights
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, check_classes, check_row, check_widths, choose
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net

NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


class MLP(Net):
    """Fully connected blocks: Linear, then normalisation, activation, dropout.

    input_shape: a row's shape, or its size; rows are flattened.
    classes: C.
    widths: the hidden widths n_1..n_L.
    activation: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, identity, or sign and heaviside, which have no
        derivative to learn by. norm: none, batch or layer.
    init: how weights are drawn: default, he_uniform, he_normal, fan_out_normal, glorot_uniform, glorot_normal; see
        `draw_weights`.
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
    ):
        shape = check_row("input_shape", input_shape)
        normalise = choose("norm", norm, NORMS)
        sizes = (math.prod(shape), *check_widths("widths", widths))
        blocks = []
        for n_in, n_out in itertools.pairwise(sizes):
            post = chain(normalise(n_out), activation_layer(activation), dropout_layer(dropout))
            blocks.append(Block(nn.Linear(n_in, n_out, bias=bias), post))
        readout = nn.Linear(sizes[-1], check_classes(classes), bias=bias)
        draw_weights(init, (*blocks, readout))
        super().__init__(blocks, readout, input_shape=shape, stem=nn.Flatten() if len(shape) > 1 else None)
