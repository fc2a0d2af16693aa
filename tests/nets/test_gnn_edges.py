"""Edges are prepared once, to what the layers themselves would make of them, and anew when they change."""

import copy
import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GATConv, GCNConv

from localearn import GNN
from localearn.nets import gnn

RING = torch.tensor([[0, 1, 2, 3, 3, 1, 2], [1, 2, 3, 0, 3, 0, 2]])  # two nodes of which have a loop already


class Preparations(TorchDispatchMode):
    """Counts how often edges are prepared: each time their ends are compared once, to find the loops among them."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.ne.Tensor
        return func(*args, **(kwargs or {}))


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(4, 5)


def alone(conv, net):
    """Return the first layer as torch_geometric has it, which prepares the edges itself."""
    layer = {"gcn": GCNConv(5, 8), "gat": GATConv(5, 1, heads=8)}[conv]
    layer.load_state_dict(net.block(0).op.state_dict())
    return layer


@pytest.mark.parametrize("conv", ["gcn", "gat"])
def test_a_layer_gives_the_bits_of_torch_geometrics_own(conv, x):
    net = GNN(5, 3, widths=(8,), conv=conv)
    layer, ring = alone(conv, net), RING.clone()
    with Preparations() as prepared:
        ours = [net.block(0).op(x, ring) for _ in range(3)]
    assert prepared.count == 1
    with Preparations() as prepared:
        theirs = [layer(x, ring) for _ in range(3)]
    assert prepared.count == 3
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("conv", ["gcn", "gat"])
def test_edges_that_change_are_prepared_anew(conv, x):
    net, ring = GNN(5, 3, widths=(8,), conv=conv), RING.clone()
    layer = alone(conv, net)
    first = net.block(0).op(x, ring)
    ring[0, 0] = 2
    second = net.block(0).op(x, ring)
    assert not torch.equal(first, second) and torch.equal(second, layer(x, ring))
    more = torch.cat([x, x])  # nodes without an edge
    assert torch.equal(net.block(0).op(more, ring), layer(more, ring))
    double = copy.deepcopy(net).double()
    assert torch.equal(double.block(0).op(x.double(), ring), layer.double()(x.double(), ring))


def test_blocks_share_what_is_prepared_and_it_goes_with_the_edges(x):
    net, ring = GNN(5, 3, widths=(8, 8), conv="gcn"), RING.clone()
    with Preparations() as prepared:
        net(x, ring)
    assert prepared.count == 1
    held = len(gnn._prepared)
    del ring
    gc.collect()
    assert len(gnn._prepared) < held


def test_edges_that_tell_no_change_are_not_kept(x):
    with torch.inference_mode():
        ring = RING.clone()
        net = GNN(5, 3, widths=(8,), conv="gcn")
        with Preparations() as prepared:
            net(x, ring)
            net(x, ring)
    assert prepared.count == 2


def test_other_arguments_are_refused(x):
    with pytest.raises(TypeError, match="takes x and edge_index, not 3"):
        GNN(5, 3, widths=(8,), conv="gcn").block(0).op(x, RING, torch.ones(7))


@pytest.mark.parametrize("conv", ["gcn", "gat", "sage"])
def test_a_net_without_values_has_shapes(conv):
    net = GNN(5, 3, widths=(8, 8), conv=conv).to("meta")
    out = net(torch.empty(4, 5, device="meta"), RING.to("meta"))
    assert out.is_meta and out.shape == (4, 3)
