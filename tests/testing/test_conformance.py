"""The suite fails a rule that is wrong, for each way of being wrong that it names."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from localearn import CNN, MLP, DirectFeedbackAlignment, Trainer, Unsupported
from localearn.testing import KINDS, RuleConformance, check_rule, register_kind, register_task, toy, toys
from localearn.trainers.base import accumulate_grad, cross_entropy


def none_throws(grad):
    assert grad is not None
    return grad


class Wrong(Trainer):
    """Feedback alignment's cousin, right until a subclass breaks one thing: each block follows e B_k."""

    feedback: torch.Tensor

    def __init__(self, net):
        super().__init__(net)
        self.register_buffer("feedback", torch.randn(net.classes, max(net.widths)))

    def signal(self, k, error):
        return error @ self.feedback[:, : self.net.widths[k]]

    def gradients(self, batch):
        outputs, h = [], self.net.stem(batch.x)
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            outputs.append(h)
        logits = self.net.readout(h.detach().flatten(1))
        loss, error = self.task.error(logits, batch)
        accumulate_grad(logits, error)
        for k, h in enumerate(outputs):
            accumulate_grad(h, self.signal(k, error).view_as(h))
        return {"loss": loss}


class ZeroGradient(Wrong):
    def signal(self, k, error):
        return 0 * super().signal(k, error)


class OneBlockDead(Wrong):
    def signal(self, k, error):
        return super().signal(k, error) * (k > 0)


class SumNotMean(Wrong):
    def signal(self, k, error):
        return super().signal(k, error) * len(error)


class UnregisteredMatrix(Wrong):
    def __init__(self, net):
        super().__init__(net)
        self.hidden = [torch.randn(net.classes, n) for n in net.widths]

    def signal(self, k, error):
        return error @ self.hidden[k].to(error)


class ReadsLaterWeights(Wrong):
    def signal(self, k, error):
        if k < self.net.depth - 1:
            return super().signal(k, error)
        return error @ self.net.readout.get_parameter("weight").detach()


class HostRead(Wrong):
    def gradients(self, batch):
        metrics = super().gradients(batch)
        return metrics if metrics["loss"] < 1e6 else {}


class OtherDevice(Wrong):
    def signal(self, k, error):
        return super().signal(k, error) + torch.zeros(
            error.shape[0], self.net.widths[k], device="cpu", dtype=error.dtype
        )


class OtherDtype(Wrong):
    def gradients(self, batch):
        metrics = super().gradients(batch)
        for k in range(self.net.depth):
            self.net.block(k).float()
            self.net.block(k).to(batch.x.dtype)
        return metrics

    def predict(self, x, *context):
        return super().predict(x, *context).float()


class Unseeded(Wrong):
    dice = random.Random(0)

    def signal(self, k, error):
        return super().signal(k, error) * (1 + self.dice.random())


class UndeclaredNoise(Wrong):
    def signal(self, k, error):
        return super().signal(k, error) * torch.rand((), device=error.device, dtype=error.dtype)


class AttachedLoss(Wrong):
    def gradients(self, batch):
        super().gradients(batch)
        return {"loss": cross_entropy(self.net(batch.x, *batch.context), batch)}


class LossPerRow(Wrong):
    def gradients(self, batch):
        super().gradients(batch)
        logits = self.net(batch.x, *batch.context).detach()
        return {"loss": F.cross_entropy(batch.rows(logits), batch.y, reduction="none")}


class StepsItself(Wrong):
    @torch.no_grad()
    def gradients(self, batch):
        with torch.enable_grad():
            metrics = super().gradients(batch)
        for p in self.net.parameters():
            p.sub_(0.1 * none_throws(p.grad))
        return metrics


class ChangesTheBatch(Wrong):
    def gradients(self, batch):
        batch.x.mul_(1.01)
        return super().gradients(batch)


class LeavesEvaluation(Wrong):
    def gradients(self, batch):
        metrics = super().gradients(batch)
        self.net.eval()
        return metrics


class ScoresInTraining(Wrong):
    def predict(self, x, *context):
        self.net.train()
        return super().predict(x, *context)


class ScoresOneColumn(Wrong):
    def predict(self, x, *context):
        return super().predict(x, *context)[:, :1]


class PhaseTooSmall(Wrong):
    def phases(self):
        return [self.descent("blocks alone", self.net.blocks.parameters())]


class PhaseTooLarge(Wrong):
    def __init__(self, net):
        super().__init__(net)
        self.unused = nn.Parameter(torch.zeros(1))


class HiddenBackprop(Trainer):
    def gradients(self, batch):
        loss = cross_entropy(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach()}


class ClaimsToCross(Wrong):
    crosses_blocks = True


class RefusesValuesQuietly(Wrong):
    @classmethod
    def supports(cls, net, data=None):
        super().supports(net, data)
        if not net.task.has_classes:
            raise Unsupported("no values")


class RefusesQuietly(Wrong):
    @classmethod
    def supports(cls, net, data=None):
        super().supports(net, data)
        if isinstance(net, CNN):
            raise Unsupported("no")


class AcceptsAll(Wrong):
    @classmethod
    def supports(cls, net, data=None):
        pass


class Heads(Trainer):
    """A local rule on positions, right until a subclass breaks one thing: each block learns by a head of its own."""

    is_local = True

    def __init__(self, net):
        super().__init__(net)
        self.heads = nn.ModuleList(nn.Linear(n, net.classes) for n in net.reads[:-1])

    def outputs(self, k, h):
        return [*self.heads, self.net.readout][k](self.net.view(h))

    def loss(self, outputs, batch):
        return self.task.loss(outputs, batch)

    def gradients(self, batch):
        h, losses = self.net.stem(batch.x), []
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            losses.append(self.loss(self.outputs(k, h), batch))
            losses[-1].backward()
        return {"loss": torch.stack(losses).sum().detach()}


class PaddingCounts(Heads):
    def loss(self, outputs, batch):
        return self.task.losses(outputs, batch.target).mean()


class PaddingIsAToken(Heads):
    def loss(self, outputs, batch):
        return F.cross_entropy(outputs.flatten(0, -2), batch.target.clamp_min(0).flatten())


class MeanOfRows(Heads):
    def loss(self, outputs, batch):
        counted = self.task.counted(batch.target)
        losses = self.task.losses(outputs, batch.target).flatten(1).sum(1)
        return losses.mean() if counted is None else (losses / counted.sum(1).clamp_min(1)).mean()


class FeedbackSummedOverPositions(Wrong):
    """Every position follows what all of them are told together."""

    def gradients(self, batch):
        outputs, h = [], self.net.stem(batch.x)
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            outputs.append(h)
        logits = self.net.logits(h.detach(), *batch.context)
        loss, error = self.task.error(logits, batch)
        accumulate_grad(logits, error)
        for k, h in enumerate(outputs):
            feedback = self.feedback[:, : self.net.reads[k]]
            accumulate_grad(h, (error.flatten(0, -2).sum(0) @ feedback).expand_as(h))
        return {"loss": loss}


class OneOutputARow(Heads):
    def predict(self, x, *context):
        return super().predict(x, *context).mean(1)


ON_TOKENS = [
    (PaddingCounts, "test_padding_says_nothing"),
    (PaddingIsAToken, "test_padding_says_nothing"),
    (MeanOfRows, "test_padding_says_nothing"),
    (FeedbackSummedOverPositions, "test_learns_its_task"),
    (OneOutputARow, "test_scores_and_leaves_modes_alone"),
]

WRONG = [
    (ZeroGradient, "test_learns_its_task"),
    (ZeroGradient, "test_every_trained_parameter_moves"),
    (OneBlockDead, "test_every_trained_parameter_moves"),
    (SumNotMean, "test_gradient_is_of_the_batch_mean"),
    (UnregisteredMatrix, "test_state_dict_round_trips"),
    (ReadsLaterWeights, "test_no_gradient_crosses_a_block"),
    (HiddenBackprop, "test_no_gradient_crosses_a_block"),
    (ClaimsToCross, "test_no_gradient_crosses_a_block"),
    (HostRead, "test_keeps_the_device_and_never_waits_for_it"),
    (OtherDevice, "test_keeps_the_device_and_never_waits_for_it"),
    (OtherDtype, "test_keeps_the_dtype"),
    (Unseeded, "test_repeats_bit_for_bit"),
    (UndeclaredNoise, "test_gradient_is_of_the_batch_mean"),
    (AttachedLoss, "test_fills_gradients_or_solves"),
    (LossPerRow, "test_fills_gradients_or_solves"),
    (StepsItself, "test_fills_gradients_or_solves"),
    (ChangesTheBatch, "test_fills_gradients_or_solves"),
    (PhaseTooSmall, "test_fills_gradients_or_solves"),
    (PhaseTooLarge, "test_fills_gradients_or_solves"),
    (LeavesEvaluation, "test_scores_and_leaves_modes_alone"),
    (ScoresInTraining, "test_scores_and_leaves_modes_alone"),
    (ScoresOneColumn, "test_scores_and_leaves_modes_alone"),
    (AcceptsAll, "test_supports_its_kinds_and_refuses_the_rest"),
]


@pytest.mark.parametrize("name", sorted({name for _, name in WRONG}))
def test_the_rule_that_the_wrong_ones_break_is_right(run, suite_of, name):
    run(suite_of(Wrong), name)


@pytest.mark.parametrize(("rule", "name"), WRONG, ids=[f"{rule.__name__}-{name}" for rule, name in WRONG])
def test_a_wrong_rule_fails(run, suite_of, rule, name):
    before = toy("mlp").batch.x.clone()
    try:
        with pytest.raises((AssertionError, RuntimeError)):
            run(suite_of(rule), name)
    finally:
        toy("mlp").batch.x.copy_(before)


@pytest.mark.parametrize("name", sorted({name for _, name in ON_TOKENS}))
def test_the_rule_that_the_ones_wrong_on_tokens_break_is_right(run, suite_of, name):
    run(suite_of(Heads, runs_on=("tokens",)), name, kind="tokens")


@pytest.mark.parametrize(("rule", "name"), ON_TOKENS, ids=[f"{rule.__name__}-{name}" for rule, name in ON_TOKENS])
def test_a_rule_that_is_wrong_on_tokens_fails(run, suite_of, rule, name):
    with pytest.raises(AssertionError):
        run(suite_of(rule, runs_on=("tokens",)), name, kind="tokens")


def test_kinds_of_ones_own_are_registered_and_served():
    own = toy("mlp")
    register_kind("narrow", lambda: replace(own, net=lambda shape=None: MLP(shape or (6,), 2, widths=(8,))))
    try:
        assert "narrow" in KINDS and "narrow" in RuleConformance.kinds
        done = check_rule(Heads, kinds=KINDS, runs_on=("narrow",), precisions=("fp32",))
        assert "test_learns_its_task[narrow-fp32]" in done and not any("mlp" in name for name in done)
        with pytest.raises(ValueError, match="there is a kind 'narrow' already"):
            register_task("narrow", lambda: own)
    finally:
        del toys._KINDS["narrow"]


def test_a_local_claim_is_held_against_what_stands_after_the_block(run, suite_of):
    with pytest.raises(AssertionError, match="later weights are read"):
        run(suite_of(DirectFeedbackAlignment, local=True), "test_no_gradient_crosses_a_block")


def test_a_rule_without_noise_may_not_declare_it(run, suite_of):
    with pytest.raises(AssertionError, match="two seeds give the same gradient"):
        run(suite_of(Wrong, draws_noise=True), "test_gradient_is_of_the_batch_mean")


def test_a_kind_that_is_left_out_must_be_refused(run, suite_of):
    with pytest.raises(AssertionError, match="cnn is not among kinds"):
        run(suite_of(Wrong, kinds=("mlp", "gcn", "sage", "gat")), "test_supports_its_kinds_and_refuses_the_rest")


def test_a_task_that_is_left_out_must_be_refused_with_an_alternative(run, suite_of):
    name = "test_supports_its_tasks_and_refuses_the_rest"
    with pytest.raises(AssertionError, match="values is not among tasks"):
        run(suite_of(Wrong, tasks=("classes",)), name)
    with pytest.raises(AssertionError, match="does not say what to use instead"):
        run(suite_of(RefusesValuesQuietly, tasks=("classes",)), name)
    with pytest.raises(Unsupported, match="no values"):
        run(suite_of(RefusesValuesQuietly), name)


def test_a_refusal_must_name_the_net(run, suite_of):
    with pytest.raises(AssertionError, match="does not name CNN"):
        run(
            suite_of(RefusesQuietly, kinds=("mlp", "gcn", "sage", "gat")),
            "test_supports_its_kinds_and_refuses_the_rest",
        )


def test_check_rule_runs_every_test_without_pytest_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    with pytest.raises(AssertionError, match=r"test_gradient_is_of_the_batch_mean\[mlp\]"):
        check_rule(SumNotMean, kinds=("mlp",), precisions=("fp32",))
    assert torch.equal(torch.get_rng_state(), before)


def test_check_rule_names_what_it_did():
    class MLPOnly(Wrong):
        @classmethod
        def supports(cls, net, data=None):
            super().supports(net, data)
            if type(net).__name__ != "MLP":
                raise Unsupported(f"{type(net).__name__} is not an MLP")

    done = check_rule(MLPOnly, kinds=("mlp",), runs_on=("mlp", "values"))
    tests = {name for name in dir(RuleConformance) if name.startswith("test_")}
    assert {name.split("[")[0] for name in done} == tests
    assert "test_learns_its_task[mlp-bf16]" in done


def test_a_suite_without_make_says_so():
    with pytest.raises(NotImplementedError, match="def make"):
        RuleConformance().test_repeats_bit_for_bit("mlp")


def test_toys_are_known_by_kind():
    with pytest.raises(ValueError, match="no toy of kind 'rnn'"):
        toy("rnn")
    assert toy("mlp") is toy("mlp")
