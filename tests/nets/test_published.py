"""Nets from papers against their parts, sizes and independent computations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models as models
from torch import nn

from localearn import CNN, Flattened, Mixer, MobileNetV3, Pooled, ResNet, UserError, ViT
from localearn.cli import compose
from localearn.inputs import InputSpec
from localearn.nets.patches import MixerLayer, PatchEmbedding, sincos_positions
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


def gelu(a):
    return 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2)))


def norm(layer, a):
    mean, var = a.mean(-1, keepdims=True), a.var(-1, keepdims=True)
    return (a - mean) / np.sqrt(var + layer.eps) * array(layer.weight) + array(layer.bias)


def linear(layer, a):
    return a @ array(layer.weight).T + array(layer.bias)


def array(tensor):
    return tensor.detach().numpy()


def test_a_mixer_layer_is_the_papers_equation():
    torch.manual_seed(0)
    layer = MixerLayer(5, 4, 6, 7).double()
    h = np.random.default_rng(0).normal(size=(3, 5, 4))
    u = h + np.swapaxes(linear(layer.out, gelu(linear(layer.inner, np.swapaxes(norm(layer.norm, h), 1, 2)))), 1, 2)
    channels = layer.channels
    expected = u + linear(channels.out, gelu(linear(channels.inner, norm(channels.norm, u))))
    np.testing.assert_allclose(array(layer(torch.from_numpy(h))), expected, rtol=1e-12, atol=1e-12)


def test_patches_are_maps_of_an_images_squares_with_their_places():
    torch.manual_seed(0)
    patches = PatchEmbedding((2, 4, 6), 2, 8, positions=True).double()
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    h = patches(x)
    assert patches.places is not None
    assert h.shape == (3, 6, 8)
    square = x[:, :, 2:4, 4:6].flatten(1)  # the second row's third
    torch.testing.assert_close(h[:, 5], patches.map(square) + patches.places[5])
    where = sincos_positions(2, 3, 8)
    frequencies = [1.0, 1e-4]
    expected = [math.sin(2 * f) for f in frequencies] + [math.cos(2 * f) for f in frequencies]
    expected += [math.sin(1 * f) for f in frequencies] + [math.cos(1 * f) for f in frequencies]
    torch.testing.assert_close(where[5], torch.tensor(expected))
    assert not list(p for name, p in patches.named_parameters() if "places" in name)


def test_a_vision_transformer_reads_the_mean_of_its_normalised_positions():
    torch.manual_seed(0)
    net = ViT((3, 8, 8), 4, patch=4, width=8, layers=2, heads=2).eval()
    x = torch.randn(2, 3, 8, 8)
    first: Any = net.block(0).op
    h = first.stem(x)
    for op in (first.op, net.block(1).op):
        h = op(h)
    torch.testing.assert_close(net(x), net.readout(net.block(1).post(h).mean(1)))
    assert isinstance(net.block(1).post, nn.LayerNorm)
    one = ViT((3, 8, 8), 4, patch=4, width=8, layers=1, heads=2)
    assert one.depth == 1 and isinstance(one.block(0).post, nn.LayerNorm)


def test_without_their_places_patches_could_change_places():
    torch.manual_seed(0)
    net = ViT((1, 4, 4), 3, patch=2, width=8, layers=1, heads=2).eval()
    x = torch.randn(1, 1, 4, 4)
    swapped = torch.cat([x[:, :, 2:], x[:, :, :2]], dim=2)
    assert not torch.allclose(net(x), net(swapped))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ViT((3, 30, 30)), "patches of 4x4 do not divide images of 30x30; use net.patch=2, 3, 5, 6"),
        (lambda: Mixer((3, 30, 30)), "patches of 4x4"),
        (lambda: ViT(VECTOR), "a ViT takes images"),
        (lambda: ViT((3, 8, 8), patch=0), "patches of 0x0"),
        (lambda: ViT((3, 8, 8), width=10, heads=2), "width is a multiple of 4"),
        (lambda: ViT((3, 8, 8), width=8, heads=3), "8 is none of 3"),
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
