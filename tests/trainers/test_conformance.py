"""Our rules pass the suite with other options than those of their configurations, which the README's table runs."""

from localearn import ForwardGradient, MonoForward, ProductFeedbackAlignment, SignSymmetry
from localearn.testing import KINDS
from tests.helpers.conformance import BASIC, Suite

PATHS = [kind for kind in KINDS if kind not in ("gat", "recurrent")]


class TestMonoForwardJointFF(Suite):
    runs_on = BASIC

    def make(self, net):
        return MonoForward(net, prediction="ff")


class TestMonoForwardGreedy(Suite):
    runs_on = BASIC

    def make(self, net):
        return MonoForward(net, schedule="greedy")


class TestMonoForwardGreedyFF(Suite):
    runs_on = BASIC

    def make(self, net):
        return MonoForward(net, schedule="greedy", prediction="ff")


class TestSignSymmetryRedrawn(Suite):
    runs_on = BASIC
    kinds = PATHS
    draws_noise = True

    def make(self, net):
        return SignSymmetry(net, "brsf")


class TestSignSymmetryDrawnOnce(Suite):
    runs_on = BASIC
    kinds = PATHS

    def make(self, net):
        return SignSymmetry(net, "frsf")


class TestProductFeedbackAlignmentOrthogonal(Suite):
    runs_on = BASIC
    kinds = PATHS

    def make(self, net):
        return ProductFeedbackAlignment(net, expansion=1, feedback="orthogonal")


class TestForwardGradientWeight(Suite):
    runs_on = BASIC
    draws_noise = True
    steps, lr, learns_to = 200, 0.02, 0.7

    def make(self, net):
        return ForwardGradient(net, space="weight", noise="rademacher")


class TestForwardGradientWeightTangents(Suite):
    runs_on = BASIC
    draws_noise = True

    def make(self, net):
        return ForwardGradient(net, space="weight", tangents=8)


class TestForwardGradientActivity(Suite):
    runs_on = BASIC
    # Where rows are coupled, on a graph or by batch normalisation, one tangent has too much variance for these steps.
    draws_noise = True
    steps, lr, learns_to = 300, 0.01, 0.7

    def make(self, net):
        return ForwardGradient(net, space="activity", noise="rademacher", tangents=8)
