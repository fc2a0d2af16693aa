"""Nets that read an image as a sequence of patches: vision transformers, `ViT`, and mixers, `Mixer`."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets.block import AfterStem, Block
from localearn.nets.checks import check_classes, check_image, check_widths
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import draw_weights
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.transformer import AttentionLayer, FeedForward, TransformerLayer
from localearn.nets.views import Pooled


class ViT(Net):
    """Build a vision transformer (Dosovitskiy et al., arXiv 2010.11929): pre-norm encoder layers on an image's patches.

        h_0 = patches W^T + b + places                        (N, T, D), T = (H / patch) (W / patch); within block 1
        h_k = FeedForward(Attention(h_{k-1}))                 each with its residual; the last one is normalised
        output = readout(mean of h_L over positions)

    The mean takes the place of a class token, and fixed sines and cosines that of learned positions, as in arXiv
    2205.01580, which finds both at least as good. Here the mean has a further reason: each block's own head then reads
    every position, and an error that is sent back reaches every position, where a class token alone would learn.

    Args:
        input_shape: (channels, height, width).
        classes: C.
        patch: the side of a patch, which divides the image's sides.
        width: D, a multiple of 4 and of heads.
        layers: L, a block each.
        heads: of each layer's attention.
        hidden: the feed-forward width; 4 D where none is given.
        dropout: the probability of dropping a value that a half layer adds.
        init: how weights are drawn, see `draw_weights`.

    Example:
        net = ViT((3, 32, 32), 10, width=64, layers=4, heads=4)

    """

    kind = "sequence"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        patch: int = 4,
        width: int = 192,
        layers: int = 12,
        heads: int = 3,
        hidden: int | None = None,
        dropout: float = 0.0,
        init: str = "glorot_uniform",
    ):
        shape = check_patches("ViT", input_shape, patch)
        check_widths("width, layers and heads", (width, layers, heads))
        if hidden is not None:
            check_widths("hidden", (hidden,))
        encoder = [
            Block(
                TransformerLayer(
                    AttentionLayer(width, heads, dropout=dropout), FeedForward(width, hidden, dropout=dropout)
                )
            )
            for _ in range(layers)
        ]
        blocks = add_patches_and_norm(PatchEmbedding(shape, patch, width, positions=True), encoder, nn.LayerNorm(width))
        readout = nn.Linear(width, check_classes(classes))
        draw_weights(init, blocks)
        super().__init__(blocks, readout, input_shape=shape, view=Pooled())


class Mixer(Net):
    """Build an MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): perceptrons over an image's patches and over channels.

        u = h + (W_2 gelu(W_1 norm(h)^T))^T                   over the T positions, the same for every channel
        h' = u + W_4 gelu(W_3 norm(u))                        over the D channels, the same at every position
        output = readout(mean of norm(h_L) over positions)

    Each layer is a block; the first has the patches' linear map before it.

    Args:
        input_shape: (channels, height, width).
        classes: C.
        patch: the side of a patch, which divides the image's sides.
        width: D.
        layers: L, a block each.
        token_hidden: the hidden width over positions, the paper's D_S.
        channel_hidden: the hidden width over channels, its D_C.
        dropout: the probability of dropping a value that a half layer adds.
        init: how weights are drawn, see `draw_weights`.

    """

    kind = "sequence"

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        *,
        patch: int = 4,
        width: int = 512,
        layers: int = 8,
        token_hidden: int = 256,
        channel_hidden: int = 2048,
        dropout: float = 0.0,
        init: str = "glorot_uniform",
    ):
        shape = check_patches("Mixer", input_shape, patch)
        check_widths("width, layers, token_hidden and channel_hidden", (width, layers, token_hidden, channel_hidden))
        positions = (shape[1] // patch) * (shape[2] // patch)
        mixing = [
            Block(MixerLayer(positions, width, token_hidden, channel_hidden, dropout=dropout)) for _ in range(layers)
        ]
        blocks = add_patches_and_norm(PatchEmbedding(shape, patch, width), mixing, nn.LayerNorm(width))
        readout = nn.Linear(width, check_classes(classes))
        draw_weights(init, blocks)
        super().__init__(blocks, readout, input_shape=shape, view=Pooled())


class MixerLayer(nn.Module):
    """Apply a perceptron over positions, then one over channels, each with its residual: (N, T, D) to (N, T, D)."""

    def __init__(self, positions: int, width: int, token_hidden: int, channel_hidden: int, *, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(positions, token_hidden)
        self.activation = activation_layer("gelu")
        self.out = nn.Linear(token_hidden, positions)
        self.dropout = dropout_layer(dropout)
        self.channels = FeedForward(width, channel_hidden, dropout=dropout)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return h', (N, T, D)."""
        mixed = self.out(self.activation(self.inner(self.norm(h).transpose(1, 2))))
        return self.channels(h + self.dropout(mixed.transpose(1, 2)))


class PatchEmbedding(nn.Module):
    """Map each patch of an image, row by row, to D values: (N, C, H, W) to (N, T, D), T = (H / p) (W / p).

    Args:
        shape: (C, H, W).
        patch: p, the side of a patch.
        width: D.
        positions: whether each patch's place is added, see `places`; it is a buffer, since it is never trained.

    """

    places: Tensor | None

    def __init__(self, shape: tuple[int, ...], patch: int, width: int, *, positions: bool = False):
        super().__init__()
        self.patch = patch
        self.map = nn.Linear(shape[0] * patch * patch, width)
        self.register_buffer(
            "places", sincos_positions(shape[1] // patch, shape[2] // patch, width) if positions else None
        )

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return (N, T, D)."""
        h = self.map(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        return h if self.places is None else h + self.places


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Return sines and cosines of each patch's column and row, (rows columns, width), a quarter of the values each.

    The wavelengths grow geometrically from 2 pi to 10,000 times that: Beyer, Zhai, Kolesnikov, arXiv 2205.01580.

    Args:
        rows: the number of patches in a column.
        columns: the number of patches in a row.
        width: the number of values, a multiple of 4.

    Raises:
        UserError: for another width.

    """
    if width % 4:
        raise UserError(
            f"positions have sines and cosines of two coordinates: width must be a multiple of 4, not {width}"
        )
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(10_000) / max(width // 4 - 1, 1)))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def add_patches_and_norm(patches: PatchEmbedding, blocks: list[Block], norm: nn.LayerNorm) -> list[Block]:
    """Return the blocks with the patches' map before the first and the normalisation after the last.

    Args:
        patches: the map of patches.
        blocks: first to last; the list is changed.
        norm: the normalisation.

    Raises:
        UserError: for no block.

    """
    if not blocks:
        raise UserError("layers must be 1 or more")
    blocks[0] = Block(AfterStem(patches, blocks[0].op), blocks[0].post)
    blocks[-1] = Block(blocks[-1].op, norm)
    return blocks


def check_patches(net: str, input_shape: tuple[int, ...] | int, patch: int) -> tuple[int, ...]:
    """Return an image's shape, (channels, height, width).

    Args:
        net: the net's name in the error message.
        input_shape: the shape.
        patch: the side of a patch.

    Raises:
        UserError: for no image, or one whose sides the patch does not divide.

    """
    shape = check_image(net, input_shape)
    sides = [side for side in range(1, min(shape[1:]) + 1) if not shape[1] % side and not shape[2] % side]
    if patch not in sides:
        raise UserError(
            f"patches of {patch}x{patch} do not divide images of {shape[1]}x{shape[2]}; "
            f"use net.patch={', '.join(map(str, sides[1:] or sides))}"
        )
    return shape


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
