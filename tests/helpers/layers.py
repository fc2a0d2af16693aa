"""Layers of a net, by name."""

from torch import nn

from localearn import Net


def kinds(net: Net, k: int = 0) -> list[str]:
    """Return the names of block k's layers."""
    block = net.block(k)
    assert isinstance(block.post, nn.Sequential)
    return [type(layer).__name__ for layer in (block.op, *block.post)]
