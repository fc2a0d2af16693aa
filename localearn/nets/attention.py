"""Attention and feed-forward layers: what transformers of text and of images are made of."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.layers import is_transforming


class AttentionLayer(nn.Module):
    """Pre-norm self-attention with its residual: each position reads the others.

        q, k, v = split(norm(h) W_qkv^T + b)                   (N, heads, T, D / heads) each
        z = h + dropout(join(softmax(q k^T / sqrt(d)) v) W_o^T + b_o)

    The four maps are two nn.Linear, `qkv` and `out`, so that rules which go around linear maps find them.

    Args:
        width: D, a multiple of heads.
        heads: how many.
        causal: whether a position reads itself and those before it alone.
        dropout: of what is added to h.

    """

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0):
        super().__init__()
        if not isinstance(heads, int) or heads < 1 or width % heads:
            raise UserError(f"the heads share the width, so it is a multiple of them; {width} is none of {heads!r}")
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = dropout_layer(dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return z, (N, T, D), of h, (N, T, D).

        mask: which positions of a row count, (N, T) bool; the others are read by themselves alone.
        """
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        read = attention(q, k, v, causal=self.causal, mask=mask)
        return h + self.dropout(self.out(read.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """A pre-norm two-layer perceptron at each position, with its residual: z = h + dropout(W_2 f(W_1 norm(h))).

    Args:
        width: D.
        hidden: the width between the two; 4 D where none is given.
        activation: f, by name.
        dropout: of what is added to h.

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
        """Return z, (..., D), of h, (..., D); what stands beside h is for the attention."""
        return h + self.dropout(self.out(self.activation(self.inner(self.norm(h)))))


class TransformerLayer(nn.Module):
    """An `AttentionLayer`, then a `FeedForward`: h, (N, T, D), to z, (N, T, D)."""

    def __init__(self, attention: AttentionLayer, feed_forward: FeedForward):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return z; context: the mask of positions, where the net takes one."""
        return self.feed_forward(self.attention(h, *context))


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (N, heads, T, d), of q, k and v of that shape.

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
