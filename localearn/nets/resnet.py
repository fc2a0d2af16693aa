from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.layers import check_classes, check_image, check_widths, choose
from localearn.nets.net import Net
from localearn.nets.views import VIEWS

SHORTCUTS = {"identity": False, "projection": True}  # whether a shortcut that changes shape has weights


def _small(channels: int, width: int) -> Block:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return Block(conv, nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()))


def _large(channels: int, width: int) -> Block:
    conv = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    return Block(conv, nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)))


STEMS: Mapping[str, Callable[[int, int], Block]] = {"cifar": _small, "imagenet": _large}


class ResNet(Net):
    """Residual blocks of two 3x3 convolutions (He et al., arXiv 1512.03385): ResNet-20, ResNet-18 and their kin.

    A block that convolves the image; then, for each width, n residual blocks z = F(h) + shortcut(h), h' = relu(z),
    with F two 3x3 convolutions, each normalised over the batch, and a ReLU between them. The first residual block of
    every width but the first halves the map. The readout reads the map's mean.

    The defaults are section 4.2's nets for small images, 6n + 2 layers, ResNet-20 at n = 3. Widths of 64, 128, 256 and
    512 with two blocks each and projections are ResNet-18, torchvision's with the stem "imagenet".

    input_shape: (channels, height, width). classes: C. widths: channels, by stage. blocks: n, residual blocks a stage,
    or a list with one number for each stage.
    shortcut: where a block changes the shape, "identity" takes every second pixel and pads with channels of zeros, the
    paper's option A; "projection" is a normalised 1x1 convolution, its option B.
    stem: "cifar", a 3x3 convolution that keeps the map, or "imagenet", a 7x7 one and a pooling, which halve it twice.
    view: what a rule's heads read of a block: "flattened", all of its map, or "pooled", its mean over places, as the
    readout does; the heads of 64 maps of 32x32 have 65,536 weights a class flattened, and 64 pooled.
    Weights are drawn by He's normal distribution.
    """

    kind = "maps"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int | Sequence[int] = 3,
        shortcut: str = "identity",
        stem: str = "cifar",
        view: str = "flattened",
    ):
        shape = check_image("ResNet", input_shape)
        stages = check_widths("widths", widths)
        counts = [blocks] * len(stages) if isinstance(blocks, int) else list(blocks)
        if len(counts) != len(stages) or not all(isinstance(n, int) and n >= 1 for n in counts):
            raise UserError(
                f"blocks must be 1 or more residual blocks a stage, or a list with one number for each of "
                f"{len(stages)}, not {blocks!r}"
            )
        projects, reads = choose("shortcut", shortcut, SHORTCUTS), choose("view", view, VIEWS)()
        chain = [choose("stem", stem, STEMS)(shape[0], stages[0])]
        n_in = stages[0]
        for stage, (n_out, count) in enumerate(zip(stages, counts, strict=True)):
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                last = stage == len(stages) - 1 and index == count - 1
                averages = last and view == "flattened"
                post = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)) if averages else nn.ReLU()
                chain.append(Block(Residual(n_in, n_out, stride, projects), post))
                n_in = n_out
        readout = nn.Linear(n_in, check_classes(classes))
        for block in chain:
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(chain, readout, input_shape=shape, view=reads)


class Residual(nn.Module):
    """z = norm2(conv2(relu(norm1(conv1(h))))) + shortcut(h): h (N, n_in, H, W), z (N, n_out, H/stride, W/stride)."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1, projects: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = Subsample(n_in, n_out, stride)
            if projects:
                conv = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(n_out))

    def forward(self, h: Tensor) -> Tensor:
        """Return z."""
        inner = F.relu(self.norm1(self.conv1(h)))
        return self.norm2(self.conv2(inner)) + self.shortcut(h)


class Subsample(nn.Module):
    """A shortcut without parameters: every stride-th pixel, and channels of zeros before and after the input's."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.stride, self.before = stride, (n_out - n_in) // 2
        self.after = n_out - n_in - self.before

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, ceil(H / stride), ceil(W / stride))."""
        return F.pad(h[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))
