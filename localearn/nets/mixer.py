from torch import Tensor, nn

from localearn.nets.attention import FeedForward
from localearn.nets.block import Block
from localearn.nets.initialization import draw_weights
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import check_classes, check_widths
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.patches import Patches, check_patches
from localearn.nets.views import Pooled
from localearn.nets.vit import first_and_last


class Mixer(Net):
    """MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): perceptrons over an image's patches and over their channels.

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
        blocks = first_and_last(Patches(shape, patch, width), mixing, nn.LayerNorm(width))
        readout = nn.Linear(width, check_classes(classes))
        draw_weights(init, blocks)
        super().__init__(blocks, readout, input_shape=shape, view=Pooled())


class MixerLayer(nn.Module):
    """A perceptron over positions, then one over channels, each with its residual: (N, T, D) to (N, T, D)."""

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
