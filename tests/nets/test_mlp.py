"""An MLP's blocks, and the options that it refuses."""

import pytest
import torch

from localearn import MLP, UserError
from tests.helpers.layers import kinds


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


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2), {}, r"input_shape must be positive whole numbers, not 0"),
        (((3, -1), 2), {}, r"input_shape must be positive whole numbers, not \(3, -1\)"),
        ((3, 0), {}, "classes must be a positive whole number, not 0"),
        ((3, 2), {"widths": ()}, r"widths must be a list of positive whole numbers, one per block, not \(\)"),
        ((3, 2), {"widths": (4, 0)}, r"widths must be a list of positive whole numbers.*not \(4, 0\)"),
        ((3, 2), {"widths": 256}, "widths must be a list of positive whole numbers, one per block, not 256"),
        ((3, 2), {"activation": "rleu"}, "no activation 'rleu'; did you mean 'relu'.*there are relu, leaky_relu"),
        ((3, 2), {"norm": "group"}, "no norm 'group'; there are none, batch, layer"),
        ((3, 2), {"dropout": 1.0}, r"dropout must lie in \[0, 1\), not 1.0"),
        ((3, 2), {"dropout": "half"}, r"dropout must lie in \[0, 1\), not 'half'"),
    ],
)
def test_options_out_of_range_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        MLP(*arguments, **options)
