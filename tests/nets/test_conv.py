"""A CNN's blocks, and the options that it refuses."""

import pytest
import torch

from localearn import CNN, UserError
from tests.helpers.layers import kinds


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


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((1, 4, 4), 2.5), {"channels": (2,), "pool": 1}, "classes must be a positive whole number, not 2.5"),
        (((784,), 10), {}, r"a CNN takes images, rows of shape \(channels, height, width\), not \(784,\); use"),
        ((), {"channels": (0,)}, "channels must be a list of positive whole numbers"),
        ((), {"kernel_size": 4}, "kernel_size must be odd and positive, so that padding keeps the map, not 4"),
        ((), {"kernel_size": 3.0}, "kernel_size must be odd and positive, so that padding keeps the map, not 3.0"),
        ((), {"norm": "layer"}, "no norm 'layer'; there are none, batch, group"),
        ((), {"pooling": "mean"}, "no pooling 'mean'"),
        ((), {"pool": [2, 2]}, r"pool must be a window >= 1, or one for each of 4 blocks, not \[2, 2\]"),
        ((), {"pool": 0}, r"pool must be a window >= 1, or one for each of 4 blocks, not \[0, 0, 0, 0\]"),
        (((3, 8, 32),), {}, r"pooling by \[2, 2, 2, 2\] leaves nothing of a side of 8; pool less or use fewer"),
        ((), {"dropout": -0.1}, r"dropout must lie in \[0, 1\), not -0.1"),
    ],
)
def test_options_out_of_range_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        CNN(*arguments, **options)
