"""A GNN's blocks, and the options that it refuses."""

import pytest
import torch
from torch import nn

from localearn import GNN, UserError
from tests.helpers.layers import kinds


@pytest.mark.parametrize(("conv", "layer"), [("gcn", "GCNConv"), ("sage", "SAGEConv"), ("gat", "GATConv")])
def test_gnn_is_of_torch_geometrics_layers(conv, layer):
    net = GNN((5,), 3, widths=(8, 16), conv=conv)
    edges = torch.tensor([[0, 1], [1, 0]])
    assert net(torch.randn(4, 5), edges).shape == (4, 3)
    assert kinds(net) == [layer, "ReLU", "Dropout"]
    assert net.widths == (8, 16), "gat's heads are concatenated to the width"
    assert isinstance(net.stem, nn.Dropout)
    assert net.graph
    assert kinds(GNN(5, 3, widths=(8,), conv=conv, dropout=0.0)) == [layer, "ReLU"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, -1), {}, "classes must be a positive whole number, not -1"),
        (((1, 8, 8), 2), {}, r"a GNN takes a graph's nodes, rows of shape \(features,\), not \(1, 8, 8\); use"),
        ((3, 2), {"conv": "gin"}, "no conv 'gin'; did you mean 'gcn'"),
        ((3, 2), {"widths": (12,), "conv": "gat"}, "a width must be a multiple of heads; 12 is not one of 8"),
        ((3, 2), {"conv": "gat", "heads": 0}, "a width must be a multiple of heads; 64 is not one of 0"),
    ],
)
def test_options_out_of_range_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        GNN(*arguments, **options)
