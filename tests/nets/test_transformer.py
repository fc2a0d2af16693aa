"""The transformer: causal, its blocks those of NumPy's arithmetic, and the same net however it is cut."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from localearn import Backprop, Batch, DirectFeedbackAlignment, FeedbackAlignment, MonoForward, Transformer
from localearn.errors import UserError
from localearn.nets import LastPosition, Normalized, PerPosition, Pooled
from localearn.nets.introspection import linear_maps, unmapped_matrices
from localearn.tasks import LanguageModelling
from localearn.testing.probes import gradients_of

TOKENS, POSITIONS, WIDTH, HEADS = 7, 6, 8, 2


def transformer(seed=0, **options):
    torch.manual_seed(seed)
    options = {"vocabulary": TOKENS, "layers": 2, "width": WIDTH, "heads": HEADS, **options}
    return Transformer((POSITIONS,), TOKENS, **options).double()


def tokens(rows=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(TOKENS, (rows, POSITIONS), generator=generator)
    y = torch.randint(TOKENS, (rows, POSITIONS), generator=generator)
    y[0, 3:] = -100
    return Batch(x, y)


@pytest.mark.parametrize("blocks", ["layer", "sublayer"])
def test_an_output_depends_on_no_later_token_and_on_every_earlier_one(blocks):
    net, x = transformer(blocks=blocks), tokens().x
    before = net(x)
    for t in range(POSITIONS):
        changed = x.clone()
        changed[:, t] = (changed[:, t] + 1) % TOKENS
        moved = (net(changed) - before).abs().amax(-1).amax(0) > 0
        assert moved.tolist() == [position >= t for position in range(POSITIONS)]
    assert not net.looks_ahead()


def test_both_cuts_are_the_same_net():
    whole, cut, x = transformer(), transformer(blocks="sublayer"), tokens().x
    assert (whole.depth, cut.depth) == (2, 6)
    assert cut.shapes == ((6, 8), (6, 40), (6, 8)) * 2 and cut.reads == (8, 40, 8) * 2
    torch.testing.assert_close(whole(x), cut(x), rtol=0, atol=0)


def numpy_norm(h: np.ndarray, weight: Any = 1.0, bias: Any = 0.0) -> np.ndarray:
    return (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * weight + bias


def test_the_output_is_that_of_numpys_arithmetic():
    net, x = transformer(layers=1), tokens().x
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))  # scales and biases that are not 1 and 0
    w = {name.removeprefix("blocks.0.op."): p.detach().numpy() for name, p in net.named_parameters()}
    h = w["0.tokens.weight"][x.numpy()] + w["0.places.weight"]
    a, f = "1.attention", "1.feed_forward"
    n = numpy_norm(h, w[f"{a}.norm.weight"], w[f"{a}.norm.bias"])
    q, k, v = np.split(n @ w[f"{a}.qkv.weight"].T + w[f"{a}.qkv.bias"], 3, axis=-1)
    read, size = np.zeros_like(h), WIDTH // HEADS
    for row in range(len(h)):
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            for t in range(POSITIONS):
                scores = k[row, : t + 1, own] @ q[row, t, own] / math.sqrt(size)
                shares = np.exp(scores) / np.exp(scores).sum()
                read[row, t, own] = shares @ v[row, : t + 1, own]
    h = h + read @ w[f"{a}.out.weight"].T + w[f"{a}.out.bias"]
    n = numpy_norm(h, w[f"{f}.norm.weight"], w[f"{f}.norm.bias"])
    z = n @ w[f"{f}.inner.weight"].T + w[f"{f}.inner.bias"]
    u = z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    h = h + u @ w[f"{f}.out.weight"].T + w[f"{f}.out.bias"]
    expected = numpy_norm(h) @ w["readout.weight"].T + w["readout.bias"]
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("blocks", ["layer", "sublayer"])
def test_a_local_rule_has_the_gradient_of_each_blocks_own_loss(blocks):
    net, batch = transformer(blocks=blocks), tokens()
    trainer = MonoForward(net)
    found = gradients_of(trainer, batch)
    for k in range(net.depth):
        h = net.block(k)(net.hidden(batch.x, depth=k).detach())
        logits = trainer.goodness(k, h)
        counted = batch.target != -100
        loss = -logits.log_softmax(-1)[counted].gather(-1, batch.target[counted].unsqueeze(-1)).mean()
        names = [name for name, _ in net.block(k).named_parameters()]
        expected = torch.autograd.grad(loss, [net.block(k).get_parameter(name) for name in names])
        for name, gradient in zip(names, expected, strict=True):
            torch.testing.assert_close(found[f"all blocks/net.blocks.{k}.{name}"], gradient)


@pytest.mark.parametrize("blocks", ["layer", "sublayer"])
def test_direct_feedback_has_the_last_blocks_true_gradient_by_the_readouts_own_weights(blocks):
    net, batch = transformer(blocks=blocks), tokens()
    trainer = DirectFeedbackAlignment(net, scale="width")
    weight = net.readout.get_parameter("weight").detach()
    trainer.feedback[:, :WIDTH] = weight / trainer.scales[-1]
    found, true = gradients_of(trainer, batch), gradients_of(Backprop(net), batch)
    last = [name for name in found if f"blocks.{net.depth - 1}." in name]
    assert last
    for name in last:
        torch.testing.assert_close(found[name], true[name])
    first = [name for name in found if ".blocks.0." in name]
    assert len(first) == len([name for name in true if ".blocks.0." in name])


def test_every_matrix_is_a_linear_map_or_a_table_through_which_no_error_passes():
    net = transformer()
    maps = linear_maps(net)
    assert unmapped_matrices(net, maps) == []
    inner = {m.name for m in maps if m.inner}
    assert len(inner) == 2 * 4 + 1
    FeedbackAlignment(net)


def test_values_are_read_at_the_last_position_or_by_their_mean():
    torch.manual_seed(0)
    x = torch.randn(3, POSITIONS, 4)
    views: dict[Any, type] = {"auto": LastPosition, "last": LastPosition, "pooled": Pooled, "positions": PerPosition}
    for reads, view in views.items():
        net = Transformer((POSITIONS, 4), 5, layers=1, width=WIDTH, heads=HEADS, reads=reads)
        assert isinstance(net.view, Normalized) and isinstance(net.view.view, view)
        assert net(x).shape == ((3, POSITIONS, 5) if view is PerPosition else (3, 5))
        assert net.positions == ((POSITIONS,) if view is PerPosition else ())
    assert isinstance(transformer().task, LanguageModelling)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "width must be a multiple of heads; 8 is not a multiple of 3"),
        ({"layers": 0}, "layers must be a positive whole number"),
        ({"blocks": "micro"}, "no blocks 'micro'; there are layer, sublayer"),
        ({"reads": "first"}, "no reads 'first'.*; there are positions, last, pooled"),
        ({"activation": "swish"}, "no activation 'swish'"),
        ({"vocabulary": None}, r"takes sequences, \(T, D\), or token ids, not rows of shape \(6,\)"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        transformer(**options)
