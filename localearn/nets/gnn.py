import itertools
import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from localearn.errors import UserError
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import check_dropout, check_widths, choose
from localearn.nets.net import Block, Net


class GNN(Net):
    """Graph blocks of torch_geometric's own layers: convolution, then activation and dropout; a Linear readout per node.

    input_shape: (features,). classes: C. widths: the hidden widths n_1..n_L.
    conv: gcn (Kipf, Welling 2017), sage (Hamilton et al. 2017) or gat (Velickovic et al. 2018, `heads` of them,
    concatenated). dropout: also applied to the input features, as those papers do.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...] | int,
        classes: int,
        *,
        widths: Sequence[int] = (64, 64),
        conv: str = "gcn",
        activation: str = "relu",
        dropout: float = 0.5,
        heads: int = 8,
    ):
        shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
        if len(shape) != 1:
            raise UserError(f"a GNN takes a graph's nodes, rows of shape (features,), not {shape}; use net=cnn or net=mlp")
        check_dropout(dropout)
        sizes = (math.prod(shape), *check_widths("widths", widths))
        blocks = []
        for n_in, n_out in itertools.pairwise(sizes):
            post: list[nn.Module] = [activation_layer(activation)]
            post += [nn.Dropout(dropout)] if dropout else []
            blocks.append(Block(_conv(conv, n_in, n_out, heads), nn.Sequential(*post)))
        stem = nn.Dropout(dropout) if dropout else None
        super().__init__(blocks, nn.Linear(sizes[-1], classes), input_shape=shape, stem=stem, graph=True)


def _conv(name: str, n_in: int, n_out: int, heads: int) -> nn.Module:
    import torch_geometric.nn as pyg

    layer: Any = choose("conv", name, {"gcn": pyg.GCNConv, "sage": pyg.SAGEConv, "gat": pyg.GATConv})
    if name != "gat":
        return layer(n_in, n_out)
    if heads < 1 or n_out % heads:
        raise UserError(f"gat concatenates its heads, so a width must be a multiple of them; {n_out} is not of {heads}")
    return layer(n_in, n_out // heads, heads=heads)
