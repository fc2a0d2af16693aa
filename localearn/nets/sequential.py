"""Split an `nn.Sequential` into stem, blocks and readout."""

import itertools
from collections.abc import Iterator
from typing import Any

from torch import nn

from localearn.errors import UserError
from localearn.nets.block import Block
from localearn.nets.layers import out_of_place, starts_block


def parts(model: nn.Sequential, input_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the arguments of `Net` for a Sequential; see `Net.from_sequential`."""
    if not isinstance(model, nn.Sequential):
        raise UserError(f"from_sequential takes an nn.Sequential, not a {type(model).__name__}; build a Net of Blocks")
    out_of_place(model)
    layers = list(_flat(model))
    starts = [i for i, layer in enumerate(layers) if starts_block(layer)]
    if len(starts) < 2:
        found = ", ".join(type(layers[i]).__name__ for i in starts) or "none"
        raise UserError(f"a Sequential needs a hidden parametric layer and a Linear readout; this one has {found}")
    readout = layers[starts[-1]]
    if not isinstance(readout, nn.Linear):
        raise UserError(f"the last parametric layer is the readout and must be Linear, not {type(readout).__name__}")
    if starts[-1] != len(layers) - 1:
        after = ", ".join(type(layer).__name__ for layer in layers[starts[-1] + 1 :])
        raise UserError(f"nothing may follow the readout, whose outputs are logits; remove {after}")
    blocks = [
        Block(layers[start], nn.Sequential(*layers[start + 1 : end]) if end > start + 1 else None)
        for start, end in itertools.pairwise(starts)
    ]
    return {
        "blocks": blocks,
        "readout": readout,
        "input_shape": input_shape or _input_shape(layers[starts[0]]),
        "stem": nn.Sequential(*layers[: starts[0]]) if starts[0] else None,
    }


def _flat(model: nn.Sequential) -> Iterator[nn.Module]:
    for layer in model:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _input_shape(first: nn.Module) -> tuple[int, ...]:
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise UserError(
        f"from_sequential cannot tell the input's shape from a {type(first).__name__}; "
        "give it, say input_shape=(3, 32, 32)"
    )
