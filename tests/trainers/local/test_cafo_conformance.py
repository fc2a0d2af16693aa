"""CaFo passes the suite of every rule with each of its losses and solvers; its defaults do in the README's table.

Random blocks are not trained, so that the rule is held against chance, and judged by its errors: the probabilities of a
regression of 0 and 1 have a cross-entropy of 0.31 at best, half of chance's.
"""

from localearn import CaFo
from tests.helpers.conformance import BASIC, Suite


class RandomBlocks(Suite):
    runs_on = BASIC
    trains_blocks = False
    judged_by, learns_to = "errors", 0.8


class TestRandomBlocksByCrossEntropy(RandomBlocks):
    tasks = ("classes", "tokens")  # a loss of labels

    def make(self, net):
        return CaFo(net, loss="ce", combine="average")


class TestRandomBlocksBySparsemax(RandomBlocks):
    tasks = ("classes", "tokens")  # a loss of labels

    def make(self, net):
        return CaFo(net, loss="sparsemax")


class TestRandomBlocksBySteps(RandomBlocks):
    def make(self, net):
        return CaFo(net, solver="gradient")


class TestTrainedBlocksInClosedForm(Suite):
    runs_on = BASIC
    learns_to = 0.8  # of a loss that cannot fall below 0.31

    def make(self, net):
        return CaFo(net, blocks="dfa")


class TestTrainedBlocksByCrossEntropy(Suite):
    runs_on = BASIC
    tasks = ("classes", "tokens")  # a loss of labels

    def make(self, net):
        return CaFo(net, blocks="dfa", loss="ce")


class TestTrainedBlocksBySparsemax(Suite):
    runs_on = BASIC
    tasks = ("classes", "tokens")  # a loss of labels

    def make(self, net):
        return CaFo(net, blocks="dfa", loss="sparsemax")
