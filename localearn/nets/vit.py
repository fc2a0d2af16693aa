from torch import nn

from localearn.errors import UserError
from localearn.nets.attention import AttentionLayer, FeedForward, TransformerLayer
from localearn.nets.block import AfterStem, Block
from localearn.nets.initialization import draw_weights
from localearn.nets.layers import check_classes, check_widths
from localearn.nets.net import Net
from localearn.nets.patches import Patches, check_patches
from localearn.nets.views import Pooled


class ViT(Net):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929): pre-norm encoder layers on an image's patches.

        h_0 = patches W^T + b + places                        (N, T, D), T = (H / patch) (W / patch); within block 1
        h_k = FeedForward(Attention(h_{k-1}))                 each with its residual; the last one is normalised
        output = readout(mean of h_L over positions)

    The mean takes the place of a class token, and fixed sines and cosines that of learned positions, as in arXiv
    2205.01580, which finds both at least as good. Here the mean has a reason more: each block's own head then reads
    every position, and what an error sends back reaches every position, where a class token alone would learn.

    Args:
        input_shape: (channels, height, width).
        classes: C.
        patch: the side of a patch, which divides the image's sides.
        width: D, a multiple of 4 and of heads.
        layers: L, a block each.
        heads: of each layer's attention.
        hidden: the feed-forward width; 4 D where none is given.
        dropout: of what each half layer adds.
        init: how weights are drawn, see `draw_weights`.

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
        blocks = first_and_last(Patches(shape, patch, width, positions=True), encoder, nn.LayerNorm(width))
        readout = nn.Linear(width, check_classes(classes))
        draw_weights(init, blocks)
        super().__init__(blocks, readout, input_shape=shape, view=Pooled())


def first_and_last(patches: Patches, blocks: list[Block], norm: nn.LayerNorm) -> list[Block]:
    """Return the blocks, the first one with the patches' map before it, and the last one normalised."""
    if not blocks:
        raise UserError("layers must be 1 or more")
    blocks[0] = Block(AfterStem(patches, blocks[0].op), blocks[0].post)
    blocks[-1] = Block(blocks[-1].op, norm)
    return blocks
