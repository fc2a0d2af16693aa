"""Nets from papers against their parts, sizes and independent computations."""

from typing import Any

import pytest
import torch
import torchvision.models as models
from torch import nn

from localearn import CNN, Flattened, Mixer, MobileNetV3, Pooled, ResNet, UserError, ViT
from localearn.cli import compose
from localearn.inputs import InputSpec
from localearn.training.building import build_net

VECTOR: Any = (64,)


def size(net):
    return sum(p.numel() for p in net.parameters())


def named(name, shape=(3, 32, 32), classes=10, *overrides):
    """Return the net of a file in conf/net, without values."""
    from omegaconf import OmegaConf

    config, _ = compose([f"net={name}", *overrides])
    with torch.device("meta"):
        options: Any = OmegaConf.to_container(config.net, resolve=True)
        return build_net(options, InputSpec(shape), classes)


# (the net, its blocks, its parameters). For 1,000 classes and 224x224 pixels: torchvision's resnet18 and
# mobilenet_v3_small; DeiT-Tiny's 5,717,416 less the class token and 197 learned positions; Mixer-S/16 of the paper's
# table 1. For CIFAR-10: 3.9 M-11.2 M are those of the papers or of the widely used code for small images; VGG8B on
# 28x28 pixels is the paper's 7.3 M.
SIZES = {
    "resnet18": (("resnet18",), 9, 11_173_962),
    "resnet18 of ImageNet": (("resnet18", (3, 224, 224), 1000, "net.stem=imagenet"), 9, 11_689_512),
    "mobilenet_v3_small": (("mobilenet_v3_small",), 14, 1_528_106),
    "mobilenet_v3_small of ImageNet": (
        ("mobilenet_v3_small", (3, 224, 224), 1000, "net.stem=imagenet"),
        14,
        2_542_856,
    ),
    "vit": (("vit",), 12, 5_350_090),
    "vit of ImageNet": (("vit", (3, 224, 224), 1000, "net.patch=16"), 12, 5_717_416 - 192 - 197 * 192),
    "mixer of ImageNet": (("mixer", (3, 224, 224), 1000, "net.patch=16"), 8, 18_528_264),
    "vgg8b": (("vgg8b",), 7, 8_900_234),
    "vgg8b of MNIST": (("vgg8b", (1, 28, 28)), 7, 7_325_066),
    "vgg11b": (("vgg11b",), 10, 11_555_978),
}


@pytest.mark.parametrize("case", SIZES)
def test_published_sizes(case):
    arguments, depth, parameters = SIZES[case]
    net = named(*arguments)
    assert (net.depth, size(net)) == (depth, parameters)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "vgg8b", "vgg11b", "vit", "vit_6x128", "mixer", "mixer_6x128"]
)
def test_kinds_and_views(name):
    net = named(name)
    assert net.kind == ("sequence" if name.startswith(("vit", "mixer")) else "maps")
    assert type(net.view) is (Flattened if name.startswith("vgg") else Pooled)
    assert named(name, (3, 32, 32), 10, "net.group=100").depth == 1


def test_resnet18_is_torchvisions():
    torch.manual_seed(0)
    theirs = models.resnet18(num_classes=5)
    ours = ResNet(
        (3, 64, 64), 5, widths=(64, 128, 256, 512), blocks=2, shortcut="projection", stem="imagenet", view="pooled"
    )
    values = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(values)
    x = torch.randn(2, 3, 64, 64)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-5, atol=1e-5)


def test_resnets_blocks_a_stage_and_views():
    net = ResNet((3, 16, 16), 4, widths=(4, 6), blocks=[2, 1], stem="imagenet", view="flattened")
    assert net.shapes == ((4, 4, 4), (4, 4, 4), (4, 4, 4), (6, 1, 1))
    assert net.reads == (64, 64, 64, 6)
    pooled = ResNet((3, 16, 16), 4, widths=(4, 6), blocks=[2, 1], stem="imagenet", view="pooled")
    assert pooled.reads == (4, 4, 4, 6)
    pooled.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(pooled.eval()(x), net.eval()(x))


def test_mobilenet_is_torchvisions():
    torch.manual_seed(0)
    theirs = models.mobilenet_v3_small(num_classes=5)
    ours = MobileNetV3((3, 64, 64), 5, stem="imagenet")
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_mobilenet_for_small_images_ends_with_a_map_of_a_quarter():
    net = MobileNetV3((1, 32, 32), 5, width=0.25)
    maps = [shape[1] for shape in net.shapes if len(shape) == 3]
    assert maps == [32, 32, 16, 16, *[8] * 5, *[4] * 3]  # the last 1x1 convolution's post pools
    assert net.block(0).op.in_channels == 1


def test_vgg8b_has_a_linear_layer_between_its_convolutions_and_the_readout():
    net = CNN((3, 8, 8), 4, channels=(5, 6), pool=(1, 2), hidden=(7, 8), dropout=0.1)
    assert net.shapes == ((5, 8, 8), (6 * 4 * 4,), (7,), (8,))
    names = [type(layer).__name__ for layer in net.block(2).post.children()]
    assert names == ["BatchNorm1d", "ReLU", "Dropout"] and net.block(2).op.bias is None
    grouped = CNN((3, 8, 8), 4, channels=(5,), hidden=(8,), norm="group")
    assert isinstance(next(grouped.block(1).post.children()), nn.GroupNorm)
    with pytest.raises(UserError, match="hidden must be a list"):
        CNN((3, 8, 8), 4, channels=(5,), hidden=(0,))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ViT((3, 30, 30)), "patches of 4x4 do not divide images of 30x30; use net.patch=2, 3, 5, 6"),
        (lambda: Mixer((3, 30, 30)), "patches of 4x4"),
        (lambda: ViT(VECTOR), "a ViT takes images"),
        (lambda: ViT((3, 8, 8), patch=0), "patches of 0x0"),
        (lambda: ViT((3, 8, 8), width=10, heads=2), "width must be a multiple of 4"),
        (lambda: ViT((3, 8, 8), width=8, heads=3), "8 is not a multiple of 3"),
        (lambda: ViT((3, 8, 8), layers=0), "layers"),
        (lambda: ViT((3, 8, 8), hidden=0), "hidden"),
        (lambda: Mixer((3, 8, 8), token_hidden=0), "token_hidden"),
        (lambda: MobileNetV3(VECTOR), "takes images"),
        (lambda: MobileNetV3((3, 8, 8), width=0.0), "width is a factor"),
        (lambda: MobileNetV3((3, 8, 8), stem="tiny"), "no stem 'tiny'"),
        (lambda: ResNet((3, 8, 8), blocks=[2]), "one number for each of 3"),
        (lambda: ResNet((3, 8, 8), stem="big"), "no stem 'big'"),
        (lambda: ResNet((3, 8, 8), view="all"), "no view 'all'"),
    ],
)
def test_options_out_of_range_are_refused(build, told):
    with pytest.raises(UserError, match=told):
        build()
