"""Torchvision's classifiers as nets that a configuration can name: `Torchvision` and `MobileNetV3`."""

from functools import partial
from typing import Any

from torch import nn

from localearn.errors import UserError
from localearn.nets.checks import check_classes, check_image, choose
from localearn.nets.net import Net
from localearn.nets.torchvision import torchvision_parts
from localearn.nets.views import VIEWS


class Torchvision(Net):
    """Build one of torchvision's classifiers by name, with new weights, as by `Net.from_torchvision`.

    Args:
        input_shape: (channels, height, width); any number of channels.
        classes: C.
        model: the name, "resnet18", "vgg11_bn", "mobilenet_v2", "efficientnet_b0", "vit_b_16", ... Most halve an image
            five times, so they are made for large ones.
        view: what a rule's heads read of a block: "pooled", the mean over a map's places or a sequence's positions, or
            "flattened", all of it.

    """

    kind = "maps"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        classes: int = 1000,
        *,
        model: str = "resnet18",
        view: str = "pooled",
    ):
        found = torchvision_parts(model, input_shape, classes)
        kind, _, source = (found.pop(name) for name in ("kind", "options", "source"))
        super().__init__(**found, view=choose("view", view, VIEWS)())
        self._source = (source,)
        self.kind = kind  # of a vision transformer another than the class's


class MobileNetV3(Net):
    """Build MobileNetV3-Small (Howard et al., arXiv 1905.02244) of torchvision's inverted residual blocks.

    A block that convolves the image, eleven inverted residual ones with squeeze-and-excitation, a 1x1 convolution and a
    Linear layer; the readout reads that layer. Dropout is before the readout. Running statistics follow the batches' at
    torch's momentum, 0.1, where torchvision has 0.01, which some hundred steps of a small data set are too few for.

    Args:
        input_shape: (channels, height, width).
        classes: C.
        stem: "imagenet", as published, which halves the image five times; "cifar": the first two strides are 1, so that
            an image of 32x32 ends as a map of 4x4.
        width: a factor of all channels.
        dropout: the probability of dropping a value that the readout reads.
        view: what a rule's heads read of a block: "pooled", the mean over a map's places, or "flattened".

    """

    kind = "maps"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        stem: str = "cifar",
        width: float = 1.0,
        dropout: float = 0.2,
        view: str = "pooled",
    ):
        shape = check_image("MobileNetV3", input_shape)
        if width <= 0:
            raise UserError(f"width is a factor of all channels and must be positive, not {width}")
        small = choose("stem", stem, {"cifar": True, "imagenet": False})
        model = _mobilenet(shape[0], check_classes(classes), width, dropout, small=small)
        found = torchvision_parts(model, shape, None)
        del found["kind"], found["options"], found["source"]
        super().__init__(**found, view=choose("view", view, VIEWS)())


# Kernel, expanded channels, output channels, squeeze-and-excitation, activation, stride: table 2 of the paper.
_SMALL = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)


def _mobilenet(channels: int, classes: int, width: float, dropout: float, *, small: bool) -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    settings, n_in = [], 16
    for index, (kernel, expanded, n_out, squeezes, activation, stride) in enumerate(_SMALL):
        stride = 1 if small and index == 0 else stride
        settings.append(InvertedResidualConfig(n_in, kernel, expanded, n_out, squeezes, activation, stride, 1, width))
        n_in = n_out
    last = InvertedResidualConfig.adjust_channels(1024, width)
    norm = partial(nn.BatchNorm2d, eps=0.001)
    model: Any = MobileNetV3(settings, last, num_classes=classes, norm_layer=norm, dropout=dropout)
    first = model.features[0][0]
    if small or channels != 3:
        conv = partial(nn.Conv2d, channels, first.out_channels, 3, padding=1, bias=False)
        model.features[0][0] = conv(stride=1 if small else 2)
        nn.init.kaiming_normal_(model.features[0][0].weight, mode="fan_out")
    return model
