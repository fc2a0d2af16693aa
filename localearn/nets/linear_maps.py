"""The linear maps inside a net: found by running it, and replaced without touching it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from localearn.nets.layers import NORMALISATIONS
from localearn.nets.net import Net, modes_kept

TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class LinearMap:
    """One F.linear or F.conv2d with a parameter of the net as its weight.

    name: the parameter's, as in `net.named_parameters()`. inner: whether parameters come before it, so that an error
    has to pass through it. numeric: whether its padding is given in pixels (always, of a Linear). groups: of channels.
    """

    name: str
    inner: bool
    numeric: bool
    groups: int


class Replaced(TorchFunctionMode):
    """Inside this context, `instead(map, x, weight, bias, *geometry)` is called for F.linear and F.conv2d.

    map is the torch function itself and geometry what it takes beside (stride, padding, dilation, groups). Layers call
    these functions whatever their class is, so the net itself stays as it is, its forward pass and hooks included.
    """

    def __init__(self, instead: Callable[..., Tensor]):
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Hand a linear map over, and call everything else."""
        if func is F.linear:
            return self.instead(func, *_linear(*args, **(kwargs or {})))
        if func is F.conv2d:
            return self.instead(func, *_conv2d(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def linear_maps(net: Net) -> list[LinearMap]:
    """Return the net's linear maps in the order in which its forward pass first meets them, each weight once."""
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
    with modes_kept(net), torch.enable_grad():
        net.eval()
        net.requires_grad_()  # so that what a gradient would reach tells what comes after what, whatever is frozen
        try:
            with Replaced(look):
                net(*net.trial())
        finally:
            for p in frozen:
                p.requires_grad_(False)
    return list(found.values())


def unmapped_matrices(net: Net, maps: list[LinearMap]) -> list[str]:
    """Return the names of the parameters with two or more dimensions that are no linear map's weight.

    Parameters with one dimension are biases and the scales of normalisations, which act on each channel for itself. The
    table of an embedding is looked up by whole numbers, through which no error passes.
    """
    known = {m.name for m in maps}
    apart = {id(p) for m in net.modules() if isinstance(m, (*NORMALISATIONS, *TABLES)) for p in m.parameters()}
    return [n for n, p in net.named_parameters() if p.dim() > 1 and n not in known and id(p) not in apart]


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
