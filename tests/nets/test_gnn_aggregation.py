"""A convolution cut in two is the convolution."""

import pytest
import torch
from torch_geometric.nn import SAGEConv

from localearn import GNN
from localearn.nets.gnn import aggregation

EDGES = torch.tensor([[0, 1, 1, 2, 3, 3, 2], [1, 0, 2, 1, 1, 3, 1]])  # an edge twice, a loop, a node that none leads to


@pytest.mark.parametrize("width", [3, 600])  # in one part, and in several
@pytest.mark.parametrize("conv", ["gcn", "sage"])
def test_gathering_and_combining_is_the_convolution(conv, width):
    torch.manual_seed(0)
    op = GNN(width, 2, widths=(5,), conv=conv).double().block(0).op
    for p in op.parameters():
        torch.nn.init.normal_(p)  # the bias too, which begins at zero
    h = torch.randn(5, width, dtype=torch.float64)
    split = aggregation(op)
    assert split is not None
    a = split.gather(h, EDGES)
    assert a.shape == (5, split.times * width)
    assert torch.allclose(split.combine(a), op(h, EDGES), rtol=1e-12, atol=1e-12)
    assert torch.allclose(split.combine(a[2:4]), op(h, EDGES)[2:4], rtol=1e-12, atol=1e-12)


def test_what_is_no_such_product_is_left_whole():
    assert aggregation(GNN(3, 2, widths=(4,), conv="gat", heads=2).block(0).op) is None
    assert aggregation(SAGEConv(3, 4, normalize=True)) is None
    assert aggregation(SAGEConv(3, 4, aggr="max")) is None
    assert aggregation(torch.nn.Linear(3, 4)) is None
