"""A tiny net of every class that the library has, and of its options that change how blocks are made."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2

from localearn import CNN, GNN, MLP, Block, DeepFM, Denoiser, LeNet, Mixer, MobileNetV3, Net, Pooled, ResNet, ViT
from localearn.data import ArrayData, Batch, Split

CLASSES = 3
SPLITS: tuple[Split, ...] = ("train", "val", "test")
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
RESNET18 = {"widths": (4, 6, 8), "blocks": 1, "shortcut": "projection", "view": "pooled"}


def of_modules() -> Net:
    """Return a net of somebody's own modules, whose stem has parameters."""
    stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True))
    stages = [nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True)), nn.Conv2d(6, 6, 2)]
    return Net.from_blocks(stem, stages, nn.Linear(6, CLASSES), input_shape=(2, 8, 8), view=Pooled())


def of_torchvision() -> Net:
    """Return a small MobileNetV2 of torchvision's."""
    model = MobileNetV2(CLASSES, width_mult=0.1, dropout=0.0, inverted_residual_setting=[[1, 60, 1, 1], [2, 60, 2, 2]])
    return Net.from_torchvision(model, (3, 16, 16))


NETS: dict[str, Callable[[], Net]] = {
    "mlp": lambda: MLP((6,), CLASSES, widths=(8, 7, 6), norm="layer"),
    "cnn": lambda: CNN((2, 8, 8), CLASSES, channels=(4, 5, 6)),
    "vgg": lambda: CNN((2, 8, 8), CLASSES, channels=(4, 5), pool=(1, 2), hidden=(7,)),
    "lenet": lambda: LeNet((1, 28, 28), CLASSES, channels=(3, 4, 5), hidden=6),
    "resnet20": lambda: ResNet((2, 8, 8), CLASSES, widths=(4, 6), blocks=1),
    "resnet18": lambda: ResNet((2, 8, 8), CLASSES, **RESNET18),
    "resnet18_imagenet": lambda: ResNet((2, 32, 32), CLASSES, stem="imagenet", **RESNET18),
    "mobilenet": lambda: MobileNetV3((2, 16, 16), CLASSES, width=0.1, dropout=0.0),
    "torchvision": of_torchvision,
    "vit": lambda: ViT((2, 8, 8), CLASSES, patch=4, width=8, layers=3, heads=2),
    "mixer": lambda: Mixer((2, 8, 8), CLASSES, patch=4, width=8, layers=3, token_hidden=6, channel_hidden=10),
    "gcn": lambda: GNN(5, CLASSES, widths=(8, 7, 6), dropout=0.0),
    "deepfm": lambda: DeepFM((6,), CLASSES, categories=(3, 4), dim=3, widths=(8, 7)),
    "denoiser": lambda: Denoiser((6,), CLASSES, embed="mlp", hidden=8, steps=3),
    "blocks": lambda: Net([Block(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)], nn.Linear(4, 3), input_shape=(4,)),
    "from_blocks": of_modules,
}


@dataclass
class Small:
    """A tiny net's name, and fresh ones, always with the same weights."""

    name: str

    def __call__(self) -> Net:
        torch.manual_seed(0)
        return NETS[self.name]()

    def batch(self, dtype: torch.dtype = torch.float32) -> Batch:
        """Return six rows with their classes."""
        net = self()
        x = torch.randn(6, *net.input_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        for column, size in enumerate(net.takes.categories):
            x[:, column] = torch.arange(6) % size
        context: tuple[Tensor, ...] = (EDGES,) if net.graph else ()
        return Batch(x, torch.arange(6) % CLASSES, context)

    def data(self) -> ArrayData:
        """Return the same six rows as a data set, whose splits are all alike."""
        batch = self.batch()
        assert batch.target is not None
        x, y = (dict.fromkeys(SPLITS, values) for values in (batch.x, batch.target))
        return ArrayData("toy", x, y, CLASSES, categories=self().takes.categories)


@pytest.fixture(params=NETS)
def small(request) -> Small:
    """Return each of the tiny nets in turn."""
    return Small(request.param)
