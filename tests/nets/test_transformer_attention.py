"""Attention and feed-forward layers against torch's own."""

import pytest
import torch
from torch import nn
from torch.func import jvp, vmap

from localearn.errors import UserError
from localearn.nets.transformer import AttentionLayer, FeedForward, TransformerLayer

WIDTH, HEADS = 8, 2


def layer(*, causal: bool = False) -> TransformerLayer:
    torch.manual_seed(0)
    return TransformerLayer(AttentionLayer(WIDTH, HEADS, causal=causal), FeedForward(WIDTH)).double()


def reference(of: TransformerLayer) -> nn.TransformerEncoderLayer:
    """Return torch's own pre-norm layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    ).double()
    attention, feed_forward = of.attention, of.feed_forward
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": attention.qkv.weight,
            "self_attn.in_proj_bias": attention.qkv.bias,
            "self_attn.out_proj.weight": attention.out.weight,
            "self_attn.out_proj.bias": attention.out.bias,
            "linear1.weight": feed_forward.inner.weight,
            "linear1.bias": feed_forward.inner.bias,
            "linear2.weight": feed_forward.out.weight,
            "linear2.bias": feed_forward.out.bias,
            "norm1.weight": attention.norm.weight,
            "norm1.bias": attention.norm.bias,
            "norm2.weight": feed_forward.norm.weight,
            "norm2.bias": feed_forward.norm.bias,
        }
    )
    return theirs


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_is_torchs_own_layer(causal, masked):
    ours = layer(causal=causal)
    h = torch.randn(3, 5, WIDTH, dtype=torch.float64)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    future = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    expected = reference(ours)(h, src_mask=future, src_key_padding_mask=~mask if masked else None)
    given = ours(h, mask) if masked else ours(h)
    torch.testing.assert_close(given[mask], expected[mask])
    assert given.isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
def test_is_the_same_under_vmap_and_forward_mode(causal):
    ours = layer(causal=causal)
    h, along = torch.randn(2, 3, 5, WIDTH, dtype=torch.float64)
    copies = torch.stack([h, along])
    torch.testing.assert_close(vmap(ours)(copies), torch.stack([ours(h), ours(along)]))
    value, derivative = jvp(ours, (h,), (along,))[:2]
    torch.testing.assert_close(value, ours(h))
    step = 1e-6
    torch.testing.assert_close(
        derivative, (ours(h + step * along) - ours(h - step * along)) / (2 * step), rtol=1e-6, atol=1e-8
    )


def test_a_causal_position_reads_none_after_it():
    ours = layer(causal=True)
    h = torch.randn(1, 5, WIDTH, dtype=torch.float64)
    changed = h.clone()
    changed[:, 3:] += 1
    before, after = ours(h), ours(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(UserError, match="width must be a multiple of heads; 8 is not a multiple of 3"):
        AttentionLayer(8, 3)
