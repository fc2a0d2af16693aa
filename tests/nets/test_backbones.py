import pytest
import torch
from torch import nn

from localearn import CNN, GNN, MLP, UserError


def kinds(net, k=0):
    block = net.block(k)
    return [type(layer).__name__ for layer in (block.op, *block.post)]


def test_mlp_flattens_rows_and_has_the_widths_asked_for():
    net = MLP((3, 4, 4), 5, widths=(8, 7))
    assert net(torch.randn(2, 3, 4, 4)).shape == (2, 5)
    assert (net.widths, net.shapes, net.classes, net.input_shape) == ((8, 7), ((8,), (7,)), 5, (3, 4, 4))
    assert [net.block(0).op.in_features, net.readout.in_features] == [48, 7]
    assert kinds(net) == ["Linear", "ReLU"]


def test_mlp_takes_a_size_for_a_shape_and_leaves_out_what_does_nothing():
    net = MLP(6, 2, widths=[4], activation="identity", bias=False)
    assert net.input_shape == (6,)
    assert kinds(net) == ["Linear"]
    assert net.block(0).op.bias is None
    assert net.readout.bias is None


def test_mlp_puts_normalisation_activation_and_dropout_after_the_map():
    assert kinds(MLP(6, 2, widths=(4,), norm="batch", activation="gelu", dropout=0.1)) == [
        *("Linear", "BatchNorm1d", "GELU", "Dropout")
    ]
    assert kinds(MLP(6, 2, widths=(4,), norm="layer")) == ["Linear", "LayerNorm", "ReLU"]


def test_cnn_pools_per_block_and_reads_out_the_flattened_map():
    net = CNN((3, 9, 8), 5, channels=(4, 6), pool=[1, 2], kernel_size=5)
    assert net.shapes == ((4, 9, 8), (6, 4, 4))
    assert net.widths == (288, 96)
    assert net(torch.randn(2, 3, 9, 8)).shape == (2, 5)
    assert kinds(net, 0) == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(net, 1) == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert net.block(0).op.bias is None, "batch normalisation takes the bias with it"


def test_cnn_options():
    net = CNN((1, 4, 4), 2, channels=(6,), norm="group", pooling="average", activation="tanh", dropout=0.2)
    assert kinds(net) == ["Conv2d", "GroupNorm", "Tanh", "AvgPool2d", "Dropout"]
    assert net.block(0).op.bias is not None
    assert kinds(CNN((1, 4, 4), 2, channels=(6,), norm="none")) == ["Conv2d", "ReLU", "MaxPool2d"]


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
    ("build", "arguments", "options", "message"),
    [
        (MLP, (0, 2), {}, r"input_shape must be positive whole numbers, not 0"),
        (MLP, ((3, -1), 2), {}, r"input_shape must be positive whole numbers, not \(3, -1\)"),
        (MLP, (3, 0), {}, "classes must be a positive whole number, not 0"),
        (CNN, ((1, 4, 4), 2.5), {"channels": (2,), "pool": 1}, "classes must be a positive whole number, not 2.5"),
        (GNN, (3, -1), {}, "classes must be a positive whole number, not -1"),
        (MLP, (3, 2), {"widths": ()}, r"widths must be a list of positive whole numbers, one per block, not \(\)"),
        (MLP, (3, 2), {"widths": (4, 0)}, r"widths must be a list of positive whole numbers.*not \(4, 0\)"),
        (MLP, (3, 2), {"widths": 256}, "widths must be a list of positive whole numbers, one per block, not 256"),
        (MLP, (3, 2), {"activation": "rleu"}, "no activation 'rleu'; did you mean 'relu'.*there are relu, leaky_relu"),
        (MLP, (3, 2), {"norm": "group"}, "no norm 'group'; there are none, batch, layer"),
        (MLP, (3, 2), {"dropout": 1.0}, r"dropout must lie in \[0, 1\), not 1.0"),
        (MLP, (3, 2), {"dropout": "half"}, r"dropout must lie in \[0, 1\), not 'half'"),
        (CNN, ((784,), 10), {}, r"a CNN takes images, rows of shape \(channels, height, width\), not \(784,\); use"),
        (CNN, (), {"channels": (0,)}, "channels must be a list of positive whole numbers"),
        (CNN, (), {"kernel_size": 4}, "kernel_size must be odd and positive, so that padding keeps the map, not 4"),
        (CNN, (), {"kernel_size": 3.0}, "kernel_size must be odd and positive, so that padding keeps the map, not 3.0"),
        (CNN, (), {"norm": "layer"}, "no norm 'layer'; there are none, batch, group"),
        (CNN, (), {"pooling": "mean"}, "no pooling 'mean'"),
        (CNN, (), {"pool": [2, 2]}, r"pool must be a window >= 1, or one for each of 4 blocks, not \[2, 2\]"),
        (CNN, (), {"pool": 0}, r"pool must be a window >= 1, or one for each of 4 blocks, not \[0, 0, 0, 0\]"),
        (CNN, ((3, 8, 32),), {}, r"pooling by \[2, 2, 2, 2\] leaves nothing of a side of 8; pool less or use fewer"),
        (CNN, (), {"dropout": -0.1}, r"dropout must lie in \[0, 1\), not -0.1"),
        (GNN, ((1, 8, 8), 2), {}, r"a GNN takes a graph's nodes, rows of shape \(features,\), not \(1, 8, 8\); use"),
        (GNN, (3, 2), {"conv": "gin"}, "no conv 'gin'; did you mean 'gcn'"),
        (GNN, (3, 2), {"widths": (12,), "conv": "gat"}, "a width must be a multiple of them; 12 is not of 8"),
        (GNN, (3, 2), {"conv": "gat", "heads": 0}, "a width must be a multiple of them; 64 is not of 0"),
    ],
)
def test_options_out_of_range_are_refused(build, arguments, options, message):
    with pytest.raises(UserError, match=message):
        build(*arguments, **options)
