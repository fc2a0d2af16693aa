"""Linear maps and running statistics of a net, found by running it and replaced without changing it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from localearn.moved import former_names
from localearn.nets.layers import NORMALISATIONS, preserve_modes
from localearn.nets.net import Net


@dataclass(frozen=True)
class LinearMap:
    """Describe one F.linear or F.conv2d whose weight is a parameter of the net.

    Attributes:
        name: the parameter's name in `net.named_parameters()`.
        inner: whether parameters come before it, so that an error has to pass through it.
        numeric: whether its padding is given in pixels (always, of a Linear).
        groups: the groups of channels.

    """

    name: str
    inner: bool
    numeric: bool
    groups: int


class LinearInterceptor(TorchFunctionMode):
    """Call `instead(map, x, weight, bias, *geometry)` for F.linear and F.conv2d inside this context.

    Layers call these functions whatever their class is, so the net itself, its forward pass and its hooks stay
    unchanged.

    Args:
        instead: the replacement. `map` is the torch function itself, `geometry` its other arguments (stride, padding,
            dilation, groups).

    """

    def __init__(self, instead: Callable[..., Tensor]):
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass a linear map to the replacement, and call everything else."""
        if func is F.linear:
            return self.instead(func, *_linear(*args, **(kwargs or {})))
        if func is F.conv2d:
            return self.instead(func, *_conv2d(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def linear_maps(net: Net) -> list[LinearMap]:
    """Return the net's linear maps in the order in which its forward pass first meets them, each weight once.

    Args:
        net: the net, which is run on its trial input and left as it was.

    """
    names = {id(p): name for name, p in net.named_parameters()}
    found: dict[str, LinearMap] = {}

    def look(func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        if id(weight) in names:
            name, earlier = names[id(weight)], found.get(names[id(weight)])
            numeric, groups = (not isinstance(geometry[1], str), geometry[3]) if geometry else (True, 1)
            inner = x.requires_grad or (earlier is not None and earlier.inner)
            found[name] = LinearMap(name, inner, numeric, groups)
        return func(x, weight, bias, *geometry)

    frozen = [p for p in net.parameters() if not p.requires_grad]
    with preserve_modes(net), torch.enable_grad():
        net.eval()
        net.requires_grad_()  # so that what a gradient would reach shows what comes after what, whatever is frozen
        try:
            with LinearInterceptor(look):
                net(*net.trial())
        finally:
            for p in frozen:
                p.requires_grad_(False)
    return list(found.values())


def unmapped_matrices(net: Net, maps: list[LinearMap]) -> list[str]:
    """Return the names of the parameters with two or more dimensions, other than `maps`, that an error passes through.

    These are all but the linear maps' weights, the scales of normalisations, which act on each channel for itself, and
    what is looked up or added and never multiplied: embeddings of tokens and positions, a class token.

    Args:
        net: the net.
        maps: its linear maps, as of `linear_maps`.

    """
    known = {m.name for m in maps}
    scales = {id(p) for m in net.modules() if isinstance(m, NORMALISATIONS) for p in m.parameters()}
    found = [n for n, p in net.named_parameters() if p.dim() > 1 and n not in known and id(p) not in scales]
    if not found:
        return []
    with preserve_modes(net), torch.no_grad(), _ParameterUses([net.get_parameter(name) for name in found]) as uses:
        net.eval()
        net(*net.trial())
    return [name for name in found if not uses.only_added(net.get_parameter(name))]


class _ParameterUses(TorchFunctionMode):
    """Record, inside this context, the operations on parameters and on mere parts or copies of them."""

    _SAME = (
        "expand",
        "expand_as",
        "__getitem__",
        "unsqueeze",
        "to",
        "view",
        "reshape",
        "repeat",
        "narrow",
        "transpose",
    )
    _ADDED = ("add", "add_", "cat", "concat")

    def __init__(self, parameters: list[Tensor]):
        super().__init__()
        self._of = {id(p): id(p) for p in parameters}  # a tensor, and which parameter it is a part of
        self._alive: list[Any] = []  # so that no id comes twice
        self._added, self._multiplied = set[int](), set[int]()

    def only_added(self, parameter: Tensor) -> bool:
        """Return whether the parameter was looked up or added, and nothing else was done with it."""
        return id(parameter) in self._added and id(parameter) not in self._multiplied

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record which parameters a call takes, and what it does with them."""
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs))
        found = {self._of[id(leaf)] for leaf in leaves if isinstance(leaf, Tensor) and id(leaf) in self._of}
        name = getattr(func, "__name__", "")
        if not found or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            pass  # a question after its shape, say
        elif name in self._SAME and isinstance(out, Tensor):
            self._alive.append(out)
            self._of[id(out)] = next(iter(found))
        elif func is F.embedding or name in self._ADDED:
            self._added |= found
        else:
            self._multiplied |= found
        return out


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:
    return input, weight, bias


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, groups


class RunningStatistics:
    """Set a net's running means and variances to the averages of their batch values over a pass.

    The previous values are discarded. Blocks after the first see what precedes them normalised by each batch's own
    values, as in training; dropout is off.

    Args:
        net: the net, whose batch normalisations are set.

    """

    def __init__(self, net: Net):
        self.net = net
        self.layers = tracking(net)
        self._batches = 0
        for layer in self.layers:
            layer.reset_running_stats()

    def add(self, x: Tensor, *context: Tensor) -> None:
        """Add a batch, (N, *input_shape), with its context."""
        self.net.eval()
        self._batches += 1
        momenta = [layer.momentum for layer in self.layers]
        for layer in self.layers:
            layer.train()
            layer.momentum = 1 / self._batches  # plain averages; None would give them too, with a host synchronisation
        self.net.hidden(x, *context)
        for layer, momentum in zip(self.layers, momenta, strict=True):
            layer.eval()
            layer.momentum = momentum


def tracking(net: Net) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the net's batch normalisations that track running statistics.

    Args:
        net: the net.

    """
    layers = (m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [m for m in layers if m.running_mean is not None]


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
