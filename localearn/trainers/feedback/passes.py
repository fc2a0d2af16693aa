"""Passes through a net, layer by layer, that share their dropout masks, and contexts in which they run."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from localearn.moved import former_names
from localearn.nets import Net
from localearn.trainers.phases import Metrics

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)  # whose features are the last axis, and not the second
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Site(NamedTuple):
    """Hold the output and the activity of a layer with parameters in one pass.

    Attributes:
        output: the layer's output, with the graph of its own parameters alone.
        activity: the block's last value of the output's shape, (N, ...): after normalisation, activation and dropout,
            but before what pools.
        positions: how many places of a row share the layer's parameters: those of a map, or of a sequence.

    """

    output: Tensor
    activity: Tensor
    positions: int


class Passes:
    """Run passes of one batch through a net: the first draws the dropout masks, the others repeat them.

    Args:
        net: a net of plain blocks.

    """

    def __init__(self, net: Net):
        self.net = net
        self._masks: dict[tuple[int, int], Tensor] = {}

    def run(self, x: Tensor, *context: Tensor) -> tuple[list[Site], Tensor]:
        """Return the blocks' sites, first to last, and the logits, (N, C), with the readout's graph alone.

        Args:
            x: rows, (N, *input_shape).
            context: what the first layer of each block takes next to its input.

        """
        h, sites = x, []
        for i, layer in enumerate(layers(self.net.stem)):
            h = self._through(layer, h, (-1, i))
        for k in range(self.net.depth):
            outputs, last = list[tuple[Tensor, int]](), {}
            for i, layer in enumerate(layers(self.net.block(k))):
                output = self._through(layer, h, (k, i), *(context if i == 0 else ()))
                h = output.detach()
                last[h.shape] = h
                if any(p.requires_grad for p in layer.parameters()):
                    places = output.shape[1:-1] if isinstance(layer, LAST) else output.shape[2:]
                    outputs.append((output, math.prod(places)))
            sites += [Site(output, last[output.shape], positions) for output, positions in outputs]
        return sites, self.net.logits(h, *context)

    def _through(self, layer: nn.Module, h: Tensor, place: tuple[int, int], *context: Tensor) -> Tensor:
        if not (isinstance(layer, DROPOUTS) and layer.training):
            return layer(h, *context)
        if place not in self._masks:
            self._masks[place] = layer(torch.ones_like(h))
        return h * self._masks[place]


def layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that a block (its op first), a post or a stem applies one after another.

    Args:
        module: the block, post or stem.

    """
    if isinstance(module, nn.Sequential):
        return [layer for member in module for layer in layers(member)]
    op, post = getattr(module, "op", None), getattr(module, "post", None)
    return [module] if op is None or post is None else [op, *layers(post)]


@contextmanager
def preserve_buffers(net: Net) -> Iterator[None]:
    """Restore the net's buffers, its running statistics, on exit.

    Args:
        net: the net.

    """
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(before[name])


def no_autocast(device: torch.device) -> torch.autocast | nullcontext[None]:
    """Return a context without autocast, in which values keep their own precision.

    Args:
        device: where they are computed.

    """
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def without_autocast(device: torch.device, parts: Iterator[Metrics]) -> Iterator[Metrics]:
    """Yield the values of a generator, each of whose parts runs outside of autocast.

    Args:
        device: where it computes.
        parts: the generator.

    """
    while True:
        with no_autocast(device):
            found = next(parts, None)
        if found is None:
            return
        yield found


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
