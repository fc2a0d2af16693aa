"""A rule whose blocks learn nothing, or the opposite, fails the suite, however good a readout it trains on them."""

import pytest
import torch
import torch.nn.functional as F

from localearn import Backprop, CaFo, DirectFeedbackAlignment, ForwardForward, MonoForward
from localearn.testing import KINDS, probes, toy
from localearn.trainers.phases import Descent, completed
from tests.marks import slow_but

ERRORS = {"judged_by": "errors"}
LEARNERS = {
    "backprop": (Backprop, {}),
    "mono_forward": (MonoForward, {}),
    "greedy mono_forward": (lambda net: MonoForward(net, schedule="greedy"), {}),
    "forward_forward": (ForwardForward, {"steps": 100}),
    "goodness": (lambda net: ForwardForward(net, prediction="goodness"), ERRORS),
    "dfa": (DirectFeedbackAlignment, {}),
    "cafo": (lambda net: CaFo(net, blocks="dfa"), ERRORS),
}
BREAKS = {
    "zero": lambda grad: grad.mul_(0),
    "flipped": lambda grad: grad.neg_(),
    "noise": lambda grad: grad.copy_(grad.norm() * F.normalize(torch.randn_like(grad).flatten(), dim=0).view_as(grad)),
}


def broken(rule, change):
    """Return the rule with that done to every gradient of its blocks."""

    def make(net):
        trainer = rule(net)
        phases = [changed(trainer, phase, change) for phase in trainer.phases()]
        trainer.phases = lambda: phases
        return trainer

    return make


def changed(trainer, phase, change):
    """Return the phase with that done to every gradient of the rule's blocks, if it has gradients."""
    if not isinstance(phase, Descent):
        return phase
    original = phase.gradients

    def gradients(batch):
        metrics = completed(original(batch))
        for p in trainer.net.blocks.parameters():
            if p.grad is not None:
                change(p.grad)
        return metrics

    phase.gradients = gradients
    return phase


@pytest.mark.parametrize("name", LEARNERS)
def test_what_the_broken_rules_are_made_of_learns(run, suite_of, name):
    rule, claims = LEARNERS[name]
    run(suite_of(broken(rule, lambda grad: grad), **claims), "test_learns_its_task")


# Not DFA's sign: -B is as random as B, and is learned with as well.
@pytest.mark.parametrize(
    ("name", "change"), [(n, c) for n in LEARNERS for c in BREAKS if (n in ("dfa", "cafo")) <= (c != "flipped")]
)
def test_blocks_that_are_trained_wrongly_fail(run, suite_of, name, change):
    rule, claims = LEARNERS[name]
    with pytest.raises(AssertionError, match=r"did not learn|rose on the toy task"):
        run(suite_of(broken(rule, BREAKS[change]), **claims), "test_learns_its_task")


@pytest.mark.parametrize("kind", slow_but(KINDS, "mlp", "gcn"))
def test_a_readout_leaves_much_of_a_toy_to_the_blocks(kind):
    batch, left = toy(kind).batch, []
    for seed in range(3):
        torch.manual_seed(seed)
        held = probes.train(Backprop(toy(kind).net()), batch, 100, 0.03, blocks=False)
        left.append(probes.loss_of(held, batch))
    assert sum(left) / len(left) > 0.3, left


def test_chance_is_what_the_best_constant_leaves():
    batch = toy("gcn").batch
    share = batch.y.float().mean().item()
    constant = torch.tensor([1 - share, share]).log().expand(len(batch.y), 2)
    assert probes.chance("loss", toy("gcn").data.task, batch) == pytest.approx(
        F.cross_entropy(constant, batch.y).item()
    )
    assert probes.chance("errors", toy("gcn").data.task, batch) == pytest.approx(min(share, 1 - share))
