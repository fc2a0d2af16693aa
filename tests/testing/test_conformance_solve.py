"""The suite fails a `Solve` that is wrong, for each way of being wrong that it names."""

import pytest
import torch
from torch import nn

from localearn import Trainer
from localearn.testing import probes, toy
from localearn.trainers import Solve

CLAIMS = {"trains_blocks": False, "judged_by": "errors", "learns_to": 0.9}


class Readout(Solve):
    """The right phase: the readout is a ridge regression on random blocks, from sums over the rows."""

    ridge = 1e-2

    def __init__(self, rule, parameters=()):
        self.rule, self.net, self.held = rule, rule.net, []
        super().__init__(
            "readout",
            (*rule.net.readout.parameters(), *parameters),
            predict=lambda h, *context: rule.net.readout(h),
            features=lambda x, *context: rule.net.hidden(x, *context).flatten(1),
            width=rule.net.widths[-1],
        )

    def products(self, batch):
        h = batch.rows(batch.x)
        h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        return [h.T @ h, h.T @ torch.eye(self.net.classes, dtype=h.dtype, device=h.device)[batch.y]]

    def accumulate(self, batch):
        sums = self.products(batch)
        self.held = [a + b for a, b in zip(self.held, sums, strict=True)] if self.held else sums

    def solution(self):
        a, b = self.held
        return torch.linalg.solve(a + self.ridge * a[-1, -1] * torch.eye(len(a), dtype=a.dtype), b)

    def set_readout(self, solution):
        self.net.readout.get_parameter("weight").copy_(solution[:-1].T)
        self.net.readout.get_parameter("bias").copy_(solution[-1])

    def solve(self):
        self.set_readout(self.solution())
        self.held = []
        return {"loss": torch.zeros(())}


class Solves(Trainer):
    """A right rule, right until a phase of another class breaks one thing."""

    phase: type[Readout] = Readout

    def phases(self):
        return [self.phase(self)]

    def gradients(self, batch):
        raise AssertionError("a rule that is solved in one pass has no gradients")


def by(phase):
    """Return the rule whose phase is of that class."""
    return type(phase.__name__, (Solves,), {"phase": phase})


class OppositeSolution(Readout):
    def solution(self):
        return -super().solution()


class ZeroSolution(Readout):
    def solution(self):
        return 0 * super().solution()


class LastBatchAlone(Readout):
    def accumulate(self, batch):
        self.held = self.products(batch)


class RidgeOfASum(Readout):
    def solution(self):
        a, b = self.held
        return torch.linalg.solve(a + torch.eye(len(a), dtype=a.dtype), b)


class KeepsItsSums(Readout):
    def solve(self):
        kept = [2 * self.held[0], self.held[1]]
        metrics = super().solve()
        self.held = kept
        return metrics


class SolvesTooEarly(Readout):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.set_readout(self.solution())


class SumsInTheState(Readout):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.rule.register_buffer("products_so_far", self.held[0])


class MovesTheBlocks(Readout):
    def solve(self):
        next(self.net.blocks.parameters()).mul_(1.5)
        return super().solve()


class FillsGradients(Readout):
    def solve(self):
        for p in self.net.readout.parameters():
            p.grad = torch.zeros_like(p)
        return super().solve()


class NoLoss(Readout):
    def solve(self):
        super().solve()
        return {}


class ChangesTheBatch(Readout):
    def accumulate(self, batch):
        super().accumulate(batch)
        batch.x.add_(1)


class ReadsInEveryBatch(Readout):
    def accumulate(self, batch):
        if batch.x.isfinite().all():
            super().accumulate(batch)


class SumsElsewhere(Readout):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.held = [s + torch.zeros(s.shape, device="cpu", dtype=s.dtype) for s in self.held]


class StartsFromItsDraw(Solves):
    def __init__(self, net):
        super().__init__(net)
        self.prior = torch.randn(())

    def phases(self):
        phase = Readout(self)
        right = phase.solution
        phase.solution = lambda: right() + self.prior
        return [phase]


class LeavesTraining(Readout):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.net.eval()


class AnotherDtype(Readout):
    def solve(self):
        metrics = super().solve()
        self.net.readout.float()
        return metrics


class ClaimsAParameter(Solves):
    def __init__(self, net):
        super().__init__(net)
        self.unused = nn.Parameter(torch.zeros(1))

    def phases(self):
        return [Readout(self, [self.unused])]


WRONG = [
    (OppositeSolution, "test_learns_its_task"),
    (ZeroSolution, "test_learns_its_task"),
    (LastBatchAlone, "test_gradient_is_of_the_batch_mean"),
    (RidgeOfASum, "test_gradient_is_of_the_batch_mean"),
    (KeepsItsSums, "test_fills_gradients_or_solves"),
    (SolvesTooEarly, "test_fills_gradients_or_solves"),
    (SumsInTheState, "test_fills_gradients_or_solves"),
    (MovesTheBlocks, "test_fills_gradients_or_solves"),
    (MovesTheBlocks, "test_every_trained_parameter_moves"),
    (FillsGradients, "test_fills_gradients_or_solves"),
    (NoLoss, "test_fills_gradients_or_solves"),
    (ChangesTheBatch, "test_fills_gradients_or_solves"),
    (ReadsInEveryBatch, "test_keeps_the_device_and_never_waits_for_it"),
    (SumsElsewhere, "test_keeps_the_device_and_never_waits_for_it"),
    (StartsFromItsDraw, "test_state_dict_round_trips"),
    (LeavesTraining, "test_scores_and_leaves_modes_alone"),
    (AnotherDtype, "test_keeps_the_dtype"),
    (ClaimsAParameter, "test_every_trained_parameter_moves"),
]


@pytest.mark.parametrize("kind", ["mlp", "sage"])
@pytest.mark.parametrize("name", sorted({name for _, name in WRONG}))
def test_the_rule_that_the_wrong_ones_break_is_right(run, suite_of, name, kind):
    run(suite_of(Solves, **CLAIMS), name, kind)


@pytest.mark.parametrize(("wrong", "name"), WRONG, ids=[f"{wrong.__name__}-{name}" for wrong, name in WRONG])
def test_a_wrong_rule_fails(run, suite_of, wrong, name):
    rule = by(wrong) if issubclass(wrong, Readout) else wrong
    with pytest.raises((AssertionError, RuntimeError)):
        run(suite_of(rule, **CLAIMS), name)


def test_a_rule_without_trained_blocks_says_so(run, suite_of):
    with pytest.raises(AssertionError, match="trains_blocks is True"):
        run(suite_of(Solves), "test_every_trained_parameter_moves")


@pytest.mark.parametrize("kind", ["mlp", "gcn"])
def test_halves_share_out_the_labelled_rows(kind):
    batch = toy(kind).batch
    one, other = probes.halves(batch)
    assert torch.equal(torch.cat([one.rows(one.x), other.rows(other.x)]), batch.rows(batch.x))
    assert torch.equal(torch.cat([one.y, other.y]), batch.y)
    assert len(one.y) == len(other.y)
