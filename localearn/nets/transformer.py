"""A transformer for sequences: self-attention and an MLP, each adding to a stream that layer normalisation reads."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.nets.block import Block
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import check_classes, check_row, choose
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.views import LastPosition, Normalized, PerPosition, Pooled
from localearn.tasks import LanguageModelling

Cut = Literal["layer", "sublayer"]
Reads = Literal["auto", "positions", "last", "pooled"]

VIEWS = {"positions": PerPosition, "last": LastPosition, "pooled": Pooled}


class Transformer(Net):
    """A causal, pre-norm transformer: h' = h + attention(norm(h)), h'' = h' + W2 f(W1 norm(h')), L times.

    A position sees itself and those before it. The first block embeds the tokens, or maps values (T, D) to the width,
    and adds a learned embedding of each position. The layer normalisation before the readout is the net's view
    (`Normalized`), so that a local rule's heads read the stream of every block as the readout reads the last one's.
    Weights are drawn normal with deviation 1 / sqrt(fan_in), of maps into the stream 1 / sqrt(2 L fan_in), embeddings
    with deviation 0.5; biases are 0.

    Args:
        input_shape: (T,) token ids, T being the most positions that it takes, or (T, D) values.
        classes: the readout's width: the vocabulary of a language model.
        vocabulary: the number of tokens; None where rows are values.
        layers: L.
        width: of the stream.
        heads: of attention, which share the width evenly.
        expansion: the MLP's hidden width, in widths.
        activation: f, as of `MLP`.
        dropout: of the embedding, of the attention's shares and of what is added to the stream.
        blocks: "layer" makes a block of each layer. "sublayer" makes three: attention, h'; the MLP's hidden layer,
            (h', f(W1 norm(h'))) side by side; and its output, h''. Direct feedback alignment then sends its signals to
            the three points of the "micro" form of Launay et al., arXiv 2006.12878, by "layer" to those of its "macro"
            form. Their layers normalise what they have added, ours what they read; in both the signal passes the
            normalisation, and the embedding learns by the derivative of the first block.
        reads: what a head reads: "positions", each by itself, "last", "pooled", their mean; "auto" is positions of
            tokens and last of values.

    Raises:
        UserError: for options out of their range, and for rows that are no sequence.

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
        if width % heads:
            raise UserError(f"heads share the width evenly, and {width} is no multiple of {heads}; use another of them")
        cut = choose("blocks", blocks, {"layer": Layer.whole, "sublayer": Layer.parts})
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += cut(Layer(width, heads, expansion, activation, dropout))
        parts[0] = nn.Sequential(Embedding(shape, vocabulary, width, dropout), parts[0])
        readout = nn.Linear(width, check_classes(classes))
        _draw(parts, readout, layers)
        takes, view = InputSpec(shape, vocabulary), Normalized(reading(reads, vocabulary))
        super().__init__(map(Block, parts), readout, takes=takes, view=view)
        if isinstance(view.view, PerPosition):
            self.task = LanguageModelling(classes)


class Embedding(nn.Module):
    """Tokens, (N, T) ids, or values, (N, T, D), with their places: (N, T, width)."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int | None, width: int, dropout: float):
        super().__init__()
        self.tokens = nn.Linear(shape[1], width) if vocabulary is None else nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(shape[0], width)
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both embeddings."""
        return self.dropout(self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device)))


class Attention(nn.Module):
    """Self-attention of several heads: softmax(q k^T / sqrt(D / heads)) v of each, then a linear map.

    causal: whether a position sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, *, causal: bool = True):
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D)."""
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.dropout if self.training else 0.0
        if torch._C._are_functorch_transforms_active():  # for which torch's kernel has no forward-mode derivative
            mixed = _attend(q, k, v, rate, self.causal)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Return the options that no layer shows."""
        return f"heads={self.heads}, dropout={self.dropout}, causal={self.causal}"


class Attend(nn.Module):
    """h' = h + attention(norm(h))."""

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = True):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout, causal=causal)
        self.dropout = dropout_layer(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D)."""
        return h + self.dropout(self.attention(self.norm(h)))


class Widen(nn.Module):
    """(h, f(W1 norm(h) + b1)), side by side."""

    def __init__(self, width: int, hidden: int, activation: str):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, hidden)
        self.activation = activation_layer(activation)

    def hidden(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, hidden)."""
        return self.activation(self.linear(self.norm(h)))

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D + hidden)."""
        return torch.cat([h, self.hidden(h)], dim=-1)


class Narrow(nn.Module):
    """h + W2 u + b2, of h and u side by side."""

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.width = width
        self.linear = nn.Linear(hidden, width)
        self.dropout = dropout_layer(dropout)

    def added(self, h: Tensor, u: Tensor) -> Tensor:
        """Return h + W2 u + b2 of (N, T, D) and (N, T, hidden)."""
        return h + self.dropout(self.linear(u))

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D + hidden) to (N, T, D)."""
        return self.added(h[..., : self.width], h[..., self.width :])


class Layer(nn.Module):
    """A layer of a transformer: attention, then an MLP at each position, both added to the stream."""

    def __init__(self, width: int, heads: int, expansion: int, activation: str, dropout: float, *, causal: bool = True):
        super().__init__()
        self.attend = Attend(width, heads, dropout, causal=causal)
        self.widen = Widen(width, expansion * width, activation)
        self.narrow = Narrow(width, expansion * width, dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D)."""
        h = self.attend(h)
        return self.narrow.added(h, self.widen.hidden(h))

    def whole(self) -> list[nn.Module]:
        """Return the layer as one block."""
        return [self]

    def parts(self) -> list[nn.Module]:
        """Return the layer as three blocks."""
        return [self.attend, self.widen, self.narrow]


def check_sequence(net: str, input_shape: tuple[int, ...] | int, vocabulary: int | None) -> tuple[int, ...]:
    """Return the shape of a row, or raise a UserError unless it is (T,) tokens or (T, D) values."""
    shape = check_row("input_shape", input_shape)
    if len(shape) == (2 if vocabulary is None else 1):
        return shape
    if vocabulary is not None:
        raise UserError(f"{net} takes token ids, rows of shape (T,), not {shape}")
    raise UserError(
        f"{net} takes sequences, rows of shape (T, D), or token ids, not rows of shape {shape}; use net=mlp or cnn"
    )


def reading(reads: Reads, vocabulary: int | None) -> PerPosition | LastPosition | Pooled:
    """Return the view that a name chooses."""
    by_itself = "last" if vocabulary is None else "positions"
    return choose("reads", by_itself if reads == "auto" else reads, VIEWS)()


def _attend(q: Tensor, k: Tensor, v: Tensor, rate: float, causal: bool) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, of (N, heads, T, d), in operations that every transform of torch.func has."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return F.dropout(scores.softmax(-1), rate, rate > 0) @ v


def _draw(parts: list[nn.Module], readout: nn.Linear, layers: int) -> None:
    """Draw all weights, as the class's docstring has it."""
    for part in (*parts, readout):
        for name, layer in part.named_modules():
            if isinstance(layer, nn.Linear):
                into_stream = (
                    name.endswith("attention.out")
                    or name.endswith("narrow.linear")
                    or (isinstance(part, Narrow) and layer is part.linear)
                )
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features * (2 * layers if into_stream else 1)))
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.5)
