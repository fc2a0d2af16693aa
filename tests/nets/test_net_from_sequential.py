import pytest
import torch
from torch import nn

from localearn import Net, UserError


def convolutional():
    return nn.Sequential(
        nn.Dropout(0.1),
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    )


def test_it_shares_the_layers_and_gives_the_same_logits():
    model = convolutional()
    net = Net.from_sequential(model, input_shape=(1, 6, 6))
    x = torch.randn(7, 1, 6, 6)
    torch.testing.assert_close(net.eval()(x), model.eval()(x))
    assert {id(p) for p in net.parameters()} == {id(p) for p in model.parameters()}
    assert {id(b) for b in net.buffers()} == {id(b) for b in model.buffers()}
    with torch.no_grad():
        net.block(0).op.get_parameter("weight").mul_(2)
    torch.testing.assert_close(net(x), model(x))


def test_blocks_begin_at_parametric_layers_and_normalisation_and_slopes_belong_to_the_block_before():
    net = Net.from_sequential(convolutional(), input_shape=(1, 6, 6))
    names = [[type(m).__name__ for m in (net.block(k).op, *net.block(k).post.children())] for k in range(net.depth)]
    assert names == [
        ["Conv2d", "BatchNorm2d", "PReLU"],
        ["Conv2d", "GroupNorm", "ReLU", "MaxPool2d", "Flatten"],
        ["Linear", "Tanh"],
    ]
    assert [type(m).__name__ for m in net.stem.children()] == ["Dropout"]
    assert net.shapes == ((4, 4, 4), (6,), (5,))
    assert net.classes == 3


def test_the_input_shape_is_told_by_a_first_linear():
    net = Net.from_sequential(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    assert net.input_shape == (4,)
    assert isinstance(net.block(0).post, nn.Identity)
    assert isinstance(net.stem, nn.Identity)


def test_a_readout_right_after_a_map_reads_it_flattened():
    net = Net.from_sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 2)), input_shape=(1, 4, 4))
    x = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(net(x), net.readout(net.block(0)(x).flatten(1)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 2)), "needs a hidden parametric layer and a Linear readout; this one has Linear"),
        (nn.Sequential(nn.ReLU()), "needs a hidden parametric layer and a Linear readout; this one has none"),
        (nn.Sequential(nn.Linear(4, 3), nn.Conv1d(1, 1, 1)), "is the readout and must be Linear, not Conv1d"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.LogSoftmax(1)),
            "nothing may follow the readout, whose outputs are logits; remove LogSoftmax",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
            r"cannot infer the input's shape from a Conv2d; give it, say input_shape=\(3, 32, 32\)",
        ),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(3, 2)), "a net's stem must not have parameters"),
    ],
)
def test_what_cannot_become_a_net_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        Net.from_sequential(model)


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"the net cannot take rows of shape \(1, 9, 9\)"):
        Net.from_sequential(convolutional(), input_shape=(1, 9, 9))


def test_what_is_no_sequential_is_refused():
    with pytest.raises(UserError, match=r"takes an nn\.Sequential, not a Linear; build a Net of Blocks"):
        Net.from_sequential(nn.Linear(6, 3))  # pyright: ignore[reportArgumentType]


def test_layers_that_give_no_tensor_are_refused():
    with pytest.raises(UserError, match=r"block 1 \(LSTM\) returns a tuple"):
        Net.from_sequential(nn.Sequential(nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)), (4, 6))
