import itertools
from collections.abc import Sequence

from torch import nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.initialization import draw_weights
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import check_classes, check_image, check_widths
from localearn.nets.net import Net

SIDE = 32


class LeNet(Net):
    """LeNet-5's shape with ReLU and max pooling: convolutions without padding, then a Linear layer and the readout.

    All convolutions but the last are followed by 2x2 pooling; the last one's map is averaged, which for 5x5 kernels on
    32x32 pixels is a map of one pixel. Smaller images are padded with zeros to 32x32, as LeCun et al. (1998) did.

    input_shape: (channels, height, width). classes: C. channels: of the convolutions. kernel_size: theirs. hidden: the
    Linear layer's width. init: as in `MLP`. The defaults are LeNet-5's; 32-64-128 with 3x3 kernels and 256 hidden units
    is the LeNet that the feedback rules' published CIFAR-10 numbers were measured on (BioTorch's benchmark, arXiv
    2108.13446).
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
