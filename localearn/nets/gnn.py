import itertools
from collections.abc import Sequence
from typing import Any

from torch import nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.edges import normalised, with_loops
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, check_classes, check_row, check_widths, choose
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.quiet import torch_geometric


class GNN(Net):
    """Graph blocks: a convolution of torch_geometric's, then activation and dropout; a readout.

    input_shape: (features,). classes: C. widths: the hidden widths n_1..n_L.
    conv: gcn (Kipf, Welling 2017), sage (Hamilton et al. 2017) or gat (Velickovic et al. 2018, `heads` of them,
    concatenated). readout: linear, per node, or conv, a convolution to the classes (Kipf's last layer), which reads the
    neighbours' h_L too; rules whose readout must be Linear refuse it. dropout: also applied to the input features, as
    those papers do.
    """

    kind = "graph"

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
        readout: str = "linear",
    ):
        shape = check_row("input_shape", input_shape)
        if len(shape) != 1:
            raise UserError(f"a GNN takes a graph's nodes, rows of shape (features,), not {shape}; use net=cnn or mlp")
        sizes = (*shape, *check_widths("widths", widths))
        blocks = []
        for n_in, n_out in itertools.pairwise(sizes):
            post = chain(activation_layer(activation), dropout_layer(dropout))
            blocks.append(Block(_conv(conv, n_in, n_out, heads), post))
        check_classes(classes)
        convolves = choose("readout", readout, {"linear": False, "conv": True})
        last = _conv(conv, sizes[-1], classes, 1) if convolves else nn.Linear(sizes[-1], classes)
        stem = dropout_layer(dropout)
        super().__init__(blocks, last, input_shape=shape, stem=stem, graph=True, readout_takes_context=convolves)


def _conv(name: str, n_in: int, n_out: int, heads: int) -> nn.Module:
    pyg = torch_geometric("nn")
    layer: Any = choose("conv", name, {"gcn": pyg.GCNConv, "sage": pyg.SAGEConv, "gat": pyg.GATConv})
    if name == "gcn":
        conv = layer(n_in, n_out, normalize=False)
        conv.register_forward_pre_hook(normalised)
        return conv
    if name == "sage":
        return layer(n_in, n_out)
    if not isinstance(heads, int) or heads < 1 or n_out % heads:
        raise UserError(f"gat concatenates its heads, so a width must be a multiple of them; {n_out} is not of {heads}")
    conv = layer(n_in, n_out // heads, heads=heads, add_self_loops=False)
    conv.register_forward_pre_hook(with_loops)
    return conv
