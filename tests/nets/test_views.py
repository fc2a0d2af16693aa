"""What heads read of a block's output, and what a net takes."""

import functools

import pytest
import torch
from torch import nn
from torch.func import jvp

from localearn import (
    CNN,
    Backprop,
    Batch,
    Block,
    CaFo,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    ForwardForward,
    ForwardGradient,
    LikelihoodRatio,
    MonoForward,
    Net,
    Regression,
    UserError,
    load,
)
from localearn.nets import Flattened, InputSpec, LastPosition, Normalized, PerPosition, Pooled
from localearn.testing.probes import gradients_of

SHAPES = {"row": (5,), "sequence": (7, 5), "map": (5, 3, 4)}
VIEWS = [Flattened(), Pooled(), PerPosition(), LastPosition(), Normalized(), Normalized(Pooled())]
LINEAR = VIEWS[:4]
OF_SEQUENCES = VIEWS[3:]
CASES = [
    (view, shape)
    for view in VIEWS
    for shape in SHAPES.values()
    if len(shape) == 2 or (len(shape) < 3 or view is not VIEWS[2]) * (view not in OF_SEQUENCES)
]


@pytest.mark.parametrize(("view", "shape"), CASES, ids=[f"{view}-{len(shape)}" for view, shape in CASES])
def test_a_signal_is_spread_by_the_transpose(view, shape):
    torch.manual_seed(0)
    h = torch.randn(6, *shape, dtype=torch.float64)
    read = view(h)
    assert read.shape[-1] == view.width(shape) and len(read) == 6
    signal = torch.randn_like(read)
    spread = view.spread(signal, h)
    assert spread.shape == h.shape
    if view in LINEAR:
        torch.testing.assert_close((read * signal).sum(), (h * spread).sum())
    moved = h.clone().requires_grad_()
    (expected,) = torch.autograd.grad(view(moved), moved, signal)
    torch.testing.assert_close(spread, expected)
    tangents = torch.randn(2, *h.shape, dtype=h.dtype)
    for tangent, along in zip(tangents, view.along(tangents, h), strict=True):
        torch.testing.assert_close(along, jvp(view, (h,), (tangent,))[1])


def sequences(view, depth=2):
    """Return a net of token ids, of an embedding and maps of each position."""
    torch.manual_seed(0)
    blocks = [Block(nn.Embedding(11, 6), nn.Tanh())]
    blocks += [Block(nn.Linear(6, 6), nn.Tanh()) for _ in range(depth - 1)]
    width = 6 * 7 if isinstance(view, Flattened) else 6
    net = Net(blocks, nn.Linear(width, 3), takes=InputSpec((7,), vocabulary=11), view=view)
    return net.double().for_task(Regression(outputs=3))


def tokens(view):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(11, (5, 7), generator=generator)
    of_each = (5, 7, 3) if isinstance(getattr(view, "view", view), PerPosition) else (5, 3)
    return Batch(x, torch.randn(*of_each, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_net_of_token_ids_knows_its_shapes(view):
    net, batch = sequences(view), tokens(view)
    assert (net.input_shape, net.graph, net.shapes, net.classes) == ((7,), False, ((7, 6), (7, 6)), 3)
    assert net.widths == (42, 42)
    assert net.reads == ((42, 42) if isinstance(view, Flattened) else (6, 6))
    assert net.trial()[0].dtype == torch.int64
    assert net(batch.x).shape == batch.target.shape


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_last_block_of_local_and_feedback_rules_has_the_true_gradient_through_any_view(view):
    """Mono-Forward's last loss is the net's; DFA's signal is the readout's own transpose where B is."""
    net, batch = sequences(view), tokens(view)
    true = gradients_of(Backprop(net), batch)
    local = {name: g for name, g in gradients_of(MonoForward(net), batch).items() if "blocks.1" in name}
    feedback = DirectFeedbackAlignment(net, scale="width")
    weight = net.readout.get_parameter("weight").detach()
    feedback.feedback[:, : weight.shape[1]] = weight / feedback.scales[-1]
    fed = {name: g for name, g in gradients_of(feedback, batch).items() if "blocks.1" in name}
    assert len(local) == len(fed) == 2
    for found in (local, fed):
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, true[f"all/{name.split('/')[1]}"])


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_projection_has_the_gradient_of_its_own_net(view):
    net, batch = sequences(view), tokens(view)
    trainer = MonoForward(net)
    found = gradients_of(trainer, batch)
    h = net.block(0)(batch.x)
    outputs = trainer.projections[0](view(h))
    loss = (outputs - batch.target).square().mean()
    weight = net.block(0).op.get_parameter("weight")
    (expected,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(found["all blocks/net.blocks.0.op.weight"], expected)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_directional_derivative_goes_through_the_view(view):
    """By the readout's true gradient, and by the mean over many tangents of the block before it."""
    net, batch = sequences(view), tokens(view)
    true = gradients_of(Backprop(net), batch)
    torch.manual_seed(0)
    found = gradients_of(ForwardGradient(net, tangents=2000), batch)
    torch.testing.assert_close(found["all/net.readout.weight"], true["all/net.readout.weight"])
    one, other = (gradients["all/net.blocks.1.op.weight"].flatten() for gradients in (found, true))
    # The cosine's deviation from 1 is of order values a row / tangents = 42 / 2000; alarms by chance below 1e-6.
    assert torch.cosine_similarity(one, other, dim=0) > 0.9


@pytest.mark.parametrize("view", [Flattened(), Pooled()], ids=str)
def test_the_readout_of_a_net_with_noise_reads_by_the_view_too(view):
    net, batch = sequences(view), tokens(view)
    true = gradients_of(Backprop(net), batch)
    found = gradients_of(LikelihoodRatio(net, layerwise=True), batch)
    torch.testing.assert_close(found["all/net.readout.weight"], true["all/net.readout.weight"])


RULES = [Backprop, MonoForward, ForwardForward, CaFo, DirectFeedbackAlignment, FeedbackAlignment]


@pytest.mark.parametrize("rule", RULES)
def test_rules_learn_on_pooled_maps(rule):
    torch.manual_seed(0)
    channels = 11 if rule is ForwardForward else 1  # with room for a label
    whole = CNN((channels, 8, 8), 10, channels=(16, 32), norm="batch")
    net = Net(map(whole.block, range(2)), nn.Linear(32, 10), input_shape=(channels, 8, 8), view=Pooled())
    assert net.reads == (16, 32)
    optim = functools.partial(torch.optim.Adam, lr=0.01)
    record = rule(net).fit(load("digits"), epochs=6, batch_size=64, optim=optim, device="cpu")
    assert record.test_accuracy is not None and record.test_accuracy > 0.3  # of ten classes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "takes, an InputSpec; not both"),
        ({"input_shape": (4,), "takes": InputSpec((4,))}, "takes, an InputSpec; not both"),
        ({"takes": InputSpec((4,)), "graph": True}, "takes, an InputSpec; not both"),
    ],
)
def test_a_net_is_told_what_it_takes_once(options, told):
    with pytest.raises(UserError, match=told):
        Net([Block(nn.Linear(4, 3))], nn.Linear(3, 2), **options)


def test_contexts_have_names():
    with pytest.raises(UserError, match=r"no context 'edges'.*; there are edge_index, mask"):
        InputSpec((4,), context=("edges",))
    with pytest.raises(UserError, match="vocabulary must be 1 or more"):
        InputSpec((4,), vocabulary=0)
    x, edges, mask = InputSpec((4,), context=("edge_index", "mask")).trial(torch.empty(0))
    assert (x.shape, edges.shape, mask.shape, mask.dtype) == ((2, 4), (2, 1), (2, 4), torch.bool)
    assert InputSpec((4,), context=("edge_index",)).graph and not InputSpec((4,)).graph
