import pytest
import torch
from torch import nn

from localearn import Block, LeNet, ResNet, UserError
from localearn.nets.conv import Residual, Subsample


def test_resnet20_is_the_papers():
    net = ResNet((3, 32, 32), 10)
    assert net.depth == 10  # a convolution and nine residual blocks of two; with the readout 20 layers
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) + 1 == 20
    assert sum(p.numel() for p in net.parameters()) == 269_722  # table 6: 0.27 M
    assert net.shapes == (*[(16, 32, 32)] * 4, *[(32, 16, 16)] * 3, *[(64, 8, 8)] * 2, (64, 1, 1))
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_residual_block_adds_its_input():
    block = Residual(4, 4)
    nn.init.zeros_(block.norm2.weight)
    h = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(block(h), h)


def test_the_shortcut_without_parameters_subsamples_and_pads_with_zeros():
    h = torch.randn(2, 3, 5, 5)
    out = Subsample(3, 6, 2)(h)
    assert out.shape == (2, 6, 3, 3)
    torch.testing.assert_close(out[:, 1:4], h[:, :, ::2, ::2])
    assert not out[:, 0].any() and not out[:, 4:].any()
    assert not list(Subsample(3, 6, 2).parameters())


def test_projection_shortcuts_stand_where_the_shape_changes():
    net = ResNet((3, 8, 8), 3, widths=(4, 8, 8), blocks=2, shortcut="projection")
    kinds = [type(op.shortcut).__name__ for op in net.modules() if isinstance(op, Residual)]
    assert kinds == ["Identity", "Identity", "Sequential", "Identity", "Sequential", "Identity"]


def test_weights_are_hes():
    torch.manual_seed(0)
    net = ResNet((3, 8, 8), 3, widths=(64,), blocks=1)
    weight = net.block(1).op.get_submodule("conv1").get_parameter("weight")
    # 36,864 normal draws with variance 2 / (9 * 64); 5 standard errors: 6e-7 false alarms, were the seed not fixed.
    assert weight.square().mean().item() * 9 * 64 / 2 == pytest.approx(1, abs=5 * (2 / 36_864) ** 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (784,)}, "a ResNet takes images"),
        ({"blocks": 0}, "blocks must be 1 or more"),
        ({"widths": []}, "widths must be a list"),
        ({"shortcut": "projections"}, "did you mean 'projection'"),
        ({"classes": 0}, "classes must be"),
    ],
)
def test_wrong_options_of_a_resnet_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ResNet(**options)


@pytest.mark.parametrize(("side", "margin"), [(32, 0), (28, 2)])
def test_lenet5_reads_images_of_32_pixels_and_pads_smaller_ones(side, margin):
    net = LeNet((1, side, side), 10)
    assert net.shapes == ((6, 14, 14), (16, 5, 5), (120,), (84,))
    assert sum(p.numel() for p in net.parameters()) == 61_706
    x = torch.randn(2, 1, side, side)
    assert net.stem(x).shape == (2, 1, 32, 32)
    torch.testing.assert_close(net.stem(x)[:, :, margin : 32 - margin, margin : 32 - margin], x)
    assert net.stem(x).square().sum() == pytest.approx(x.square().sum().item(), rel=1e-5)


def test_the_cifar_lenet_averages_its_last_map():
    net = LeNet((3, 32, 32), 10, channels=(32, 64, 128), kernel_size=3, hidden=256)
    assert net.shapes == ((32, 15, 15), (64, 6, 6), (128,), (256,))
    assert all(isinstance(block, Block) for block in net.blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (784,)}, "a LeNet takes images"),
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"hidden": 0}, "hidden must be"),
        ({"channels": (6, 16, 32, 64), "kernel_size": 9}, "the net cannot take rows"),
    ],
)
def test_wrong_options_of_a_lenet_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LeNet(**options)
