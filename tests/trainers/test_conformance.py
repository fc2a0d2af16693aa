"""Every rule of ours passes the suite that is shipped for everybody's."""

from localearn import Backprop, DirectFeedbackAlignment, ForwardGradient, MonoForward
from localearn.testing import RuleConformance


class TestBackprop(RuleConformance):
    def make(self, net):
        return Backprop(net)


class TestMonoForwardJoint(RuleConformance):
    def make(self, net):
        return MonoForward(net)


class TestMonoForwardJointFF(RuleConformance):
    def make(self, net):
        return MonoForward(net, prediction="ff")


class TestMonoForwardGreedy(RuleConformance):
    def make(self, net):
        return MonoForward(net, schedule="greedy")


class TestMonoForwardGreedyFF(RuleConformance):
    def make(self, net):
        return MonoForward(net, schedule="greedy", prediction="ff")


class TestDirectFeedbackAlignment(RuleConformance):
    def make(self, net):
        return DirectFeedbackAlignment(net)


class TestForwardGradientWeight(RuleConformance):
    draws_noise = True
    steps, lr = 120, 0.02

    def make(self, net):
        return ForwardGradient(net, space="weight", noise="rademacher")


class TestForwardGradientWeightTangents(RuleConformance):
    draws_noise = True

    def make(self, net):
        return ForwardGradient(net, space="weight", tangents=8)


class TestForwardGradientActivity(RuleConformance):
    draws_noise = True
    steps, lr, learns_to = 300, 0.01, 0.7

    def make(self, net):
        return ForwardGradient(net, space="activity", noise="rademacher")


class TestForwardGradientActivityTangents(RuleConformance):
    draws_noise = True
    steps, lr, learns_to = 300, 0.01, 0.7

    def make(self, net):
        return ForwardGradient(net, space="activity", tangents=8)
