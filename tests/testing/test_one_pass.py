"""The suite fails a one-pass stage that is wrong, for each way of being wrong that it names."""

import pytest
import torch
from torch import nn

from localearn import Trainer
from localearn.testing import probes, toy
from localearn.trainers.base import Stage

CLAIMS = {"trains_blocks": False, "judged_by": "errors", "learns_to": 0.9}


class Solves(Trainer):
    """A right rule: the readout is a ridge regression on random blocks, from sums over the rows."""

    ridge = 1e-2

    def __init__(self, net):
        super().__init__(net)
        self.sums: list[torch.Tensor] = []

    def stages(self):
        return [Stage("readout", tuple(self.net.readout.parameters()), start=self.net.depth, one_pass=True)]

    def stage_input(self, x, *context):
        return self.net.hidden(x, *context).flatten(1)

    def stage_scores(self, h, *context):
        return self.net.readout(h)

    def gradients(self, batch):
        raise AssertionError("a one-pass stage has no gradients")

    def products(self, batch):
        h = batch.rows(batch.x)
        h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        return [h.T @ h, h.T @ torch.eye(self.net.classes, dtype=h.dtype, device=h.device)[batch.y]]

    def accumulate(self, batch):
        sums = self.products(batch)
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)] if self.sums else sums

    def solution(self):
        a, b = self.sums
        return torch.linalg.solve(a + self.ridge * a[-1, -1] * torch.eye(len(a), dtype=a.dtype), b)

    def set_readout(self, solution):
        self.net.readout.get_parameter("weight").copy_(solution[:-1].T)
        self.net.readout.get_parameter("bias").copy_(solution[-1])

    def solve(self):
        self.set_readout(self.solution())
        self.sums = []
        return {"loss": torch.zeros(())}


class OppositeSolution(Solves):
    def solution(self):
        return -super().solution()


class ZeroSolution(Solves):
    def solution(self):
        return 0 * super().solution()


class LastBatchAlone(Solves):
    def accumulate(self, batch):
        self.sums = self.products(batch)


class RidgeOfASum(Solves):
    def solution(self):
        a, b = self.sums
        return torch.linalg.solve(a + torch.eye(len(a), dtype=a.dtype), b)


class KeepsItsSums(Solves):
    def solve(self):
        kept = [2 * self.sums[0], self.sums[1]]
        metrics = super().solve()
        self.sums = kept
        return metrics


class SolvesTooEarly(Solves):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.set_readout(self.solution())


class SumsInTheState(Solves):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.register_buffer("products_so_far", self.sums[0])


class MovesTheBlocks(Solves):
    def solve(self):
        next(self.net.blocks.parameters()).mul_(1.5)
        return super().solve()


class FillsGradients(Solves):
    def solve(self):
        for p in self.net.readout.parameters():
            p.grad = torch.zeros_like(p)
        return super().solve()


class NoLoss(Solves):
    def solve(self):
        super().solve()
        return {}


class ChangesTheBatch(Solves):
    def accumulate(self, batch):
        super().accumulate(batch)
        batch.x.add_(1)


class ReadsInEveryBatch(Solves):
    def accumulate(self, batch):
        if batch.x.isfinite().all():
            super().accumulate(batch)


class SumsElsewhere(Solves):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.sums = [s + torch.zeros(s.shape, device="cpu", dtype=s.dtype) for s in self.sums]


class StartsFromItsDraw(Solves):
    def __init__(self, net):
        super().__init__(net)
        self.prior = torch.randn(())

    def solution(self):
        return super().solution() + self.prior


class LeavesTraining(Solves):
    def accumulate(self, batch):
        super().accumulate(batch)
        self.net.eval()


class AnotherDtype(Solves):
    def solve(self):
        metrics = super().solve()
        self.net.readout.float()
        return metrics


class ClaimsAParameter(Solves):
    def __init__(self, net):
        super().__init__(net)
        self.unused = nn.Parameter(torch.zeros(1))

    def stages(self):
        (stage,) = super().stages()
        return [Stage("readout", (*stage.parameters, self.unused), start=stage.start, one_pass=True)]


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


@pytest.mark.parametrize(("rule", "name"), WRONG, ids=[f"{rule.__name__}-{name}" for rule, name in WRONG])
def test_a_wrong_rule_fails(run, suite_of, rule, name):
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
