import functools
import math

import pytest
import torch
from torch import nn

import localearn
from localearn.errors import UserError

FAN_IN, FAN_OUT = 400, 300
LARGEST = {
    "he_uniform": math.sqrt(6 / FAN_IN),
    "glorot_uniform": math.sqrt(6 / (FAN_IN + FAN_OUT)),
}
DEVIATION = {
    **{name: largest / math.sqrt(3) for name, largest in LARGEST.items()},
    "he_normal": math.sqrt(2 / FAN_IN),
    "fan_out_normal": math.sqrt(1 / FAN_OUT),
    "glorot_normal": math.sqrt(2 / (FAN_IN + FAN_OUT)),
}


@pytest.mark.parametrize("init", DEVIATION)
def test_weights_have_the_named_distribution_and_biases_are_zero(init):
    torch.manual_seed(0)
    op = localearn.MLP(FAN_IN, 10, widths=[FAN_OUT], init=init).block(0).op
    assert isinstance(op, nn.Linear)

    # 120,000 draws: the deviation's relative standard error is below 0.3 %, and 2 % a false alarm in 10^12 or fewer
    assert op.weight.std().item() == pytest.approx(DEVIATION[init], rel=0.02)
    assert not op.bias.any()
    if init in LARGEST:
        assert 0.999 * LARGEST[init] < op.weight.abs().max() <= LARGEST[init]


def test_default_is_the_same_draw_as_without_the_option():
    nets = []
    for make in (localearn.MLP, functools.partial(localearn.MLP, init="default")):
        torch.manual_seed(0)
        nets.append(make(20, 3, widths=[8]).state_dict())
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    assert nets[0]["blocks.0.op.bias"].any()


@pytest.mark.parametrize(
    "net",
    [
        localearn.CNN((1, 8, 8), 3, channels=[64], kernel_size=5, norm="none", init="he_uniform"),
        localearn.LeNet((1, 28, 28), 3, channels=[64, 64], init="he_uniform"),
    ],
    ids=["cnn", "lenet"],
)
def test_convolutions_and_readouts_are_drawn_too(net):
    for weight in (net.block(0).op.weight, net.readout.weight):
        largest = math.sqrt(6 / math.prod(weight.shape[1:]))
        assert 0.9 * largest < weight.abs().max() <= largest
    assert not net.readout.bias.any()


def test_a_cnn_without_biases_has_none():
    net = localearn.CNN((1, 8, 8), 3, channels=[4, 4], norm="none", bias=False)
    assert not any(name.endswith("bias") for name, _ in net.named_parameters())


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(UserError, match=r"no init 'he'.*he_uniform"):
        localearn.MLP(4, 2, init="he")
