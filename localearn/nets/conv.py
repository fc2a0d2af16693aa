"""Convolutional nets: a plain CNN, LeNet-5 and its wider kin, and residual nets of 3x3 convolutions."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_image, check_widths, choose
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, draw_weights
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.views import VIEWS

NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(channels, 32), channels),
}
FLAT_NORMS: Mapping[str, Callable[[int], nn.Module]] = {**NORMS, "batch": nn.BatchNorm1d}  # after a Linear layer
POOLS: Mapping[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
DROPOUTS: Mapping[str, Callable[[float], nn.Module]] = {"units": nn.Dropout, "channels": nn.Dropout2d}
ORDERS: Mapping[str, Callable[[nn.Module, nn.Module, nn.Module], tuple[nn.Module, ...]]] = {
    "norm_first": lambda norm, activation, pool: (norm, activation, pool),
    "norm_last": lambda norm, activation, pool: (activation, pool, norm),
}
SHORTCUTS = {"identity": False, "projection": True}  # whether a shortcut that changes shape has weights
SIDE = 32


class CNN(Net):
    """Stack convolutional blocks: Conv2d, then normalisation, activation, pooling, dropout, or another order of these.

    Args:
        input_shape: (channels, height, width).
        classes: C.
        channels: each block's output channels.
        kernel_size: the kernels' side, odd; padding preserves the map's size.
        norm: none, batch or group.
        activation: as of `MLP`.
        pool: the pooling window and stride of every block, or a list with one per block; 1 pools nothing.
        pooling: max or average.
        dropout: the probability of dropping a unit or a channel, in [0, 1).
        dropout_of: units, or channels: of the convolutions whole maps are dropped, as VGG8B and VGG11B do; of Linear
            layers units, in any case.
        order: norm_first, as above, or norm_last: activation, pooling, normalisation, dropout.
        hidden: the widths of Linear layers between the convolutions and the readout, each with the same normalisation,
            activation and dropout; none by default. VGG8B and VGG11B (Nokland, Eidnes, arXiv 1901.06656) have one of
            1024.
        bias: whether the readout has a bias, and the convolutions, unless batch normalisation follows and removes it.
        init: as of `MLP`.

    Raises:
        UserError: for options out of their range.

    Example:
        net = CNN((1, 28, 28), 10, channels=(16, 32), dropout=0.1)

    """

    kind = "maps"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        channels: Sequence[int] = (64, 128, 256, 512),
        kernel_size: int = 3,
        norm: str = "batch",
        activation: str = "relu",
        pool: int | Sequence[int] = 2,
        pooling: str = "max",
        dropout: float = 0.0,
        dropout_of: str = "units",
        order: str = "norm_first",
        hidden: Sequence[int] = (),
        bias: bool = True,
        init: str = "default",
    ):
        shape = check_image("CNN", input_shape)
        widths = check_widths("channels", channels)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd and positive, so that padding keeps the map, not {kernel_size!r}")
        windows = [pool] * len(widths) if isinstance(pool, int) else list(pool)
        _check_pools(windows, widths, min(shape[1:]))
        normalise, pool_layer = choose("norm", norm, NORMS), choose("pooling", pooling, POOLS)
        arrange = choose("order", order, ORDERS)
        # A normalisation right after the convolution that subtracts the channel's mean takes its bias with it.
        conv_bias = bias and (norm != "batch" or order != "norm_first")
        dropped, drop = dropout_layer(dropout), choose("dropout_of", dropout_of, DROPOUTS)
        blocks = []
        for (n_in, n_out), window in zip(itertools.pairwise((shape[0], *widths)), windows, strict=True):
            pooled = pool_layer(window) if window > 1 else nn.Identity()
            layers = arrange(normalise(n_out), activation_layer(activation), pooled)
            conv = nn.Conv2d(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=conv_bias)
            blocks.append(Block(conv, chain(*layers, drop(dropout) if dropout else dropped)))
        flat = widths[-1] * _pooled(shape[1], windows) * _pooled(shape[2], windows)
        if hidden:
            blocks[-1] = Block(blocks[-1].op, nn.Sequential(*blocks[-1].post, nn.Flatten()))
            normalise = choose("norm", norm, FLAT_NORMS)
        for n_out in check_widths("hidden", hidden) if hidden else ():
            layers = arrange(normalise(n_out), activation_layer(activation), nn.Identity())
            blocks.append(Block(nn.Linear(flat, n_out, bias=conv_bias), chain(*layers, dropout_layer(dropout))))
            flat = n_out
        readout = nn.Linear(flat, check_classes(classes), bias=bias)
        draw_weights(init, (*blocks, readout))
        super().__init__(blocks, readout, input_shape=shape)


def _pooled(size: int, windows: Sequence[int]) -> int:
    for window in windows:
        size //= window
    return size


def _check_pools(windows: Sequence[int], channels: Sequence[int], side: int) -> None:
    if len(windows) != len(channels) or not all(isinstance(w, int) and w >= 1 for w in windows):
        raise UserError(f"pool must be a window >= 1, or one for each of {len(channels)} blocks, not {list(windows)}")
    if _pooled(side, windows) < 1:
        raise UserError(f"pooling by {list(windows)} leaves nothing of a side of {side}; pool less or use fewer blocks")


class LeNet(Net):
    """Build LeNet-5 with ReLU and max pooling: convolutions without padding, then a Linear layer and the readout.

    All convolutions but the last are followed by 2x2 pooling; the last one's map is averaged, which for 5x5 kernels on
    32x32 pixels is a map of one pixel. Smaller images are padded with zeros to 32x32, as LeCun et al. (1998) did.

    The defaults are LeNet-5's; 32-64-128 with 3x3 kernels and 256 hidden units is the LeNet that the feedback rules'
    published CIFAR-10 numbers were measured on (BioTorch's benchmark, arXiv 2108.13446).

    Args:
        input_shape: (channels, height, width).
        classes: C.
        channels: each convolution's output channels.
        kernel_size: the kernels' side.
        hidden: the Linear layer's width.
        activation: as of `MLP`.
        init: as of `MLP`.

    """

    kind = "maps"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        channels: Sequence[int] = (6, 16, 120),
        kernel_size: int = 5,
        hidden: int = 84,
        activation: str = "relu",
        init: str = "default",
    ):
        shape = check_image("LeNet", input_shape)
        if not isinstance(kernel_size, int) or kernel_size < 1:
            raise UserError(f"kernel_size must be a positive whole number, not {kernel_size!r}")
        widths = check_widths("channels", channels)
        (width,) = check_widths("hidden", (hidden,))
        blocks = []
        for k, (n_in, n_out) in enumerate(itertools.pairwise((shape[0], *widths))):
            last = k == len(widths) - 1
            pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten()) if last else (nn.MaxPool2d(2),)
            post = nn.Sequential(activation_layer(activation), *pool)
            blocks.append(Block(nn.Conv2d(n_in, n_out, kernel_size), post))
        blocks.append(Block(nn.Linear(widths[-1], width), activation_layer(activation)))
        readout = nn.Linear(width, check_classes(classes))
        draw_weights(init, (*blocks, readout))
        super().__init__(blocks, readout, input_shape=shape, stem=_padding(shape[1:]))


def _padding(size: Sequence[int]) -> nn.Module | None:
    margins = [max(0, SIDE - side) for side in size]
    top, left = margins[0] // 2, margins[1] // 2
    return nn.ZeroPad2d((left, margins[1] - left, top, margins[0] - top)) if any(margins) else None


class ResNet(Net):
    """Stack residual blocks of two 3x3 convolutions (He et al., arXiv 1512.03385): ResNet-20, ResNet-18 and their kin.

    A block that convolves the image; then, for each width, n residual blocks z = F(h) + shortcut(h), h' = relu(z),
    with F two 3x3 convolutions, each normalised over the batch, and a ReLU between them. The first residual block of
    every width but the first halves the map. The readout reads the map's mean. Weights are drawn from He's normal
    distribution.

    The defaults are section 4.2's nets for small images, 6n + 2 layers, ResNet-20 at n = 3. Widths of 64, 128, 256 and
    512 with two blocks each and projections are ResNet-18, torchvision's with the stem "imagenet".

    Args:
        input_shape: (channels, height, width).
        classes: C.
        widths: the channels of each stage.
        blocks: n, the residual blocks of a stage, or a list with one number per stage.
        shortcut: where a block changes the shape, "identity" takes every second pixel and pads with channels of zeros,
            the paper's option A; "projection" is a normalised 1x1 convolution, its option B.
        stem: "cifar", a 3x3 convolution that preserves the map's size, or "imagenet", a 7x7 one and a pooling, which
            halve it twice.
        view: what a rule's heads read of a block: "flattened", all of its map, or "pooled", its mean over places, as
            the readout does; the heads of 64 maps of 32x32 have 65,536 weights a class flattened, and 64 pooled.

    Example:
        resnet18 = ResNet((3, 32, 32), 10, widths=(64, 128, 256, 512), blocks=2, shortcut="projection")

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


def _small(channels: int, width: int) -> Block:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return Block(conv, nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()))


def _large(channels: int, width: int) -> Block:
    conv = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    return Block(conv, nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)))


STEMS: Mapping[str, Callable[[int, int], Block]] = {"cifar": _small, "imagenet": _large}


class Residual(nn.Module):
    """Add two convolutions to a shortcut: z = norm2(conv2(relu(norm1(conv1(h))))) + shortcut(h).

    Args:
        n_in: the channels of h, (N, n_in, H, W).
        n_out: the channels of z, (N, n_out, H / stride, W / stride).
        stride: of the first convolution and the shortcut.
        projects: whether the shortcut is a normalised 1x1 convolution where the shape changes, or `Subsample`.

    """

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
    """Take every stride-th pixel and pad with channels of zeros on both sides: a shortcut without parameters."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.stride, self.before = stride, (n_out - n_in) // 2
        self.after = n_out - n_in - self.before

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, ceil(H / stride), ceil(W / stride))."""
        return F.pad(h[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))
