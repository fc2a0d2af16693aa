"""Forward-Forward passes the suite of every rule, with each of its options."""

from typing import Any

from localearn import CNN, GNN, MLP, ForwardForward
from localearn.testing import RuleConformance


def with_room(net):
    """Return a net of the conformance suite's kinds, new, that takes as many channels more as it has classes."""
    like = next(net.parameters())
    channels, *places = net.input_shape
    shape = (channels + net.classes, *places)
    conv = {"GCNConv": "gcn", "SAGEConv": "sage", "GATConv": "gat"}.get(type(net.block(0).op).__name__, "")
    wide = {
        MLP: lambda: MLP(shape, net.classes, widths=net.widths),
        CNN: lambda: CNN(shape, net.classes, channels=[h[0] for h in net.shapes]),
        GNN: lambda: GNN(shape, net.classes, widths=net.widths, conv=conv, dropout=0.0, heads=2),
    }[type(net)]()
    return wide.to(device=like.device, dtype=like.dtype)


class TestDefault(RuleConformance):
    # The readout on random blocks leaves next to nothing of the loss of a toy graph; see `test_learns_the_digits`.
    test_learns_in_its_blocks: Any = None  # pyright: ignore[reportIncompatibleMethodOverride]
    steps, lr = 300, 0.03

    def make(self, net):
        return ForwardForward(with_room(net))


class Goodness(RuleConformance):
    """The suite judges learning by the cross-entropy of the scores; goodness is not trained to be logits.

    That it learns is shown on the digits, below.
    """

    test_learns_in_its_blocks = None  # pyright: ignore[reportAssignmentType]


class TestMeanGoodness(Goodness):
    def make(self, net):
        return ForwardForward(with_room(net), goodness="mean", prediction="goodness")


class TestHardNegativesAndCollaborationOfAll(Goodness):
    # The readout of all blocks chooses the wrong labels, and later blocks' goodness weighs an earlier one's rows.
    local, sends_back_weights = False, True

    def make(self, net):
        return ForwardForward(with_room(net), negatives="hard", collaboration="all", prediction="goodness")


class TestGreedyCollaborationWithPrevious(Goodness):
    def make(self, net):
        return ForwardForward(with_room(net), schedule="greedy", collaboration="previous", prediction="goodness")


class TestGreedySoftmax(RuleConformance):
    steps, lr = 300, 0.05

    def make(self, net):
        return ForwardForward(with_room(net), schedule="greedy")
