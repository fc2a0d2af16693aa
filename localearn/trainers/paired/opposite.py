"""The net that carries targets against the direction of another: `Opposite`."""

import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from localearn.nets import Net
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import preserve_modes

Shape = tuple[int, ...]


class Opposite(nn.Module):
    """Compute c_L = act(V_{L+1} t), c_{k-1} = act(V_k c_k), c_0 = V_1 c_1: a net that runs the other way.

    c_k has the shape of h_k, so that the two can be compared; the weights are its own, and there are no biases. Between
    vectors, and between vectors and maps, V is a Linear layer; from maps to maps it is a convolution with the first
    one's kernel, after as many nearest neighbours as the map is to be larger, or with a stride where it is smaller. A
    target that is the image itself is a map to begin with, where the net's readout is no Linear layer.

    Args:
        net: the first net, whose blocks give vectors (n,) or maps (n, H, W).
        activation: of every layer but the last, by its name in `localearn.nets.layers`.
        norm: before it, "none" or "batch", without a scale and a shift.

    """

    def __init__(self, net: Net, activation: str = "elu", norm: str = "none"):
        super().__init__()
        like = next(net.parameters())
        picture = len(net.shapes[-1]) == 3 and not isinstance(net.readout, nn.Linear)
        self.target: Shape = (net.classes,)
        if picture and math.prod(net.input_shape) == net.classes:
            self.target = net.input_shape
        with preserve_modes(net):
            net.eval()
            stem = tuple(net.stem(net.trial()[0]).shape[1:])
        shapes, parts = (stem, *net.shapes, self.target), (*net.blocks, net.readout)
        # layers[k] makes c_k of c_{k+1}, and layers[L] makes c_L of the target.
        layers = (_layer(part, shapes[k + 1], shapes[k]) for k, part in enumerate(parts))
        self.layers = nn.ModuleList(layers).to(device=like.device, dtype=like.dtype)
        norms = (_normalisation(norm, shape) if k else nn.Identity() for k, shape in enumerate(shapes[:-1]))
        self.norms = nn.ModuleList(norms).to(device=like.device, dtype=like.dtype)
        self.activation = activation_layer(activation)

    def signals(self, target: Tensor) -> Iterator[Tensor]:
        """Yield c_L, ..., c_0, each (N, *shape) with the graph of its own layer alone.

        Args:
            target: (N, outputs).

        """
        c = target.view(len(target), *self.target)
        for k in reversed(range(len(self.layers))):
            c = self.layers[k](c.detach())
            c = self.activation(self.norms[k](c)) if k else c
            yield c


class _Map(nn.Module):
    """A convolution without bias from maps (n, H, W) to maps of another size."""

    def __init__(self, source: Shape, target: Shape, kernel: int):
        super().__init__()
        self.size = (target[1], target[2])
        stride = (max(1, source[1] // target[1]), max(1, source[2] // target[2]))
        self.conv = nn.Conv2d(source[0], target[0], kernel, stride=stride, padding=kernel // 2, bias=False)

    def forward(self, c: Tensor) -> Tensor:
        """Return (N, n, H, W) of the target's shape."""
        larger = [max(a, b) for a, b in zip(c.shape[2:], self.size, strict=True)]
        if larger != list(c.shape[2:]):
            c = F.interpolate(c, size=larger, mode="nearest")
        c = self.conv(c)
        return c if c.shape[2:] == self.size else F.adaptive_avg_pool2d(c, self.size)


class _Flat(nn.Module):
    """A Linear layer without bias from all values of a row to all values of another."""

    def __init__(self, source: Shape, target: Shape):
        super().__init__()
        self.shape = target
        self.linear = nn.Linear(math.prod(source), math.prod(target), bias=False)

    def forward(self, c: Tensor) -> Tensor:
        """Return (N, *shape)."""
        return self.linear(c.flatten(1)).view(len(c), *self.shape)


def _layer(part: nn.Module, source: Shape, target: Shape) -> nn.Module:
    if len(source) != 3 or len(target) != 3:
        return _Flat(source, target)
    kernels = (m.kernel_size[0] for m in part.modules() if isinstance(m, nn.Conv2d))
    kernel = next(kernels, 3)
    return _Map(source, target, kernel + 1 - kernel % 2)


def _normalisation(norm: str, shape: Shape) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return kind(shape[0], affine=False, track_running_stats=False)
