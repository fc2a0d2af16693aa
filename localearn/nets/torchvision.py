"""Cutting of torchvision's classifiers into the stem, blocks and readout of a `Net`.

A classifier becomes a list of layers in the order of its own forward pass, which `sequential_parts` cuts.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from localearn.errors import UserError, suggestion
from localearn.moved import former_names
from localearn.nets.block import AfterStem, sequential_parts
from localearn.nets.checks import check_classes, check_row

PACKAGE = "torchvision.models."


def torchvision_parts(model: nn.Module | str, input_shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
    """Return the arguments of `Net` for one of torchvision's classifiers, its `kind` and `options`, and it as `source`.

    Args:
        model: the classifier, or a name; see `Net.from_torchvision`.
        input_shape: (channels, height, width).
        classes: of one that is built by name.

    Raises:
        UserError: for what is no image, or no classifier that can be cut.

    """
    shape = check_row("input_shape", input_shape)
    if len(shape) != 3:
        raise UserError(f"torchvision's classifiers take images, rows of (channels, height, width), not {shape}")
    options = None
    if isinstance(model, str):
        options = {"_target_": "localearn.Torchvision", "model": model}
        model = _built(model, shape, 1000 if classes is None else check_classes(classes))
    elif classes is not None:
        raise UserError("a model that is built has its classes; set its last layer, say model.fc = nn.Linear(512, 10)")
    listed = _layers(model)
    found = sequential_parts(nn.Sequential(*listed(model)), shape)
    _check_output(model, found, shape)
    kind = "sequence" if listed is _vision_transformer else "maps"
    return {**found, "kind": kind, "options": options, "source": model}


def _layers(model: nn.Module) -> Callable[[Any], list[nn.Module]]:
    name = type(model).__name__
    if type(model).__module__.startswith(PACKAGE) and name in LAYERS:
        return LAYERS[name]
    raise UserError(
        f"from_torchvision cannot cut a {name}; it cuts torchvision's {', '.join(LAYERS)}. "
        "Cut it yourself: Net.from_blocks(stem, blocks, readout, input_shape=...)"
    )


def _built(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a classifier with new weights, its first convolution for as many channels as the images have."""
    import torchvision.models  # imported here, since `import localearn` needs torch and numpy only

    names = torchvision.models.list_models(torchvision.models)
    if name not in names:
        raise UserError(f"torchvision has no classifier {name!r}{suggestion(name, names)}")
    of_size: dict[str, Any] = {"image_size": shape[1]} if name.startswith("vit_") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a class's own on how its weights will be drawn
            model = torchvision.models.get_model(name, weights=None, num_classes=classes, **of_size)
    except (ValueError, AssertionError) as error:  # patches that do not divide the image
        raise UserError(f"torchvision cannot build {name} for images of {shape[1:]}: {error}") from error
    _layers(model)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels != shape[0]:
        _take_channels(model, first, shape[0])
    return model


def _take_channels(model: nn.Module, first: nn.Conv2d, channels: int) -> None:
    """Replace the first convolution by one for other channels, its weights drawn with the same deviation."""
    place, _, attribute = next(name for name, layer in model.named_modules() if layer is first).rpartition(".")
    geometry: dict[str, Any] = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding")}
    conv = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **geometry)
    with torch.no_grad():
        conv.weight.normal_().mul_(first.weight.std())
        if conv.bias is not None and first.bias is not None:
            conv.bias.copy_(first.bias)
    setattr(model.get_submodule(place), attribute, conv)


def _check_output(model: nn.Module, found: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Raise UserError unless the layers one after another give the same as the model's own forward pass for two images.

    So an operation that a version of torchvision, or the model's owner, has added to that pass is never left out
    silently.
    """
    weight = found["readout"].weight
    if weight.is_meta:
        return
    size = shape[0] * shape[1] * shape[2]
    x = torch.linspace(-1, 1, 2 * size, dtype=weight.dtype, device=weight.device).view(2, *shape)
    chain = [*([] if found["stem"] is None else [found["stem"]]), *found["blocks"], nn.Flatten(), found["readout"]]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            h, expected = x, model.eval()(x)
            for layer in chain:
                h = layer.eval()(h)
    except (RuntimeError, ValueError, AssertionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{type(model).__name__} cannot take images of {shape}: {why:.160}") from error
    finally:
        for module, training in modes.items():
            module.training = training
        for layer in chain:
            for module in layer.modules():
                if module not in modes:
                    module.training = model.training
    if h.shape != expected.shape or not torch.allclose(h, expected, rtol=1e-4, atol=1e-5):
        raise UserError(
            f"this {type(model).__name__} computes more than its layers do, so it cannot be cut here; "
            "cut it yourself: Net.from_blocks(stem, blocks, readout, input_shape=...)"
        )


class ClassToken(nn.Module):
    """Take the first position of a sequence: (N, T, D) to (N, D)."""

    def forward(self, h: Tensor) -> Tensor:
        """Return (N, D)."""
        return h[:, 0]


class VisionTransformerStem(nn.Module):
    """Apply the part of torchvision's vision transformer before its encoder: images (N, C, H, W) to (N, T, D).

    Patches are mapped to D values each, a class token is put before them, and their positions are added.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.image_size = model.image_size
        self.conv_proj, self.dropout = model.conv_proj, model.encoder.dropout
        self.class_token, self.pos_embedding = model.class_token, model.encoder.pos_embedding

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D)."""
        if tuple(x.shape[2:]) != (self.image_size, self.image_size):
            raise ValueError(f"it takes images of {self.image_size}x{self.image_size}")
        h = self.conv_proj(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.class_token.expand(h.shape[0], -1, -1), h], dim=1)
        return self.dropout(h + self.pos_embedding)


def _pooled(*layers: nn.Module) -> list[nn.Module]:
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _resnet(model: Any) -> list[nn.Module]:
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    stem = [model.conv1, model.bn1, model.relu, model.maxpool]
    return [*stem, *stages, model.avgpool, nn.Flatten(), model.fc]


def _of_features(model: Any) -> list[nn.Module]:
    return [model.features, model.avgpool, nn.Flatten(), model.classifier]


def _densenet(model: Any) -> list[nn.Module]:
    return [*_pooled(model.features, nn.ReLU()), model.classifier]


def _shufflenet(model: Any) -> list[nn.Module]:
    stages = [model.stage2, model.stage3, model.stage4]
    return [*_pooled(model.conv1, model.maxpool, *stages, model.conv5), model.fc]


def _vision_transformer(model: Any) -> list[nn.Module]:
    first, *others = model.encoder.layers
    return [AfterStem(VisionTransformerStem(model), first), *others, model.encoder.ln, ClassToken(), model.heads]


# By the name of torchvision's class: its layers one after another, the readout last.
LAYERS: Mapping[str, Callable[[Any], list[nn.Module]]] = {
    "ResNet": _resnet,
    "VGG": _of_features,
    "AlexNet": _of_features,
    "MobileNetV2": lambda model: [*_pooled(model.features), model.classifier],
    "MobileNetV3": _of_features,
    "EfficientNet": _of_features,
    "ConvNeXt": lambda model: [model.features, model.avgpool, model.classifier],
    "DenseNet": _densenet,
    "MNASNet": lambda model: [*_pooled(model.layers), model.classifier],
    "RegNet": lambda model: [model.stem, model.trunk_output, model.avgpool, nn.Flatten(), model.fc],
    "ShuffleNetV2": _shufflenet,
    "VisionTransformer": _vision_transformer,
}


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
