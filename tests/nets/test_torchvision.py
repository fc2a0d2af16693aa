"""Torchvision's classifiers cut into blocks: the same output, the same parameters, saved, reloaded and exported."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.models as models
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig

from localearn import Backprop, Flattened, ForwardGradient, MonoForward, Net, Torchvision, UserError, load_net
from localearn.data import ArrayData
from localearn.export import TOLERANCE, export
from localearn.inputs import InputSpec
from localearn.training.building import build_net
from tests.marks import slow_but

MBCONV = [MBConvConfig(4, 3, 1, 8, 8, 2, 1.0, 1.0), MBConvConfig(4, 3, 2, 8, 16, 1, 1, 1)]
CNBLOCKS = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)]
RESNET = partial(models.ResNet, num_classes=3)
# A small one of each class that is cut: (the model, the image's side, the blocks).
MODELS = {
    "resnet": (lambda: RESNET(models.resnet.BasicBlock, [1, 2, 1, 1]), 32, 6),
    "resnet with bottlenecks": (lambda: RESNET(models.resnet.Bottleneck, [1, 1, 1, 1]), 32, 5),
    "vgg": (lambda: vgg(8, "M", 12, 12, "M"), 16, 5),
    "alexnet": (lambda: models.alexnet(num_classes=3), 64, 7),
    "mobilenet_v2": (lambda: models.mobilenet_v2(num_classes=3, width_mult=0.2), 32, 19),
    "mobilenet_v3": (lambda: models.mobilenet_v3_small(num_classes=3, width_mult=0.2), 32, 14),
    "efficientnet": (lambda: models.EfficientNet(MBCONV, 0.2, stochastic_depth_prob=0.5, num_classes=3), 32, 5),
    "convnext": (lambda: models.ConvNeXt(CNBLOCKS, stochastic_depth_prob=0.5, num_classes=3), 32, 5),
    "densenet": (lambda: models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=3), 64, 8),
    "mnasnet": (lambda: models.mnasnet0_5(num_classes=3), 64, 20),
    "regnet": (lambda: models.regnet_y_400mf(num_classes=3), 32, 17),
    "shufflenet": (lambda: models.shufflenet_v2_x0_5(num_classes=3), 32, 18),
    "vision transformer": (lambda: models.VisionTransformer(16, 8, 3, 2, 8, 16, 0.1, num_classes=3), 16, 3),
}


def vgg(*layers):
    features, n_in = [], 3
    for width in layers:
        if width == "M":
            features.append(nn.MaxPool2d(2))
        else:
            features += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            n_in = width
    model = models.VGG(nn.Sequential(*features), num_classes=3, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(
        nn.Linear(n_in * 4, 9),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(9, 9),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(9, 3),
    )
    return model


@pytest.fixture(params=MODELS)
def model_and_net(request):
    build, side, depth = MODELS[request.param]
    torch.manual_seed(0)
    model = build()
    net = Net.from_torchvision(model, (3, side, side))
    assert net.depth == depth
    return model, net


def test_a_cut_classifier_computes_its_own_output(model_and_net):
    model, net = model_and_net
    x = torch.randn(4, *net.input_shape)
    for training in (False, True):
        theirs, ours = copy.deepcopy(model).train(training), copy.deepcopy(net).train(training)
        torch.manual_seed(1)  # dropout and stochastic depth
        expected = theirs(x)
        torch.manual_seed(1)
        torch.testing.assert_close(ours(x), expected, rtol=1e-6, atol=1e-6)
        for (name, buffer), other in zip(theirs.named_buffers(), ours.buffers(), strict=True):
            torch.testing.assert_close(other, buffer, msg=name)


def test_a_cut_classifier_shares_its_parameters(model_and_net):
    model, net = model_and_net
    assert {id(p) for p in net.parameters()} == {id(p) for p in model.parameters()}
    assert {id(b) for b in net.buffers()} == {id(b) for b in model.buffers()}
    assert net.kind == ("sequence" if isinstance(model, models.VisionTransformer) else "maps")
    assert net.options is None


def test_by_name_a_classifier_takes_any_channels_and_is_built_again(tmp_path):
    torch.manual_seed(0)
    net = Net.from_torchvision("shufflenet_v2_x0_5", (1, 32, 32), 3)
    assert net.input_shape == (1, 32, 32) and net.classes == 3
    x = torch.randn(6, 1, 32, 32)
    parts = dict.fromkeys(("train", "val", "test"), x), dict.fromkeys(("train", "val", "test"), torch.arange(6) % 3)
    data = ArrayData("toy", *parts, 3)
    MonoForward(net.group(3)).fit(data, epochs=1, batch_size=6, energy=False, progress=False, out=tmp_path / "run")
    again = load_net(tmp_path / "run")
    assert type(again) is Torchvision and again.depth == 6
    assert torch.equal(again(x), net.eval()(x))
    named = build_net({"_target_": "localearn.Torchvision", "model": "resnet18"}, InputSpec((4, 32, 32)), 5)
    assert named.depth == 9 and named.block(0).op.in_channels == 4
    assert (
        build_net({"_target_": "localearn.Torchvision", "model": "vit_b_32"}, InputSpec((3, 32, 32)), 5).kind
        == "sequence"
    )


def test_published_sizes():
    with torch.device("meta"):
        for name, size in (("resnet18", 11_689_512), ("vgg11", 132_863_336), ("mobilenet_v3_small", 2_542_856)):
            net = Net.from_torchvision(name)
            assert sum(p.numel() for p in net.parameters()) == size, name


def test_heads_read_pooled_maps_unless_told_otherwise():
    model = MODELS["resnet"][0]()
    net = Net.from_torchvision(model, (3, 32, 32))
    assert net.reads == (64, 64, 128, 128, 256, 512)
    flat = Net.from_torchvision(model, (3, 32, 32), view=Flattened())
    assert flat.reads[0] == 64 * 8 * 8
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(flat.eval()(x), net.eval()(x))


def test_forward_mode_goes_through_torchs_own_attention():
    build, side, _ = MODELS["vision transformer"]
    net = Net.from_torchvision(build(), (3, side, side))
    x = torch.randn(6, *net.input_shape)
    parts = dict.fromkeys(("train", "val", "test"), x), dict.fromkeys(("train", "val", "test"), torch.arange(6) % 3)
    options = {"epochs": 1, "batch_size": 6, "energy": False, "progress": False}
    assert ForwardGradient(net).fit(ArrayData("toy", *parts, 3), **options).status == "completed"


VECTOR: Any = (3,)


class LinearInterceptor(models.ResNet):
    """A ResNet with a forward pass of its own, under another name."""


def twice(model):
    forward = model.forward
    model.forward = lambda x: 2 * forward(x)
    return model


REFUSED = {
    "a class that is not cut": (
        lambda: Net.from_torchvision("googlenet", (3, 64, 64), 3),
        r"cannot cut a GoogLeNet; it cuts torchvision's ResNet, .*Net.from_blocks\(stem, blocks, readout",
    ),
    "somebody's subclass": (
        lambda: Net.from_torchvision(LinearInterceptor(models.resnet.BasicBlock, [1, 1, 1, 1])),
        "cannot cut a",
    ),
    "a net of something else": (lambda: Net.from_torchvision(nn.Linear(3, 4)), "cannot cut a Linear"),
    "no name of theirs": (lambda: Net.from_torchvision("resnet19"), "no classifier 'resnet19'; did you mean 'resnet1"),
    "a vector": (lambda: Net.from_torchvision("resnet18", VECTOR), "take images"),
    "classes of a built model": (
        lambda: Net.from_torchvision(MODELS["resnet"][0](), (3, 32, 32), 10),
        r"set its last layer, say model.fc = nn.Linear\(512, 10\)",
    ),
    "an image too small": (
        lambda: Net.from_torchvision("vgg11", (3, 8, 8), 3),
        r"VGG cannot take images of \(3, 8, 8\)",
    ),
    "an image of another size": (
        lambda: Net.from_torchvision(MODELS["vision transformer"][0](), (3, 24, 24)),
        "VisionTransformer cannot take images",
    ),
    "patches that do not divide": (lambda: Net.from_torchvision("vit_b_16", (3, 40, 40), 3), "cannot build vit_b_16"),
    "another forward pass": (
        lambda: Net.from_torchvision(twice(MODELS["resnet"][0]()), (3, 32, 32)),
        "computes more than its layers do",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cut_is_refused_with_what_to_do(case):
    build, told = REFUSED[case]
    with pytest.raises(UserError, match=told):
        build()


def test_a_refused_model_is_left_as_it_was():
    model = twice(MODELS["resnet"][0]()).train()
    model.layer1.eval()
    with pytest.raises(UserError):
        Net.from_torchvision(model, (3, 32, 32))
    assert model.training and not model.layer1.training and model.layer2.training


@pytest.mark.parametrize("name", slow_but(["resnet", "vision transformer"], "vision transformer"))
@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_a_users_model_is_trained_reloaded_and_exported(tmp_path, name, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    build, side, _ = MODELS[name]
    torch.manual_seed(0)
    net = Net.from_torchvision(build(), (3, side, side))
    x = torch.randn(6, *net.input_shape)
    parts = dict.fromkeys(("train", "val", "test"), x), dict.fromkeys(("train", "val", "test"), torch.arange(6) % 3)
    Backprop(net).fit(
        ArrayData("toy", *parts, 3), epochs=1, batch_size=6, energy=False, progress=False, out=tmp_path / "run"
    )
    with pytest.raises(UserError, match=r"say load_net\(folder, net=...\)"):
        load_net(tmp_path / "run")
    torch.manual_seed(7)
    fresh = Net.from_torchvision(build(), (3, side, side))
    again = load_net(tmp_path / "run", net=fresh)
    assert again is fresh and not again.training
    assert torch.equal(again(x), net.eval()(x))
    out = tmp_path / "net"
    assert export(tmp_path / "run", kind, out, net=fresh) <= TOLERANCE
    assert out.exists()
