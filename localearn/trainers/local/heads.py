"""Heads by which a local rule reads a block's output, besides the readout, and the activities that they read."""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import Unsupported
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.block import Block
from localearn.nets.layers import preserve_modes
from localearn.nets.views import Flattened

Kind = Literal["linear", "conv", "mlp", "auglocal", "tied", "projected", "low_rank", "nce"]
TIED = ("tied", "projected", "low_rank")  # which read by the readout's own weights
# Layers that may stand last in a block without being its activity: they cut from it, or only reshape it.
TRAILING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Flatten,
)


def build(kind: Kind, net: Net, shapes: Sequence[tuple[int, ...]], most: int, depth: int, rank: int, noise: int):
    """Return the heads of all blocks but the last, whose head is the readout, on the net's device and in its dtype.

    Args:
        kind: which heads, see `LocalLoss`.
        net: the net.
        shapes: of a row of each block's activity.
        most: the most values that a head reads.
        depth: hidden layers, or copied blocks.
        rank: of "low_rank".
        noise: of "nce".

    Raises:
        Unsupported: when the net has nothing that such heads could read.

    """
    if kind == "conv" and not any(len(shape) == 3 for shape in shapes):
        raise Unsupported(f"head=conv convolves maps, and {type(net).__name__} has none; use head=linear or mlp")
    if kind in TIED:
        _check_tied(kind, net, shapes)
    heads: list[nn.Module] = []
    for k in range(net.depth - 1):
        if kind == "auglocal":
            heads.append(AugLocal(net, k, depth))
        elif kind in TIED:
            heads.append(Tied(net, kind, rank))
        elif kind == "nce":
            heads.append(NoiseContrastive(net, shapes[k], most, noise))
        else:
            heads.append(BUILDERS[kind](net, k, shapes[k], most, depth))
    like = next(net.parameters())
    return nn.ModuleList(heads).to(device=like.device, dtype=like.dtype)


def _check_tied(kind: Kind, net: Net, shapes: Sequence[tuple[int, ...]]) -> None:
    name = type(net).__name__
    if not isinstance(net.readout, nn.Linear):
        raise Unsupported(
            f"head={kind} reads by the readout's weights, a Linear's; {name} has a {type(net.readout).__name__}; "
            "use head=linear"
        )
    reads = sorted({net.view.width(shape) for shape in shapes} | {net.readout.in_features})
    if len(reads) > 1:
        raise Unsupported(
            f"head={kind} reads every block by the readout's weights, and blocks of {name} differ in width "
            f"({', '.join(map(str, reads))}); use head=linear, or blocks of one width"
        )


def linear(net: Net, k: int, shape: tuple[int, ...], most: int, depth: int) -> nn.Module:
    """Build a linear head, D view(a), D (C, n) from zero, as Nokland and Eidnes have it.

    Args:
        net: the net.
        k: the block that it reads.
        shape: a row's of that block's activity.
        most: the most values that it reads.
        depth: of no concern here.

    """
    read = HeadInput(net, shape, most)
    return nn.Sequential(read, _zeroed(nn.Linear(read.width, net.classes)))


def mlp(net: Net, k: int, shape: tuple[int, ...], most: int, depth: int) -> nn.Module:
    """Build a head of `depth` hidden layers, as wide as the block has channels or units, and a linear one.

    Args:
        net: the net.
        k: the block that it reads.
        shape: a row's of that block's activity.
        most: the most values that it reads.
        depth: the hidden layers, 1 or more.

    """
    read = HeadInput(net, shape, most)
    n = shape[0] if len(shape) == 3 else shape[-1]
    widths = [read.width, *[n] * depth]
    hidden = [layer for i, o in itertools.pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(read, *hidden, nn.Linear(n, net.classes))


def conv(net: Net, k: int, shape: tuple[int, ...], most: int, depth: int) -> nn.Module:
    """Build a head of an average of 4x4 windows, `depth` 1x1 convolutions, one to 2x2 places, and a linear map.

    A block that is no map has a linear one.

    Args:
        net: the net.
        k: the block that it reads.
        shape: a row's of that block's activity.
        most: the most values that it reads.
        depth: the convolutions, 1 or more.

    """
    if len(shape) != 3:
        return linear(net, k, shape, most, depth)
    n, height, width = shape
    quarter = (min(4, height), min(4, width))
    left = [math.ceil(height / quarter[0]), math.ceil(width / quarter[1])]
    last = (math.ceil(left[0] / 2), math.ceil(left[1] / 2))
    places = math.prod(math.ceil(side / window) for side, window in zip(left, last, strict=True))
    convolutions = [layer for _ in range(depth) for layer in (nn.Conv2d(n, n, 1), nn.ReLU())]
    pools = [nn.AvgPool2d(window, ceil_mode=True) for window in (quarter, last)]
    return nn.Sequential(pools[0], *convolutions, pools[1], nn.Flatten(), nn.Linear(n * places, net.classes))


BUILDERS: Mapping[str, Callable[..., nn.Module]] = {"linear": linear, "mlp": mlp, "conv": conv}


class AugLocal(nn.Module):
    """Apply copies of some of the net's own later blocks, and of its readout, in the place of all of them.

    From block k+1 to the last one `depth` are chosen at equal steps, the last one among them. They are copies as the
    net's were drawn, and learn by themselves. Where one gives another shape than the next one takes, a pooling and a
    1x1 map without bias stand between them.

    Args:
        net: the net.
        k: the block whose output is read.
        depth: the blocks that are copied, 1 or more.

    """

    def __init__(self, net: Net, k: int, depth: int):
        super().__init__()
        later = net.depth - 1 - k
        steps = min(depth, later)
        chosen = [k + math.ceil((i + 1) * later / steps) for i in range(steps)]
        self.bridges, self.blocks = nn.ModuleList(), nn.ModuleList()
        shape = net.shapes[k]
        for j in chosen:
            self.bridges.append(_bridge(shape, net.shapes[j - 1]))
            self.blocks.append(copy.deepcopy(net.block(j)))
            shape = net.shapes[j]
        self.view, self.with_context = net.view, net.readout_takes_context
        self.readout = copy.deepcopy(net.readout)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return outputs, (N, ..., C), of the block's output h, (N, *shapes[k])."""
        for bridge, block in zip(self.bridges, self.blocks, strict=True):
            h = block(bridge(h), *context)
        return self.readout(self.view(h), *(context if self.with_context else ()))


def _bridge(source: tuple[int, ...], target: tuple[int, ...]) -> nn.Module:
    """Return what makes rows of one shape rows of another: the identity, or a pooling and a map of channels."""
    if source == target:
        return nn.Identity()
    if len(source) == len(target) == 3 and all(g >= t for g, t in zip(source[1:], target[1:], strict=True)):
        layers: list[nn.Module] = []
        if source[1:] != target[1:]:
            divides = all(g % t == 0 for g, t in zip(source[1:], target[1:], strict=True))
            window = (source[1] // target[1], source[2] // target[2])
            layers.append(nn.AvgPool2d(window) if divides else nn.AdaptiveAvgPool2d(target[1:]))
        if source[0] != target[0]:
            layers.append(nn.Conv2d(source[0], target[0], 1, bias=False))
        return nn.Sequential(*layers)
    if len(source) == len(target) and source[:-1] == target[:-1]:
        return nn.Linear(source[-1], target[-1], bias=False)
    if len(source) == 3 and len(target) == 1:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(source[0], target[0], bias=False))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(source), math.prod(target), bias=False), nn.Unflatten(1, target)
    )


class Tied(nn.Module):
    """Apply the readout's own weights, as constants: W view(a) + b, after a learned map or next to it.

        tied        W x + b                        learns nothing; x = view(a)
        projected   W P x + b                      P (n, n), from the identity
        low_rank    (W + U V) x + b                V (r, n), U (C, r) from zero

    Args:
        net: the net, whose blocks have one width.
        kind: "tied", "projected" or "low_rank".
        rank: r of "low_rank".

    """

    former_tensors: ClassVar[dict[str, str]] = {"beside.": "adapter."}  # in checkpoints of earlier releases

    def __init__(self, net: Net, kind: Kind, rank: int):
        super().__init__()
        readout = net.readout
        assert isinstance(readout, nn.Linear)
        self._readout = [readout]  # in a list, so that it stays the net's, and is no module of this one
        self.view = net.view
        n = readout.in_features
        self.before: nn.Module = nn.Identity()
        self.adapter: nn.Module | None = None
        if kind == "projected":
            self.before = nn.Linear(n, n, bias=False)
            nn.init.eye_(self.before.weight)
        elif kind == "low_rank":
            self.adapter = nn.Sequential(
                nn.Linear(n, rank, bias=False), _zeroed(nn.Linear(rank, readout.out_features, bias=False))
            )

    def forward(self, a: Tensor) -> Tensor:
        """Return outputs, (N, ..., C), of an activity, (N, *shape)."""
        (readout,) = self._readout
        x = self.view(a)
        bias = None if readout.bias is None else readout.bias.detach()
        output = F.linear(self.before(x), readout.weight.detach(), bias)
        return output if self.adapter is None else output + self.adapter(x)


class NoiseContrastive(nn.Module):
    """Apply a linear head that is trained to distinguish the target from a few other classes, and not from all C.

        J_i = softplus(-(s_y - ln(K/C))) + sum_{n of K} softplus(s_n - ln(K/C)),    s = D x + b, x = view(a)

    The K others are drawn uniformly for a batch, the same for all of its elements (Gutmann, Hyvarinen 2010).

    Args:
        net: the net.
        shape: a row's of the activity that it reads.
        most: the most values that it reads.
        noise: K, 1 or more.

    """

    def __init__(self, net: Net, shape: tuple[int, ...], most: int, noise: int):
        super().__init__()
        self.read = HeadInput(net, shape, most)
        self.out = _zeroed(nn.Linear(self.read.width, net.classes))
        self.noise = noise

    def forward(self, a: Tensor) -> Tensor:
        """Return all scores, (N, ..., C), of an activity, (N, *shape)."""
        return self.out(self.read(a))

    def losses(self, x: Tensor, target: Tensor) -> Tensor:
        """Return J_i of each element, (E,).

        Args:
            x: what is read of each element, (E, n).
            target: (E,) int64.

        """
        classes = self.out.out_features
        others = torch.randint(classes, (self.noise,), device=x.device)
        shift = math.log(self.noise / classes)
        weight, bias = self.out.weight, self.out.bias
        true = (x * F.embedding(target, weight)).sum(-1) + bias[target]
        noise = F.linear(x, weight[others], bias[others])
        return F.softplus(shift - true) + F.softplus(noise - shift).sum(-1)


class HeadInput(nn.Module):
    """Read an activity for a head: the net's view of it, or of a flattened map its average over windows.

    Args:
        net: the net, for its view.
        shape: a row's of the activity.
        most: the most values to be read of a map.

    """

    def __init__(self, net: Net, shape: tuple[int, ...], most: int):
        super().__init__()
        self.view = net.view
        self.window = pooling(shape, most) if len(shape) == 3 and isinstance(net.view, Flattened) else (1, 1)
        pooled = shape
        if self.window != (1, 1):
            pooled = (shape[0], *(math.ceil(n / w) for n, w in zip(shape[1:], self.window, strict=True)))
        self.width = net.view.width(pooled)

    def forward(self, a: Tensor) -> Tensor:
        """Return what is read, (N, ..., width).

        Args:
            a: the activity, (N, *shape).

        """
        if self.window != (1, 1):
            a = F.avg_pool2d(a, self.window, ceil_mode=True)
        return self.view(a)


def pooling(shape: Sequence[int], most: int) -> tuple[int, int]:
    """Return the window, (height, width), that averages a map to `most` values at most, if 1x1 has as few.

    The height is doubled first, then the width, in turn, as Nokland and Eidnes have it.

    Args:
        shape: the map's, (D, H, W).
        most: the most values that are to be left.

    """
    channels, height, width = shape
    window = [1, 1]
    side = 0

    def size() -> int:
        return channels * math.ceil(height / window[0]) * math.ceil(width / window[1])

    while size() > most and (window[0] < height or window[1] < width):
        window[side] *= 2
        side = 1 - side
    return window[0], window[1]


class Activity:
    """Split a block in two: its activity a = act(h), before the dropout and pooling that it ends with, and the rest.

    A block of a class of its own is one part: its activity is its output.

    Args:
        block: one of the net's.

    """

    def __init__(self, block: Block):
        self.block = block
        plain = type(block).forward is Block.forward
        self.layers: list[nn.Module] = list(block.post) if type(block.post) is nn.Sequential else [block.post]
        self.cut = len(self.layers)
        while plain and self.cut and isinstance(self.layers[self.cut - 1], TRAILING):
            self.cut -= 1

    def __call__(self, h: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activity, (N, ...), and the block's output.

        Args:
            h: the block's input.
            context: what it takes next to its input.

        """
        if self.cut == len(self.layers):
            h = self.block(h, *context)
            return h, h
        h = self.block.op(h, *context)
        for layer in self.layers[: self.cut]:
            h = layer(h)
        a = h
        for layer in self.layers[self.cut :]:
            h = layer(h)
        return a, h


def activity_shapes(net: Net) -> list[tuple[int, ...]]:
    """Return the shapes of a row of each block's activity, by one run of the smallest input.

    Args:
        net: the net.

    """
    shapes = []
    with preserve_modes(net), torch.no_grad():
        net.eval()
        x, *context = net.trial()
        h = net.stem(x)
        for k in range(net.depth):
            a, h = Activity(net.block(k))(h, *context)
            shapes.append(tuple(a.shape[1:]))
    return shapes


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
