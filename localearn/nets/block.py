"""Blocks: an operation with parameters and what follows it, and how modules are turned into or merged as blocks."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets.layers import out_of_place, starts_block


class Block(nn.Module):
    """Apply one step of a net: z = op(h, *context), h' = post(z).

    Args:
        op: the map with parameters (Linear, Conv2d, GCNConv, ...); z is the pre-activation.
        post: what follows it (normalisation, activation, pooling, dropout); the identity by default.

    """

    def __init__(self, op: nn.Module, post: nn.Module | None = None):
        super().__init__()
        self.op = op
        self.post = nn.Identity() if post is None else post

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Map h_{k-1}, (N, ...), to h_k, (N, ...)."""
        return self.post(self.op(h, *context))


class Chain(nn.ModuleList):
    """Apply blocks one after another, each with the context: the op of a `Block` merged from several."""

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Map the input of the first, (N, ...), to the output of the last, (N, ...)."""
        for part in self:
            h = part(h, *context)
        return h


class AfterStem(nn.Module):
    """Apply op(stem(x), *context): the op of a first block that a stem with parameters was merged into."""

    def __init__(self, stem: nn.Module, op: nn.Module):
        super().__init__()
        self.stem, self.op = stem, op

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Map x, (N, *input_shape), to z, (N, ...)."""
        return self.op(self.stem(x), *context)


def merge_blocks(blocks: Sequence[Block]) -> Block:
    """Merge consecutive blocks into one, whose post is the last one's, so that pre-activation and output are its.

    Args:
        blocks: one or more; a single one is returned as it is. The layers are shared.

    """
    last = blocks[-1]
    if len(blocks) == 1:
        return last
    plain = type(last).forward is Block.forward and not (last._forward_hooks or last._forward_pre_hooks)
    block = Block(Chain([*blocks[:-1], last.op]), last.post) if plain else Block(Chain(blocks))
    for new in (block, block.op, *(() if plain else (block.post,))):
        new.training = last.training
    return block


def as_blocks(modules: Iterable[nn.Module]) -> list[Block]:
    """Turn modules into blocks: a Block as it is, any other as a block's op.

    An `nn.Sequential` of one layer with parameters, except normalisation, and what follows it is split there, so that
    its pre-activation is exposed.

    Args:
        modules: first to last.

    Raises:
        UserError: for what is not an nn.Module.

    """
    blocks = []
    for k, module in enumerate(modules):
        if not isinstance(module, nn.Module):
            what = getattr(module, "__name__", type(module).__name__)
            raise UserError(f"block {k + 1} is {what}, and a block is an nn.Module; wrap it in one")
        blocks.append(module if isinstance(module, Block) else _split_sequential(module))
    return blocks


def merge_stem(stem: nn.Module | None, blocks: Sequence[Block]) -> tuple[nn.Module | None, list[Block]]:
    """Return the stem and the blocks, with a stem that has parameters merged into the first block's op.

    Args:
        stem: the stem, or None.
        blocks: first to last.

    """
    if stem is None or not blocks or not any(True for _ in stem.parameters()):
        return stem, list(blocks)
    first, *others = blocks
    if type(first).forward is not Block.forward:
        return None, [Block(AfterStem(stem, first)), *others]
    return None, [Block(AfterStem(stem, first.op), first.post), *others]


def _split_sequential(module: nn.Module) -> Block:
    if type(module) is nn.Sequential and not (module._forward_hooks or module._forward_pre_hooks):
        first, *others = module or [module]
        if others and starts_block(first) and not any(starts_block(layer) for layer in others):
            return Block(first, nn.Sequential(*others))
    return Block(module)


def sequential_parts(model: nn.Sequential, input_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the arguments of `Net` for a Sequential; see `Net.from_sequential`.

    Args:
        model: the layers.
        input_shape: a row's shape; needed unless the first layer with parameters is a Linear.

    Raises:
        UserError: for a model that cannot be cut so.

    """
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
        f"from_sequential cannot infer the input's shape from a {type(first).__name__}; "
        "give it, say input_shape=(3, 32, 32)"
    )


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
