"""Tiny tasks, one for each kind of net and of task, that a readout on random features does not solve.

Each has several times as many rows as a net's last block has units, so that they cannot be memorised either.
Others register kinds of their own by `register_kind` and `register_task`.
"""

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from localearn.data import ArrayData, Batch, Data, GraphData, Split
from localearn.nets import CNN, GNN, MLP, DeepFM, Mixer, Net, Recurrent, ResNet, Transformer, ViT
from localearn.tasks import Autoencoding, LanguageModelling, MultiLabel, Regression, Task
from localearn.tasks.language import PADDING

CLASSES = 2
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Toy:
    """Hold a tiny task: all of its rows, and a net for it.

    Attributes:
        net: `net(shape)` builds a fresh net of two narrow blocks; shape: of the rows that the net takes, for a rule
            that adds to them; None: the data's own.
        batch: all rows.
        data: holds the same rows.
        on: of a kind of task the kind of net that is trained for it, itself one of `KINDS`.
        pace: a factor on the suites' learning rate here.

    """

    net: Callable[..., Net]
    batch: Batch
    data: Data
    on: str = "mlp"
    pace: float = 1.0


_KINDS: dict[str, Callable[[], Toy]] = {}
_TASKS: dict[str, Callable[[], Toy] | None] = {"classes": None}  # the kinds of net are of classes

KINDS: Collection[str] = _KINDS.keys()
"""The kinds of net, in the order in which they were registered; a kind that is registered later is among them too."""

TASKS: Collection[str] = _TASKS.keys()
"""The kinds of task, likewise."""


def register_kind(name: str, make: Callable[[], Toy]) -> None:
    """Run the conformance suite on a kind of net, too; a suite that does not name it among its `kinds` must refuse it.

    Args:
        name: what suites call it in `kinds`.
        make: makes its task, always the same one, and is called once: some hundred rows at most, two blocks or three of
            a few units, and classes that a linear readout of untrained blocks does not separate.

    Raises:
        ValueError: when the name is taken.

    Example:
        def spikes() -> Toy:
            x, y = ...
            return Toy(lambda shape=None: MySpikingNet(shape or (6,), 2), Batch(x, y), from_arrays(x, y))

        localearn.testing.register_kind("spiking", spikes)

    """
    _register(_KINDS, name, make)


def register_task(name: str, make: Callable[[], Toy]) -> None:
    """Run the conformance suite on a kind of task, too, by a net whose kind is the toy's `on`.

    Args:
        name: what suites call it in `tasks`; one that does not must refuse it and say what would work.
        make: makes it, as of `register_kind`; the net it builds is for the task already, see `Net.for_task`.

    Raises:
        ValueError: when the name is taken.

    """
    _register(_TASKS, name, make)


def _register(kinds: dict, name: str, make: Callable[[], Toy]) -> None:
    if name in (*_KINDS, *_TASKS):
        raise ValueError(f"there is a kind {name!r} already")
    kinds[name] = make


@functools.cache
def toy(kind: str) -> Toy:
    """Return a toy task; float32 or ids, on the CPU, always the same.

    Args:
        kind: one of `KINDS` or `TASKS`.

    """
    make = _KINDS.get(kind) or _TASKS.get(kind)
    if make is None:
        raise ValueError(f"no toy of kind {kind!r}; there are {', '.join((*KINDS, *list(TASKS)[1:]))}")
    return make()


def _of_rows(name: str, net: Callable[..., Net], x: Tensor, y: Tensor) -> Toy:
    return Toy(net, Batch(x, y), ArrayData(name, dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, y), CLASSES))


def _for_task(name: str, net: Callable[..., Net], x: Tensor, target: Tensor, task: Task) -> Toy:
    parts = dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, target)
    return Toy(lambda shape=None: net(shape).for_task(task), Batch(x, target), ArrayData(name, *parts, 0, task=task))


def _vectors() -> Toy:
    x, y = _exclusive_or(128)
    return _of_rows("toy vectors", lambda shape=None: MLP(shape or (6,), CLASSES, widths=(8, 8)), x, y)


def _images() -> Toy:
    x, y = _stripes(48)
    return _of_rows("toy images", lambda shape=None: CNN(shape or (1, 4, 4), CLASSES, channels=(4, 6)), x, y)


def _residual() -> Toy:
    x, y = _stripes(48)
    return _of_rows(
        "toy images",
        lambda shape=None: ResNet(
            shape or (1, 4, 4), CLASSES, widths=(4, 6), blocks=1, shortcut="projection", view="pooled"
        ),
        x,
        y,
    )


def _inverted_residual() -> Toy:
    """Return images for a small MobileNetV3: depthwise convolutions, squeeze-and-excitation, batch statistics."""

    def net(shape: tuple[int, int, int] | None = None) -> Net:
        from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

        channels, height, width = shape or (1, 4, 4)
        settings = [InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0)]
        # The running statistics follow in as few steps as the suites take, as in `localearn.MobileNetV3`.
        norm = functools.partial(nn.BatchNorm2d, eps=0.001)
        model: Any = MobileNetV3(settings, 12, num_classes=CLASSES, norm_layer=norm, dropout=0.0)
        model.features[0][0] = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        return Net.from_torchvision(model, (channels, height, width))

    x, y = _stripes(48)
    return replace(_of_rows("toy images", net, x, y), pace=1 / 3)


def _codes() -> Toy:
    """Rows (144, 4), two codes of 6 categories and two values of noise: the class is whether the codes' sum is odd."""
    codes = torch.cartesian_prod(torch.arange(6), torch.arange(6)).repeat(4, 1)
    noise = torch.randn(len(codes), 2, generator=torch.Generator().manual_seed(0))
    x, y = torch.cat([codes.float(), noise], dim=1), codes.sum(1) % CLASSES
    parts = dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, y)
    return Toy(
        lambda shape=None: DeepFM(shape or (4,), CLASSES, categories=(6, 6), dim=4, widths=(8,)),
        Batch(x, y),
        ArrayData("toy codes", *parts, CLASSES, categories=(6, 6)),
    )


def _patches(net: Callable[..., Net]) -> Toy:
    x, y = _stripes(48)
    return _of_rows("toy images", lambda shape=None: net(shape or (1, 4, 4), CLASSES), x, y)


def _vit(shape: tuple[int, int, int], classes: int) -> Net:
    return ViT(shape, classes, patch=2, width=8, layers=2, heads=2, hidden=16)


def _mixer(shape: tuple[int, int, int], classes: int) -> Net:
    return Mixer(shape, classes, patch=2, width=8, layers=2, token_hidden=8, channel_hidden=16)


def _transformer() -> Toy:
    x, y = _later_or()
    return _of_rows(
        "toy sequences",
        lambda shape=None: Transformer(shape or (4, 3), CLASSES, layers=2, width=8, heads=2, expansion=2),
        x,
        y,
    )


def _recurrent() -> Toy:
    x, y = _later_or()
    return _of_rows("toy sequences", lambda shape=None: Recurrent(shape or (4, 3), CLASSES, widths=(8, 8)), x, y)


def _values() -> Toy:
    x, y = _exclusive_or(128)
    net = lambda shape: MLP(shape or (6,), 1, widths=(8, 8))  # noqa: E731
    return _for_task("toy values", net, x, 2 * y[:, None].float() - 1, Regression())


def _tags() -> Toy:
    """Two labels, either, both or none of which are true: the exclusive-or and the sign of a third entry."""
    x, y = _exclusive_or(128)
    target = torch.stack([y.float(), 1 - y.float(), (x[:, 2] > 0).float()], dim=1)
    net = lambda shape: MLP(shape or (6,), 3, widths=(8, 8))  # noqa: E731
    return _for_task("toy labels", net, x, target, MultiLabel(3))


def _reconstruction() -> Toy:
    """Rows of 8 values on one line through zero, seen through 3 units: a unit for each of its directions is enough."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 1, generator=generator) @ torch.randn(1, 8, generator=generator)
    x = x / x.std()
    net = lambda shape: MLP(shape or (8,), 8, widths=(8, 3))  # noqa: E731
    return _for_task("toy reconstruction", net, x, x, Autoencoding(8))


def _tokens() -> Toy:
    """Ids (48, 2): what follows a token is whether it and the one before it differ; the first has no target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (48, 2), generator=generator)
    target = torch.cat([torch.full((48, 1), PADDING), x[:, 1:] ^ x[:, :-1]], dim=1)
    task = LanguageModelling(2)
    parts = dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, target)
    return Toy(
        lambda shape=None: Transformer(shape or (2,), 2, vocabulary=2, layers=2, width=12, heads=2, expansion=2),
        Batch(x, target),
        ArrayData("toy tokens", *parts, 0, task=task, vocabulary=2),
        on="transformer",
        pace=1 / 3,
    )


def _exclusive_or(n: int) -> tuple[Tensor, Tensor]:
    """Vectors (n, 6): the class is whether the signs of the first two entries agree; the others are noise."""
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    x[:, :2] += x[:, :2].sign()
    return x, (x[:, 0] * x[:, 1] > 0).long()


def _later_or() -> tuple[Tensor, Tensor]:
    """Sequences (64, 4, 3): the class is whether the signs of the first entry at the first and last place agree."""
    x = 0.5 * torch.randn(64, 4, 3, generator=torch.Generator().manual_seed(0))
    x[:, ::3, 0] += x[:, ::3, 0].sign()
    return x, (x[:, 0, 0] * x[:, -1, 0] > 0).long()


def _stripes(n: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 4, 4) of stripes with a random phase, in noise: the class is which way they run."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    phase = 2 * torch.pi * torch.rand(n, 1, 1, generator=generator)
    upright = torch.sin(2.1 * torch.arange(4) + phase).expand(n, 4, 4)
    x = torch.where(y.view(-1, 1, 1) == 0, upright, upright.transpose(1, 2))
    return (x + 0.4 * torch.randn(n, 4, 4, generator=generator)).unsqueeze(1), y


def _graph(conv: str) -> Toy:
    # The exclusive-or again: a ring goes through the nodes of each quadrant, and half of them are labelled.
    n = 256
    quadrant, node = torch.arange(n) % 4, torch.arange(n)
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0] += 2.5 * (quadrant % 2) - 1.25
    x[:, 1] += 2.5 * (quadrant // 2) - 1.25
    y = (quadrant % 2 == quadrant // 2).long()
    edges = torch.stack([torch.cat([node, node]), torch.cat([(node + 4) % n, (node - 4) % n])])
    labelled = node[node // 4 % 2 == 0]
    data = GraphData("toy graph", x, edges, y, dict.fromkeys(_SPLITS, labelled), CLASSES)
    return Toy(
        lambda shape=None: GNN(shape or (6,), CLASSES, widths=(8, 8), conv=conv, dropout=0.0, heads=2),
        Batch(x, y[labelled], (edges,), labelled),
        data,
    )


for _name, _make in {
    "mlp": _vectors,
    "cnn": _images,
    "gcn": functools.partial(_graph, "gcn"),
    "sage": functools.partial(_graph, "sage"),
    "gat": functools.partial(_graph, "gat"),
    "transformer": _transformer,
    "recurrent": _recurrent,
    "vit": functools.partial(_patches, _vit),
    "mixer": functools.partial(_patches, _mixer),
    "resnet": _residual,
    "mobilenet": _inverted_residual,
    "deepfm": _codes,
}.items():
    register_kind(_name, _make)

for _name, _make in {
    "values": _values,
    "multilabel": _tags,
    "tokens": _tokens,
    "autoencoding": _reconstruction,
}.items():
    register_task(_name, _make)
