from typing import Any

import pytest
import torch

from localearn import CNN, UserError


def layers(**options):
    block: Any = CNN((1, 8, 8), 2, channels=(4,), dropout=0.5, **options).block(0)
    return [type(layer).__name__ for layer in block.post]


def test_normalisation_comes_first_or_last():
    assert layers() == ["BatchNorm2d", "ReLU", "MaxPool2d", "Dropout"]
    assert layers(order="norm_last") == ["ReLU", "MaxPool2d", "BatchNorm2d", "Dropout"]
    assert layers(order="norm_last", pool=1, norm="none") == ["ReLU", "Dropout"]


def test_a_convolution_has_a_bias_where_it_has_an_effect():
    assert CNN((1, 8, 8), 2, channels=(4,)).block(0).op.bias is None
    assert CNN((1, 8, 8), 2, channels=(4,), order="norm_last").block(0).op.bias is not None


def test_the_order_does_not_change_what_is_drawn():
    weights = []
    for order in ("norm_first", "norm_last"):
        torch.manual_seed(0)
        net = CNN((1, 8, 8), 2, channels=(4,), order=order)
        weights.append(net.get_parameter("blocks.0.op.weight"))
    assert torch.equal(*weights)


def test_an_unknown_order_is_told():
    with pytest.raises(UserError, match=r"no order 'pool_first'.*norm_first, norm_last"):
        CNN((1, 8, 8), 2, channels=(4,), order="pool_first")
