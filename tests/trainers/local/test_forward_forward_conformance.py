"""Forward-Forward passes the suite of every rule, with each of its options; its defaults do in the README's table.

Sums of goodness are no logits, so that prediction is judged by its errors. Without trained blocks it knows nothing.
"""

from localearn import ForwardForward
from tests.helpers.conformance import BASIC, Suite


class TestMeanGoodness(Suite):
    runs_on = BASIC
    tasks = ("classes",)
    judged_by = "errors"

    def make(self, net):
        return ForwardForward(net, goodness="mean", prediction="goodness")


class TestHardNegativesAndCollaborationOfAll(Suite):
    runs_on = BASIC
    tasks = ("classes",)
    # The readout of all blocks chooses the wrong labels, and later blocks' goodness weighs an earlier one's rows.
    local, sends_back_weights = False, True
    judged_by = "errors"

    def make(self, net):
        return ForwardForward(net, negatives="hard", collaboration="all", prediction="goodness")


class TestGreedyCollaborationWithPrevious(Suite):
    runs_on = BASIC
    tasks = ("classes",)
    judged_by = "errors"

    def make(self, net):
        return ForwardForward(
            net, schedule="greedy", negatives="uniform", collaboration="previous", prediction="goodness"
        )


class TestGreedySoftmax(Suite):
    runs_on = BASIC
    tasks = ("classes",)
    steps = 150
    by_kind = {"transformer": {"lr": 0.01, "steps": 300, "learns_to": 0.6}}  # noqa: RUF012 - as by its configuration

    def make(self, net):
        return ForwardForward(net, schedule="greedy", negatives="uniform", peer_scale="port")
