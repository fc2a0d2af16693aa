"""Transformers for sequences: self-attention and an MLP, each adding to a stream that layer normalisation reads."""

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.moved import former_names
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, choose
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.layers import is_transforming
from localearn.nets.net import Net
from localearn.nets.views import LastPosition, Normalized, PerPosition, Pooled

Cut = Literal["layer", "sublayer"]
Reads = Literal["auto", "positions", "last", "pooled"]

VIEWS = {"positions": PerPosition, "last": LastPosition, "pooled": Pooled}


class Transformer(Net):
    """Build a causal, pre-norm transformer: h' = h + attention(norm(h)), h'' = h' + W2 f(W1 norm(h')), L times.

    A position sees itself and those before it. The first block embeds the tokens, or maps values (T, D) to the width,
    and adds a learned embedding of each position. The layer normalisation before the readout is the net's view
    (`Normalized`), so that a local rule's heads read the stream of every block as the readout reads the last one's.
    Weights are drawn normal with deviation 1 / sqrt(fan_in), of maps into the stream 1 / sqrt(2 L fan_in), embeddings
    of tokens with 0.5 and of positions with 0.1; biases are 0.

    Args:
        input_shape: (T,) token ids, T being the most positions that it takes, or (T, D) values.
        classes: the readout's width: the vocabulary of a language model.
        vocabulary: the number of tokens; None where rows are values.
        layers: L.
        width: of the stream.
        heads: of attention, which share the width evenly.
        expansion: the MLP's hidden width, in widths.
        activation: f, as of `MLP`.
        dropout: the probability of dropping a value of the embedding, or one that is added to the stream.
        blocks: "layer" makes a block of each layer. "sublayer" makes three: attention, h'; the MLP's hidden layer,
            (h', f(W1 norm(h'))) side by side; and its output, h''. Direct feedback alignment then sends its signals to
            the three points of the "micro" form of Launay et al., arXiv 2006.12878, by "layer" to those of its "macro"
            form. Their layers normalise what they have added, ours what they read; in both the signal passes the
            normalisation, and the embedding learns by the derivative of the first block.
        reads: what a head reads: "positions", each by itself, "last", "pooled", their mean; "auto" is positions of
            tokens and last of values.

    Raises:
        UserError: for options out of their range, and for rows that are no sequence.

    Example:
        net = Transformer((128,), 256, vocabulary=256, layers=2, width=64)

    """

    kind = "sequence"

    def __init__(
        self,
        input_shape: tuple[int, ...] | int,
        classes: int,
        *,
        vocabulary: int | None = None,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        expansion: int = 4,
        activation: str = "gelu",
        dropout: float = 0.0,
        blocks: Cut = "layer",
        reads: Reads = "auto",
    ):
        shape = check_sequence(type(self).__name__, input_shape, vocabulary)
        for name, n in (("layers", layers), ("width", width), ("heads", heads), ("expansion", expansion)):
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise UserError(f"{name} must be a positive whole number, not {n!r}")
        by_sublayer = choose("blocks", blocks, {"layer": False, "sublayer": True})
        parts: list[nn.Module] = []
        for _ in range(layers):
            attention = AttentionLayer(width, heads, causal=True, dropout=dropout)
            forward = FeedForward(width, expansion * width, activation=activation, dropout=dropout)
            layer = TransformerLayer(attention, forward)
            parts += [attention, Widen(forward), Narrow(forward)] if by_sublayer else [layer]
        parts[0] = nn.Sequential(Embedding(shape, vocabulary, width, dropout), parts[0])
        readout = nn.Linear(width, check_classes(classes))
        _draw(parts, readout, layers)
        takes, view = InputSpec(shape, vocabulary), Normalized(choose_view(reads, vocabulary))
        super().__init__(map(Block, parts), readout, takes=takes, view=view)


def _draw(parts: list[nn.Module], readout: nn.Linear, layers: int) -> None:
    """Draw all weights, as the docstring of `Transformer` has it."""
    for part in (*parts, readout):
        for name, layer in part.named_modules():
            if isinstance(layer, nn.Linear):
                into_stream = name.rpartition(".")[2] == "out"
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features * (2 * layers if into_stream else 1)))
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.1 if name.endswith("places") else 0.5)


class Embedding(nn.Module):
    """Add the embedding of tokens, (N, T) ids, or values, (N, T, D), and that of their positions: (N, T, width)."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int | None, width: int, dropout: float):
        super().__init__()
        self.tokens = nn.Linear(shape[1], width) if vocabulary is None else nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(shape[0], width)
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both embeddings."""
        return self.dropout(self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device)))


class AttentionLayer(nn.Module):
    """Apply pre-norm self-attention with its residual: each position reads the others.

        q, k, v = split(norm(h) W_qkv^T + b)                   (N, heads, T, D / heads) each
        z = h + dropout(join(softmax(q k^T / sqrt(d)) v) W_o^T + b_o)

    The four maps are two nn.Linear, `qkv` and `out`, so that rules which replace linear maps find them.

    Args:
        width: D, a multiple of heads.
        heads: the number of attention heads.
        causal: whether a position reads itself and those before it alone.
        dropout: the probability of dropping a value that is added to h.

    """

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0):
        super().__init__()
        if not isinstance(heads, int) or heads < 1 or width % heads:
            raise UserError(f"width must be a multiple of heads; {width} is not a multiple of {heads!r}")
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = dropout_layer(dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute z, (N, T, D).

        Args:
            h: (N, T, D).
            mask: which positions of a row count, (N, T) bool; the others are read by themselves alone.

        """
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        read = attention(q, k, v, causal=self.causal, mask=mask)
        return h + self.dropout(self.out(read.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Apply a pre-norm two-layer perceptron at each position, with its residual: z = h + dropout(W_2 f(W_1 norm(h))).

    Args:
        width: D.
        hidden: the width between the two; 4 D where none is given.
        activation: f, by name.
        dropout: the probability of dropping a value that is added to h.

    """

    def __init__(self, width: int, hidden: int | None = None, *, activation: str = "gelu", dropout: float = 0.0):
        super().__init__()
        hidden = hidden or 4 * width
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.activation = activation_layer(activation)
        self.out = nn.Linear(hidden, width)
        self.dropout = dropout_layer(dropout)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return z, (..., D), of h, (..., D); the context is for the attention and ignored."""
        return h + self.dropout(self.out(self.activation(self.inner(self.norm(h)))))


class TransformerLayer(nn.Module):
    """Apply an `AttentionLayer`, then a `FeedForward`: h, (N, T, D), to z, (N, T, D)."""

    def __init__(self, attention: AttentionLayer, feed_forward: FeedForward):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return z; the context is the mask of positions, where the net takes one."""
        return self.feed_forward(self.attention(h, *context))


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v, (N, heads, T, d).

    Args:
        q: (N, heads, T, d).
        k: of the same shape.
        v: of the same shape.
        causal: whether a position reads itself and those before it alone.
        mask: (N, T) bool, which positions may be read; each may read itself.

    """
    allowed = None
    if mask is not None or (causal and is_transforming()):
        size = q.shape[-2]
        own = torch.eye(size, dtype=torch.bool, device=q.device)
        allowed = own.new_ones(size, size) if mask is None else mask[:, None, None, :] | own
        allowed = allowed.tril() if causal else allowed
    if not is_transforming():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal and allowed is None)
    # The fused kernels have no forward-mode derivative, and no rule by which vmap batches them.
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return scores.softmax(-1) @ v


class Widen(nn.Module):
    """Apply the first half of a feed-forward layer: (h, f(W_1 norm(h))), side by side."""

    def __init__(self, of: FeedForward):
        super().__init__()
        self.norm, self.inner, self.activation = of.norm, of.inner, of.activation

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D + hidden)."""
        return torch.cat([h, self.activation(self.inner(self.norm(h)))], dim=-1)


class Narrow(nn.Module):
    """Apply the second half of a feed-forward layer: z = h + dropout(W_2 u) of h and u side by side."""

    def __init__(self, of: FeedForward):
        super().__init__()
        self.out, self.dropout = of.out, of.dropout

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D + hidden) to (N, T, D)."""
        stream, hidden = h.split([self.out.out_features, self.out.in_features], dim=-1)
        return stream + self.dropout(self.out(hidden))


def check_sequence(net: str, input_shape: tuple[int, ...] | int, vocabulary: int | None) -> tuple[int, ...]:
    """Return the shape of a row, (T,) tokens or (T, D) values.

    Args:
        net: the net's name in error messages.
        input_shape: the shape.
        vocabulary: the number of tokens, or None where rows are values.

    Raises:
        UserError: for another shape.

    """
    shape = check_row("input_shape", input_shape)
    if len(shape) == (2 if vocabulary is None else 1):
        return shape
    if vocabulary is not None:
        raise UserError(f"{net} takes token ids, rows of shape (T,), not {shape}")
    raise UserError(f"{net} takes sequences, (T, D), or token ids, not rows of shape {shape}; use net=mlp or cnn")


def choose_view(reads: Reads, vocabulary: int | None) -> PerPosition | LastPosition | Pooled:
    """Return the view that a name chooses.

    Args:
        reads: positions, last, pooled or auto, which is positions of tokens and last of values.
        vocabulary: the number of tokens, or None where rows are values.

    """
    default = "last" if vocabulary is None else "positions"
    return choose("reads", default if reads == "auto" else reads, VIEWS)()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
