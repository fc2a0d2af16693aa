"""A graph convolution as the readout: rules that take any readout serve it, the others say what to set instead."""

import pytest
import torch

from localearn import (
    GNN,
    Backprop,
    Batch,
    CaFo,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    ForwardForward,
    ForwardGradient,
    LikelihoodRatio,
    MonoForward,
    Pepita,
    ProductFeedbackAlignment,
    SignSymmetry,
    Unsupported,
)

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 4], [1, 0, 2, 1, 3, 2, 3]])


def net(conv="gcn", readout="conv"):
    torch.manual_seed(0)
    return GNN(4, 3, widths=(6, 6), conv=conv, dropout=0.0, activation="tanh", heads=2, readout=readout).double()


def batch():
    torch.manual_seed(1)
    return Batch(torch.randn(5, 4).double(), torch.tensor([0, 2]), (EDGES,), torch.tensor([0, 3]))


def grads(rule):
    rule.zero_grad()
    rule.gradients(batch())
    return {name: p.grad for name, p in rule.net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
def test_the_readout_reads_the_neighbours(conv):
    one, x = net(conv).eval(), batch().x
    other = x.clone()
    other[4] += 1  # three edges from node 1, two from node 2, one from node 3
    moved = (one(x, EDGES) - one(other, EDGES)).abs().sum(1) > 1e-12
    assert moved.tolist() == [False, True, True, True, True]
    moved = (net(conv, "linear").eval()(x, EDGES) - net(conv, "linear").eval()(other, EDGES)).abs().sum(1) > 1e-12
    assert moved.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    "rule", [DirectFeedbackAlignment, FeedbackAlignment, SignSymmetry, ProductFeedbackAlignment, ForwardGradient]
)
def test_the_readout_follows_its_true_gradient(rule):
    true, found = grads(Backprop(net())), grads(rule(net()))
    for name in true:
        if name.startswith("readout."):
            torch.testing.assert_close(found[name], true[name])
    assert found.keys() == true.keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda one: ForwardGradient(one, tangents=4000),
        lambda one: ForwardGradient(one, space="weight", tangents=4000),
        lambda one: LikelihoodRatio(one, sigma=0.02, copies=4000),
        lambda one: LikelihoodRatio(one, sigma=0.02, copies=4000, layerwise=True),
    ],
)
def test_estimates_are_of_the_whole_nets_gradient(make):
    """Cosine to the true gradient, each block; measured: 0.97 or more. Losses that the readout's edges reach count."""
    true, found = grads(Backprop(net())), grads(make(net()))
    for k in range(2):
        names = [name for name in true if name.startswith(f"blocks.{k}.")]
        one, other = (torch.cat([g[name].flatten() for name in names]) for g in (true, found))
        assert torch.cosine_similarity(one, other, dim=0) > 0.9


@pytest.mark.parametrize("rule", [MonoForward, ForwardForward, CaFo, Pepita])
def test_rules_that_need_a_linear_readout_say_what_to_set(rule):
    with pytest.raises(Unsupported, match=r"use net\.readout=linear"):
        rule(net())
