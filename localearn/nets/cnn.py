import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.initialization import draw_weights
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, check_classes, check_image, check_widths, choose
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net

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


class CNN(Net):
    """Convolutional blocks: Conv2d, then normalisation, activation, pooling, dropout, or another order of these.

    input_shape: (channels, height, width). classes: C.
    channels: each block's output channels. kernel_size: odd; the map's size is kept by padding.
    pool: the pooling window and stride of every block, or a list with one per block; 1 pools nothing.
    pooling: max or average. norm: none, batch or group. activation: as in `MLP`.
    hidden: the widths of Linear layers between the convolutions and the readout, each with the same normalisation,
        activation and dropout; none by default. VGG8B and VGG11B (Nokland, Eidnes, arXiv 1901.06656) have one of 1024.
    dropout_of: units, or channels: of the convolutions whole maps are dropped, as VGG8B and VGG11B do; of Linear layers
        units, in any case.
    order: norm_first, as above, or norm_last: activation, pooling, normalisation, dropout.
    bias: of the readout, and of the convolutions where no batch normalisation takes it away. init: as in `MLP`.
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
